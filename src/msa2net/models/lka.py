"""Large-kernel attention (LKA) blocks, the "convolutional" half of the decoder.

Source: Guo et al., Visual Attention Network, 2022; used by the paper at strides 8 and 4.
Axes: B batch, C channels, H rows, W columns.
"""

import torch
from timm.layers import DropPath, LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from msa2net.models.kernels import dilated_depthwise, prefers_plain_convolution


class DilatedDepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution with dilation that always computes in float32 on a CPU.

    torch's bfloat16 kernel for this one shape of convolution has been seen to return weight
    gradients near 1e30 on CPUs with AMX, in some steps and not in others; its share of the
    network's work is small, so exactness costs little.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int) -> None:
        super().__init__(
            channels,
            channels,
            kernel_size,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=channels,
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Convolve (B, C, H, W), keeping its shape; float32 out under CPU autocast."""
        if x_BCHW.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self._convolve(x_BCHW.float())
        return self._convolve(x_BCHW)

    def _convolve(self, x_BCHW: Tensor) -> Tensor:
        if prefers_plain_convolution(x_BCHW, self.kernel_size[0]):
            return dilated_depthwise(x_BCHW, self.weight, self.bias, self.dilation[0])
        return super().forward(x_BCHW)


class LargeKernelAttention(nn.Module):
    """Weigh each position by what a 21×21 neighbourhood says of it.

    1×1 → GELU → [5×5 depthwise → 7×7 depthwise, dilation 3 → 1×1, times its input] → 1×1,
    plus the input of all that.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.local = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.long_range = DilatedDepthwiseConv2d(channels, 7, dilation=3)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Attend over (B, C, H, W), keeping its shape."""
        value = F.gelu(self.proj_in(x_BCHW))
        attention = self.mix(self.long_range(self.local(value)))
        return x_BCHW + self.proj_out(attention * value)


class ConvFFN(nn.Module):
    """1×1 (×4) → 3×3 depthwise → GELU → 1×1."""

    def __init__(self, channels: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = channels * expansion
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.reduce = nn.Conv2d(hidden, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Transform (B, C, H, W), keeping its shape."""
        return self.reduce(F.gelu(self.depthwise(self.expand(x_BCHW))))


class LKABlock(nn.Module):
    """`x + s1·Attention(LN(x))`, then `x + s2·FFN(LN(x))`; s1 and s2 start at `layer_scale`.

    In training each of the two is left out for a sample with the probability `drop_path`
    (stochastic depth, Huang et al., ECCV 2016).
    """

    def __init__(self, channels: int, layer_scale: float = 0.01, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(channels, eps=1e-5)
        self.attention = LargeKernelAttention(channels)
        self.layer_scale1 = nn.Parameter(torch.full((channels,), layer_scale))
        self.norm2 = LayerNorm2d(channels, eps=1e-5)
        self.ffn = ConvFFN(channels)
        self.layer_scale2 = nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Transform (B, C, H, W), keeping its shape."""
        scale1, scale2 = self.layer_scale1[:, None, None], self.layer_scale2[:, None, None]
        x_BCHW = x_BCHW + self.drop_path(scale1 * self.attention(self.norm1(x_BCHW)))
        return x_BCHW + self.drop_path(scale2 * self.ffn(self.norm2(x_BCHW)))
