"""One case's rows: what `CaseRow` holds, computed from label arrays."""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from msa2net.errors import ConfigError, DataError
from msa2net.metrics.nearest import Voxels
from msa2net.metrics.overlap import LabelArray, confusion_counts, overlap_metrics
from msa2net.metrics.protocol import (
    SURFACE_TOLERANCE,
    CaseRow,
    FailedDistance,
    applicable,
    outcome,
    standard_protocol,
    transunet_dice,
)
from msa2net.metrics.surface import (
    checked_spacing,
    class_surfaces,
    diagonal,
    hd95_of_surfaces,
    surface_scores,
)
from msa2net.text import listed

_IGNORE_INDEX = 255


class _About(TypedDict):
    """The columns that all rows of a case have in common."""

    case: str
    group: str
    flags: str
    anomaly_score: float | None


class _Standard(NamedTuple):
    """The distance columns of one row in one unit, by the standard protocol."""

    hd: float | None = None
    hd95: float | None = None
    hd95_directed_max: float | None = None
    assd: float | None = None
    surface_dice: float | None = None


class _Distances(NamedTuple):
    """The distance columns of one row."""

    mm: _Standard = _Standard()
    voxels: _Standard = _Standard()
    hd95_voxels_transunet: float | None = None


def case_rows(
    case_id: str,
    prediction: LabelArray,
    truth: LabelArray,
    label_names: Sequence[str],
    *,
    published: LabelArray | None = None,
    spacing_mm: Sequence[float] | None = None,
    distances: bool = False,
    failed_distance: FailedDistance = "diagonal",
    group: str = "",
    flags: str = "",
    anomaly_score: float | None = None,
) -> list[CaseRow]:
    """Score one case: one row per class, background left out.

    Args:
        case_id: goes into the rows and error messages.
        prediction: class indices, integers, any shape.
        truth: the same shape; pixels of 255 are ignored.
        label_names: one name per class, background first.
        published: the labels of the same case by the published way back to its grid (the most
            probable class at the network's size, then nearest neighbour): the columns that end in
            `_transunet` are computed from it. Everything else, tp to tn too, is of `prediction`.
            None: of `prediction` as well.
        spacing_mm: of the voxels along each axis, in the order of the axes (Z, H, W). None: not
            known, so no distance in millimetres.
        distances: compute the distance columns; they cost time and are None otherwise.
        failed_distance: what a distance counts where a class was missed or is a false positive;
            sum such rows up under `standard_protocol(failed_distance)`. `nan` is None here.
        group: what the case belongs to, for `summarise_groups`; "" is no group.
        flags: goes into the rows, see `CaseRow`.
        anomaly_score: likewise.

    Raises:
        ConfigError: the names are fewer than two, one comes twice, or `failed_distance` is none.
        DataError: the arrays do not fit each other or the names (see `confusion_counts`), or the
            spacing does not fit the arrays.
    """
    classes = _count_names(label_names)
    standard_protocol(failed_distance)  # refuses what is no way to count
    counts = _counts(f"case {case_id}", prediction, truth, classes)
    published_counts = counts
    if published is not None:
        published_counts = _counts(f"case {case_id}, published path", published, truth, classes)
    measured = [_Distances()] * (classes - 1)
    if distances:
        try:
            measured = _class_distances(
                prediction, published, truth, classes, spacing_mm, failed_distance
            )
        except DataError as error:
            raise DataError(f"case {case_id}: {error}") from error
    about = _About(case=case_id, group=group, flags=flags, anomaly_score=anomaly_score)
    each = zip(label_names[1:], counts[1:], published_counts[1:], measured, strict=True)
    return [_class_row(about, *of_class) for of_class in each]


def _count_names(label_names: Sequence[str]) -> int:
    if len(label_names) < 2 or len(set(label_names)) < len(label_names):
        raise ConfigError(
            f"label names are {listed(label_names)}; give the background and at least one class, "
            "each name once"
        )
    return len(label_names)


def _counts(
    where: str, prediction: LabelArray, truth: LabelArray, num_classes: int
) -> list[list[int]]:
    try:
        counts: list[list[int]] = confusion_counts(
            prediction, truth, num_classes, ignore_index=_IGNORE_INDEX
        ).tolist()
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    return counts


