"""Clocks and memory meters that mean the same on a CPU and on a GPU; the arithmetic's ceiling."""

import contextlib
import ctypes
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices whose product is the ceiling
REPEATS = 5
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of the same thing.

    Attributes:
        seconds: of each repeat, in order.
        peak_bytes: the most memory it took above what was in use before; None where nobody counts
            (of the device; on a CPU of the process).
    """

    seconds: tuple[float, ...]
    peak_bytes: int | None = None

    @property
    def median(self) -> float:
        """The middle one, in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The fastest and the slowest, in seconds."""
        return min(self.seconds), max(self.seconds)


def measure(call: Callable[[], object], repeats: int, device: torch.device) -> Timing:
    """Call once to warm up, then `repeats` times, waiting for the device each time.

    The memory is that of the first call: later ones find what it left in allocators.
    """
    before = _begin_peak(device)
    call()
    _wait(device)
    peak = _end_peak(device, before)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return Timing(tuple(seconds), peak)


def matrix_ceiling(device: torch.device, dtype: torch.dtype, side: int | None = None) -> float:
    """Return multiply–adds a second of the fastest of a few square matrix products."""
    side = side or SIDE.get(device.type, 4096)
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    timing = measure(lambda: one @ other, REPEATS, device)
    return side**3 / min(timing.seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _begin_peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    if device.type != "cpu" or not _STATUS.exists():
        return None
    _give_memory_back()
    try:
        _RESET.write_text("5", encoding="ascii")  # forget the highest resident set so far
    except OSError:
        return None
    return _resident("VmRSS")


def _end_peak(device: torch.device, before: int | None) -> int | None:
    if before is None:
        return None
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) - before
    return max(0, _resident("VmHWM") - before)


def _give_memory_back() -> None:
    """Let glibc return freed memory, which would otherwise be used again and not be counted."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _resident(name: str) -> int:
    """Return a line of Linux's account of this process in bytes."""
    text = _STATUS.read_text(encoding="ascii")
    return int(text.split(f"{name}:")[1].split()[0]) * 1024
