"""Which of the label encodings a data set holds, told by the sizes and places of its organs.

Nothing in a label file says what its numbers mean, and a network trains as readily on wrong names
as on right ones. The bodies of adults differ less than their organs do, so each encoding is held
against `organs.ORGANS`, and the one in which every value lies where its organ should wins.

Axes: V values, A the three axes left, back, head of the patient (in this order).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.check.organ_statistics import ORGANS
from msa2net.data.labels import ENCODINGS, IGNORE

MAX_CASES = 6
MIN_ORGANS = 5
"""With fewer, too many arrangements fit."""

CLEAR_MARGIN = 8.0
"""Penalty by which the second best must be worse. It was at least 17 on a real CT and on phantoms:
two of the encodings differ in one organ only."""

GOOD_FIT = 2.5
"""Penalty of an organ, on average, above which labels are no such organs at all. On the same scans
it was below 1 for the right encoding, and above 3 for the eight organs in random order."""

_ABSENT = 2.0  # penalty of an organ that a case lacks: organs are removed, or outside the scan
_PLACE_SD_MM = np.array([18.0, 16.0, 26.0])  # breathing and body height move organs along the body
_EXTENT_SD = 0.35  # of the logarithm
_TAILS = 4.0  # degrees of freedom of Student's t: one odd organ does not decide
_SAMPLES = 128  # voxels an axis that are looked at

Floats = NDArray[np.float64]
Labelled = tuple[NDArray[np.integer[Any]], tuple[float, float, float] | None]
"""Label values (Z, H, W), and the spacing in mm along these axes, None if unknown."""

_TURNS = tuple(product((False, True), (1, -1), (1, -1), (1, -1)))
"""Rows and columns exchanged or not, and the direction of columns, rows and slices: files do not
tell, and a mirror image of a body is no reason to fail."""


@dataclass(frozen=True)
class Recognition:
    """How well each encoding explains the labels.

    Attributes:
        scores: encoding → penalty of a case, on average, lower is better; infinite where the
            encoding does not have a value that is there.
        best: the encoding that is clearly the best and good; None if the labels do not tell.
        margin: by how much the second best is worse.
        penalties: encoding → value → penalty of the value's organ, on average.
    """

    scores: dict[str, float]
    best: str | None
    margin: float
    penalties: dict[str, dict[int, float]]

    def telling_value(self, declared: str) -> int:
        """Return the value that speaks most for `best` and against `declared`.

        A value that `declared` does not have speaks loudest.
        """
        assert self.best is not None
        against, instead = self.penalties[declared], self.penalties[self.best]
        foreign = instead.keys() - ENCODINGS[declared].keys()
        if foreign:
            return min(foreign)
        return max(instead, key=lambda value: against[value] - instead[value])


@dataclass(frozen=True)
class _Measured:
    """The labelled values of one case, in mm and mL where the spacing is known, else in voxels.

    Attributes:
        values: (V,), 0 and 255 aside.
        log_volume: (V,).
        centre, extent: (V, A), mean and standard deviation of the voxels' positions, along columns,
            rows and slices.
        in_ml: whether the volumes are.
    """

    values: tuple[int, ...]
    log_volume: Floats
    centre: Floats
    extent: Floats
    in_ml: bool


def recognise_encoding(labels: Sequence[Labelled]) -> Recognition:
    """Return the encoding that the first six cases look like, all in one and one orientation.

    Any orientation in which slices are axial is recognised, mirror images too, and the spacing
    need not be known. Labels of other kinds, and with fewer than five organs, are told apart from
    all encodings: `best` is then None.
    """
    measured = [_measure(label_ZHW, spacing_mm) for label_ZHW, spacing_mm in labels[:MAX_CASES]]
    measured = [case for case in measured if len(case.values) >= MIN_ORGANS]
    scores = dict.fromkeys(ENCODINGS, math.inf)
    penalties: dict[str, dict[int, float]] = {encoding: {} for encoding in ENCODINGS}
    for encoding, organs in ENCODINGS.items():
        possible = all(value in organs for case in measured for value in case.values)
        if measured and possible:
            scores[encoding], penalties[encoding] = _best_turn(measured, organs)
    ranking = sorted(scores, key=lambda encoding: scores[encoding])
    margin = scores[ranking[1]] - scores[ranking[0]] if measured else 0.0
    fits = penalties[ranking[0]]
    good = bool(fits) and sum(fits.values()) / len(fits) <= GOOD_FIT
    best = ranking[0] if good and margin >= CLEAR_MARGIN else None
    return Recognition(scores, best, margin, penalties)


def _measure(label_ZHW: NDArray[Any], spacing_mm: tuple[float, float, float] | None) -> _Measured:
    steps = [max(1, side // _SAMPLES) for side in label_ZHW.shape]
    depth, height, width = (slice(None, None, step) for step in steps)
    sample_ZHW = np.asarray(label_ZHW[depth, height, width])
    unit_A = (np.array(spacing_mm or (1.0, 1.0, 1.0)) * steps)[::-1]
    place_VA = np.nonzero((sample_ZHW > 0) & (sample_ZHW != IGNORE))
    found, which, counts = np.unique(sample_ZHW[place_VA], return_inverse=True, return_counts=True)
    centre, variance = np.empty((2, 3, len(found)))
    for axis, position in enumerate(place_VA[::-1]):
        centre[axis] = np.bincount(which, position, len(found)) / counts
        variance[axis] = np.bincount(which, (position - centre[axis][which]) ** 2) / counts
    return _Measured(
        values=tuple(found.tolist()),
        log_volume=np.log(counts * unit_A.prod() / 1000),
        centre=centre.T * unit_A,
        extent=np.sqrt(variance.T + 1 / 12) * unit_A,  # a voxel has an extent of its own
        in_ml=spacing_mm is not None,
    )


def _best_turn(
    measured: Sequence[_Measured], organs: dict[int, str]
) -> tuple[float, dict[int, float]]:
    """Return the lowest penalty of a case over all turns, and that of every value."""
    best: tuple[float, dict[int, float]] = (math.inf, {})
    for turn in _TURNS:
        total, by_value = 0.0, dict[int, list[float]]()
        for case in measured:
            penalties = _penalties(case, organs, turn)
            total += float(penalties.sum()) + _ABSENT * (len(organs) - len(penalties))
            for value, penalty in zip(case.values, penalties.tolist(), strict=True):
                by_value.setdefault(value, []).append(penalty)
        if total / len(measured) < best[0]:
            means = {value: float(np.mean(found)) for value, found in by_value.items()}
            best = total / len(measured), means
    return best


def _penalties(case: _Measured, organs: dict[int, str], turn: tuple[bool, int, int, int]) -> Floats:
    """Return how unlike its organ each value is, (V,): about 1 if it is that organ.

    Positions count from the middle of the values' centres and are scaled to the organs' spread,
    so neither the patient's size nor the spacing matters; pixels are taken for square.
    """
    expected = [ORGANS[organs[value]] for value in case.values]
    place_VA = np.array([organ.place_mm for organ in expected], float)
    place_VA -= place_VA.mean(axis=0)
    exchanged, *signs = turn
    order = [1, 0, 2] if exchanged else [0, 1, 2]
    found_VA = (case.centre - case.centre.mean(axis=0))[:, order] * signs
    scale_A = _spread(place_VA) / np.maximum(_spread(found_VA), 1e-9)
    off_place = (found_VA * scale_A - place_VA) / _PLACE_SD_MM
    extents = np.array([organ.extent_mm for organ in expected])
    off_extent = np.log(case.extent[:, order] * scale_A / extents) / _EXTENT_SD
    off_volume = case.log_volume - np.log([organ.volume_ml for organ in expected])
    if not case.in_ml:
        off_volume -= off_volume.mean()
    off_volume /= [organ.spread for organ in expected]
    # An extent says again what the volume said: the three count as one.
    return np.asarray(
        _student(off_place).sum(axis=1) + _student(off_extent).mean(axis=1) + _student(off_volume)
    )


def _spread(place_VA: Floats) -> Floats:
    """Return how far places scatter across the body (twice) and along it, (A,)."""
    across, along = place_VA[:, :2].std() * math.sqrt(2), place_VA[:, 2].std()
    return np.array([across, across, along])


def _student(deviation: Floats) -> Floats:
    return np.asarray((_TAILS + 1) / 2 * np.log1p(np.square(deviation) / _TAILS))
