"""Dilated depthwise convolutions by way of plain ones: the same numbers, forward and backward."""

import pytest
import torch
from torch.nn import functional as F

from msa2net.models.kernels import dilated_depthwise, plain_convolution_is_faster
from msa2net.models.lka import DilatedDepthwiseConv2d


@pytest.mark.parametrize(("kernel", "dilation"), [(7, 3), (3, 2), (3, 1), (5, 4)])
@pytest.mark.parametrize("size", [(14, 14), (15, 16), (7, 9), (1, 2)])
def test_equals_the_dilated_kernel(kernel: int, dilation: int, size: tuple[int, int]):
    torch.manual_seed(0)
    x = torch.randn(2, 6, *size, dtype=torch.double, requires_grad=True)
    weight = torch.randn(6, 1, kernel, kernel, dtype=torch.double, requires_grad=True)
    bias = torch.randn(6, dtype=torch.double, requires_grad=True)
    found = dilated_depthwise(x, weight, bias, dilation)
    edge = dilation * (kernel // 2)
    expected = F.conv2d(x, weight, bias, padding=edge, dilation=dilation, groups=6)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    way_back = torch.randn_like(expected)
    ours = torch.autograd.grad(found, (x, weight, bias), way_back)
    theirs = torch.autograd.grad(expected, (x, weight, bias), way_back)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_the_module_takes_it_and_keeps_channels_last():
    torch.manual_seed(0)
    module = DilatedDepthwiseConv2d(16, 7, dilation=3)
    x = torch.randn(2, 16, 20, 22).to(memory_format=torch.channels_last)
    found = module(x)
    plain = F.conv2d(x, module.weight, module.bias, padding=9, dilation=3, groups=16)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
    traced = torch.jit.trace(module, x)
    assert "reshape" not in str(traced.graph)
    torch.testing.assert_close(traced(x), plain)


@pytest.mark.parametrize(
    ("device", "dtype", "kernel", "expected"),
    [
        ("cpu", torch.float32, 3, True),
        ("cpu", torch.bfloat16, 7, True),
        ("cuda", torch.bfloat16, 7, True),
        ("cuda", torch.bfloat16, 3, False),
        ("cuda", torch.float32, 7, False),
        ("mps", torch.bfloat16, 7, False),
    ],
)
def test_it_is_taken_where_it_was_faster(device, dtype, kernel, expected):
    """The table of docs/performance.md."""
    assert plain_convolution_is_faster(device, dtype, kernel) == expected


def test_without_a_bias():
    x, weight = torch.randn(1, 4, 9, 9), torch.randn(4, 1, 3, 3)
    expected = F.conv2d(x, weight, padding=2, dilation=2, groups=4)
    torch.testing.assert_close(dilated_depthwise(x, weight, None, 2), expected)
