"""MSA²Net, Figure 1 of the paper (Kolahi et al., BMVC 2024, arXiv 2407.21640), top to bottom.

Axes: B batch, C channels, H rows, W columns, K classes. f4 is the feature at stride 4, and so on.
"""

from torch import Tensor, nn

from msa2net.errors import ConfigError
from msa2net.models.masag import MASAG
from msa2net.models.patch_expand import PatchExpand


class MSA2Net(nn.Module):
    """The network of Figure 1; `registry.create_model` decides sizes and hands the parts in.

    `decoder2` is not of the figure: a fifth level, our extension, on a feature at stride 2.

    Attributes:
        widths: channels of what `decode` returns.
    """

    def __init__(
        self,
        encoder: nn.Module,
        bottleneck: nn.Module,
        decoder16: nn.Module,
        decoder8: nn.Module,
        decoder4: nn.Module,
        head: nn.Module,
        image_size: tuple[int, int],
        widths: tuple[int, ...],
        decoder2: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.bottleneck = bottleneck
        self.decoder16 = decoder16
        self.decoder8 = decoder8
        self.decoder4 = decoder4
        self.decoder2 = decoder2
        self.head = head
        self.image_size = image_size
        self.widths = widths

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Segment images of exactly `image_size`, scaled to about [-1, 1].

        Returns:
            Logits (B, K, H, W).

        Raises:
            ConfigError: the image has another size.
        """
        return self.head(self.decode(image_BCHW)[-1])  # logits (B, K, H, W)

    def decode(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Return what each level of the decoder hands on, coarse to fine; `head` takes the last."""
        check_image_size(image_BCHW, self.image_size)
        *f2, f4, f8, f16, f32 = self.encoder(image_BCHW)  # features at strides 4, 8, 16, 32
        x16 = self.bottleneck(f32)  # DAE-Former ×2 → 1/16
        x8 = self.decoder16(x16, skip=f16)  # MASAG → DAE-Former ×2 → 1/8
        x4 = self.decoder8(x8, skip=f8)  # MASAG → LKA ×2 → 1/4
        x = self.decoder4(x4, skip=f4)  # MASAG → LKA ×2 → 1/1
        if self.decoder2 is None:
            return x16, x8, x4, x
        return x16, x8, x4, x, self.decoder2(x, skip=f2[0])  # 1/2, MASAG → LKA ×2 → 1/1


class Bottleneck(nn.Module):
    """Two DAE-Former blocks on the deepest feature, then the way up; no gate here."""

    def __init__(self, blocks: nn.Module, expand: PatchExpand) -> None:
        super().__init__()
        self.blocks = blocks
        self.expand = expand

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C32, H/32, W/32) → (B, C32/2, H/16, W/16)."""
        return self.expand(self.blocks(x_BCHW))


class DecoderLevel(nn.Module):
    """Gate the skip by what comes from below, refine the sum, go up."""

    def __init__(
        self, proj: nn.Linear, gate: MASAG, norm: nn.Module, blocks: nn.Module, expand: PatchExpand
    ) -> None:
        super().__init__()
        self.proj = proj
        self.gate = gate
        self.norm = norm
        self.blocks = blocks
        self.expand = expand

    def forward(self, x_BCHW: Tensor, skip: Tensor) -> Tensor:
        """Join x (B, C_below, H, W) with skip (B, C, H, W); returns scale·H, scale·W."""
        g = self.proj(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = self.norm(g + self.gate(skip, g))
        return self.expand(self.blocks(y))


def check_image_size(image_BCHW: Tensor, image_size: tuple[int, int]) -> None:
    """Refuse an image the network was not built for, naming the size that works.

    MaxViT itself accepts some other sizes in silence (multiples of its window grid).
    """
    height, width = image_BCHW.shape[-2:]
    if (height, width) != image_size:
        raise ConfigError(
            f"this network takes images of {image_size[0]}×{image_size[1]} (rows × columns) and "
            f"was given {height}×{width}; resize the image, or build the network with another "
            "image_size: any multiple of 32, square or not"
        )
