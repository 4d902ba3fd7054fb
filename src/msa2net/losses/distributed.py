"""Sums over the batches of all processes of a training, so that a loss is that of the whole batch.

Boundary-DoU, Dice and cross-entropy are ratios of sums over the batch. A mean of every process's
own ratio is another loss: it depends on how many processes share a batch, and a class that one of
them does not see costs 1 there. So each process adds up its part, the parts are added up over the
processes, and all of them compute the same ratio.
"""

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable


def sum_over_processes(x_K: Tensor) -> Tensor:
    """Add up x over all processes of a training; in a single process it stays as it is.

    The gradient is made for `DistributedDataParallel` (and FSDP), which replace every weight's
    gradient by its mean over the W processes. Let S = Σ_r s_r be this sum and f the loss. The
    gradient wanted is f'(S)·Σ_r ds_r/dw. Process r alone can compute f'(S)·ds_r/dw, of which the
    mean is 1/W of what is wanted: so the gradient handed back here is W·f'(S). No communication
    takes place on the way back, since every process holds the same S, and so the same f'(S).

    Where gradients are switched off nothing is exchanged: what a process looks at then (a
    validation, a batch that is run again to find an error) is its own, and the others may be
    doing something else.

    Args:
        x_K: sums over this process's share of the batch, of any shape; every process must call
            this with the same shape and as often.

    Returns:
        The sums over the whole batch, the same in every process.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return x_K
    if distributed.get_world_size() == 1 or not torch.is_grad_enabled():
        return x_K
    total_K: Tensor = _SumOverProcesses.apply(x_K)
    return total_K


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x_K: Tensor) -> Tensor:
        total_K = x_K.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total_K)
        return total_K

    @staticmethod
    @once_differentiable
    def backward(_: Any, gradient_K: Tensor) -> Tensor:
        return gradient_K * distributed.get_world_size()
