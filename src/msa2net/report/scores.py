"""The tables of scores, as cells for the page: a figure and the small print under it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from msa2net.evaluation.schema import Summary
from msa2net.evaluation.tables.model import (
    DISTANCES,
    format_metric,
    partial_means,
    shown_metrics,
    shown_protocols,
)
from msa2net.metrics.protocol import (
    DISTANCE_FAILED,
    SURFACE_TOLERANCE,
    Outcome,
    all_rules,
    differing_rules,
)
from msa2net.metrics.scores import MetricValue, ProtocolScores

METRICS = {
    "dice": "Dice",
    "iou": "IoU",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "accuracy": "Accuracy",
    "volume_difference_percent": "Volume diff. %",
    "hd95_mm": "HD95 mm",
    "hd95_voxels": "HD95 vox",
}
_IN_MAIN_TABLE = ("dice", *DISTANCES)
# Folded away: (heading, column in millimetres, the same in voxels).
FURTHER_DISTANCES = (
    ("HD", "hd_mm", "hd_voxels"),
    ("HD95 directed max", "hd95_directed_max_mm", "hd95_directed_max_voxels"),
    ("ASSD", "assd_mm", "assd_voxels"),
    (f"Surface Dice {SURFACE_TOLERANCE:g}", "surface_dice_2mm", "surface_dice_2voxels"),
)
_UNITS = (("In millimetres", 1), ("In voxels", 2))

OUTCOMES: dict[Outcome, str] = {
    "scored": "scored",
    "missed": "missed",
    "false_positive": "false positive",
    "absent": "absent",
}

_MEAN = "the mean over classes"
_NONE = "no interval"  # how the warning of a figure without one begins

Cell: TypeAlias = tuple[str, str]
"""What a cell shows, and what stands small under it."""


def number(value: float, digits: int) -> str:
    """Write a figure that may be infinite."""
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"


def format_interval(metric: str, ends: Sequence[float | None] | None) -> str:
    """Write an interval, or a pair of quartiles; "" where there is none."""
    if ends is None:
        return ""
    low, high = ends
    if low is None or high is None:
        return ""
    if metric.endswith("_percent"):
        return f"{low:+.1f} to {high:+.1f}"
    digits = 3 if not _is_distance(metric) else 2 if high < 10 else 1
    return f"{number(low, digits)}–{number(high, digits)}"


def distance_of_failure(rules: Iterable[tuple[str, str]]) -> str:
    """Say in the words of a protocol's rules what the distance of a failure counts, or ""."""
    return dict(rules).get(DISTANCE_FAILED, "")


def score_tables(summary: Summary) -> dict[str, Any] | None:
    """Lay out the standard and the published protocol, or others that were chosen, side by side.

    Returns:
        What the page's section on scores shows, None for a summary without any protocol:
        `protocols`, `groups`, `further` and `folded` are tables with `title`, `headings`, `rows`
        (class → cells) and `mean` (cells).
    """
    names = shown_protocols(summary.image_kind, summary.protocols)
    shown = [summary.protocols[name] for name in names]
    if not shown:
        return None
    metrics = shown_metrics(summary.image_kind, shown, METRICS)
    distances = any(metric in DISTANCES for metric in metrics)
    standard = summary.protocols.get("standard")
    protocols = [_main_table(scores, metrics, median=True) for scores in shown]
    return {
        "protocols": protocols,
        "warnings": _merged_warnings(protocols),
        "groups": _group_tables(summary, names, metrics),
        "distances": distances,
        "failed_distance": distance_of_failure(standard.rules) if standard and distances else "",
        "intervals": _interval_note(summary),
        "all_rules": all_rules([scores.rules for scores in shown], distances=distances),
        "rules": differing_rules([scores.rules for scores in shown], distances=distances),
        "further": [view for scores in shown if (view := _further_table(scores, metrics))],
        "folded": _folded_tables(standard) if standard else [],
        "folded_of": standard.title if standard else "",
    }


def worst_tables(summary: Summary | None) -> list[dict[str, Any]]:
    """Per class its worst cases, as (case, Dice, outcome, whether it failed)."""
    worst = summary.worst if summary else {}
    return [
        {
            "name": label,
            "rows": [
                (
                    entry.case,
                    f"{entry.dice:.4f}",
                    OUTCOMES[entry.outcome],
                    entry.outcome != "scored",
                )
                for entry in entries
            ],
        }
        for label, entries in worst.items()
        if entries
    ]


def _is_distance(metric: str) -> bool:
    return metric.startswith(("hd", "assd"))


def _interval_note(summary: Summary) -> str:
    made = summary.intervals
    if made is None:
        return ""
    return (
        f"Small under a mean stands its {made.level:.0%} interval ({made.method}, "
        f"{made.resamples:,} resamples): how the mean would vary over other cases from the same "
        "source, not over other trainings. Small under a median stand the quartiles."
    ).replace("%", " %")


