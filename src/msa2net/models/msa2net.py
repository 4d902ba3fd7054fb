"""MSA²Net, Figure 1 of the paper (Kolahi et al., BMVC 2024, arXiv 2407.21640), top to bottom.

Axes: B batch, C channels, H rows, W columns, K classes. f4 is the feature at stride 4, and so on.
"""

from torch import Tensor, nn

from msa2net.models.base import Network
from msa2net.models.masag import MASAG
from msa2net.models.patch_expand import PatchExpand


class MSA2Net(Network):
    """The network of Figure 1; `registry.create_model` decides sizes and hands the parts in."""

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
    ) -> None:
        super().__init__(image_size, widths)
        self.encoder = encoder
        self.bottleneck = bottleneck
        self.decoder16 = decoder16
        self.decoder8 = decoder8
        self.decoder4 = decoder4
        self.head = head  # logits (B, K, H, W) of what decoder4 returns

    def decode(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Return the output of each level of the decoder, coarse to fine."""
        self.check_size(image_BCHW)
        f4, f8, f16, f32 = self.encoder(image_BCHW)  # features at strides 4, 8, 16, 32
        x16 = self.bottleneck(f32)  # DAE-Former ×2 → 1/16
        x8 = self.decoder16(x16, skip=f16)  # MASAG → DAE-Former ×2 → 1/8
        x4 = self.decoder8(x8, skip=f8)  # MASAG → LKA ×2 → 1/4
        x = self.decoder4(x4, skip=f4)  # MASAG → LKA ×2 → 1/1
        return x16, x8, x4, x


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
