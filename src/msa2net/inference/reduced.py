"""Predicting in bfloat16: half the memory traffic, twice the arithmetic where a device has it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from msa2net.inference.groups import PredictionPrecision
from msa2net.models.lka import DilatedDepthwiseConv2d


def reduce_weights(model: nn.Module) -> None:
    """Turn the weights of convolutions and linear layers into bfloat16, for good.

    Autocast would do so anew for every batch, to the same numbers. What autocast leaves in float32
    stays: norms, scales, and dilated depthwise convolutions (see there).
    """
    for module in model.modules():
        plain = isinstance(module, nn.Conv2d) and not isinstance(module, DilatedDepthwiseConv2d)
        if plain or isinstance(module, nn.Linear):
            module.to(torch.bfloat16)


def computing_in(
    precision: PredictionPrecision, device: torch.device
) -> AbstractContextManager[Any]:
    """Return the context for a network's forward pass; of float32, what is around it counts."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
