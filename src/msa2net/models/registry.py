"""Names of networks, and the one place where their sizes are decided."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import nn

from msa2net.config import NetworkConfig, NetworkOptions, parse_section
from msa2net.errors import ConfigError
from msa2net.models.base import Network
from msa2net.models.dual_attention import DAEFormerBlock
from msa2net.models.encoder import backbone_options, call_factory, create_encoder
from msa2net.models.lka import LKABlock
from msa2net.models.masag import MASAG
from msa2net.models.msa2net import Bottleneck, DecoderLevel, MSA2Net
from msa2net.models.patch_expand import PatchExpand

EXTENSIONS = ("levels", "layer_scale", "depthwise_init")


@dataclass(frozen=True)
class ModelSpec:
    """One row of the table of networks.

    Attributes:
        build: makes it; its `encoder` has a name then.
        encoder: its own, by its timm name.
        image_size: the side of the images that its encoder was trained on.
        description: for `msa2net models`.
        extends: whether `EXTENSIONS`, and `drop_path` in the decoder, are its too.
        extra: of the installation that it needs; empty for none.
        idle_weights: whether it has weights that never run.
    """

    build: Callable[[NetworkConfig, NetworkOptions], Network]
    encoder: str
    image_size: int
    description: str
    extends: bool = False
    extra: str = ""
    idle_weights: bool = False


def build_msa2net(network: NetworkConfig, options: NetworkOptions) -> MSA2Net:
    """Build Figure 1 on any encoder; a level's Linear maps C_deeper/2 to C_skip.

    Stochastic depth mirrors the encoder's, as in Swin-Unet: it falls from the deepest level up.
    """
    encoder = create_encoder(network, options)
    *c2, c4, c8, c16, c32 = encoder.channels
    rates = [options.drop_path * (1 - level / network.levels) for level in range(network.levels)]

    def dae(channels: int, level: int) -> nn.Module:
        return _twice(lambda: DAEFormerBlock(channels, rates[level]))

    def lka(channels: int, level: int) -> nn.Module:
        return _twice(lambda: LKABlock(channels, options.layer_scale, rates[level]))

    c_out, scale4 = (c4 // 2, 2) if c2 else (c4, 4)
    parts: dict[str, Any] = {
        "encoder": encoder,
        "bottleneck": Bottleneck(dae(c32, 0), PatchExpand(c32, c32 // 2, scale=2)),
        "decoder16": _decoder_level(dae(c16, 1), c32 // 2, c16, c16 // 2, scale=2),
        "decoder8": _decoder_level(lka(c8, 2), c16 // 2, c8, c8 // 2, scale=2),
        "decoder4": _decoder_level(lka(c4, 3), c8 // 2, c4, c_out, scale4),
    }
    network_class: type[MSA2Net] = MSA2Net
    if c2:
        from msa2net.models.five_levels import FiveLevelMSA2Net

        network_class = FiveLevelMSA2Net
        parts["decoder2"] = _decoder_level(lka(c2[0], 4), c_out, c2[0], c2[0], scale=2)
    model = network_class(
        **parts,
        head=nn.Conv2d((*c2, c4)[0], network.num_classes, 1),
        image_size=network.image_size,
        widths=(c32 // 2, c16 // 2, c8 // 2, c_out, *c2),
    )
    for name, part in model.named_children():
        if name != "encoder":
            part.apply(_xavier)
            if options.depthwise_init == "fan_in":
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


def build_reference(network: NetworkConfig, options: NetworkOptions) -> Network:
    """Build the network that the paper measured."""
    from msa2net.models.released import ReferenceNet

    return ReferenceNet(create_encoder(network, options), network.num_classes, network.image_size)


def build_github(network: NetworkConfig, options: NetworkOptions) -> Network:
    """Build what the public repository builds."""
    from msa2net.models.released import GithubNet

    return GithubNet(create_encoder(network, options), network.num_classes, network.image_size)


def build_unet(network: NetworkConfig, options: NetworkOptions) -> Network:
    """Build the library's U-Net with its default decoder on a timm encoder."""
    from msa2net.models.unet import WIDTHS, UNet, smp_unet

    create, name = smp_unet(), str(network.encoder)
    arguments = backbone_options(network, options)
    pretrained = arguments.pop("pretrained")
    unet = call_factory(
        name,
        lambda: create(
            encoder_name=f"tu-{name}",
            encoder_weights=True if pretrained else None,
            in_channels=3 if network.in_channels == 1 else network.in_channels,
            classes=network.num_classes,
            decoder_channels=WIDTHS,
            **arguments,
        ),
    )
    return UNet(unet, network.in_channels, network.image_size)


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
        build_unet, "resnet18", 224, "a plain U-Net, the baseline", extra="baselines"
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
    **settings: Any,
) -> Network:
    """Build a network by name.

    Args:
        name: one of `MODELS`.
        num_classes: channels of the logits, background included; at least 2.
        in_channels: channels of the images; 1 is repeated to 3 inside.
        encoder: a timm name with features at strides 4–32; None is the network's own.
        image_size: S or (H, W), multiples of 32; None is the encoder's training size.
        settings: others of `model` in a configuration (`msa2net settings model`): `levels`,
            `pretrained`, `pretrained_file`, `drop_path`, `layer_scale`, `depthwise_init`.

    Returns:
        A module: (B, in_channels, H, W), scaled to about [-1, 1] → logits (B, num_classes, H, W).

    Raises:
        ConfigError: a name, size or count that does not work.
        WeightsError: pre-trained weights that cannot be had.
    """
    own = {key: settings.pop(key) for key in settings.keys() & NetworkConfig.model_fields}
    size = find_model(name).image_size if image_size is None else image_size
    own |= {"num_classes": num_classes, "in_channels": in_channels, "image_size": size}
    own |= {"name": name, "encoder": encoder}
    return build_network(
        parse_section(NetworkConfig, own, origin="create_model"),
        parse_section(NetworkOptions, settings, origin="create_model"),
    )


def build_network(network: NetworkConfig, options: NetworkOptions | None = None) -> Network:
    """Build a network; see `create_model`.

    Args:
        network: what it is.
        options: how its weights start; irrelevant where others are loaded.

    Raises:
        ConfigError: there is no such network or encoder, or they do not go together.
        WeightsError: pre-trained weights that cannot be had.
    """
    spec, options = find_model(network.name), options or NetworkOptions()
    if not spec.extends:
        _refuse_extensions(network, options)
    network = network.model_copy(update={"encoder": network.encoder or spec.encoder})
    # Channels-last memory makes the many permutes of the blocks free and convolutions faster.
    return spec.build(network, options).to(memory_format=torch.channels_last)


def _refuse_extensions(network: NetworkConfig, options: NetworkOptions) -> None:
    """Refuse settings that a network does not have, unless they are the defaults."""
    given = {**dict(network), **dict(options)}
    fields = {**NetworkConfig.model_fields, **NetworkOptions.model_fields}
    changed = [key for key in EXTENSIONS if given[key] != fields[key].default]
    if changed:
        wrong = ", ".join(f"{key}={given[key]}" for key in changed)
        needed = ", ".join(f"{key}={fields[key].default}" for key in changed)
        whose = ", ".join(known for known, spec in MODELS.items() if spec.extends)
        raise ConfigError(
            f"'{network.name}' has no setting {wrong}; only {whose} have it: set {needed} (model.… "
            "in a configuration), or choose one of those networks"
        )
