"""The tables of scores for the page: in each cell a value, and the small print under it."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from msa2net.evaluation.schema import Summary
from msa2net.evaluation.tables.columns import (
    DISTANCES,
    FURTHER_MM,
    FURTHER_VOXELS,
    NOT_APPLICABLE,
    format_interval,
    format_metric,
    partial_means,
    shown_metrics,
    shown_protocols,
    valued_metrics,
)
from msa2net.evaluation.tables.rows import Cell, score_rows
from msa2net.metrics.protocol import DISTANCE_FAILED, Outcome, all_rules, differing_rules
from msa2net.metrics.schema import ProtocolScores
from msa2net.text import count_noun, joined

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
COUNTS = ("n", "Missed", "False pos.", "N/A")

OUTCOMES: dict[Outcome, str] = {
    "scored": "scored",
    "missed": "missed",
    "false_positive": "false positive",
    "absent": "absent",
}

_MEAN = "the mean over classes"
_NONE = "no interval"  # how the warning of a value without one begins

PageCell: TypeAlias = tuple[str, str]
"""What a cell shows, and what stands small under it."""


def distance_of_failure(scores: ProtocolScores) -> str:
    """Say in the words of a protocol's rules what the distance of a failure counts, or ""."""
    return dict(scores.rules).get(DISTANCE_FAILED, "")


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
    protocols = [_main_table(scores, metrics) for scores in shown]
    return {
        "protocols": protocols,
        "warnings": _merged_warnings(protocols),
        "groups": _group_tables(summary, names, metrics),
        "distances": distances,
        "failed_distance": distance_of_failure(standard) if standard and distances else "",
        "intervals": _interval_note(summary),
        "all_rules": all_rules([scores.rules for scores in shown], distances=distances),
        "rules": differing_rules([scores.rules for scores in shown], distances=distances),
        "further": [
            _table(scores, further)
            for scores in shown
            if (further := {name: METRICS[name] for name in metrics if _is_further(name, scores)})
        ],
        "folded": _distance_tables(standard) if standard else [],
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


def _interval_note(summary: Summary) -> str:
    made = summary.intervals
    if made is None:
        return ""
    return (
        f"Small under a mean stands its {made.level:.0%} interval ({made.method}, "
        f"{made.resamples:,} resamples): how the mean would vary over other cases from the same "
        "source, not over other trainings. Small under a median stand the quartiles."
    ).replace("%", " %")


def _main_table(
    scores: ProtocolScores, metrics: Sequence[str], title: str = "", unit: str = ""
) -> dict[str, Any]:
    """Columns: Dice, of all cases also its median, distances, and the counts.

    Args:
        scores: under one protocol.
        metrics: that are shown anywhere.
        title: of a group of cases; of all cases the protocol's own.
        unit: likewise.
    """
    distances = [name for name in metrics if name in DISTANCES and name in scores.mean]
    table = _table(scores, {name: METRICS[name] for name in ("dice", *distances)}, counts=True)
    # Pooled values have no median.
    if not title and any(own["dice"].median is not None for own in scores.classes.values()):
        table["headings"].insert(1, "Median")
        table["mean"].insert(1, ("", ""))
        for label, values in scores.classes.items():
            dice = values["dice"]
            quartiles = format_interval("dice", (dice.lower_quartile, dice.upper_quartile))
            table["rows"][label].insert(1, (format_metric("dice", dice.median), _small(quartiles)))
    return table | {
        "title": title or scores.title,
        "unit": unit or scores.unit,
        "columns": len(table["headings"]),
        "partial": partial_means(
            scores.mean_over, len(scores.classes), {name: METRICS[name] for name in metrics}
        ),
        "warnings": _warnings(scores, ["dice", *distances]),
    }


def _group_tables(summary: Summary, names: list[str], metrics: list[str]) -> list[dict[str, Any]]:
    """One table a protocol, in which the groups of cases stand side by side."""
    tables = []
    for name in names if summary.groups else []:
        views = [
            _main_table(own.protocols[name], metrics, group, count_noun(own.cases, "case"))
            for group, own in summary.groups.items()
        ]
        title = summary.protocols[name].title
        tables.append({"title": title, "views": views, "warnings": _merged_warnings(views)})
    return tables


def _is_further(metric: str, scores: ProtocolScores) -> bool:
    return metric in scores.mean and metric not in ("dice", *DISTANCES)


def _distance_tables(scores: ProtocolScores) -> list[dict[str, Any]]:
    """The distances that the main table has not, a table a unit."""
    valued = valued_metrics(scores)
    tables = []
    for unit, every in (("In millimetres", FURTHER_MM), ("In voxels", FURTHER_VOXELS)):
        columns = {metric: heading for metric, heading in every.items() if metric in valued}
        tables += [_table(scores, columns) | {"title": unit}] if columns else []
    return tables


def _table(
    scores: ProtocolScores, columns: Mapping[str, str], *, counts: bool = False
) -> dict[str, Any]:
    """Lay out the means of some metrics, a row a class.

    Args:
        scores: under one protocol.
        columns: metric → heading.
        counts: with the numbers of cases behind them.
    """
    rows = {
        (row.label, row.is_mean): [
            *map(_page_cell, row.cells.values()),
            *((count, "") for count in row.counts if counts),
        ]
        for row in score_rows(list(scores.classes), {(): scores}, columns)
    }
    return {
        "title": scores.title,
        "headings": [*columns.values(), *(COUNTS if counts else ())],
        "rows": {label: cells for (label, is_mean), cells in rows.items() if not is_mean},
        "mean": rows.get(("mean", True), []),
    }


def _page_cell(cell: Cell) -> PageCell:
    own_n = "" if cell.own_n is None else f"n {cell.own_n:,}"
    return cell.text, ", ".join(filter(None, (_small(cell.interval), own_n)))


def _small(interval: str) -> str:
    return "" if interval == NOT_APPLICABLE else interval


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
        return f"{joined(headings)} of {joined(labels)}: "
    return f"{joined([f'{heading} of {label}' for heading, label in pairs])}: "


def _merged_warnings(views: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The warnings of tables that stand side by side, as (titles, warning), each once."""
    titles: dict[str, list[str]] = {}
    for view in views:
        for warning in view["warnings"]:
            titles.setdefault(warning, []).append(view["title"].split(":")[0])
    return [(joined(of), warning) for warning, of in titles.items()]
