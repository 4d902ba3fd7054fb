"""Who counts what: the scoring protocols, as written tables, and one case's row under them.

Sources: `transunet` is the per-volume function of the TransUNet code base, which MSA²Net and most
Synapse papers use; `isic` is how the ISIC 2018 table of the MSA²Net paper was counted (its four
figures agree only when pixels are pooled, see evaluation/reference.py); `standard` is ours, the
one to trust: a failure counts 0 and what cannot be scored is counted, not averaged away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict

import numpy as np

from msa2net.errors import ConfigError, DataError
from msa2net.metrics.overlap import LabelArray, Ratio, confusion_counts, dice, overlap_metrics

Outcome: TypeAlias = Literal["scored", "missed", "false_positive", "absent"]
Aggregation: TypeAlias = Literal["per_case", "pooled"]

# One row per case and class; the keys are the columns of cases.csv, in order. Metric columns come
# last, None where not applicable; a metric joins by a key here and a value in `_class_row`.
CaseRow = TypedDict(
    "CaseRow",
    {
        "case": str,
        "class": str,
        "outcome": Outcome,
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
        "dice_transunet": float | None,
    },
)


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
        suffix: a metric's column in the rows is its name plus this (`per_case` only).
    """

    name: str
    title: str
    aggregation: Aggregation
    metrics: tuple[str, ...]
    rules: tuple[tuple[str, str], ...]
    suffix: str = ""


UNITS: dict[Aggregation, str] = {
    "per_case": "one score a case; their mean over cases, then over classes",
    "pooled": "one score a class from the pixels of all cases together; their mean over classes",
}

_BOTH_EMPTY = "both empty"
_MISSED = "missed: in the truth, not predicted"
_FALSE_POSITIVE = "false positive: predicted, not in the truth"
_SCORED = "both non-empty"
_AVERAGED = "averaged over"
_IGNORED = ("ignored pixels (truth 255)", "left out")

PROTOCOLS: dict[str, Protocol] = {
    "standard": Protocol(
        name="standard",
        title="Standard: every case weighs the same, a failure counts 0",
        aggregation="per_case",
        metrics=("dice", "iou", "sensitivity", "specificity", "precision", "accuracy"),
        rules=(
            (_BOTH_EMPTY, "not applicable"),
            (_MISSED, "0"),
            (_FALSE_POSITIVE, "0"),
            (_SCORED, "by definition"),
            ("precision of a missed class", "not applicable: nothing was predicted"),
            ("sensitivity of a false positive", "not applicable: there was nothing to find"),
            ("specificity and accuracy", "by definition in every case, empty masks included"),
            (_AVERAGED, "applicable cases, then classes"),
            _IGNORED,
        ),
    ),
    "transunet": Protocol(
        name="transunet",
        title="TransUNet: the rules behind published Synapse results",
        aggregation="per_case",
        metrics=("dice",),
        suffix="_transunet",
        rules=(
            (_BOTH_EMPTY, "0"),
            (_MISSED, "0"),
            (_FALSE_POSITIVE, "1"),
            (_SCORED, "by definition"),
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


def differing_rules(protocols: Sequence[Sequence[tuple[str, str]]]) -> list[list[str]]:
    """Lay out where protocols disagree, for a table of rules.

    Args:
        protocols: the rules of each, as `Protocol.rules` or the `rules` of summary.json.

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
    return [row for row in rows if len(set(row[1:])) > 1]


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


def case_rows(
    case_id: str, prediction: LabelArray, truth: LabelArray, label_names: Sequence[str]
) -> list[CaseRow]:
    """Score one case: one row per class, background left out.

    Args:
        case_id: goes into the rows and error messages.
        prediction: class indices, integers, any shape.
        truth: the same shape; pixels of 255 are ignored.
        label_names: one name per class, background first.

    Raises:
        ConfigError: the names are fewer than two, or one comes twice.
        DataError: the arrays do not fit each other or the names (see `confusion_counts`).
    """
    if len(label_names) < 2 or len(set(label_names)) < len(label_names):
        raise ConfigError(
            f"label names are {list(label_names)}; give the background and at least one class, "
            "each name once"
        )
    try:
        counts = confusion_counts(prediction, truth, len(label_names))
    except DataError as error:
        raise DataError(f"case {case_id}: {error}") from error
    return [
        _class_row(case_id, name, *(int(count) for count in row))
        for name, row in zip(label_names[1:], counts[1:], strict=True)
    ]


def _class_row(case_id: str, class_name: str, tp: int, fp: int, fn: int, tn: int) -> CaseRow:
    # The standard protocol needs no special cases: its rules are the definitions, and 0/0 is
    # what "not applicable" means.
    standard = {name: applicable(v) for name, v in overlap_metrics(tp, fp, fn, tn).items()}
    return {
        "case": case_id,
        "class": class_name,
        "outcome": outcome(tp, fp, fn),
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
        "dice_transunet": transunet_dice(tp, fp, fn),
    }


def applicable(value: Ratio) -> float | None:
    """Turn one ratio into a plain float, or None where it is nan: not applicable."""
    return None if np.isnan(value) else float(value)
