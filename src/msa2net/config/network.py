"""What a network is: one frozen object for configurations, `model.json` and the builders."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from msa2net.config.types import MAX_CHANNELS, MAX_CLASSES, ImageSize, Name, SectionModel


class Architecture(SectionModel):
    """Which network, whatever the data."""

    name: Name = Field("msa2net", description="network, a name from `msa2net models`")
    encoder: Name | None = Field(
        None,
        description="another encoder, by its timm name, with features at strides 4 to 32; not "
        "set: the network's own",
    )
    levels: Literal[4, 5] = Field(
        4,
        description="levels of the decoder: 4 is Figure 1; 5, our extension, adds a gate on a "
        "feature at stride 2",
    )


class NetworkConfig(Architecture):
    """Everything that decides a network's weights, in names and shapes; `model.json` stores it.

    Attributes:
        num_classes: channels of the logits, background included.
        in_channels: channels of the images; 1 is repeated to 3 inside.
        image_size: (H, W) of the images.
    """

    name: Name
    encoder: Name | None
    num_classes: int = Field(ge=2, le=MAX_CLASSES)
    in_channels: int = Field(ge=1, le=MAX_CHANNELS)
    image_size: ImageSize


class NetworkOptions(SectionModel):
    """How a network's weights start, and what is left out of it while training."""

    pretrained: bool = Field(
        False, description="initialise the encoder with timm's ImageNet weights, downloaded once"
    )
    pretrained_file: Path | None = Field(
        None,
        description="initialise the encoder with ImageNet weights from a file, without a download",
    )
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="stochastic depth: the largest probability that a block is left out while "
        "training",
    )
    layer_scale: float = Field(
        0.01, gt=0, description="initial LayerScale value of the LKA blocks; 0.01 in the paper"
    )
    depthwise_init: Literal["xavier", "fan_in"] = Field(
        "xavier",
        description="initialisation of the decoder's depthwise kernels: xavier as in the paper, "
        "or fan_in, of variance 1 / kernel size",
    )
