"""Encoders from timm: images in, features at strides 4, 8, 16 and 32 (and 2, if asked for) out.

Axes: B batch, C channels, H rows, W columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from msa2net.compat import is_maxvit
from msa2net.config import NetworkConfig, NetworkOptions
from msa2net.errors import ConfigError, WeightsError, is_out_of_memory
from msa2net.models.weights import check_finite, read_state_dict
from msa2net.text import listed

STRIDES = (2, 4, 8, 16, 32)  # the last four, as in the paper, unless five levels are wanted


class Encoder(nn.Module, ABC):
    """What every encoder offers.

    Attributes:
        channels: widths of the features at strides 4, 8, 16, 32, or from stride 2 on.
    """

    channels: tuple[int, ...]

    def __init__(self, backbone: Any, in_channels: int) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.in_channels = in_channels

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, H, W) → a feature (B, channels[i], H/stride, W/stride) each level.

        Raises:
            ConfigError: the image has another number of channels.
        """
        channels = image_BCHW.shape[1]
        if channels != self.in_channels:
            raise ConfigError(
                f"this network was built for in_channels={self.in_channels} and was given "
                f"{channels} channels"
            )
        if channels == 1:  # the paper's way with grey images; keeps pre-trained RGB weights useful
            image_BCHW = image_BCHW.repeat(1, 3, 1, 1)
        return self.features(image_BCHW)

    @abstractmethod
    def features(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Compute the features of images with the backbone's own number of channels."""


class MaxViTEncoder(Encoder):
    """The last four stages of a MaxViT (or CoAtNet), final LayerNorm on the deepest included.

    With five levels the stem's output (stride 2) comes first. timm's `features_only` would leave
    that norm out, and rename the published keys.
    """

    def __init__(self, backbone: Any, in_channels: int, levels: int) -> None:
        super().__init__(backbone, in_channels)
        self.indices = tuple(range(5 - levels, 5))
        self.channels = tuple(backbone.feature_info[index]["num_chs"] for index in self.indices)

    def features(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Run the stem and the four stages."""
        return tuple(
            self.backbone.forward_intermediates(
                image_BCHW, indices=self.indices, norm=True, intermediates_only=True
            )
        )


class PyramidEncoder(Encoder):
    """Any other timm backbone with features at strides 4–32; a fresh LayerNorm on the deepest."""

    def __init__(self, backbone: Any, in_channels: int, levels: int) -> None:
        super().__init__(backbone, in_channels)
        strides = backbone.feature_info.reduction()
        self.levels = [strides.index(stride) for stride in STRIDES[-levels:]]
        self.channels = tuple(backbone.feature_info.channels()[level] for level in self.levels)
        self.channels_last = str(getattr(backbone, "output_fmt", "")).endswith("NHWC")
        self.norm = nn.LayerNorm(self.channels[-1])

    def features(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Run the backbone, pick the four levels, put channels second."""
        outputs = self.backbone(image_BCHW)
        *shallow, f32 = (
            outputs[level].permute(0, 3, 1, 2) if self.channels_last else outputs[level]
            for level in self.levels
        )
        return *shallow, self.norm(f32.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def create_encoder(network: NetworkConfig, options: NetworkOptions) -> Encoder:
    """Build a timm backbone as an encoder.

    Args:
        network: its `encoder` is a timm model with features at strides 4, 8, 16, 32, and at 2 for
            five levels; image channels other than 1, which is repeated to 3, use timm's `in_chans`.
        options: pre-trained weights; stochastic depth, which rises from 0 at the first block.

    Raises:
        ConfigError: unknown name, no feature pyramid, or an image size it cannot take.
        WeightsError: pre-trained weights cannot be fetched or read.
    """
    name, in_channels, levels = str(network.encoder), network.in_channels, network.levels
    arguments = backbone_options(network, options)
    arguments["in_chans"] = 3 if in_channels == 1 else in_channels
    if is_maxvit(name):
        arguments["num_classes"] = 0
        backbone = call_factory(name, lambda: timm.create_model(name, **arguments))
        return MaxViTEncoder(backbone, in_channels, levels)
    arguments["features_only"] = True
    backbone = call_factory(name, lambda: timm.create_model(name, **arguments))
    strides, needed = backbone.feature_info.reduction(), STRIDES[-levels:]
    if not set(needed) <= set(strides):
        raise ConfigError(
            f"'{name}' cannot be an encoder here: its features have strides {listed(strides)}, and "
            f"the decoder needs {listed(needed)}; choose a network with a feature pyramid"
            + ("" if STRIDES[0] not in needed else ", or model.levels=4")
        )
    return PyramidEncoder(backbone, in_channels, levels)


def backbone_options(network: NetworkConfig, options: NetworkOptions) -> dict[str, Any]:
    """Return what `timm.create_model` is given for a network's encoder besides its name.

    Raises:
        ConfigError: timm knows no such name.
        WeightsError: the file is not of this backbone.
    """
    name, file = str(network.encoder), options.pretrained_file
    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        hint = f"; similar: {', '.join(close)}" if close else ""
        raise ConfigError(f"timm knows no model '{name}'{hint}; see timm.list_models()")
    arguments: dict[str, Any] = {"pretrained": options.pretrained or file is not None}
    if file is not None:
        state = _read_backbone_weights(name, file)
        arguments["pretrained_cfg_overlay"] = {"state_dict": state, "custom_load": False}
    if is_maxvit(name) or _has_fixed_size(name):
        arguments["img_size"] = network.image_size
    if options.drop_path:
        arguments["drop_path_rate"] = options.drop_path
    return arguments


def call_factory(name: str, build: Callable[[], Any]) -> Any:
    """Let timm build something, and say in our words what it cannot.

    Raises:
        ConfigError: no features, an impossible size, an option it does not have.
        WeightsError: no connection to fetch weights by.
    """
    try:
        return build()
    except OSError as error:  # what the hub's client raises when it is offline
        raise WeightsError(
            f"the pre-trained weights of '{name}' could not be downloaded; without a connection, "
            "fetch the model's file from its page on the Hugging Face hub (timm/…) elsewhere and "
            "name it as model.pretrained_file (pretrained_file=… in Python)"
        ) from error
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        # timm refuses what it cannot build (no features, an impossible size) in all these ways
        raise ConfigError(f"timm cannot build '{name}' as an encoder: {error}") from error


def _has_fixed_size(name: str) -> bool:
    """Tell whether timm builds this network for one image size."""
    try:
        facts = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # an unknown tag behind the dot
        raise ConfigError(f"timm has no '{name}': {error}") from error
    return facts is not None and bool(facts.fixed_input_size)


def _read_backbone_weights(name: str, path: Path) -> dict[str, Tensor]:
    """Read a classifier's weights; timm itself would pass over missing entries with a warning."""
    state = read_state_dict(path)
    expected = timm.create_model(name, num_classes=0).state_dict().keys()
    if missing := sorted(expected - state.keys()):
        raise WeightsError(
            f"{path} does not hold the weights of '{name}': {len(missing)} of {len(expected)} "
            f"entries are missing ({listed(missing)})"
        )
    check_finite(((key, state[key]) for key in expected), origin=str(path))
    return state
