"""The base class of all networks: what the rest of the package needs of one.

Axes: B batch, C channels, H rows, W columns, K classes.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from msa2net.errors import ConfigError


class Network(nn.Module, ABC):
    """A network: an encoder, a decoder of several levels, and a head.

    A subclass sets `encoder` and `head`, and implements `decode`; a builder in `registry.MODELS`
    makes it. Training, prediction and export need no more:

    - prediction and export: `forward`, for images of `image_size`;
    - deep supervision: `decode` and `widths`, for a head on every level but the last;
    - freezing, pre-trained weights: `encoder`;
    - fine-tuning: `encoder`, whose first convolution sees the image, and a 1×1 convolution as
      `head`, of which each row is one class's.

    Args:
        image_size: (H, W) of the images.
        widths: channels of each level of `decode`.
    """

    encoder: nn.Module
    head: nn.Module

    def __init__(self, image_size: tuple[int, int], widths: tuple[int, ...]) -> None:
        super().__init__()
        self.image_size = image_size
        self.widths = widths

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Segment images of exactly `image_size`, scaled to about [-1, 1].

        Returns:
            Logits (B, K, H, W).

        Raises:
            ConfigError: the images have another size or number of channels.
        """
        return self.head(self.decode(image_BCHW)[-1])

    @abstractmethod
    def decode(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Return the output of each level of the decoder, coarse to fine; the last feeds `head`."""

    def check_size(self, image_BCHW: Tensor) -> None:
        """Refuse an image the network was not built for, naming the size that works.

        MaxViT itself accepts some other sizes in silence (multiples of its window grid).
        """
        height, width = image_BCHW.shape[-2:]
        rows, columns = self.image_size
        if (height, width) != (rows, columns):
            raise ConfigError(
                f"this network takes images of {rows}×{columns} (rows × columns) and was given "
                f"{height}×{width}; resize the image, or build the network with another "
                "image_size: any multiple of 32, square or not"
            )
