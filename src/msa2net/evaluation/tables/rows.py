"""The lines of every table made from a summary.json, as text; tables.py lays them out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from msa2net.evaluation.schema import Summary
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
from msa2net.metrics.scores import Counts, MetricValue, ProtocolScores

# What lines are made from: their names → scores under a protocol, of all cases or of one group.
Entries: TypeAlias = dict[tuple[str, ...], ProtocolScores]

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


def shown(summary: Summary) -> tuple[list[str], Entries, list[str]]:
    """Return the protocols' names, their entries and the metrics to show.

    The protocols are those of `shown_protocols`.
    """
    names = shown_protocols(summary.image_kind, summary.protocols)
    scores: Entries = {(name,): summary.protocols[name] for name in names}
    return names, scores, shown_metrics(summary.image_kind, scores.values(), HEADINGS)


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
        _class_line(entry.classes[label], label, names, metrics, own_n)
        for label in classes
        for names, entry in entries.items()
    ]
    if len(classes) > 1:
        lines += [_mean_line(entry, names, metrics, own_n) for names, entry in entries.items()]
    return lines


def has_intervals(entries: Entries) -> bool:
    """Whether any of the entries knows of intervals, be it that there is none."""
    return any(entry.has_intervals for entry in entries.values())


def notes(classes: Sequence[str], entries: Entries, metrics: Sequence[str]) -> list[str]:
    """Say where a mean over classes does not cover every class."""
    headings = {metric: HEADINGS[metric] for metric in metrics}
    partial = {
        ", ".join(names): partial_means(entry.mean_over, len(classes), headings)
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
            of_class = {label: entry.classes[label] for label in classes}
            found = [
                f"{label} {value.n} (DSC {values['dice'].n})"
                for label, values in of_class.items()
                if (value := values.get(metric)) is not None
                and value.mean is not None
                and value.n != values["dice"].n
            ]
            if found:
                sentences.append(f"n of {', '.join(names)} {HEADINGS[metric]}: {', '.join(found)}.")
    return sentences


def differing(scores: Entries, metrics: Sequence[str]) -> list[list[str]]:
    """Rows of the table of rules that differ, those of distances if any is shown."""
    rules = [entry.rules for entry in scores.values()]
    return differing_rules(rules, distances=has_distances(metrics))


def has_distances(metrics: Sequence[str]) -> bool:
    """Whether a distance is among them."""
    return not {*DISTANCES}.isdisjoint(metrics)


def spread_table(summary: Summary) -> Table | None:
    """Median, quartiles and the like of Dice and HD95 under the standard protocol.

    Returns:
        None where the summary has none: of an older version, or without the standard protocol.
    """
    entry = summary.standard
    if entry is None or not entry.has_intervals:
        return None
    found = shown_metrics(summary.image_kind, [entry], ("dice", *DISTANCES))
    metrics = found[:2]  # the distance in millimetres, for want of it in voxels
    rows = []
    for label in summary.classes:
        for metric in metrics:
            value = entry.classes[label][metric]
            spread = (value.sd, value.lower_quartile, value.median, value.upper_quartile)
            mean = [format_metric(metric, value.mean), format_interval(metric, value.interval)]
            rest = [format_metric(metric, own) for own in spread]
            rows.append([label, HEADINGS[metric], *mean, *rest, str(value.n)])
    mean_lines = [
        [
            *("mean", HEADINGS[metric], format_metric(metric, entry.mean[metric])),
            format_interval(metric, entry.mean_interval[metric]),
            *[""] * 4,
            str(entry.counts(metric).n),
        ]
        for metric in metrics
    ]
    if len(summary.classes) > 1:
        rows += [[f"**{cell}**" if cell else "" for cell in line] for line in mean_lines]
    quartiles = ("lower quartile", "median", "upper quartile")
    return Table(["class", "figure", "mean", "95 % interval", "SD", *quartiles, "n"], rows)


def further_table(summary: Summary) -> Table | None:
    """Figures of the standard protocol that are in no other table; None if there is none."""
    entry = summary.standard
    headings = further_headings(entry) if entry else {}
    if entry is None or not headings:
        return None
    rows = []
    for label in summary.classes:
        values = entry.classes[label]
        n = values["dice"].n
        cells = [_class_cell(values, metric, own_n=True) for metric in headings]
        rows.append([label, *cells, str(n)])
    if len(rows) > 1:
        means = _mean_cells(entry, list(headings), own_n=True)
        rows.append([f"**{cell}**" for cell in ("mean", *means, str(entry.counts().n))])
    return Table(["class", *headings.values(), "n"], rows)


def worst_table(summary: Summary) -> Table | None:
    """The worst cases of every class with their Dice, worst first; None if nobody noted them."""
    if not summary.worst:
        return None
    rows = [
        [
            label,
            "; ".join(
                f"{one.case} ({format_metric('dice', one.dice)}{_OUTCOMES.get(one.outcome, '')})"
                for one in cases
            )
            or NOT_APPLICABLE,
        ]
        for label, cases in summary.worst.items()
    ]
    return Table(["class", "case (DSC), worst first"], rows)


def _class_line(
    values: Mapping[str, MetricValue],
    label: str,
    names: tuple[str, ...],
    metrics: Sequence[str],
    own_n: bool,
) -> Line:
    dice = values["dice"]
    cells = [_class_cell(values, metric, own_n=own_n) for metric in metrics]
    return Line(label, names, cells, format_interval("dice", dice.interval), _counts(dice))


def _class_cell(values: Mapping[str, MetricValue], metric: str, *, own_n: bool) -> str:
    value = values.get(metric)
    if value is None:
        return NOT_APPLICABLE
    return _cell(value.mean, value.n, metric, values["dice"].n, own_n=own_n)


def _cell(mean: float | None, own: int, metric: str, n: int, *, own_n: bool) -> str:
    """Write a mean; one over other cases than the line's n has its own n behind it."""
    text = format_metric(metric, mean)
    return f"{text} ({own})" if own_n and mean is not None and own != n else text


def _mean_line(
    entry: ProtocolScores, names: tuple[str, ...], metrics: Sequence[str], own_n: bool
) -> Line:
    means = _mean_cells(entry, metrics, own_n=own_n)
    interval = format_interval("dice", entry.mean_interval.get("dice"))
    return Line("mean", names, means, interval, _counts(entry.counts()), is_mean=True)


def _mean_cells(entry: ProtocolScores, metrics: Sequence[str], *, own_n: bool) -> list[str]:
    n = entry.counts().n
    return [
        _cell(entry.mean.get(metric), entry.counts(metric).n, metric, n, own_n=own_n)
        for metric in metrics
    ]


def _counts(dice: Counts | MetricValue) -> list[str]:
    counts = (dice.n, dice.missed, dice.false_positives, dice.not_applicable)
    return ["" if count is None else str(count) for count in counts]
