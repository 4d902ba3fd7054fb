"""What went wrong in the same way in all cases: exchanged classes, shifted grids, nothing found.

Means say how bad masks are, not why; these mistakes are of files and numbers rather than of a
network, and each has a shape of its own. What is found is said in sentences beside the scores and
changes none of them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msa2net.metrics.overlap import LabelArray
from msa2net.metrics.protocol import CaseRow

_IGNORE_INDEX = 255
_CHUNK = 1 << 22  # voxels looked at together
_AXES = {3: ("slices", "rows", "columns"), 2: ("rows", "columns")}

MOST = 0.5
"""Share of a class's voxels under one other name, from which it is named."""

SHIFT = 0.5
"""Voxels beside the labels, from which it is said; half a voxel is what mistaken corners cost."""

SAME_SIDE = 0.95
"""Share of cases that must lie to the same side: by chance it is a half."""

FEWEST = 8
"""Cases to the same side from which a shift is said.

Structures of one case are shifted together, so cases count. Eight of eight lie to one side of an
axis by chance in 0.8 % of evaluations.
"""


class Pattern(NamedTuple):
    """What one case contributes.

    Attributes:
        named: (classes, classes), voxels by the class of the truth and of the prediction.
            The background of the truth is left out: its row is 0.
        offsets: (n, axes), for each class that both masks show, how far the centre of the
            prediction's voxels lies from that of the truth's, in voxels.
    """

    named: NDArray[np.int64]
    offsets: NDArray[np.float64]


def case_error_pattern(prediction: LabelArray, truth: LabelArray, num_classes: int) -> Pattern:
    """Look at a case: only at voxels in a class of either mask, which are few.

    Args:
        prediction: class indices, 0 to num_classes - 1.
        truth: the same shape; pixels of 255 are ignored.
        num_classes: with the background.
    """
    named = np.zeros(num_classes**2, np.int64)
    counts = np.zeros((2, num_classes, 1))  # of the prediction, of the truth
    sums = np.zeros((2, num_classes, truth.ndim))
    step = max(1, _CHUNK * len(truth) // max(1, truth.size))
    for first in range(0, len(truth), step):
        true, found = truth[first : first + step], prediction[first : first + step]
        places = np.nonzero(((true != 0) | (found != 0)) & (true != _IGNORE_INDEX))
        true, found = true[places], found[places]
        inside = true > 0
        pairs = true[inside].astype(np.intp) * num_classes + found[inside]
        named += np.bincount(pairs, minlength=num_classes**2)
        for side, labels in enumerate((found, true)):
            counts[side, :, 0] += np.bincount(labels, minlength=num_classes)
            for axis, place in enumerate(places):
                at = place + first if axis == 0 else place
                sums[side, :, axis] += np.bincount(labels, at, num_classes)
    both = [index for index in range(1, num_classes) if (counts[:, index] > 0).all()]
    centres = sums[:, both] / counts[:, both]
    return Pattern(named.reshape(num_classes, num_classes), centres[0] - centres[1])


def describe_systematic_errors(
    patterns: Sequence[Pattern], rows: Sequence[CaseRow], label_names: Sequence[str]
) -> list[str]:
    """Say what is the same in all cases; nothing where nothing is.

    Args:
        patterns: one a case.
        rows: of the same cases, from `case_rows`.
        label_names: one per class, background first.
    """
    if rows and not any(row["tp"] + row["fp"] for row in rows):
        cases = len({row["case"] for row in rows})
        masks = "the one mask is" if cases == 1 else f"all {cases} masks are"
        return [f"Every prediction is empty: {masks} background throughout."]
    nothing = _never_found(rows, label_names)
    if not patterns:
        return nothing
    misnamed = _misnamed(np.sum([one.named for one in patterns], axis=0), label_names)
    # A class under another name is not a class that was overlooked, and lies elsewhere.
    return misnamed or [*nothing, *_shifted([one.offsets for one in patterns])]


def _never_found(rows: Sequence[CaseRow], label_names: Sequence[str]) -> list[str]:
    """Name classes that labels hold and no prediction does."""
    sentences = []
    for name in label_names[1:]:
        own = [row for row in rows if row["class"] == name]
        shown = sum(row["tp"] + row["fn"] > 0 for row in own)
        if shown and not any(row["tp"] + row["fp"] for row in own):
            held = "the one case that holds" if shown == 1 else f"all {shown} cases that hold"
            sentences.append(f"No prediction shows {name}: it is missed in {held} it.")
    return sentences


def _misnamed(named: NDArray[Any], label_names: Sequence[str]) -> list[str]:
    """Name classes most of whose voxels have the name of one other class in the predictions."""
    other: dict[int, int] = {}
    share = named / np.maximum(named.sum(axis=1, keepdims=True), 1)
    for index in range(1, len(named)):
        most = int(share[index, 1:].argmax()) + 1
        if most != index and share[index, most] >= MOST:
            other[index] = most
    if not other:
        return []
    parts = [
        f"{label_names[true]} is called {label_names[found]} ({share[true, found]:.0%} of its "
        "voxels)"
        for true, found in other.items()
    ]
    exchanged = sorted(other) == sorted(other.values())
    advice = "look whether the numbers of the classes mean the same on both sides"
    if exchanged:
        advice = f"their numbers look exchanged; {advice}"
    return [
        f"Where the labels hold a class, predictions hold another: {', '.join(parts)}; {advice}."
    ]


def _shifted(offsets: Sequence[NDArray[np.float64]]) -> list[str]:
    """Say along which axes nearly all cases lie to the same side of their labels."""
    cases = [np.median(one, axis=0) for one in offsets if len(one)]  # of a case's structures
    if len({len(one) for one in cases}) != 1:  # volumes and pictures together
        return []
    together = np.stack(cases)
    middle = np.median(together, axis=0)
    same = (np.sign(together) == np.sign(middle)).sum(axis=0)
    names = _AXES.get(together.shape[1], ())
    parts = [
        f"{abs(voxels):.1f} along the {name}"
        for name, voxels, agreeing in zip(names, middle, same, strict=True)
        if abs(voxels) >= SHIFT and agreeing >= max(FEWEST, SAME_SIDE * len(together))
    ]
    if not parts:
        return []
    return [
        f"In nearly all of {len(together)} cases structures lie to the same side of their labels, "
        f"in voxels (median): {', '.join(parts)}; the masks may have been written on a shifted or "
        "resampled grid."
    ]
