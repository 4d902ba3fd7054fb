"""The lines of every table made from a summary.json, as text; tables.py lays them out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from msa2net.evaluation.tables.model import (
    DISTANCES,
    HEADINGS,
    NOT_APPLICABLE,
    format_interval,
    format_metric,
    further_headings,
    partial_means,
    shown_metrics,
    shown_protocols,
)
from msa2net.metrics.protocol import differing_rules

# What lines are made from: their names → a protocol's entry, of all cases or of one group.
Entries: TypeAlias = dict[tuple[str, ...], dict[str, Any]]

_OUTCOMES = {"missed": ", missed", "false_positive": ", false positive"}


@dataclass(frozen=True)
class Line:
    """One class (or the mean over classes) under one protocol, as text.

    `names` stand between the class and the figures: the protocol, in a table by group the group.
    `counts` are n, missed, false positives and not applicable, all of the Dice; in the line of the
    mean they are sums over the classes.
    """

    label: str
    names: tuple[str, ...]
    figures: list[str]
    interval: str
    counts: list[str]
    is_mean: bool = False


@dataclass(frozen=True)
class Table:
    """A heading for each column, and rows of as many cells."""

    header: list[str]
    rows: list[list[str]]


def shown(summary: Mapping[str, Any]) -> tuple[list[str], Entries, list[str]]:
    """Return the protocols' names, their entries and the metrics to show.

    The protocols are those of `shown_protocols`.
    """
    kind, protocols = summary["image_kind"], summary["protocols"]
    names = shown_protocols(kind, protocols)
    scores: Entries = {(name,): protocols[name] for name in names}
    classes = [entry["classes"] for entry in scores.values()]
    return names, scores, shown_metrics(kind, classes, HEADINGS)


def score_lines(
    classes: Sequence[str], entries: Entries, metrics: Sequence[str], *, own_n: bool = False
) -> list[Line]:
    """Lines in the order class, then entry; the mean last, if there is more than one class.

    Args:
        classes: their names.
        entries: what the lines are made from.
        metrics: one figure each.
        own_n: with a figure's own n in brackets behind it, where that is not the line's.
    """
    lines = [
        _class_line(entry["classes"][label], label, names, metrics, own_n)
        for label in classes
        for names, entry in entries.items()
    ]
    if len(classes) > 1:
        lines += [_mean_line(entry, names, metrics, own_n) for names, entry in entries.items()]
    return lines


def sum_of_n(entry: Mapping[str, Any], metric: str) -> int:
    """Add up the cases in a figure over the classes, in cases times classes."""
    return sum(figures[metric]["n"] for figures in entry["classes"].values() if metric in figures)


def has_intervals(entries: Entries) -> bool:
    """Whether any of the entries knows of intervals, be it that there is none."""
    return any("mean_interval" in entry for entry in entries.values())


def notes(classes: Sequence[str], entries: Entries, metrics: Sequence[str]) -> list[str]:
    """Say where a mean over classes does not cover every class."""
    headings = {metric: HEADINGS[metric] for metric in metrics}
    partial = {
        ", ".join(names): partial_means(entry["mean_over"], len(classes), headings)
        for names, entry in entries.items()
    }
    return [
        f"The {name} means leave out classes with no applicable case: {', '.join(means)}."
        for name, means in partial.items()
        if means
    ]


def other_n(classes: Sequence[str], entries: Entries, metrics: Sequence[str]) -> list[str]:
    """Say which figures are of other cases than the DSC, whose n stands in the table."""
    sentences = []
    for names, entry in entries.items():
        for metric in metrics:
            of_class = {label: entry["classes"][label] for label in classes}
            found = [
                f"{label} {figures[metric]['n']} (DSC {figures['dice']['n']})"
                for label, figures in of_class.items()
                if figures.get(metric, {}).get("mean") is not None
                and figures[metric]["n"] != figures["dice"]["n"]
            ]
            if found:
                sentences.append(f"n of {', '.join(names)} {HEADINGS[metric]}: {', '.join(found)}.")
    return sentences


def differing(scores: Entries, metrics: Sequence[str]) -> list[list[str]]:
    """Rows of the table of rules that differ, those of distances if any is shown."""
    rules = [entry["rules"] for entry in scores.values()]
    return differing_rules(rules, distances=has_distances(metrics))


def has_distances(metrics: Sequence[str]) -> bool:
    """Whether a distance is among them."""
    return not {*DISTANCES}.isdisjoint(metrics)


def spread_table(summary: Mapping[str, Any]) -> Table | None:
    """Median, quartiles and the like of Dice and HD95 under the standard protocol.

    Returns:
        None where the summary has none: of an older version, or without the standard protocol.
    """
    entry = summary["protocols"].get("standard")
    if entry is None or "mean_interval" not in entry:
        return None
    found = shown_metrics(summary["image_kind"], [entry["classes"]], ("dice", *DISTANCES))
    metrics = found[:2]  # the distance in millimetres, for want of it in voxels
    rows = []
    for label in summary["label_names"][1:]:
        for metric in metrics:
            figure = entry["classes"][label][metric]
            keys = ("sd", "lower_quartile", "median", "upper_quartile")
            mean = [
                format_metric(metric, figure["mean"]),
                format_interval(metric, figure["interval"]),
            ]
            rest = [format_metric(metric, figure[key]) for key in keys]
            rows.append([label, HEADINGS[metric], *mean, *rest, str(figure["n"])])
    mean_lines = [
        [
            *("mean", HEADINGS[metric], format_metric(metric, entry["mean"][metric])),
            format_interval(metric, entry["mean_interval"][metric]),
            *[""] * 4,
            str(entry["mean_counts"][metric]["n"]),
        ]
        for metric in metrics
    ]
    if len(summary["label_names"]) > 2:
        rows += [[f"**{cell}**" if cell else "" for cell in line] for line in mean_lines]
    quartiles = ("lower quartile", "median", "upper quartile")
    return Table(["class", "figure", "mean", "95 % interval", "SD", *quartiles, "n"], rows)


def further_table(summary: Mapping[str, Any]) -> Table | None:
    """Figures of the standard protocol that are in no other table; None if there is none."""
    entry = summary["protocols"].get("standard") or {"classes": {}}
    headings = further_headings(entry["classes"])
    if not headings:
        return None
    rows = []
    for label in summary["label_names"][1:]:
        figures = entry["classes"][label]
        n = figures["dice"]["n"]
        cells = [_cell(figures.get(metric), metric, n, own_n=True) for metric in headings]
        rows.append([label, *cells, str(n)])
    if len(rows) > 1:
        means = _mean_cells(entry, list(headings), own_n=True)
        total = sum_of_n(entry, "dice")
        rows.append([f"**{cell}**" for cell in ("mean", *means, str(total))])
    return Table(["class", *headings.values(), "n"], rows)


def worst_table(summary: Mapping[str, Any]) -> Table | None:
    """The worst cases of every class with their Dice, worst first; None if nobody noted them."""
    worst = summary.get("worst")
    if not worst:
        return None
    rows = [
        [
            label,
            "; ".join(
                f"{one['case']} ({format_metric('dice', one['dice'])}"
                f"{_OUTCOMES.get(one['outcome'], '')})"
                for one in cases
            )
            or NOT_APPLICABLE,
        ]
        for label, cases in worst.items()
    ]
    return Table(["class", "case (DSC), worst first"], rows)


def _class_line(
    figures: Mapping[str, Any],
    label: str,
    names: tuple[str, ...],
    metrics: Sequence[str],
    own_n: bool,
) -> Line:
    dice = figures["dice"]
    cells = [_cell(figures.get(metric), metric, dice["n"], own_n=own_n) for metric in metrics]
    return Line(label, names, cells, format_interval("dice", dice.get("interval")), _counts([dice]))


def _cell(figure: Mapping[str, Any] | None, metric: str, n: int, *, own_n: bool) -> str:
    """Write a figure; one over other cases than the line's n has its own n behind it."""
    if figure is None or figure["mean"] is None:
        return NOT_APPLICABLE
    text = format_metric(metric, figure["mean"])
    return f"{text} ({figure['n']})" if own_n and figure["n"] != n else text


def _mean_line(
    entry: Mapping[str, Any], names: tuple[str, ...], metrics: Sequence[str], own_n: bool
) -> Line:
    means = _mean_cells(entry, metrics, own_n=own_n)
    interval = format_interval("dice", entry.get("mean_interval", {}).get("dice"))
    counts = _counts([figures["dice"] for figures in entry["classes"].values()])
    return Line("mean", names, means, interval, counts, is_mean=True)


def _mean_cells(entry: Mapping[str, Any], metrics: Sequence[str], *, own_n: bool) -> list[str]:
    n = sum_of_n(entry, "dice")
    figures = {m: {"mean": entry["mean"].get(m), "n": sum_of_n(entry, m)} for m in metrics}
    return [_cell(figure, metric, n, own_n=own_n) for metric, figure in figures.items()]


def _counts(dice: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = ("n", "missed", "false_positives", "not_applicable")
    return [str(sum(figure[key] for figure in dice)) for key in keys]
