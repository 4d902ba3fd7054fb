"""A summary.json as a table for people: Markdown for the run folder, rich for the terminal.

Both show the standard protocol and the published one of this kind of image, line under line, so
that the figures of a class stand below each other.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from msa2net.metrics.protocol import PUBLISHED, differing_rules

# Metric → heading; a metric that no shown protocol has gets no column.
HEADINGS = {
    "dice": "DSC",
    "iou": "IoU",
    "sensitivity": "SE",
    "specificity": "SP",
    "accuracy": "ACC",
}
COUNT_HEADINGS = ("n", "missed", "false pos.")
NOT_APPLICABLE = "–"
DISCLAIMER = "Research use only; not a medical device."


@dataclass(frozen=True)
class _Line:
    """One class (or the mean over classes) under one protocol, as text."""

    label: str
    protocol: str
    figures: list[str]
    counts: list[str]
    is_mean: bool = False

    @property
    def cells(self) -> list[str]:
        return [self.label, self.protocol, *self.figures, *self.counts]


def markdown_table(summary: dict[str, Any]) -> str:
    """Write a summary as Markdown: scores, rules that differ, the paper's own numbers.

    Args:
        summary: the content of summary.json.

    Returns:
        The whole of table.md. A figure over other cases than the line's `n` has its own n in
        brackets.
    """
    shown = shown_protocols(summary["image_kind"], summary["protocols"])
    metrics = _shown_metrics(summary, shown)
    rows = [
        [f"**{cell}**" if line.is_mean and cell else cell for cell in line.cells]
        for line in _lines(summary, shown, metrics, own_n=True)
    ]
    header = ["class", "protocol", *(HEADINGS[metric] for metric in metrics), *COUNT_HEADINGS]
    parts = [
        f"# {_heading(summary)}",
        "DSC (Dice), IoU, SE (sensitivity), SP (specificity) and ACC (accuracy) are fractions from "
        f"0 to 1; {NOT_APPLICABLE} is not applicable. n is the number of cases in the DSC, a "
        "number in brackets that of another figure; missed are cases with the class in the truth "
        "and not in the prediction, false positives the other way round.",
        _markdown(header, rows),
        *_notes(summary, shown),
    ]
    rules = differing_rules([summary["protocols"][name]["rules"] for name in shown])
    if rules:
        parts += ["## Rules that differ", _markdown(["situation", *shown], rules)]
    reference = summary.get("reference")
    if reference:
        parts += ["## As printed in the paper, not measured here", f"{reference['title']}."]
        parts.append(
            _markdown(["network", *reference["columns"]], reference_rows(reference["rows"]))
        )
        if reference.get("note"):
            parts.append(reference["note"])
    parts.append(f"*{DISCLAIMER}*")
    return "\n\n".join(parts) + "\n"


def console_table(summary: dict[str, Any]) -> RenderableType:
    """Make a summary ready for `rich.print`: scores, rules that differ, the paper's own result.

    Meant for a terminal of 80 columns or more.

    Args:
        summary: the content of summary.json.
    """
    shown = shown_protocols(summary["image_kind"], summary["protocols"])
    metrics = _shown_metrics(summary, shown)
    parts: list[RenderableType] = [
        Text(_heading(summary), style="bold"),
        _console_scores(_lines(summary, shown, metrics, own_n=False), metrics),
        Text(f"n: cases in the DSC; {NOT_APPLICABLE} is not applicable", style="dim"),
        *(Text(note) for note in _notes(summary, shown)),
    ]
    rules = differing_rules([summary["protocols"][name]["rules"] for name in shown])
    if rules:
        parts.append(_console_rules(shown, rules))
    if summary.get("reference"):
        parts.append(Text(_console_reference(summary["reference"])))
    parts.append(Text(DISCLAIMER, style="dim"))
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts[:-1]), parts[-1])


def shown_protocols(image_kind: str, present: Container[str]) -> list[str]:
    """Name standard and the published one for this kind of image, as far as they are present."""
    return [name for name in ("standard", PUBLISHED.get(image_kind, "")) if name in present]


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


def fraction(value: float | None) -> str:
    """Write a figure between 0 and 1 with four digits."""
    return NOT_APPLICABLE if value is None else f"{value:.4f}"


def reference_rows(rows: Sequence[Sequence[str | float]]) -> list[list[str]]:
    """Write the rows of a summary's `reference` as the paper prints them."""
    return [[_printed(value) for value in row] for row in rows]


def _shown_metrics(summary: dict[str, Any], shown: list[str]) -> list[str]:
    present = {metric for name in shown for metric in summary["protocols"][name]["mean"]}
    return [metric for metric in HEADINGS if metric in present]


