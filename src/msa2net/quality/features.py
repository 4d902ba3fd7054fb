"""Features that tell an out-of-distribution case: of its input, its grid, its structures.

A feature is a number with a name such as `size:mm3:liver`, see `name_feature`. What is not known of
a case has no feature. Scales are logarithmic where ratios matter.

Axes: C channels, Z slices, H rows, W columns; h, w are rows and columns of the network's input,
S of a thumbnail (S = SIDE); K classes, L levels of a histogram.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Features = dict[str, float]

SLICES = 32  # of a case's input that are looked at, evenly spaced; more say the same
SIDE = 16  # of the thumbnail
AXES = ("slices", "rows", "columns")

_LEVELS = 128  # of the histogram
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_FINE = 128  # rows and columns of a slice that structures are measured on, at least
_LEAST_SHARE = 0.01  # of a clipped value's pixels: fewer are as good as none
_LEAST_CLEAR = 0.02  # of a slice's pixels that show how noisy it is
_DARK, _BRIGHT = 0.02, 0.98  # beyond, the input may be clipped and shows no noise


def name_feature(criterion: str, which: str = "", of: str = "") -> str:
    """Return `criterion:which:of`; only what it is of, such as a class, may hold colons."""
    return f"{criterion}:{which}:{of}"


def parts_of(feature: str) -> tuple[str, str, str]:
    """Return the criterion, which of its features, and of what it is, of a feature's name."""
    criterion, which, of = feature.split(":", 2)
    return criterion, which, of


NOTHING = name_feature("missing", "all")
"""The feature of an empty mask."""

FULL = 0.99
"""The share of a slice from which on a structure fills it: of 600 lesions of ISIC 2018 one does."""

DICE_ERROR = name_feature("confidence", "all")
"""One minus the expected Dice, of all structures together."""


def measured_slices(depth: int) -> frozenset[int]:
    """Return the slices of a case whose input is measured."""
    if depth <= SLICES:
        return frozenset(range(depth))
    return frozenset(np.linspace(0, depth - 1, SLICES).round().astype(int).tolist())


class InputSums:
    """Adds up what is measured of a case's input, slice by slice, and holds no slice."""

    def __init__(self, channels: int) -> None:
        self._histogram_CL = np.zeros((channels, _LEVELS), np.int64)
        self._noise_C = np.zeros(channels)
        self._clear_C = np.zeros(channels)
        self._colour = 0.0
        self._thumbnail = np.zeros((SIDE, SIDE))
        self._slices = 0

    def add(self, unit_Chw: NDArray[np.float32]) -> None:
        """Measure one slice, in [0, 1], without what surrounds the image."""
        unit_Chw = np.clip(unit_Chw, 0.0, 1.0)
        for channel, unit_hw in enumerate(unit_Chw):
            level = (unit_hw[::2, ::2] * (_LEVELS - 1) + 0.5).astype(np.intp)
            self._histogram_CL[channel] += np.bincount(level.reshape(-1), minlength=_LEVELS)
            noise = _noise(unit_hw)
            self._noise_C[channel] += 0 if noise is None else noise
            self._clear_C[channel] += noise is not None
        if len(unit_Chw) == 3:
            self._colour += float(np.ptp(unit_Chw[:, ::2, ::2], axis=0).mean())
        self._thumbnail += _thumbnail(unit_Chw.mean(axis=0))
        self._slices += 1

    @property
    def thumbnail(self) -> NDArray[np.float64]:
        """The mean of all slices and channels, (SIDE, SIDE)."""
        return self._thumbnail / max(1, self._slices)

    def features(self) -> Features:
        """Return what the input is like; nothing before a slice was seen."""
        if not self._slices:
            return {}
        found: Features = {}
        for channel, counts_L in enumerate(self._histogram_CL):
            of = str(channel)
            share_L = np.cumsum(counts_L) / max(1, counts_L.sum())
            for share in _SHARES:
                level = int(np.searchsorted(share_L, share)) / (_LEVELS - 1)
                found[name_feature("intensity", f"q{round(100 * share)}", of)] = level
            for which, clipped in (("dark", share_L[0]), ("bright", 1 - share_L[-2])):
                found[name_feature("intensity", which, of)] = math.log(
                    float(clipped) + _LEAST_SHARE
                )
            if self._clear_C[channel]:
                noise = self._noise_C[channel] / self._clear_C[channel]
                found[name_feature("noise", of=of)] = math.log(noise + 1e-3)
        if len(self._histogram_CL) == 3:
            found[name_feature("colour")] = math.log(self._colour / self._slices + 1e-2)
        return found


