"""Names of networks, and the one place where their sizes are decided."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from timm.layers import LayerNorm2d
from torch import nn

from msa2net.errors import ConfigError
from msa2net.models.dual_attention import DAEFormerBlock
from msa2net.models.encoder import Encoder, backbone_options, call_factory, create_encoder
from msa2net.models.lka import LKABlock
from msa2net.models.masag import MASAG
from msa2net.models.msa2net import Bottleneck, DecoderLevel, MSA2Net
from msa2net.models.patch_expand import PatchExpand
from msa2net.models.released import GithubNet, ReferenceNet
from msa2net.models.unet import WIDTHS, UNet, smp_unet

FIGURE_LEVELS = 4
DepthwiseInit = Literal["xavier", "fan_in"]


@dataclass(frozen=True)
class Blueprint:
    """What a network is built from; see `create_model`."""

    encoder: str
    num_classes: int
    in_channels: int
    image_size: tuple[int, int]
    pretrained: bool
    pretrained_file: Path | None
    levels: int
    drop_path: float
    layer_scale: float
    depthwise_init: DepthwiseInit

    def create_encoder(self) -> Encoder:
        """Build the encoder."""
        return create_encoder(
            self.encoder,
            self.in_channels,
            self.image_size,
            pretrained=self.pretrained,
            pretrained_file=self.pretrained_file,
            levels=self.levels,
            drop_path=self.drop_path,
        )


@dataclass(frozen=True)
class ModelSpec:
    """One row of the table of networks.

    Attributes:
        extends: whether `levels`, and `layer_scale` and `drop_path` in the decoder, are its too.
        extra: of the installation that it needs; empty for none.
        idle_weights: whether it has weights that never run.
    """

    build: Callable[[Blueprint], nn.Module]
    encoder: str
    image_size: int
    description: str
    extends: bool = False
    extra: str = ""
    idle_weights: bool = False


def build_msa2net(plan: Blueprint) -> MSA2Net:
    """Build Figure 1 on any encoder; a level's Linear maps C_deeper/2 to C_skip.

    Stochastic depth mirrors the encoder's, as in Swin-Unet: it falls from the deepest level up.
    """
    encoder = plan.create_encoder()
    *c2, c4, c8, c16, c32 = encoder.channels
    rates = [plan.drop_path * (1 - level / plan.levels) for level in range(plan.levels)]

    def dae(channels: int, level: int) -> nn.Module:
        return _twice(lambda: DAEFormerBlock(channels, rates[level]))

    def lka(channels: int, level: int) -> nn.Module:
        return _twice(lambda: LKABlock(channels, plan.layer_scale, rates[level]))

    c_out, scale4 = (c4 // 2, 2) if c2 else (c4, 4)
    model = MSA2Net(
        encoder=encoder,
        bottleneck=Bottleneck(dae(c32, 0), PatchExpand(c32, c32 // 2, scale=2)),
        decoder16=_decoder_level(dae(c16, 1), c32 // 2, c16, c16 // 2, scale=2),
        decoder8=_decoder_level(lka(c8, 2), c16 // 2, c8, c8 // 2, scale=2),
        decoder4=_decoder_level(lka(c4, 3), c8 // 2, c4, c_out, scale4),
        decoder2=_decoder_level(lka(c2[0], 4), c_out, c2[0], c2[0], scale=2) if c2 else None,
        head=nn.Conv2d((*c2, c4)[0], plan.num_classes, 1),
        image_size=plan.image_size,
        widths=(c32 // 2, c16 // 2, c8 // 2, c_out, *c2),
    )
    for name, part in model.named_children():
        if name != "encoder":
            part.apply(_xavier)
            if plan.depthwise_init == "fan_in":
                part.apply(_depthwise_by_fan_in)
    return model


def _decoder_level(
    blocks: nn.Module, c_below: int, c_skip: int, c_out: int, scale: int
) -> DecoderLevel:
    return DecoderLevel(
        proj=nn.Linear(c_below, c_skip),
        gate=MASAG(c_skip),
        norm=LayerNorm2d(c_skip, eps=1e-5),
        blocks=blocks,
        expand=PatchExpand(c_skip, c_out, scale),
    )


def _twice(block: Callable[[], nn.Module]) -> nn.Sequential:
    return nn.Sequential(block(), block())


def _xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _depthwise_by_fan_in(module: nn.Module) -> None:
    """Start depthwise kernels with the variance that keeps a signal's size, 1 / (rows · columns).

    Xavier's also counts the outputs of the other channels, which a depthwise kernel does not feed:
    with C channels a signal leaves smaller by the root of (1 + C) / 2, and what lies behind it
    hardly learns at first.
    """
    if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
        bound = (3 / module.weight[0].numel()) ** 0.5
        nn.init.uniform_(module.weight, -bound, bound)


def build_reference(plan: Blueprint) -> nn.Module:
    """Build the network that the paper measured."""
    return ReferenceNet(plan.create_encoder(), plan.num_classes, plan.image_size)


def build_github(plan: Blueprint) -> nn.Module:
    """Build what the public repository builds."""
    return GithubNet(plan.create_encoder(), plan.num_classes, plan.image_size)


def build_unet(plan: Blueprint) -> nn.Module:
    """Build the library's U-Net with its default decoder on a timm encoder."""
    create, name = smp_unet(), plan.encoder
    options = backbone_options(
        name,
        plan.image_size,
        pretrained=plan.pretrained,
        pretrained_file=plan.pretrained_file,
        drop_path=plan.drop_path,
    )
    pretrained = options.pop("pretrained")
    unet = call_factory(
        name,
        lambda: create(
            encoder_name=f"tu-{name}",
            encoder_weights=True if pretrained else None,
            in_channels=3 if plan.in_channels == 1 else plan.in_channels,
            classes=plan.num_classes,
            decoder_channels=WIDTHS,
            **options,
        ),
    )
    return UNet(unet, plan.in_channels, plan.image_size)


