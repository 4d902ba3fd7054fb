"""Who counts what: the scoring protocols, as written tables, and the row that a case leaves.

Sources: `transunet` is the per-volume function of the TransUNet code base, which MSA²Net and most
Synapse papers use; `isic` is how the ISIC 2018 table of the MSA²Net paper was counted (its four
figures agree only when pixels are pooled, see evaluation/published_results.py); `standard` is
ours, the one to trust: a failure counts 0 and what cannot be scored is counted, not averaged away.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, TypedDict, cast

import numpy as np

from msa2net.errors import ConfigError
from msa2net.metrics.overlap import Ratio, dice

Outcome: TypeAlias = Literal["scored", "missed", "false_positive", "absent"]
Aggregation: TypeAlias = Literal["per_case", "pooled"]
FailedDistance: TypeAlias = Literal["diagonal", "inf", "nan"]

# Tolerance of the surface Dice in the rows, in millimetres and in voxels. One number, not a
# setting: its columns carry it in their names, and only equal tolerances can be compared or
# paired. Any other is `msa2net.metrics.surface.surface_dice` away.
SURFACE_TOLERANCE = 2.0

# One row per case and class; the keys are the columns of cases.csv, in order. Metric columns come
# last, None where not applicable or not computed; a metric joins by a key here and a value in
# scoring.py. What ends in a protocol's suffix is of the masks that this protocol scores. `group`
# is "" for a case without one. `flags` says of the case in words why to look at it first, "" if
# nothing speaks for it, and `anomaly_score` sorts cases by it, see quality/flags.py.
# What is in millimetres is None where the spacing is not known; what is in voxels is measured as if
# every voxel were a cube with sides of 1.
CaseRow = TypedDict(
    "CaseRow",
    {
        "case": str,
        "class": str,
        "group": str,
        "outcome": Outcome,
        "outcome_transunet": Outcome,
        "flags": str,
        "anomaly_score": float | None,
        "tp": int,
        "fp": int,
        "fn": int,
        "tn": int,
        "dice": float | None,
        "iou": float | None,
        "sensitivity": float | None,
        "specificity": float | None,
        "precision": float | None,
        "accuracy": float | None,
        "volume_difference_percent": float | None,
        "dice_transunet": float | None,
        "hd_mm": float | None,
        "hd95_mm": float | None,
        "hd95_directed_max_mm": float | None,
        "assd_mm": float | None,
        "surface_dice_2mm": float | None,
        "hd_voxels": float | None,
        "hd95_voxels": float | None,
        "hd95_directed_max_voxels": float | None,
        "assd_voxels": float | None,
        "surface_dice_2voxels": float | None,
        "hd95_voxels_transunet": float | None,
    },
)


# Those that have no value by definition where a class was missed or is a false positive.
DISTANCES_MM = ("hd_mm", "hd95_mm", "hd95_directed_max_mm", "assd_mm")
DISTANCES_VOXELS = ("hd_voxels", "hd95_voxels", "hd95_directed_max_voxels", "assd_voxels")


# Columns, metrics and situations of rules by the names that they had in older evaluations.
RENAMED = {
    "hd95_directed_mm": "hd95_directed_max_mm",
    "hd95_directed_voxels": "hd95_directed_max_voxels",
    "distance: hd95_directed": "distance: hd95_directed_max",
}


@dataclass(frozen=True)
class Protocol:
    """One way to turn cases into a figure.

    Attributes:
        name: key in `PROTOCOLS` and in summary.json.
        title: one line for people.
        aggregation: `per_case`: the mean over cases of a column of the rows; `pooled`: pixel
            counts are summed over the cases first, then the metric is taken once.
        metrics: names of the figures given.
        rules: (situation, what is counted) in plain English. A situation is worded alike in every
            protocol that has it, so that two protocols can be compared line by line.
        suffix: a metric's column in the rows is its name plus this (`per_case` only), and so is
            that of the outcome, by which missed classes and false positives are counted.
        failed_distance: what its rules say that a distance counts where a class was missed or is a
            false positive; None where its columns know only one way.
    """

    name: str
    title: str
    aggregation: Aggregation
    metrics: tuple[str, ...]
    rules: tuple[tuple[str, str], ...]
    suffix: str = ""
    failed_distance: FailedDistance | None = None

    def outcome(self, row: CaseRow) -> Outcome:
        """Return what became of a class in a case, in the masks that this protocol scores."""
        return cast("Outcome", row.get(f"outcome{self.suffix}"))


# How `standard` may count the distance of a failure, in words; see `standard_protocol`.
FAILED_DISTANCES: dict[FailedDistance, str] = {
    "diagonal": "the image's diagonal, between corner voxels",
    "inf": "infinity, and so is every mean with one such case in it",
    "nan": "no number: left out of the mean, whose n is smaller by these cases",
}

UNITS: dict[Aggregation, str] = {
    "per_case": "one score a case; their mean over cases, then over classes",
    "pooled": "one score a class from the pixels of all cases together; their mean over classes",
}

# Situations of the rules that others look up or correct.
DISTANCE = "distance: "  # how those begin that are about distances only
DISTANCE_FAILED = f"{DISTANCE}missed or false positive"
BACK = "back to the case's own grid"

_BOTH_EMPTY = "both empty"
_MISSED = "missed: in the truth, not predicted"
_FALSE_POSITIVE = "false positive: predicted, not in the truth"
_SCORED = "both non-empty"
_AVERAGED = "averaged over"
_IGNORED = ("ignored pixels (truth 255)", "left out")
_DISTANCE_EMPTY = f"{DISTANCE}both empty"
_DISTANCES = (
    (
        f"{DISTANCE}both non-empty",
        "HD95: 95th percentile of the surface distances of both directions together, whole volume",
    ),
    (
        f"{DISTANCE}surface",
        "voxels with a face neighbour outside the mask; beyond the image is outside",
    ),
    (f"{DISTANCE}ignored pixels (truth 255)", "outside both masks"),
)
_ONE_SLICE = f"{DISTANCE}a volume of one slice"
_FURTHER_DISTANCES = (
    (f"{DISTANCE}hd", "the largest surface distance of both directions"),
    (f"{DISTANCE}hd95_directed_max", "95th percentile of each direction alone, then the larger"),
    (f"{DISTANCE}assd", "mean of the surface distances of both directions together"),
    (
        f"{DISTANCE}surface_dice",
        f"share of both surfaces' voxels no further than {SURFACE_TOLERANCE:g} mm (or voxels) from "
        "the other surface; missed or false positive: 0; both empty: not applicable",
    ),
)

PROTOCOLS: dict[str, Protocol] = {
    "standard": Protocol(
        name="standard",
        title="Standard: every case weighs the same, a failure counts 0",
        aggregation="per_case",
        metrics=(
            *("dice", "iou", "sensitivity", "specificity", "precision", "accuracy"),
            *("volume_difference_percent", *DISTANCES_MM, "surface_dice_2mm"),
            *(*DISTANCES_VOXELS, "surface_dice_2voxels"),
        ),
        failed_distance="diagonal",
        rules=(
            (_BOTH_EMPTY, "not applicable"),
            (_MISSED, "0"),
            (_FALSE_POSITIVE, "0"),
            (_SCORED, "by definition"),
            ("precision of a missed class", "not applicable: nothing was predicted"),
            ("sensitivity of a false positive", "not applicable: there was nothing to find"),
            ("specificity and accuracy", "by definition in every case, empty masks included"),
            (
                "volume difference",
                "signed, in % of the truth's volume; missed: -100; the truth is empty: not "
                "applicable",
            ),
            (_DISTANCE_EMPTY, "not applicable"),
            (DISTANCE_FAILED, FAILED_DISTANCES["diagonal"]),
            *_DISTANCES,
            (_ONE_SLICE, "measured as a picture, in two dimensions"),
            *_FURTHER_DISTANCES,
            (BACK, "probabilities resampled linearly, then the most probable class"),
            (_AVERAGED, "applicable cases, then classes"),
            _IGNORED,
        ),
    ),
    "transunet": Protocol(
        name="transunet",
        title="TransUNet: the rules behind published Synapse results",
        aggregation="per_case",
        metrics=("dice", "hd95_voxels"),
        suffix="_transunet",
        rules=(
            (_BOTH_EMPTY, "0"),
            (_MISSED, "0"),
            (_FALSE_POSITIVE, "1"),
            (_SCORED, "by definition"),
            (_DISTANCE_EMPTY, "0, as if perfect"),
            (DISTANCE_FAILED, "0, as if perfect"),
            *_DISTANCES,
            (_ONE_SLICE, "measured in three dimensions: all of a mask is surface"),
            (BACK, "the most probable class at the network's size, then nearest neighbour"),
            (_AVERAGED, "all cases, then classes"),
            _IGNORED,
        ),
    ),
    "isic": Protocol(
        name="isic",
        title="ISIC 2018 as published: pooled over all pixels of all cases",
        aggregation="pooled",
        metrics=("dice", "iou", "sensitivity", "specificity", "accuracy"),
        rules=(
            (_BOTH_EMPTY, "its pixels add to the true negatives"),
            (_MISSED, "its pixels add to the false negatives"),
            (_FALSE_POSITIVE, "its pixels add to the false positives"),
            (_SCORED, "its pixels add to all four counts"),
            (_AVERAGED, "classes only: a large object weighs more than a small one"),
            _IGNORED,
        ),
    ),
}

# Which published protocol stands beside `standard`, by the kind of image.
PUBLISHED: dict[str, str] = {"photograph": "isic", "volume": "transunet"}


def get_protocol(name: str) -> Protocol:
    """Look a protocol up by its name.

    Raises:
        ConfigError: no protocol has this name; the message lists those there are.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"there is no protocol {name!r}; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def standard_protocol(failed_distance: FailedDistance = "diagonal") -> Protocol:
    """Return the standard protocol whose rules say what rows with this `failed_distance` count.

    Args:
        failed_distance: what HD, HD95 and ASSD count where a class was missed or is a false
            positive. `diagonal`: the longest distance that the image allows, so that a failure
            costs and the mean stays a number; `inf`; or `nan`, which flatters: failures then show
            in n, missed and false positives, not in the mean.

    Raises:
        ConfigError: there is no such way; the message lists those there are.
    """
    if failed_distance not in FAILED_DISTANCES:
        raise ConfigError(
            f"failed_distance is {failed_distance!r}; choose from {', '.join(FAILED_DISTANCES)}"
        )
    standard = PROTOCOLS["standard"]
    rules = dict(standard.rules) | {DISTANCE_FAILED: FAILED_DISTANCES[failed_distance]}
    return replace(standard, rules=tuple(rules.items()), failed_distance=failed_distance)


