"""How many slices go through a network at once."""

from collections.abc import Callable

import torch

from msa2net.errors import MORE_MEMORY, ConfigError, is_out_of_memory
from msa2net.inference.backend import default_batch_size

LARGEST = 64
"""More gain nothing that could be measured, on any device."""

_SHARE = 0.8  # of the free memory: what comes after the network needs some too
_PROBE = 4


def choose_batch_size(
    device: torch.device, run: Callable[[int], object], slice_bytes: int, most: int | None
) -> int:
    """Choose a batch size: on CUDA `most`, or by measuring if None; else `default_batch_size`.

    Measuring resets CUDA's record of the highest memory use.

    Args:
        device: where the network computes.
        run: sends that many slices through the network.
        slice_bytes: of the answer to one of them.
        most: slices that somebody allows; CUDA says when they are too many.
    """
    if device.type != "cuda":
        return default_batch_size(slice_bytes, most)
    if most is not None:
        return most
    try:
        run(1)  # libraries allocate their workspaces at the first call
        one, several = _peak(device, run, 1), _peak(device, run, _PROBE)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 1
    free = torch.cuda.mem_get_info(device)[0]
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return largest_batch_size(one, several, free)


def largest_batch_size(one: int, several: int, free: int) -> int:
    """Return the batch size that uses most of the free memory, from 1 to `LARGEST`.

    Args:
        one: bytes that a batch of 1 took at its highest.
        several: bytes that a batch of 4 took.
        free: bytes there are.
    """
    a_slice = max(1.0, (several - one) / (_PROBE - 1))
    fixed = max(0.0, one - a_slice)
    return int(min(LARGEST, max(1, (_SHARE * free - fixed) // a_slice)))


def halved_batch_size(batch: int, device: torch.device) -> int:
    """Return half a batch, after one did not fit into memory.

    Raises:
        ConfigError: it was of a single slice.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if batch == 1:
        elsewhere = "end what else runs there, or use the device cpu"
        remedy = MORE_MEMORY if device.type == "cpu" else elsewhere
        raise ConfigError(f"a single slice does not fit into the memory of {device}; {remedy}")
    return batch // 2


def _peak(device: torch.device, run: Callable[[int], object], count: int) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run(count)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
