"""Dilated depthwise convolutions as plain ones, for which there are fast kernels.

Axes: B batch, C channels, H rows, W columns, d dilation; h, w are rows and columns of every d-th
pixel.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from msa2net.compat import is_tracing

LEAST_KERNEL_ON_GPU = 7
"""From this size on it pays on a GPU in bfloat16; 3×3 does not, nor was float32 measured."""


def dilated_depthwise(
    x_BCHW: Tensor, weight_C1kk: Tensor, bias_C: Tensor | None, dilation: int
) -> Tensor:
    """Return `F.conv2d(…, padding=dilation·(k // 2), dilation=dilation, groups=C)` of an odd k.

    Every d-th row and column of the padded image is an image of its own, of which the same weights
    make a plain convolution: d² small images are convolved and put together again. The sums are the
    same, number by number; on a CPU they are found 2 to 9 times faster, on a GPU those of 7×7 in
    bfloat16 1.4 to 2 times (see docs/performance.md).
    """
    d, channels = dilation, x_BCHW.shape[1]
    height, width = x_BCHW.shape[2:]
    edge = d * (weight_C1kk.shape[2] // 2)
    padded_BCHW = F.pad(x_BCHW, (edge, edge + -width % d, edge, edge + -height % d))
    # Channels stay last in memory, so that moving pixels moves whole rows of channels.
    batch, _, rows, columns = padded_BCHW.shape
    split_BhdwdC = padded_BCHW.permute(0, 2, 3, 1).reshape(
        batch, rows // d, d, columns // d, d, channels
    )
    images_NhwC = split_BhdwdC.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    found_NChw = F.conv2d(
        images_NhwC.contiguous().permute(0, 3, 1, 2), weight_C1kk, bias_C, groups=channels
    )
    found_NhwC = found_NChw.permute(0, 2, 3, 1)
    found_BddhwC = found_NhwC.reshape(batch, d, d, *found_NhwC.shape[1:])
    whole_BHWC = found_BddhwC.permute(0, 3, 1, 4, 2, 5).flatten(3, 4).flatten(1, 2)
    return whole_BHWC[:, :height, :width].permute(0, 3, 1, 2)


def prefers_plain_convolution(x_BCHW: Tensor, kernel_size: int) -> bool:
    """Tell whether `dilated_depthwise` pays here, and nobody looks at the graph.

    Exported and counted networks show the convolution that the paper draws.
    """
    looked_at = is_tracing() or torch.compiler.is_exporting()
    return not looked_at and plain_convolution_is_faster(
        x_BCHW.device.type, x_BCHW.dtype, kernel_size
    )


def plain_convolution_is_faster(device: str, dtype: torch.dtype, kernel_size: int) -> bool:
    """Tell whether `dilated_depthwise` is faster there, as far as it was measured."""
    if device == "cuda":
        return dtype == torch.bfloat16 and kernel_size >= LEAST_KERNEL_ON_GPU
    return device == "cpu"
