"""The baseline: a plain U-Net from segmentation-models-pytorch, on any timm encoder.

Axes: B batch, C channels, H rows, W columns, K classes.
"""

import importlib
from typing import Any

from torch import Tensor

from msa2net.errors import ConfigError
from msa2net.models.base import Network

WIDTHS = (256, 128, 64, 32, 16)  # the library's own, of the decoder's blocks


class UNet(Network):
    """The library's U-Net, with image sizes checked and grey images repeated to three channels."""

    def __init__(self, unet: Any, in_channels: int, image_size: tuple[int, int]) -> None:
        super().__init__(image_size, WIDTHS)
        self.encoder, self.decoder, self.head = unet.encoder, unet.decoder, unet.segmentation_head
        self.in_channels = in_channels

    def decode(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Return the output of each block; see `Network.decode`."""
        _, *skips, x = features = self._features(image_BCHW)
        x, found = self.decoder.center(x), []
        for level, block in enumerate(self.decoder.blocks, start=1):
            height, width = features[-1 - level].shape[2:]
            x = block(x, height, width, skip_connection=skips.pop() if skips else None)
            found.append(x)
        return tuple(found)

    def _features(self, image_BCHW: Tensor) -> list[Tensor]:
        self.check_size(image_BCHW)
        channels = image_BCHW.shape[1]
        if channels != self.in_channels:
            raise ConfigError(
                f"this network was built for in_channels={self.in_channels} and was given "
                f"{channels} channels"
            )
        if channels == 1:  # as our own encoders do, so that the baseline has the same input
            image_BCHW = image_BCHW.repeat(1, 3, 1, 1)
        return list(self.encoder(image_BCHW))


def smp_unet() -> Any:
    """Return the library's class of that name.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("segmentation_models_pytorch").Unet
    except ImportError as error:
        raise ConfigError(
            "the network 'unet' comes from segmentation-models-pytorch; install it with "
            'pip install ".[baselines]" in msa2net\'s folder'
        ) from error
