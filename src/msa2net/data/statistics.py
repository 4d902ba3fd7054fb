"""What is worth knowing of a case's values without reading it again; kept in `dataset.json`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTILES = (0.005, 0.5, 0.995)
_SAMPLE = 2**20  # voxels that the quantiles are taken from, evenly spaced; the rest counts all


@dataclass(frozen=True)
class ChannelStatistics:
    """The values of one channel of one case, in the file's units; NaN and infinity left out.

    Attributes:
        minimum, maximum, mean, std: over all finite voxels.
        low, median, high: the 0.5, 50 and 99.5 % quantiles, of at most a million even samples.
        not_finite: how many voxels are NaN or infinite.
    """

    minimum: float
    maximum: float
    mean: float
    std: float
    low: float
    median: float
    high: float
    not_finite: int = 0


def describe_channels(image_CZHW: NDArray[Any]) -> tuple[ChannelStatistics, ...]:
    """Describe each channel; one without a finite voxel is described by zeros."""
    return tuple(_describe(channel_ZHW) for channel_ZHW in image_CZHW)


def count_labels(label_ZHW: NDArray[np.uint8]) -> dict[int, int]:
    """Return label value → number of voxels, for the values that occur."""
    counts = np.bincount(label_ZHW.reshape(-1), minlength=1)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _describe(channel_ZHW: NDArray[Any]) -> ChannelStatistics:
    finite = channel_ZHW[np.isfinite(channel_ZHW)] if channel_ZHW.dtype.kind == "f" else channel_ZHW
    broken = channel_ZHW.size - finite.size
    if not finite.size:
        return ChannelStatistics(0, 0, 0, 0, 0, 0, 0, not_finite=broken)
    sample = finite.reshape(-1)[:: max(1, finite.size // _SAMPLE)]
    low, median, high = np.quantile(sample, QUANTILES).tolist()
    return ChannelStatistics(
        minimum=float(finite.min()),
        maximum=float(finite.max()),
        mean=float(finite.mean(dtype=np.float64)),
        std=float(finite.std(dtype=np.float64)),
        low=low,
        median=median,
        high=high,
        not_finite=broken,
    )
