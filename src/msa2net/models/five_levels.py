"""Figure 1 with a fifth level on a feature at stride 2: our extension, not the paper's.

Axes: B batch, C channels, H rows, W columns. f2 is the feature at stride 2, and so on.
"""

from typing import Any

from torch import Tensor, nn

from msa2net.models.msa2net import MSA2Net


class FiveLevelMSA2Net(MSA2Net):
    """`MSA2Net` whose `decoder4` ends at stride 2, where one more gated level follows.

    Args:
        decoder2: the fifth level.
        parts: those of `MSA2Net`.
    """

    def __init__(self, *, decoder2: nn.Module, **parts: Any) -> None:
        super().__init__(**parts)
        head = self.head
        del self.head  # it comes last: optimisers' states in checkpoints go by this order
        self.decoder2 = decoder2
        self.head = head

    def decode(self, image_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Return the output of each level; see `Network.decode`."""
        self.check_size(image_BCHW)
        f2, f4, f8, f16, f32 = self.encoder(image_BCHW)
        x16 = self.bottleneck(f32)
        x8 = self.decoder16(x16, skip=f16)
        x4 = self.decoder8(x8, skip=f8)
        x2 = self.decoder4(x4, skip=f4)  # → 1/2
        return x16, x8, x4, x2, self.decoder2(x2, skip=f2)  # MASAG → LKA ×2 → 1/1
