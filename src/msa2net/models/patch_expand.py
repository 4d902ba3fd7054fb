"""Patch expanding, the decoder's way up: channels become pixels.

Source: Cao et al., Swin-Unet, 2021. This is not `pixel_shuffle`: here the channels of the new
pixels are ordered (row, column, channel), there (channel, row, column).
"""

from torch import Tensor, nn


class PatchExpand(nn.Module):
    """Turn each pixel into scale×scale pixels: Linear without bias, rearrange, LayerNorm."""

    def __init__(self, in_channels: int, out_channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.expand = nn.Linear(in_channels, scale * scale * out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, scale·H, scale·W)."""
        p = self.scale
        x_BHWppC = self.expand(x_BCHW.permute(0, 2, 3, 1)).unflatten(3, (p, p, -1))
        x_BHWC = x_BHWppC.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)
        return self.norm(x_BHWC).permute(0, 3, 1, 2)