def _main_table(scores: ProtocolScores, metrics: list[str], *, median: bool) -> dict[str, Any]:
    """Columns: Dice and its median, distances, and the counts."""
    # Pooled figures have no median.
    median = median and any(own["dice"].median is not None for own in scores.classes.values())
    distances = [name for name in metrics if name in DISTANCES and name in scores.mean]
    headings = ["Dice", *(["Median"] if median else []), *(METRICS[name] for name in distances)]
    headings += ["n", "N/A", "Missed", "False pos."]

    def cells(figures: dict[str, MetricValue]) -> list[Cell]:
        dice = figures["dice"]
        quartiles = (dice.lower_quartile, dice.upper_quartile)
        middle = (format_metric("dice", dice.median), format_interval("dice", quartiles))
        return [
            _mean_cell("dice", dice, dice.n),
            *([middle] if median else []),
            *(_mean_cell(name, figures[name], dice.n) for name in distances),
            *_counts(dice.n, dice.not_applicable, dice.missed, dice.false_positives),
        ]

    means, sums = _mean_row(scores, ["dice", *distances]), scores.counts()
    return {
        "title": scores.title,
        "unit": scores.unit,
        "headings": headings,
        "columns": len(headings),
        "rows": {label: cells(figures) for label, figures in scores.classes.items()},
        "mean": [
            *(means[0], *([("", "")] if median else []), *means[1:]),
            *_counts(sums.n, sums.not_applicable, sums.missed, sums.false_positives),
        ],
        "partial": partial_means(
            scores.mean_over, len(scores.classes), {name: METRICS[name] for name in metrics}
        ),
        "warnings": _warnings(scores, ["dice", *distances]),
    }


def _group_tables(summary: Summary, names: list[str], metrics: list[str]) -> list[dict[str, Any]]:
    """One table a protocol, in which the groups of cases stand side by side."""
    groups = summary.groups
    tables = []
    for name in names if groups else []:
        views = [
            _main_table(entry.protocols[name], metrics, median=False)
            | {"title": group, "unit": f"{entry.cases:,} case{'' if entry.cases == 1 else 's'}"}
            for group, entry in groups.items()
        ]
        title = summary.protocols[name].title
        tables.append({"title": title, "views": views, "warnings": _merged_warnings(views)})
    return tables


def _further_table(scores: ProtocolScores, metrics: list[str]) -> dict[str, Any] | None:
    further = [name for name in metrics if name in scores.mean and name not in _IN_MAIN_TABLE]
    if not further:
        return None
    return _plain_table(scores, {METRICS[name]: name for name in further})


def _folded_tables(scores: ProtocolScores) -> list[dict[str, Any]]:
    """The distances that the main table has not, a table a unit."""
    tables = []
    for unit, place in _UNITS:
        columns = {entry[0]: entry[place] for entry in FURTHER_DISTANCES}
        valued = {
            heading: name
            for heading, name in columns.items()
            if any(name in own and own[name].mean is not None for own in scores.classes.values())
        }
        if valued:
            tables.append(_plain_table(scores, valued) | {"title": unit})
    return tables


def _plain_table(scores: ProtocolScores, columns: Mapping[str, str]) -> dict[str, Any]:
    names = list(columns.values())
    return {
        "title": scores.title,
        "headings": list(columns),
        "rows": {
            label: [_mean_cell(name, own[name], own["dice"].n) for name in names]
            for label, own in scores.classes.items()
        },
        "mean": _mean_row(scores, names),
    }


def _mean_cell(metric: str, figure: MetricValue, n: int) -> Cell:
    """A mean over its interval and, where they are other cases than the line's, their number."""
    return _cell(metric, figure.mean, figure.interval, figure.n, n)


def _mean_row(scores: ProtocolScores, metrics: list[str]) -> list[Cell]:
    """As `_mean_cell`, the numbers of cases added up over the classes."""
    n = scores.counts().n
    return [
        _cell(name, scores.mean[name], scores.mean_interval.get(name), scores.counts(name).n, n)
        for name in metrics
    ]


def _cell(
    metric: str, mean: float | None, ends: Sequence[float | None] | None, own_n: int, n: int
) -> Cell:
    small = [format_interval(metric, ends)]
    if mean is not None and own_n != n:
        small.append(f"n {own_n:,}")
    return format_metric(metric, mean), ", ".join(filter(None, small))


def _counts(*counts: int | None) -> list[Cell]:
    return [("" if count is None else f"{count:,}", "") for count in counts]


def _warnings(scores: ProtocolScores, metrics: list[str]) -> list[str]:
    """Say once what is wrong with which intervals: why, and of which metrics and classes."""
    concerned: dict[str, list[tuple[str, str]]] = {}
    for label, figures in scores.classes.items():
        for name in metrics:
            if warning := figures[name].warning:
                concerned.setdefault(warning, []).append((METRICS[name], label))
    for name in metrics if len(scores.classes) > 1 else []:
        said = all(own[name].warning for own in scores.classes.values())
        if (warning := scores.mean_warning.get(name)) and not said:
            concerned.setdefault(warning, []).append((METRICS[name], _MEAN))
    # A warning of intervals is of all that there are; one that there is none, of all figures.
    every = [own[name].interval for own in scores.classes.values() for name in metrics]
    with_interval = sum(interval is not None for interval in every)
    return [
        _whose(pairs, len(every) if why.startswith(_NONE) else with_interval) + why
        for why, pairs in concerned.items()
    ]


def _whose(pairs: list[tuple[str, str]], every: int) -> str:
    """Name metrics and classes, "Dice of liver: "; "" where it is every one of them."""
    of_classes = [pair for pair in pairs if pair[1] != _MEAN]
    if len(of_classes) == every:
        return ""
    headings, labels = (list(dict.fromkeys(part)) for part in zip(*pairs, strict=True))
    if len(pairs) == len(headings) * len(labels):
        return f"{_listed(headings)} of {_listed(labels)}: "
    return f"{_listed([f'{heading} of {label}' for heading, label in pairs])}: "


def _merged_warnings(views: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The warnings of tables that stand side by side, as (titles, warning), each once."""
    titles: dict[str, list[str]] = {}
    for view in views:
        for warning in view["warnings"]:
            titles.setdefault(warning, []).append(view["title"].split(":")[0])
    return [(_listed(of), warning) for warning, of in titles.items()]


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
