"""Predicting with a compiled network: fused kernels instead of one operation after the other.

Axes: B slices, C channels, K classes; h, w are rows and columns of the network's input.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from msa2net.compat import compiler_error, freezing_weights, unfused_attention
from msa2net.errors import ConfigError, is_out_of_memory

Forward = Callable[[Tensor], Tensor]
_one_at_a_time = threading.RLock()


def compile_network(model: nn.Module, device: torch.device) -> Forward:
    """Return the network's forward pass, compiled at its first call for each size of a batch.

    On a CPU the weights become constants of the compiled code, laid out as its kernels read them:
    what the network learns later does not reach it.

    Raises:
        ConfigError: at a call, the network cannot be compiled here.
    """
    call = torch.compile(model, dynamic=False)
    compiling = _frozen_and_unfused if device.type == "cpu" else nullcontext

    def forward(image_BChw: Tensor) -> Tensor:
        try:
            with compiling(model):
                logits_BKhw: Tensor = call(image_BChw)
        except compiler_error() as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()
            raise ConfigError(
                f"torch.compile failed on {device}; predict without --compile, or install what it "
                f"needs (on a CPU a C++ compiler such as g++, and Python's headers). It said: "
                f"{reason[0] if reason else type(error).__name__}"
            ) from error
        return logits_BKhw

    return forward


@contextmanager
def _frozen_and_unfused(model: nn.Module) -> Iterator[None]:
    """Freeze weights, and unfuse attention: on a CPU, in small windows, the compiler's is faster.

    Freezing is not among the options of `torch.compile` here: those begin to hold when the weights
    are inputs of the compiled code already. It is a setting of the process, as attention is of a
    network that others may use, so one at a time calls.
    """
    with _one_at_a_time, freezing_weights(), unfused_attention(model):
        yield


def in_full_batches(forward: Forward, image_BChw: Tensor, batch: int) -> Tensor:
    """Return the logits of a batch that may not be full, without compiling for its size anew."""
    count = len(image_BChw)
    missing = -count % batch
    if not missing:
        return forward(image_BChw)
    full_BChw = F.pad(image_BChw, (0, 0, 0, 0, 0, 0, 0, missing))
    return forward(full_BChw)[:count]
