"""Names of networks, and the one place where their sizes are decided."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.layers import LayerNorm2d
from torch import nn

from msa2net.errors import ConfigError
from msa2net.models.dual_attention import DAEFormerBlock
from msa2net.models.encoder import Encoder, create_encoder
from msa2net.models.lka import LKABlock
from msa2net.models.masag import MASAG
from msa2net.models.msa2net import Bottleneck, DecoderLevel, MSA2Net
from msa2net.models.patch_expand import PatchExpand
from msa2net.models.reference import GithubNet, ReferenceNet

Builder = Callable[[Encoder, int, tuple[int, int]], nn.Module]


@dataclass(frozen=True)
class ModelSpec:
    """One row of the table of networks."""

    build: Builder
    encoder: str
    image_size: int
    description: str


def build_msa2net(encoder: Encoder, num_classes: int, image_size: tuple[int, int]) -> MSA2Net:
    """Build Figure 1 on any encoder; a level's Linear maps C_deeper/2 to C_skip."""
    c4, c8, c16, c32 = encoder.channels
    model = MSA2Net(
        encoder=encoder,
        bottleneck=Bottleneck(_blocks(DAEFormerBlock, c32), PatchExpand(c32, c32 // 2, scale=2)),
        decoder16=_decoder_level(DAEFormerBlock, c32 // 2, c16, c16 // 2, scale=2),
        decoder8=_decoder_level(LKABlock, c16 // 2, c8, c8 // 2, scale=2),
        decoder4=_decoder_level(LKABlock, c8 // 2, c4, c4, scale=4),
        head=nn.Conv2d(c4, num_classes, 1),
        image_size=image_size,
    )
    for part in (model.bottleneck, model.decoder16, model.decoder8, model.decoder4, model.head):
        part.apply(_xavier)
    return model


def _decoder_level(
    block: type[nn.Module], c_below: int, c_skip: int, c_out: int, scale: int
) -> DecoderLevel:
    return DecoderLevel(
        proj=nn.Linear(c_below, c_skip),
        gate=MASAG(c_skip),
        norm=LayerNorm2d(c_skip, eps=1e-5),
        blocks=_blocks(block, c_skip),
        expand=PatchExpand(c_skip, c_out, scale),
    )


def _blocks(block: Callable[[int], nn.Module], channels: int) -> nn.Sequential:
    return nn.Sequential(block(channels), block(channels))


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


MODELS: dict[str, ModelSpec] = {
    "msa2net": ModelSpec(
        build_msa2net, "maxvit_rmlp_small_rw_224", 224, "Figure 1 of the paper, as drawn"
    ),
    "msa2net_tiny": ModelSpec(
        build_msa2net, "maxvit_rmlp_tiny_rw_256", 256, "Figure 1 on a smaller encoder"
    ),
    "msa2net_pico": ModelSpec(
        build_msa2net, "maxvit_rmlp_pico_rw_256", 256, "Figure 1 for laptops and CPUs"
    ),
    "msa2net_reference": ModelSpec(
        ReferenceNet, "maxvit_rmlp_small_rw_224", 224, "the network the paper measured"
    ),
    "msa2net_github": ModelSpec(
        GithubNet, "maxvit_rmlp_small_rw_224", 224, "what the public repository builds"
    ),
}


def find_model(name: str) -> ModelSpec:
    """Look a network up.

    Raises:
        ConfigError: there is none of that name; lists those there are.
    """
    if name not in MODELS:
        raise ConfigError(f"no network is called '{name}'; there are {', '.join(MODELS)}")
    return MODELS[name]


def create_model(
    name: str = "msa2net",
    num_classes: int = 9,
    in_channels: int = 1,
    encoder: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    pretrained: bool = False,
    pretrained_file: str | Path | None = None,
) -> nn.Module:
    """Build a network by name.

    Args:
        name: one of `MODELS`.
        num_classes: channels of the logits, background included; at least 2.
        in_channels: channels of the images; 1 is repeated to 3 inside.
        encoder: a timm name with features at strides 4–32; None is the network's own.
        image_size: S or (H, W), multiples of 32; None is the encoder's training size.
        pretrained: start the encoder from timm's ImageNet weights, downloaded from its hub.
        pretrained_file: start the encoder from this timm weight file instead.

    Returns:
        A module: (B, in_channels, H, W), scaled to about [-1, 1] → logits (B, num_classes, H, W).

    Raises:
        ConfigError: a name, size or count that does not work.
        WeightsError: pre-trained weights that cannot be had.
    """
    spec = find_model(name)
    if num_classes < 2:
        raise ConfigError(f"num_classes is {num_classes}; it counts the background, so 2 or more")
    if in_channels < 1:
        raise ConfigError(f"in_channels is {in_channels}; it must be 1 or more")
    size = parse_image_size(spec.image_size if image_size is None else image_size)
    parts = create_encoder(
        encoder or spec.encoder,
        in_channels,
        size,
        pretrained=pretrained,
        pretrained_file=Path(pretrained_file) if pretrained_file else None,
    )
    model = spec.build(parts, num_classes, size)
    # Channels-last memory makes the many permutes of the blocks free and convolutions faster.
    return model.to(memory_format=torch.channels_last)


def parse_image_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (H, W) and check it.

    Raises:
        ConfigError: not a positive multiple of 32; names the nearest that are.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    for value in (height, width):
        if value < 32 or value % 32:
            lower = max(32, value // 32 * 32)
            raise ConfigError(
                f"image_size {height}×{width} does not work: both sides must be multiples of 32 "
                f"(near {value}: {lower} or {lower + 32})"
            )
    return height, width