def layout_features(thumbnail: NDArray[np.float64], reference: NDArray[np.float64]) -> Features:
    """Return the correlation of a case's thumbnail with the training's, and with its mirror images.

    `columns` and `rows` are how much more alike it is than its own mirror image, so below 0 where
    the mirror image fits better.
    """
    alike = _correlation(thumbnail, reference)
    return {
        name_feature("layout", "alike"): alike,
        name_feature("layout", "columns"): alike - _correlation(thumbnail[:, ::-1], reference),
        name_feature("layout", "rows"): alike - _correlation(thumbnail[::-1], reference),
    }


def grid_features(
    shape_ZHW: tuple[int, ...], spacing_mm: Sequence[float] | None, oriented: bool
) -> Features:
    """Describe a case's grid, along the training orientation.

    Args:
        shape_ZHW: of the image.
        spacing_mm: along (Z, H, W); None if unknown.
        oriented: whether it is known how it lies in the patient.
    """
    depth, height, width = shape_ZHW
    found = {
        name_feature("spacing", "depth"): math.log(depth),
        name_feature("spacing", "aspect"): math.log(height / width),
        name_feature("unknown", "spacing"): float(spacing_mm is None),
        name_feature("unknown", "orientation"): float(not oriented),
    }
    for axis, mm in zip(AXES, spacing_mm or (), strict=False):
        if axis != "slices" or depth > 1:
            found[name_feature("spacing", axis)] = math.log(mm)
    return found


def structure_features(
    labels_ZHW: NDArray[np.uint8], names: Sequence[str], spacing_mm: Sequence[float] | None
) -> Features:
    """Measure every structure: whether it is there, how large, and where.

    Places are centroids, as shares of the image's extents, and relative to all structures
    together in their standard deviations, which does not depend on what the scan covers.

    Args:
        labels_ZHW: class indices, along the training orientation; those that are no class count
            as background.
        names: one per class, background first.
        spacing_mm: of the voxels along (Z, H, W); None if unknown.
    """
    sums_K7, step, fullest_K = _moments(labels_ZHW, len(names))
    volume_mm3 = math.prod(spacing_mm) if spacing_mm is not None else None
    whole = _places(sums_K7.sum(axis=0), labels_ZHW.shape, step)
    found: Features = {}
    for index, name in enumerate(names[1:], start=1):
        voxels = float(sums_K7[index, 0]) * step * step
        if not voxels:  # smaller than the step, or not there at all
            voxels = float(sum(np.count_nonzero(labels == index) for labels in labels_ZHW))
        found[name_feature("missing", "structure", name)] = float(not voxels)
        found[name_feature("extent", "slice", name)] = float(fullest_K[index] >= FULL)
        if not voxels:
            continue
        found[name_feature("size", "share", name)] = math.log(voxels / labels_ZHW.size)
        if volume_mm3 is not None:
            found[name_feature("size", "mm3", name)] = math.log(voxels * volume_mm3)
        if not sums_K7[index, 0]:
            continue
        own = _places(sums_K7[index], labels_ZHW.shape, step)
        for axis, length, at, of_all in zip(AXES, labels_ZHW.shape, own, whole, strict=True):
            if length == 1:
                continue
            found[name_feature("place", axis, name)] = at[0]
            if len(names) > 2:
                spread = max(of_all[1], 1 / length)
                found[name_feature("place", f"{axis} among all", name)] = (
                    at[0] - of_all[0]
                ) / spread
    missing = (found[name_feature("missing", "structure", name)] for name in names[1:])
    found[NOTHING] = float(all(missing))
    return found