MODELS: dict[str, ModelSpec] = {
    "msa2net": ModelSpec(
        build_msa2net,
        "maxvit_rmlp_small_rw_224",
        224,
        "Figure 1 of the paper, as drawn",
        extends=True,
    ),
    "msa2net_tiny": ModelSpec(
        build_msa2net, "maxvit_rmlp_tiny_rw_256", 256, "Figure 1 on a smaller encoder", extends=True
    ),
    "msa2net_pico": ModelSpec(
        build_msa2net, "maxvit_rmlp_pico_rw_256", 256, "Figure 1 for laptops and CPUs", extends=True
    ),
    "msa2net_reference": ModelSpec(
        build_reference,
        "maxvit_rmlp_small_rw_224",
        224,
        "the network the paper measured",
        idle_weights=True,
    ),
    "msa2net_github": ModelSpec(
        build_github,
        "maxvit_rmlp_small_rw_224",
        224,
        "what the public repository builds",
        idle_weights=True,
    ),
    "unet": ModelSpec(
        build_unet, "resnet18", 224, "a plain U-Net, the yardstick", extra="baselines"
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
    levels: int = FIGURE_LEVELS,
    drop_path: float = 0.0,
    layer_scale: float = 0.01,
    depthwise_init: DepthwiseInit = "xavier",
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
        levels: 4 as in Figure 1; 5 adds one more gate on a feature at stride 2, our extension.
        drop_path: stochastic depth while training, at most this much in any block, below 1.
        layer_scale: where the layer scales of the LKA blocks start; 0.01 in the paper.
        depthwise_init: how wide the decoder's depthwise kernels start: `xavier` as in the paper,
            or `fan_in`, by what a kernel sees.

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
    _check_extensions(name, levels, layer_scale, depthwise_init)
    model = spec.build(
        Blueprint(
            encoder=encoder or spec.encoder,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=parse_image_size(spec.image_size if image_size is None else image_size),
            pretrained=pretrained,
            pretrained_file=Path(pretrained_file) if pretrained_file else None,
            levels=levels,
            drop_path=drop_path,
            layer_scale=layer_scale,
            depthwise_init=depthwise_init,
        )
    )
    # Channels-last memory makes the many permutes of the blocks free and convolutions faster.
    return model.to(memory_format=torch.channels_last)


def _check_extensions(name: str, levels: int, layer_scale: float, depthwise_init: str) -> None:
    if levels not in (FIGURE_LEVELS, FIGURE_LEVELS + 1):
        raise ConfigError(f"levels is {levels}; it is 4 (Figure 1) or 5 (our extension)")
    if depthwise_init not in get_args(DepthwiseInit):
        known = " or ".join(get_args(DepthwiseInit))
        raise ConfigError(f"there is no depthwise_init '{depthwise_init}'; use {known}")
    if MODELS[name].extends:
        return
    defaults = {"levels": FIGURE_LEVELS, "layer_scale": 0.01, "depthwise_init": "xavier"}
    given = {"levels": levels, "layer_scale": layer_scale, "depthwise_init": depthwise_init}
    changed = [key for key, default in defaults.items() if given[key] != default]
    if changed:
        wrong = ", ".join(f"{key}={given[key]}" for key in changed)
        needed = ", ".join(f"{key}={defaults[key]}" for key in changed)
        whose = ", ".join(known for known, spec in MODELS.items() if spec.extends)
        raise ConfigError(
            f"'{name}' has no setting {wrong}; only {whose} have it: set {needed} (model.… in a "
            "configuration), or choose one of those networks"
        )


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
