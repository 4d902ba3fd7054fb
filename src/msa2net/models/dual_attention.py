"""DAE-Former blocks (dual attention), the "transformer" half of the decoder.

Source: Azad et al., DAE-Former, 2023; used by the paper at strides 32 and 16.
Axes: B batch, C channels, H rows, W columns, N = H·W positions, h heads, d = C/h.
"""

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional as F


def largest_head_count(channels: int, limit: int = 8) -> int:
    """Return the largest divisor of `channels` that is not above `limit`."""
    return next(heads for heads in range(limit, 0, -1) if channels % heads == 0)


class EfficientAttention(nn.Module):
    """Attention over positions at a cost linear in their number (one head).

    Keys are normalised over positions, queries over channels; the C×C context K·Vᵀ is gathered
    first, so no N×N matrix is made. Source: Shen et al., Efficient Attention, WACV 2021.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.keys = nn.Conv2d(channels, channels, 1)
        self.queries = nn.Conv2d(channels, channels, 1)
        self.values = nn.Conv2d(channels, channels, 1)
        self.reprojection = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Attend over (B, H, W, C), keeping its shape."""
        x_BCHW = x_BHWC.permute(0, 3, 1, 2)
        keys_BCN = self.keys(x_BCHW).flatten(2).softmax(dim=2)
        queries_BCN = self.queries(x_BCHW).flatten(2).softmax(dim=1)
        values_BCN = self.values(x_BCHW).flatten(2)
        context_BCC = keys_BCN @ values_BCN.transpose(1, 2)
        attended_BCN = context_BCC.transpose(1, 2) @ queries_BCN
        return self.reprojection(attended_BCN.unflatten(2, x_BCHW.shape[2:])).permute(0, 2, 3, 1)


class ChannelAttention(nn.Module):
    """Transposed attention: channels attend to channels, each head with its own temperature.

    Queries and keys have unit length over positions. Source: Ali et al., XCiT, 2021.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = largest_head_count(channels)
        self.temperature = nn.Parameter(torch.ones(self.heads, 1, 1))
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Attend over (B, H, W, C), keeping its shape."""
        x_BNC = x_BHWC.flatten(1, 2)
        qkv_BN3hd = self.qkv(x_BNC).unflatten(2, (3, self.heads, -1))
        query_BhdN, key_BhdN, value_BhdN = qkv_BN3hd.permute(2, 0, 3, 4, 1)
        query_BhdN, key_BhdN = F.normalize(query_BhdN, dim=-1), F.normalize(key_BhdN, dim=-1)
        weights_Bhdd = (query_BhdN @ key_BhdN.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        attended_BNC = (weights_Bhdd @ value_BhdN).permute(0, 3, 1, 2).flatten(2)
        return self.proj(attended_BNC).unflatten(1, x_BHWC.shape[1:3])


class MixFFN(nn.Module):
    """Linear (×4) → 3×3 depthwise → GELU → Linear; no inner skip, as in the published weights."""

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.reduce = nn.Linear(hidden, channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Transform (B, H, W, C), keeping its shape."""
        hidden_BCHW = self.depthwise(self.expand(x_BHWC).permute(0, 3, 1, 2))
        return self.reduce(F.gelu(hidden_BCHW).permute(0, 2, 3, 1))


class DAEFormerBlock(nn.Module):
    """Efficient attention → Mix-FFN → channel attention → Mix-FFN, each after LN and added.

    In training each of the four is left out for a sample with the probability `drop_path`.
    """

    def __init__(self, channels: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.spatial_attention = EfficientAttention(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.ffn1 = MixFFN(channels)
        self.norm3 = nn.LayerNorm(channels)
        self.channel_attention = ChannelAttention(channels)
        self.norm4 = nn.LayerNorm(channels)
        self.ffn2 = MixFFN(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Transform (B, C, H, W), keeping its shape."""
        x_BHWC = x_BCHW.permute(0, 2, 3, 1)
        x_BHWC = x_BHWC + self.drop_path(self.spatial_attention(self.norm1(x_BHWC)))
        x_BHWC = x_BHWC + self.drop_path(self.ffn1(self.norm2(x_BHWC)))
        x_BHWC = x_BHWC + self.drop_path(self.channel_attention(self.norm3(x_BHWC)))
        x_BHWC = x_BHWC + self.drop_path(self.ffn2(self.norm4(x_BHWC)))
        return x_BHWC.permute(0, 3, 1, 2)
