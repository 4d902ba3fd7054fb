"""The rows of every table that is made from a `Summary`; other modules lay them out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from msa2net.evaluation.schema import Summary
from msa2net.evaluation.tables.columns import (
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
from msa2net.metrics.schema import MetricValue, ProtocolScores

# What rows are made from: their names → scores under a protocol, of all cases or of one group.
Entries: TypeAlias = dict[tuple[str, ...], ProtocolScores]

_OUTCOMES = {"missed": ", missed", "false_positive": ", false positive"}


@dataclass(frozen=True)
class Cell:
    """A mean, as text.

    Attributes:
        text: the mean, or a dash.
        interval: its 95 % interval, or a dash.
        own_n: of cases, where that is not the row's n.
    """

    text: str
    interval: str = NOT_APPLICABLE
    own_n: int | None = None

    def __str__(self) -> str:
        """Return the mean, with its own n in brackets behind it."""
        return self.text if self.own_n is None else f"{self.text} ({self.own_n:,})"


@dataclass(frozen=True)
class ScoreRow:
    """One class, or the mean over classes, under one protocol.

    Attributes:
        label: of the class, or `mean`.
        names: what stands between the class and the metrics: the protocol, in a table by group the
            group.
        cells: metric → its mean.
        values: metric → the values themselves.
        is_mean: whether it is the mean; its counts are sums over the classes.
    """

    label: str
    names: tuple[str, ...]
    cells: dict[str, Cell]
    values: Mapping[str, MetricValue]
    is_mean: bool = False

    @property
    def counts(self) -> list[str]:
        """The number of cases in the Dice, missed, false positives and not applicable ones."""
        dice = self.values["dice"]
        counts = (dice.n, dice.missed, dice.false_positives, dice.not_applicable)
        return ["" if count is None else f"{count:,}" for count in counts]


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


def score_rows(classes: Sequence[str], entries: Entries, metrics: Iterable[str]) -> list[ScoreRow]:
    """Return rows in the order class, then entry; the mean last, if there is more than one class.

    Args:
        classes: their names.
        entries: what the rows are made from.
        metrics: of which each row has a cell.
    """
    shown_metrics = list(metrics)
    rows = [
        ScoreRow(label, names, _cells(entry.classes[label], shown_metrics), entry.classes[label])
        for label in classes
        for names, entry in entries.items()
    ]
    for names, entry in entries.items() if len(classes) > 1 else ():
        means = entry.means
        rows.append(ScoreRow("mean", names, _cells(means, shown_metrics), means, is_mean=True))
    return rows


def _cells(values: Mapping[str, MetricValue], metrics: Sequence[str]) -> dict[str, Cell]:
    n = values["dice"].n
    cells = dict.fromkeys(metrics, Cell(NOT_APPLICABLE))
    for metric in values.keys() & cells.keys():
        value = values[metric]
        cells[metric] = Cell(
            format_metric(metric, value.mean),
            format_interval(metric, value.interval),
            value.n if value.mean is not None and value.n != n else None,
        )
    return cells


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
    rows = []
    for row in score_rows(summary.classes, {(): entry}, found[:2]):  # voxels for want of mm
        for metric, cell in row.cells.items():
            value = row.values[metric]
            spread = (value.sd, value.lower_quartile, value.median, value.upper_quartile)
            rest = [""] * 4 if row.is_mean else [format_metric(metric, own) for own in spread]
            cells = [row.label, HEADINGS[metric], cell.text, cell.interval, *rest, str(value.n)]
            rows.append(bold(cells) if row.is_mean else cells)
    quartiles = ("lower quartile", "median", "upper quartile")
    return Table(["class", "figure", "mean", "95 % interval", "SD", *quartiles, "n"], rows)


def further_table(summary: Summary) -> Table | None:
    """Figures of the standard protocol that are in no other table; None if there is none."""
    entry = summary.standard
    headings = further_headings(entry) if entry else {}
    if entry is None or not headings:
        return None
    rows = []
    for row in score_rows(summary.classes, {(): entry}, headings):
        cells = [row.label, *map(str, row.cells.values()), row.counts[0]]
        rows.append(bold(cells) if row.is_mean else cells)
    return Table(["class", *headings.values(), "n"], rows)


def bold(cells: Iterable[str]) -> list[str]:
    """Return the cells of a row in bold type, as Markdown has it."""
    return [f"**{cell}**" if cell else "" for cell in cells]


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