def differing_rules(
    protocols: Sequence[Sequence[tuple[str, str]]], *, distances: bool = True
) -> list[list[str]]:
    """Lay out where protocols disagree, for a table of rules.

    Args:
        protocols: the rules of each, as `Protocol.rules` or the `rules` of summary.json.
        distances: with the situations that are about distances only.

    Returns:
        A row per situation that all of them have a rule for, and not the same one: the situation,
        then what each counts. In the order of the first; none for fewer than two protocols.
    """
    tables = [dict(rules) for rules in protocols]
    situations = list(tables[0]) if tables else []
    rows = [
        [situation, *(table[situation] for table in tables)]
        for situation in situations
        if all(situation in table for table in tables)
    ]
    return [
        row
        for row in rows
        if len(set(row[1:])) > 1 and (distances or not row[0].startswith(DISTANCE))
    ]


def all_rules(
    protocols: Sequence[Sequence[tuple[str, str]]], *, distances: bool = True
) -> list[list[str]]:
    """Lay every rule of every protocol out; see `differing_rules` for arguments and columns.

    Returns:
        A row per situation that any of them has a rule for; "" where one has none.
    """
    tables = [dict(rules) for rules in protocols]
    situations = dict.fromkeys(situation for table in tables for situation in table)
    return [
        [situation, *(table.get(situation, "") for table in tables)]
        for situation in situations
        if distances or not situation.startswith(DISTANCE)
    ]


def outcome(tp: int, fp: int, fn: int) -> Outcome:
    """Say what became of one class in one case, from its pixel counts.

    `scored`: truth and prediction hold the class (even if nowhere in the same place); `missed`:
    only the truth; `false_positive`: only the prediction; `absent`: neither.
    """
    if tp + fn:
        return "scored" if tp + fp else "missed"
    return "false_positive" if fp else "absent"


def transunet_dice(tp: int, fp: int, fn: int) -> float:
    """Dice of one class in one case by the published per-volume rule; never not applicable.

    Missed: 0. False positive: 1, so an organ drawn where there is none scores full marks.
    Both empty: 0. Otherwise 2·tp / (2·tp + fp + fn).
    """
    became = outcome(tp, fp, fn)
    if became == "scored":
        return float(dice(tp, fp, fn))
    return 1.0 if became == "false_positive" else 0.0


def applicable(value: Ratio) -> float | None:
    """Turn one ratio into a plain float, or None where it is nan: not applicable."""
    return None if np.isnan(value) else float(value)
