"""Predicting in bfloat16: half the memory traffic, twice the arithmetic where a device has it."""

import copy
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from msa2net.errors import ConfigError, is_out_of_memory
from msa2net.models.lka import DilatedDepthwiseConv2d
from msa2net.options import PredictionPrecision


def check_precision(precision: PredictionPrecision, device: torch.device) -> None:
    """Check that a device computes in a precision.

    Raises:
        ConfigError: it does not.
    """
    if precision == "bfloat16" and not _computes_in_bfloat16(device):
        raise ConfigError(
            f"the device {device} does not compute in bfloat16; predict in float32 (without "
            "--bfloat16)"
        )


def to_bfloat16(model: nn.Module) -> nn.Module:
    """Return a copy with the weights of convolutions and linear layers in bfloat16.

    Autocast would reduce them anew for every batch, to the same numbers. What autocast leaves in
    float32 stays: norms, scales, and dilated depthwise convolutions (see there). A network that is
    to_bfloat16 already is returned itself.
    """
    if all(module.weight.dtype == torch.bfloat16 for module in _reducible(model)):
        return model
    model = copy.deepcopy(model)
    for module in _reducible(model):
        module.to(torch.bfloat16)
    return model


def _reducible(model: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        and not isinstance(module, DilatedDepthwiseConv2d)
    ]


def _computes_in_bfloat16(device: torch.device) -> bool:
    """Try it: there is no question that all kinds of devices answer."""
    image_BChw = torch.zeros(1, 1, 1, 1, device=device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MPS says so and goes on in float32
            with torch.autocast(device.type, torch.bfloat16):
                found_BChw = nn.functional.conv2d(image_BChw, image_BChw)
    except (RuntimeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        return False
    return found_BChw.dtype == torch.bfloat16


def computing_in(
    precision: PredictionPrecision, device: torch.device
) -> AbstractContextManager[Any]:
    """Return the context for a network's forward pass; of float32, what is around it counts."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