def mean_thumbnail(thumbnails: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean of thumbnails, each brought to mean 0 and deviation 1 first."""
    return np.mean([_standardised(one) for one in thumbnails], axis=0)


def _noise(unit_hw: NDArray[np.float32]) -> float | None:
    """Return the median distance of pixels from the mean of their four neighbours.

    The median, since edges and hairs are no noise; None where hardly a pixel is unclipped.
    """
    if min(unit_hw.shape) < 3:
        return None
    middle = unit_hw[1:-1, 1:-1]
    around = unit_hw[:-2, 1:-1] + unit_hw[2:, 1:-1] + unit_hw[1:-1, :-2] + unit_hw[1:-1, 2:]
    clear = (middle > _DARK) & (middle < _BRIGHT)
    if np.count_nonzero(clear) < _LEAST_CLEAR * clear.size:
        return None
    return float(np.median(np.abs(middle - 0.25 * around)[clear]))


def _thumbnail(unit_hw: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return means (S, S) of an image's parts; where it is smaller, parts of it stand twice."""
    rows_Sw = _means_of_parts(unit_hw.astype(np.float64))
    columns_wS = rows_Sw.transpose(1, 0)
    return _means_of_parts(columns_wS).transpose(1, 0)


def _means_of_parts(lines_nm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (S, m): n lines are parted into S runs of neighbours, and each run is averaged."""
    length = len(lines_nm)
    edges = np.linspace(0, length, SIDE + 1)
    starts_S = np.minimum(edges[:-1].astype(int), length - 1)
    if length < SIDE:
        return lines_nm[starts_S]
    counts_S = np.diff(np.append(starts_S, length))
    means_Sm: NDArray[np.float64] = np.add.reduceat(lines_nm, starts_S) / counts_S[:, None]
    return means_Sm


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = float(values.std())
    return (values - values.mean()) / (deviation if deviation > 1e-6 else 1.0)


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float((_standardised(one) * _standardised(other)).mean())


def _moments(
    labels_ZHW: NDArray[np.uint8], classes: int
) -> tuple[NDArray[np.float64], int, NDArray[np.float64]]:
    """Return per class voxels, then sums and sums of squares along Z, H and W; step; fullest slice.

    Of every slice only each `step`-th row and column is asked. The last is the share of the slice
    that a class fills most.
    """
    step = max(1, min(labels_ZHW.shape[1:]) // _FINE)
    sums_K7, fullest_K = np.zeros((classes, 7)), np.zeros(classes)
    for z, labels_HW in enumerate(labels_ZHW):
        few_HW = labels_HW[::step, ::step]
        rows, columns = np.nonzero((few_HW > 0) & (few_HW < classes))
        if not len(rows):
            continue
        of = few_HW[rows, columns]
        count_K = np.bincount(of, minlength=classes)
        y, x = rows.astype(float), columns.astype(float)
        sums_K7[:, 0] += count_K
        fullest_K = np.maximum(fullest_K, count_K / few_HW.size)
        sums_K7[:, 1] += count_K * z
        sums_K7[:, 2] += count_K * z * z
        for column, weights in ((3, y), (4, y * y), (5, x), (6, x * x)):
            sums_K7[:, column] += np.bincount(of, weights, classes)
    return sums_K7, step, fullest_K


def _places(
    sums_7: NDArray[np.float64], shape_ZHW: tuple[int, ...], step: int
) -> list[tuple[float, float]]:
    """Return centroid and standard deviation along Z, H and W, as shares of the extents."""
    count = max(1.0, float(sums_7[0]))
    places = []
    for axis, length in enumerate(shape_ZHW):
        mean = float(sums_7[1 + 2 * axis]) / count
        spread = math.sqrt(max(0.0, float(sums_7[2 + 2 * axis]) / count - mean * mean))
        scale = 1 if axis == 0 else step
        places.append(((mean * scale + 0.5) / length, spread * scale / length))
    return places