def _heading(summary: dict[str, Any]) -> str:
    model = (summary.get("model") or {}).get("name")
    data = (summary.get("data") or {}).get("format")
    cases = summary["cases"]
    scored = " on ".join(name for name in (model, data) if name) or "Evaluation"
    return f"{scored}, {summary['split']} split, {cases} case{'' if cases == 1 else 's'}"


def _lines(
    summary: dict[str, Any], shown: list[str], metrics: list[str], *, own_n: bool
) -> list[_Line]:
    """Lines in the order class, then protocol; the mean last, if there is more than one class."""
    classes = summary["label_names"][1:]
    lines = [
        _class_line(summary["protocols"][name]["classes"][label], label, name, metrics, own_n)
        for label in classes
        for name in shown
    ]
    if len(classes) > 1:
        lines += [_mean_line(summary["protocols"][name], name, metrics) for name in shown]
    return lines


def _class_line(
    figures: dict[str, Any], label: str, protocol: str, metrics: list[str], own_n: bool
) -> _Line:
    n = figures["dice"]["n"]
    cells = []
    for metric in metrics:
        figure = figures.get(metric, {"mean": None, "n": n})
        cell = fraction(figure["mean"])
        if own_n and figure["mean"] is not None and figure["n"] != n:
            cell += f" ({figure['n']})"
        cells.append(cell)
    counts = [n, figures["dice"]["missed"], figures["dice"]["false_positives"]]
    return _Line(label, protocol, cells, [str(count) for count in counts])


def _mean_line(entry: dict[str, Any], protocol: str, metrics: list[str]) -> _Line:
    dice = [figures["dice"] for figures in entry["classes"].values()]
    counts = [
        "",
        str(sum(figure["missed"] for figure in dice)),
        str(sum(figure["false_positives"] for figure in dice)),
    ]
    means = [fraction(entry["mean"].get(metric)) for metric in metrics]
    return _Line("mean", protocol, means, counts, is_mean=True)


def _notes(summary: dict[str, Any], shown: list[str]) -> list[str]:
    """Say where a mean over classes does not cover every class."""
    classes = len(summary["label_names"]) - 1
    partial = {
        name: partial_means(summary["protocols"][name]["mean_over"], classes, HEADINGS)
        for name in shown
    }
    return [
        f"The {name} means leave out classes with no applicable case: {', '.join(means)}."
        for name, means in partial.items()
        if means
    ]


def _console_scores(lines: list[_Line], metrics: list[str]) -> Table:
    table = _console_frame()
    table.add_column("class", overflow="fold")
    table.add_column("protocol", no_wrap=True)
    for heading in (*(HEADINGS[metric] for metric in metrics), *COUNT_HEADINGS):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    before: _Line | None = None
    for line in lines:
        if line.is_mean and before and not before.is_mean:
            table.add_section()
        cells = line.cells
        if before and before.label == line.label and before.is_mean == line.is_mean:
            cells[0] = ""
        table.add_row(*(Text(cell) for cell in cells), style="bold" if line.is_mean else "")
        before = line
    return table


def _console_rules(shown: list[str], rules: list[list[str]]) -> Table:
    table = _console_frame()
    for name in ("where the rules differ", *shown):
        table.add_column(name)
    for row in rules:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _console_frame() -> Table:
    # One space between columns and no edge: 80 columns are few.
    return Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)


def _console_reference(reference: dict[str, Any]) -> str:
    """The paper's own network (the last row) in the figures we have too; table.md has it all."""
    name, *figures = reference_rows(reference["rows"])[-1]
    pairs = zip(reference["columns"], figures, strict=True)
    ours = [f"{column} {figure}" for column, figure in pairs if column in HEADINGS.values()]
    note = f"\n{reference['note']}" if reference.get("note") else ""
    return f"{reference['title']}:\n{name}: {', '.join(ours)}{note}"


def _printed(value: str | float) -> str:
    """Fractions with four digits, others with two, or more where the paper has more."""
    if isinstance(value, str):
        return value
    digits = 4 if abs(value) <= 1 else 2
    return f"{value:.{digits}f}" if round(value, digits) == value else str(value)


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table, padded so that it reads as plain text; text left, numbers right."""
    lines = [[_escaped(cell) for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(header))]
    right = [all(_is_number(row[i]) for row in rows) for i in range(len(header))]
    padded = [
        [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ]
        for line in lines
    ]
    rule = ["-" * (widths[i] - 1) + (":" if right[i] else "-") for i in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def _escaped(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").split())


def _is_number(cell: str) -> bool:
    bare = cell.strip("*").replace(NOT_APPLICABLE, "")
    return not bare or bare[0].isdigit()
