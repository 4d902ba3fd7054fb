"""What a device's arithmetic can do at most, measured: large matrix products."""

import torch

from msa2net.benchmark.timing import measure

SIDE = {"cpu": 2048, "cuda": 8192}
REPEATS = 5


def matrix_ceiling(device: torch.device, dtype: torch.dtype, side: int | None = None) -> float:
    """Return multiply–adds a second of the fastest of a few square matrix products."""
    side = side or SIDE.get(device.type, 4096)
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    timing = measure(lambda: one @ other, REPEATS, device)
    return side**3 / min(timing.seconds)
