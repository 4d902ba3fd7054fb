"""Statistics of a case's intensities and labels, kept in `dataset.json`."""

import math
from collections.abc import Iterator
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
    """Compute the statistics of each channel; zeros for one without a finite voxel."""
    return tuple(_describe(channel_ZHW) for channel_ZHW in image_CZHW)


def count_labels(label_ZHW: NDArray[np.uint8]) -> dict[int, int]:
    """Return label value → number of voxels, for the values that occur."""
    counts = np.zeros(256, dtype=np.int64)
    for label_HW in label_ZHW:  # by slice: counting takes eight bytes a voxel
        counts += np.bincount(label_HW.reshape(-1), minlength=256)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def _describe(channel_ZHW: NDArray[Any]) -> ChannelStatistics:
    """Go through the slices twice, so that no second copy of the volume is ever held."""
    step = max(1, channel_ZHW.size // _SAMPLE)
    lows, highs, samples, count, total = [], [], [], 0, 0.0
    for values in _finite_slices(channel_ZHW):
        lows.append(float(values.min()))
        highs.append(float(values.max()))
        samples.append(values[::step])
        count += values.size
        total += float(values.sum(dtype=np.float64))
    broken = channel_ZHW.size - count
    if not count:
        return ChannelStatistics(0, 0, 0, 0, 0, 0, 0, not_finite=broken)
    mean = total / count
    squares = sum(
        float(np.square(values.astype(np.float64) - mean).sum())
        for values in _finite_slices(channel_ZHW)
    )
    low, median, high = np.quantile(np.concatenate(samples), QUANTILES).tolist()
    return ChannelStatistics(
        minimum=min(lows),
        maximum=max(highs),
        mean=mean,
        std=math.sqrt(squares / count),
        low=low,
        median=median,
        high=high,
        not_finite=broken,
    )


def _finite_slices(channel_ZHW: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the finite values of each slice that has any."""
    for slice_HW in channel_ZHW:
        flat = slice_HW.reshape(-1)
        values = flat[np.isfinite(flat)] if flat.dtype.kind == "f" else flat
        if values.size:
            yield values
