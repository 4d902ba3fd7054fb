"""MASAG, the multi-scale adaptive spatial attention gate on every skip (Figure 2, Eq. 1).

Axes: B batch, C channels, H rows, W columns. X comes from the encoder, G from the decoder.
"""

import torch
from torch import Tensor, nn

from msa2net.models.lka import DilatedDepthwiseConv2d


class MASAG(nn.Module):
    """Let encoder and decoder features choose from each other what to pass on.

    Four methods, the figure's four boxes; X and G are both (B, channels, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        # 1. multi-scale feature fusion
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.depthwise_norm = nn.BatchNorm2d(channels)
        self.dilated: nn.Conv2d = DilatedDepthwiseConv2d(channels, 3, dilation=2)
        self.dilated_norm = nn.BatchNorm2d(channels)
        self.local_proj = pointwise(channels, channels)
        self.global_proj = pointwise(2, 1)
        self.fusion_norm = nn.BatchNorm2d(channels)
        # 2. spatial selection
        self.selection = nn.Conv2d(channels, 2, 1)
        # 4. recalibration
        self.interaction_proj = pointwise(channels, channels)
        self.output_proj = pointwise(channels, channels)

    def forward(self, x_BCHW: Tensor, g_BCHW: Tensor) -> Tensor:
        """Gate the encoder's X by the decoder's G; all shapes are (B, C, H, W)."""
        u = self.fuse(x_BCHW, g_BCHW)
        x_selected, g_selected = self.select(u, x_BCHW, g_BCHW)
        u = self.cross_modulate(x_selected, g_selected)
        return self.recalibrate(u, x_BCHW)

    def fuse(self, x_BCHW: Tensor, g_BCHW: Tensor) -> Tensor:
        """`U = PW(DWD(DW(X))) + PW([mean_c(G); max_c(G)])`: local context of X, global of G."""
        local = self.depthwise_norm(self.depthwise(x_BCHW)).relu()
        local = self.dilated_norm(self.dilated(local)).relu()
        pooled_B2HW = torch.cat([g_BCHW.mean(1, keepdim=True), g_BCHW.amax(1, keepdim=True)], 1)
        return self.fusion_norm(self.local_proj(local) + self.global_proj(pooled_B2HW))

    def select(self, u: Tensor, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        """`[w1, w2] = softmax(Conv(U))`; `X' = w1·X + X`, `G' = w2·G + G`."""
        w1_B1HW, w2_B1HW = self.selection(u).softmax(dim=1).split(1, dim=1)
        return w1_B1HW * x + x, w2_B1HW * g + g

    def cross_modulate(self, x: Tensor, g: Tensor) -> Tensor:
        """`X'' = X'·σ(G')`, `G'' = G'·σ(X')`, `U' = X''·G''`."""
        return (x * g.sigmoid()) * (g * x.sigmoid())

    def recalibrate(self, u: Tensor, x: Tensor) -> Tensor:
        """`PW(σ(PW(U')) · X)`."""
        return self.output_proj(self.interaction_proj(u).sigmoid() * x)


def pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    """Make the paper's PW: a 1×1 convolution and batch normalisation, no activation."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))
