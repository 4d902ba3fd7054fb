"""What tables call a figure, how they write it, and which figures are worth a column."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from msa2net.evaluation.schema import Summary
from msa2net.metrics.bootstrap import FEW
from msa2net.metrics.protocol import PUBLISHED, SURFACE_TOLERANCE
from msa2net.metrics.schema import ProtocolScores
from msa2net.text import count_noun, joined, listed

# Metric → heading; a metric without one value in a shown protocol gets no column.
HEADINGS = {
    "dice": "DSC",
    "iou": "IoU",
    "sensitivity": "SE",
    "specificity": "SP",
    "accuracy": "ACC",
    "hd95_mm": "HD95 mm",
    "hd95_voxels": "HD95 vox",
}
MEANINGS = HEADINGS | {
    "dice": "DSC (Dice)",
    "iou": "IoU (intersection over union)",
    "sensitivity": "SE (sensitivity)",
    "specificity": "SP (specificity)",
    "accuracy": "ACC (accuracy)",
    "hd95_mm": "millimetres (mm)",
    "hd95_voxels": "voxels (vox)",
}
DISTANCES = ("hd95_mm", "hd95_voxels")
# Of a volume nearly everything is background: these two are near 1 for any organ, found or not.
NOT_OF_VOLUMES = ("specificity", "accuracy")

# The same for the table of further figures. Distances in voxels are for want of millimetres.
FURTHER_MM = {
    "hd_mm": "HD mm",
    "hd95_directed_max_mm": "HD95 directed max mm",
    "assd_mm": "ASSD mm",
    "surface_dice_2mm": f"surface DSC {SURFACE_TOLERANCE:g} mm",
}
FURTHER_VOXELS = {
    "hd_voxels": "HD vox",
    "hd95_directed_max_voxels": "HD95 directed max vox",
    "assd_voxels": "ASSD vox",
    "surface_dice_2voxels": f"surface DSC {SURFACE_TOLERANCE:g} vox",
}
_FURTHER = {"precision": "precision", "volume_difference_percent": "volume diff. %"}

COUNT_HEADINGS = ("n", "missed", "false pos.")
ALL_COUNT_HEADINGS = (*COUNT_HEADINGS, "not appl.")
SHORT_COUNT_HEADINGS = ("n", "miss", "FP")  # for terminals
NOT_APPLICABLE = "–"
FEW_CASES = f"Intervals over fewer than {FEW} cases are too narrow"
DISCLAIMER = "Research use only; not a medical device."


def shown_protocols(image_kind: str, present: Collection[str]) -> list[str]:
    """Name standard and the published one for this kind of image, as far as they are present.

    If neither is, because another was asked for, all that are present.
    """
    both = ("standard", PUBLISHED.get(image_kind, ""))
    return [name for name in both if name in present] or list(present)


def shown_metrics(
    image_kind: str, protocols: Iterable[ProtocolScores], metrics: Iterable[str]
) -> list[str]:
    """Keep the metrics worth a column for this kind of image: those with a value somewhere.

    Args:
        image_kind: photograph or volume.
        protocols: the scores under each protocol.
        metrics: in the order of the columns; `dice` always stays.
    """
    valued = {metric for scores in protocols for metric in valued_metrics(scores)}
    dropped = NOT_OF_VOLUMES if image_kind == "volume" else ()
    return [
        metric
        for metric in metrics
        if metric == "dice" or (metric in valued and metric not in dropped)
    ]


def valued_metrics(scores: ProtocolScores) -> set[str]:
    """Return the metrics that have a value in any class."""
    return {
        metric
        for values in scores.classes.values()
        for metric, value in values.items()
        if value.mean is not None
    }


def further_headings(scores: ProtocolScores) -> dict[str, str]:
    """Return metric → heading of the table of further metrics: those with a value in any class."""
    valued = valued_metrics(scores)
    in_mm = not valued.isdisjoint(FURTHER_MM)
    every = (FURTHER_MM if in_mm else FURTHER_VOXELS) | _FURTHER
    return {metric: heading for metric, heading in every.items() if metric in valued}


def legend(metrics: Sequence[str]) -> str:
    """Explain the abbreviations of columns, with their units and which end is best."""
    fractions = [MEANINGS[metric] for metric in metrics if metric not in DISTANCES]
    units = [MEANINGS[metric] for metric in metrics if metric in DISTANCES]
    are = "are fractions" if len(fractions) > 1 else "is a fraction"
    parts = [f"{joined(fractions)} {are} from 0 to 1, and 1 is best"]
    if units:
        parts.append(
            "HD95 is the 95th percentile of the distances between the two surfaces, in "
            f"{joined(units)}, and 0 is best"
        )
    return "; ".join([*parts, f"{NOT_APPLICABLE} is not applicable."])


def partial_means(
    mean_over: Mapping[str, int], classes: int, headings: Mapping[str, str]
) -> list[str]:
    """Say which means over classes do not cover every class, for example `SE over 7 of 8`.

    Args:
        mean_over: metric → number of classes in its mean.
        classes: how many there are.
        headings: metric → what to call it; others are left out.
    """
    return [
        f"{heading} over {mean_over[metric]} of {classes}"
        for metric, heading in headings.items()
        if mean_over.get(metric, classes) < classes
    ]


def format_metric(metric: str, value: float | None) -> str:
    """Write a value: a distance with two decimals, a percentage with one, a share with four.

    Args:
        metric: whose value it is.
        value: None is not applicable.
    """
    if value is None:
        return NOT_APPLICABLE
    if metric.endswith("_percent"):
        return f"{value:+.1f}"
    return _number(value, 2 if _is_distance(metric) else 4)


def format_interval(metric: str, ends: Sequence[float | None] | None) -> str:
    """Write an interval, or a pair of quartiles, as `0.812–0.903`; a dash if there is none.

    Shares have three decimals and distances one or two: an interval is never surer than that.
    """
    if ends is None or None in ends:
        return NOT_APPLICABLE
    low, high = (float(end) for end in ends if end is not None)
    if metric.endswith("_percent"):
        return f"{low:+.1f} to {high:+.1f}"
    digits = (2 if high < 10 else 1) if _is_distance(metric) else 3
    return f"{_number(low, digits)}–{_number(high, digits)}"


def _number(value: float, digits: int) -> str:
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"


def _is_distance(metric: str) -> bool:
    return metric.endswith(("_mm", "_voxels"))  # surface Dice's tolerance stands without the _


def interval_notes(scores: ProtocolScores, metric: str) -> list[str]:
    """Say which intervals of a protocol's entry rest on few cases, and which are missing and why.

    Args:
        scores: under one protocol; without intervals there is nothing to say.
        metric: whose intervals are shown.
    """
    few: dict[str, list[str]] = {}
    none: dict[str, list[str]] = {}
    for label, values in scores.classes.items():
        value = values.get(metric)
        if value and value.interval:
            if value.n < FEW:
                few.setdefault(f"n = {value.n}", []).append(label)
        elif value and value.warning:
            none.setdefault(value.warning.removeprefix("no interval: "), []).append(label)
    classes = len(scores.classes)
    notes = [f"{FEW_CASES}, and even with {FEW}, 7 to 12 in 100 miss the true mean"] if few else []
    notes = [f"{note}: {_by_reason(few, classes)}." for note in notes]
    if none:
        notes.append(f"No interval of the {HEADINGS[metric]}: {_by_reason(none, classes)}.")
    return notes


def _by_reason(classes_of: Mapping[str, Sequence[str]], total: int) -> str:
    return "; ".join(
        reason
        if len(labels) == total == 1
        else f"{'every class' if len(labels) == total else ', '.join(labels)} ({reason})"
        for reason, labels in classes_of.items()
    )


def selection_note(summary: Summary) -> tuple[bool, str]:
    """Say how the weights were chosen, as far as a summary tells.

    Returns:
        Whether that needs a warning (they were chosen by the very cases that are scored), and the
        sentence; "" where nothing is known.
    """
    warning = summary.flattering
    sentence = " ".join((summary.selection or "").split())
    if warning and not sentence:
        sentence = "The weights saw or were chosen by these very cases."
    return warning, sentence


def subset_note(summary: Summary) -> str:
    """Say which cases of two folders were left out of an evaluation, or ""."""
    parts = [
        f"{own.cases} of {own.of} {side} ({listed(own.first, total=own.cases)})"
        for side, own in (summary.data.left_out or {}).items()
        if own.cases
    ]
    if not parts:
        return ""
    scored = summary.cases
    cases = f"the {scored} cases" if scored > 1 else "the one case"
    return (
        f"Only {cases} that both folders have {'were' if scored > 1 else 'was'} scored; left out: "
        f"{' and '.join(parts)}."
    )


def heading(summary: Summary) -> str:
    """Name what was scored: a network on data, or one folder against another, and the cases."""
    model, data, cases = summary.model, summary.data, summary.cases
    if data.predictions and data.labels:
        scored = f"{data.predictions} against {data.labels}"
    else:
        scored = " on ".join(filter(None, (model.name if model else "", data.format)))
    split = f"{summary.split} split" if summary.split else ""
    counted = count_noun(cases, "case") + " in common" * bool(subset_note(summary))
    return ", ".join(filter(None, [scored or "Evaluation", split, counted]))


def reference_rows(rows: Sequence[Sequence[str | float]]) -> list[list[str]]:
    """Write the rows of a summary's `reference` as the paper prints them."""
    return [[_printed(value) for value in row] for row in rows]


def _printed(value: str | float) -> str:
    """Fractions with four digits, others with two, or more where the paper has more."""
    if isinstance(value, str):
        return value
    digits = 4 if abs(value) <= 1 else 2
    return f"{value:.{digits}f}" if round(value, digits) == value else str(value)