def _class_row(
    about: _About,
    class_name: str,
    counts: Sequence[int],
    published_counts: Sequence[int],
    measured: _Distances,
) -> CaseRow:
    tp, fp, fn, tn = counts
    # The standard protocol's ratios need no special cases: its rules are the definitions, and 0/0
    # is what "not applicable" means.
    standard = {name: applicable(v) for name, v in overlap_metrics(tp, fp, fn, tn).items()}
    return {
        "case": about["case"],
        "class": class_name,
        "group": about["group"],
        "outcome": outcome(tp, fp, fn),
        "outcome_transunet": outcome(*published_counts[:3]),
        "flags": about["flags"],
        "anomaly_score": about["anomaly_score"],
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "tn": tn,
        "dice": standard["dice"],
        "iou": standard["iou"],
        "sensitivity": standard["sensitivity"],
        "specificity": standard["specificity"],
        "precision": standard["precision"],
        "accuracy": standard["accuracy"],
        "volume_difference_percent": standard["volume_difference_percent"],
        "dice_transunet": transunet_dice(*published_counts[:3]),
        "hd_mm": measured.mm.hd,
        "hd95_mm": measured.mm.hd95,
        "hd95_directed_max_mm": measured.mm.hd95_directed_max,
        "assd_mm": measured.mm.assd,
        "surface_dice_2mm": measured.mm.surface_dice,
        "hd_voxels": measured.voxels.hd,
        "hd95_voxels": measured.voxels.hd95,
        "hd95_directed_max_voxels": measured.voxels.hd95_directed_max,
        "assd_voxels": measured.voxels.assd,
        "surface_dice_2voxels": measured.voxels.surface_dice,
        "hd95_voxels_transunet": measured.hd95_voxels_transunet,
    }


def _class_distances(
    prediction: LabelArray,
    published: LabelArray | None,
    truth: LabelArray,
    num_classes: int,
    spacing_mm: Sequence[float] | None,
    failed_distance: FailedDistance,
) -> list[_Distances]:
    """Compute the distance columns of class 1, 2, … by the rules in protocol.py."""
    ignored = truth == _IGNORE_INDEX
    if ignored.any():
        truth, prediction = np.where(ignored, 0, truth), np.where(ignored, 0, prediction)
        published = None if published is None else np.where(ignored, 0, published)
    # A volume of one slice is a picture: in 3-D all of a mask would be surface. The published
    # function knows no pictures, so its own column stays as it is.
    flat = truth.ndim > 2
    axes = [axis for axis, side in enumerate(truth.shape) if side > 1 or not flat] or [0]
    shape = tuple(truth.shape[axis] for axis in axes)
    spacing = None
    if spacing_mm is not None:
        spacing = checked_spacing(spacing_mm, truth.ndim)[axes].tolist()
    true = class_surfaces(truth.reshape(shape), num_classes)
    ours = class_surfaces(prediction.reshape(shape), num_classes)
    transunet: list[float | None] = [None] * (num_classes - 1)
    if published is not None or len(axes) < truth.ndim:
        theirs = prediction if published is None else published
        transunet = _published_distances(theirs, truth, num_classes)
    measured = []
    for own, reference, known in zip(ours, true, transunet, strict=True):
        mm = _Standard()
        if spacing is not None:
            mm = _standard(own, reference, shape, spacing, failed_distance)
        voxels = _standard(own, reference, shape, (1.0,) * len(shape), failed_distance)
        if known is None:  # the same surfaces give the same distance: not asked twice
            known = voxels.hd95 if len(own) and len(reference) else 0.0
        measured.append(_Distances(mm, voxels, known))
    return measured


def _published_distances(
    prediction: LabelArray, truth: LabelArray, num_classes: int
) -> list[float | None]:
    """Return HD95 in voxels of class 1, 2, … as published: 0 wherever a mask is empty."""
    pairs = zip(
        class_surfaces(prediction, num_classes), class_surfaces(truth, num_classes), strict=True
    )
    return [
        hd95_of_surfaces(one, other, (1.0,) * truth.ndim) if len(one) and len(other) else 0.0
        for one, other in pairs
    ]


def _standard(
    prediction: Voxels,
    truth: Voxels,
    shape: Sequence[int],
    spacing: Sequence[float],
    failed_distance: FailedDistance,
) -> _Standard:
    scores = surface_scores(prediction, truth, spacing, SURFACE_TOLERANCE)
    if len(prediction) and len(truth):
        return _Standard(*scores)
    if not len(prediction) and not len(truth):
        return _Standard()
    far = _failed(failed_distance, shape, spacing)
    return _Standard(far, far, far, far, scores.surface_dice)


def _failed(way: FailedDistance, shape: Sequence[int], spacing: Sequence[float]) -> float | None:
    if way == "nan":
        return None
    return math.inf if way == "inf" else diagonal(shape, spacing)
