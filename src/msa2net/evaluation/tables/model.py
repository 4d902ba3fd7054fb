"""What tables call a figure, how they write it, and which figures are worth a column."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from msa2net.metrics.bootstrap import FEW
from msa2net.metrics.protocol import PUBLISHED, SURFACE_TOLERANCE
from msa2net.text import listed

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
_FURTHER_MM = {
    "hd_mm": "HD mm",
    "hd95_directed_max_mm": "HD95 directed max mm",
    "assd_mm": "ASSD mm",
    "surface_dice_2mm": f"surface DSC {SURFACE_TOLERANCE:g} mm",
}
_FURTHER_VOXELS = {
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
    image_kind: str, protocols: Iterable[Mapping[str, Any]], metrics: Iterable[str]
) -> list[str]:
    """Keep the metrics worth a column for this kind of image: those with a value somewhere.

    Args:
        image_kind: photograph or volume.
        protocols: the `classes` of each protocol: class → metric → figure with a `mean`.
        metrics: in the order of the columns; `dice` always stays.
    """
    valued = {
        metric
        for classes in protocols
        for figures in classes.values()
        for metric, figure in figures.items()
        if figure["mean"] is not None
    }
    dropped = NOT_OF_VOLUMES if image_kind == "volume" else ()
    return [
        metric
        for metric in metrics
        if metric == "dice" or (metric in valued and metric not in dropped)
    ]


def further_headings(classes: Mapping[str, Any]) -> dict[str, str]:
    """Metric → heading of the table of further figures: those with a value in any class.

    Args:
        classes: of one protocol: class → metric → figure with a `mean`.
    """
    valued = {
        metric
        for figures in classes.values()
        for metric, figure in figures.items()
        if figure["mean"] is not None
    }
    in_mm = not valued.isdisjoint(_FURTHER_MM)
    every = (_FURTHER_MM if in_mm else _FURTHER_VOXELS) | _FURTHER
    return {metric: heading for metric, heading in every.items() if metric in valued}


def legend(metrics: Sequence[str]) -> str:
    """Explain the abbreviations of columns, with their units and which end is best."""
    fractions = [MEANINGS[metric] for metric in metrics if metric not in DISTANCES]
    units = [MEANINGS[metric] for metric in metrics if metric in DISTANCES]
    are = "are fractions" if len(fractions) > 1 else "is a fraction"
    parts = [f"{_enumerated(fractions)} {are} from 0 to 1, and 1 is best"]
    if units:
        parts.append(
            "HD95 is the 95th percentile of the distances between the two surfaces, in "
            f"{_enumerated(units)}, and 0 is best"
        )
    return "; ".join([*parts, f"{NOT_APPLICABLE} is not applicable."])


def _enumerated(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


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


def format_metric(metric: str, value: float | str | None) -> str:
    """Write a figure: a distance with two decimals, a percentage with one, a share with four.

    Args:
        metric: whose figure it is.
        value: None is not applicable; summary.json has an infinite one as the text `Infinity`.
    """
    if value is None:
        return NOT_APPLICABLE
    number = float(value)
    if math.isinf(number):
        return "∞"
    return f"{number:+.1f}" if metric.endswith("_percent") else f"{number:.{_digits(metric)}f}"


def format_interval(metric: str, ends: Sequence[float] | None) -> str:
    """Write an interval as `0.8123–0.9034`; a dash if there is none."""
    if ends is None:
        return NOT_APPLICABLE
    return NOT_APPLICABLE.join(format_metric(metric, end) for end in ends)


def interval_notes(entry: Mapping[str, Any], metric: str) -> list[str]:
    """Say which intervals of a protocol's entry rest on few cases, and which are missing and why.

    Args:
        entry: of summary.json; without intervals there is nothing to say.
        metric: whose intervals are shown.
    """
    few: dict[str, list[str]] = {}
    none: dict[str, list[str]] = {}
    for label, figures in entry["classes"].items():
        figure = figures.get(metric, {})
        if figure.get("interval"):
            if figure["n"] < FEW:
                few.setdefault(f"n = {figure['n']}", []).append(label)
        elif figure.get("warning"):
            none.setdefault(figure["warning"].removeprefix("no interval: "), []).append(label)
    classes = len(entry["classes"])
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


def selection_note(summary: Mapping[str, Any]) -> tuple[bool, str]:
    """Say how the weights were chosen, as far as a summary tells.

    Returns:
        Whether that needs a warning (they were chosen by the very cases that are scored), and the
        sentence; "" where nothing is known.
    """
    warning = bool(summary.get("flattering"))
    sentence = " ".join((summary.get("selection") or "").split())
    if warning and not sentence:
        sentence = "The weights saw or were chosen by these very cases."
    return warning, sentence


def subset_note(summary: Mapping[str, Any]) -> str:
    """Say which cases of two folders were left out of an evaluation, or ""."""
    left_out = (summary.get("data") or {}).get("left_out") or {}
    parts = [
        f"{own['cases']} of {own['of']} {side} ({listed(own['first'], total=own['cases'])})"
        for side, own in left_out.items()
        if own["cases"]
    ]
    if not parts:
        return ""
    scored = summary["cases"]
    cases = f"the {scored} cases" if scored > 1 else "the one case"
    return (
        f"Only {cases} that both folders have {'were' if scored > 1 else 'was'} scored; left out: "
        f"{' and '.join(parts)}."
    )


def heading(summary: Mapping[str, Any]) -> str:
    """Name what was scored: a network on data, or one folder against another, and the cases."""
    model, data = summary.get("model") or {}, summary.get("data") or {}
    if data.get("predictions") and data.get("labels"):
        scored = f"{data['predictions']} against {data['labels']}"
    else:
        names = (model.get("name"), data.get("format"))
        scored = " on ".join(name for name in names if name) or "Evaluation"
    cases = summary["cases"]
    split = summary.get("split")
    counted = f"{cases} case{'' if cases == 1 else 's'}{' in common' * bool(subset_note(summary))}"
    return ", ".join(filter(None, [scored, f"{split} split" if split else "", counted]))


def reference_rows(rows: Sequence[Sequence[str | float]]) -> list[list[str]]:
    """Write the rows of a summary's `reference` as the paper prints them."""
    return [[_printed(value) for value in row] for row in rows]


def _printed(value: str | float) -> str:
    """Fractions with four digits, others with two, or more where the paper has more."""
    if isinstance(value, str):
        return value
    digits = 4 if abs(value) <= 1 else 2
    return f"{value:.{digits}f}" if round(value, digits) == value else str(value)


def _digits(metric: str) -> int:
    return 2 if metric.endswith(("_mm", "_voxels")) else 4  # a tolerance stands without the _
