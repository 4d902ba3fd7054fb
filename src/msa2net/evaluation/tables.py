"""A summary.json as a table for people: Markdown for the run folder, rich for the terminal.

Both show the standard protocol and the published one of this kind of image, line under line, so
that the figures of a class stand below each other.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from msa2net.evaluation.markdown import lay_out
from msa2net.metrics.protocol import PUBLISHED, differing_rules

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
_MEANINGS = HEADINGS | {
    "dice": "DSC (Dice)",
    "sensitivity": "SE (sensitivity)",
    "specificity": "SP (specificity)",
    "accuracy": "ACC (accuracy)",
    "hd95_mm": "millimetres (mm)",
    "hd95_voxels": "voxels (vox)",
}
DISTANCES = ("hd95_mm", "hd95_voxels")
# Of a volume nearly everything is background: these two are near 1 for any organ, found or not.
NOT_OF_VOLUMES = ("specificity", "accuracy")
COUNT_HEADINGS = ("n", "missed", "false pos.")
NOT_APPLICABLE = "–"
DISCLAIMER = "Research use only; not a medical device."


@dataclass(frozen=True)
class _Line:
    """One class (or the mean over classes) under one protocol, as text.

    `names` stand between the class and the figures: the protocol, in a table by group the group.
    """

    label: str
    names: tuple[str, ...]
    figures: list[str]
    counts: list[str]
    is_mean: bool = False

    @property
    def cells(self) -> list[str]:
        return [self.label, *self.names, *self.figures, *self.counts]


# What lines are made from: their names → a protocol's entry, of all cases or of one group.
_Entries: TypeAlias = dict[tuple[str, ...], dict[str, Any]]


def markdown_table(summary: dict[str, Any]) -> str:
    """Write a summary as Markdown: scores, groups, rules that differ, the paper's own numbers.

    Args:
        summary: the content of summary.json.

    Returns:
        The whole of table.md. A figure over other cases than the line's `n` has its own n in
        brackets.
    """
    shown, scores, metrics = _shown(summary)
    classes = summary["label_names"][1:]
    warning, selection = selection_note(summary)
    parts = [
        f"# {_heading(summary)}",
        *([("**Warning:** " if warning else "") + selection] if selection else []),
        _explanation(metrics),
        _markdown_scores(classes, scores, ("class", "protocol"), metrics),
        *_notes(classes, scores, metrics),
    ]
    parts += _markdown_groups(summary, shown, metrics)
    rules = _differing(scores, metrics)
    if rules:
        parts += ["## Rules that differ", lay_out(["situation", *shown], rules)]
    parts += _markdown_reference(summary.get("reference"))
    parts.append(f"*{DISCLAIMER}*")
    return "\n\n".join(parts) + "\n"


def console_table(summary: dict[str, Any]) -> RenderableType:
    """Make a summary ready for `rich.print`: scores, rules that differ, the paper's own result.

    Groups are shown under the standard protocol, with Dice and distances only. Meant for a
    terminal of 80 columns or more.

    Args:
        summary: the content of summary.json.
    """
    shown, scores, metrics = _shown(summary)
    classes = summary["label_names"][1:]
    warning, selection = selection_note(summary)
    hd95 = "; HD95: 0 is best" if _has_distances(metrics) else ""
    parts: list[RenderableType] = [Text(_heading(summary), style="bold")]
    if selection:
        text = f"Warning: {selection}" if warning else selection
        parts.append(Text(text, style="bold yellow" if warning else ""))
    parts += [
        _console_scores(_lines(classes, scores, metrics), "protocol", metrics),
        Text(f"n: cases in the DSC; {NOT_APPLICABLE} is not applicable{hd95}", style="dim"),
        *(Text(note) for note in _notes(classes, scores, metrics)),
    ]
    groups = summary.get("groups") or {}
    if groups and shown:
        entries: _Entries = {(g,): own["protocols"][shown[0]] for g, own in groups.items()}
        few = [metric for metric in metrics if metric in ("dice", *DISTANCES)]
        parts.append(Text(f"By group, {shown[0]} protocol. {_group_sizes(groups)}"))
        parts.append(_console_scores(_lines(classes, entries, few), "group", few))
    rules = _differing(scores, metrics)
    if rules:
        parts.append(_console_rules(shown, rules))
    if summary.get("reference"):
        parts.append(Text(_console_reference(summary["reference"], metrics)))
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


def figure_text(metric: str, value: float | None) -> str:
    """Write a figure: a distance with two decimals, a figure between 0 and 1 with four."""
    if value is None:
        return NOT_APPLICABLE
    return f"{value:.2f}" if metric in DISTANCES else f"{value:.4f}"


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


def reference_rows(rows: Sequence[Sequence[str | float]]) -> list[list[str]]:
    """Write the rows of a summary's `reference` as the paper prints them."""
    return [[_printed(value) for value in row] for row in rows]


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


def _shown(summary: dict[str, Any]) -> tuple[list[str], _Entries, list[str]]:
    """Return the protocols' names, their entries and the metrics to show."""
    kind, protocols = summary["image_kind"], summary["protocols"]
    scores: _Entries = {(name,): protocols[name] for name in shown_protocols(kind, protocols)}
    classes = [entry["classes"] for entry in scores.values()]
    return [name for (name,) in scores], scores, shown_metrics(kind, classes, HEADINGS)


def _heading(summary: dict[str, Any]) -> str:
    model = (summary.get("model") or {}).get("name")
    data = (summary.get("data") or {}).get("format")
    cases = summary["cases"]
    scored = " on ".join(name for name in (model, data) if name) or "Evaluation"
    return f"{scored}, {summary['split']} split, {cases} case{'' if cases == 1 else 's'}"


def _explanation(metrics: list[str]) -> str:
    fractions = [_MEANINGS[metric] for metric in metrics if metric not in DISTANCES]
    text = f"{_enumerated(fractions)} {'are fractions' if len(fractions) > 1 else 'is a fraction'} "
    text += "from 0 to 1; "
    units = [_MEANINGS[metric] for metric in metrics if metric in DISTANCES]
    if units:
        text += (
            "HD95 is the 95th percentile of the distances between the two surfaces, in "
            f"{_enumerated(units)}, and 0 is best; "
        )
    return (
        f"{text}{NOT_APPLICABLE} is not applicable. n is the number of cases in the DSC, a number "
        "in brackets that of another figure; missed are cases with the class in the truth and not "
        "in the prediction, false positives the other way round."
    )


def _enumerated(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _group_sizes(groups: Mapping[str, Any]) -> str:
    sizes = ((group, entry["cases"]) for group, entry in groups.items())
    return ", ".join(f"{group}: {n} case{'' if n == 1 else 's'}" for group, n in sizes) + "."


def _lines(
    classes: Sequence[str], entries: _Entries, metrics: list[str], *, own_n: bool = False
) -> list[_Line]:
    """Lines in the order class, then entry; the mean last, if there is more than one class."""
    lines = [
        _class_line(entry["classes"][label], label, names, metrics, own_n)
        for label in classes
        for names, entry in entries.items()
    ]
    if len(classes) > 1:
        lines += [_mean_line(entry, names, metrics) for names, entry in entries.items()]
    return lines


def _class_line(
    figures: dict[str, Any], label: str, names: tuple[str, ...], metrics: list[str], own_n: bool
) -> _Line:
    n = figures["dice"]["n"]
    cells = []
    for metric in metrics:
        figure = figures.get(metric, {"mean": None, "n": n})
        cell = figure_text(metric, figure["mean"])
        if own_n and figure["mean"] is not None and figure["n"] != n:
            cell += f" ({figure['n']})"
        cells.append(cell)
    counts = [n, figures["dice"]["missed"], figures["dice"]["false_positives"]]
    return _Line(label, names, cells, [str(count) for count in counts])


def _mean_line(entry: dict[str, Any], names: tuple[str, ...], metrics: list[str]) -> _Line:
    dice = [figures["dice"] for figures in entry["classes"].values()]
    counts = [
        "",
        str(sum(figure["missed"] for figure in dice)),
        str(sum(figure["false_positives"] for figure in dice)),
    ]
    means = [figure_text(metric, entry["mean"].get(metric)) for metric in metrics]
    return _Line("mean", names, means, counts, is_mean=True)


def _notes(classes: Sequence[str], entries: _Entries, metrics: list[str]) -> list[str]:
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


def _differing(scores: _Entries, metrics: list[str]) -> list[list[str]]:
    rules = [entry["rules"] for entry in scores.values()]
    return differing_rules(rules, distances=_has_distances(metrics))


def _has_distances(metrics: list[str]) -> bool:
    return not {*DISTANCES}.isdisjoint(metrics)


def _console_scores(lines: list[_Line], name: str, metrics: list[str]) -> Table:
    """One row a class, its protocols or groups on lines of their own: a long class folds."""
    table = _console_frame()
    table.add_column("class", overflow="fold")
    table.add_column(name, no_wrap=True, max_width=20)
    for heading in (*(HEADINGS[metric] for metric in metrics), *COUNT_HEADINGS):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    for (label, is_mean), of_class in groupby(lines, lambda line: (line.label, line.is_mean)):
        if is_mean:
            table.add_section()
        columns = zip(*(line.cells[1:] for line in of_class), strict=True)
        texts = (Text("\n".join(column)) for column in columns)
        table.add_row(Text(label), *texts, style="bold" if is_mean else "")
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


def _console_reference(reference: dict[str, Any], metrics: list[str]) -> str:
    """The paper's own network (the last row) in the figures we have too; table.md has it all."""
    name, *figures = reference_rows(reference["rows"])[-1]
    pairs = zip(reference["columns"], figures, strict=True)
    known = {*HEADINGS.values(), *(["HD95"] if "hd95_voxels" in metrics else [])}
    ours = [f"{column} {figure}" for column, figure in pairs if column in known]
    note = f"\n{reference['note']}" if reference.get("note") else ""
    return f"{reference['title']}:\n{name}: {', '.join(ours)}{note}"


def _printed(value: str | float) -> str:
    """Fractions with four digits, others with two, or more where the paper has more."""
    if isinstance(value, str):
        return value
    digits = 4 if abs(value) <= 1 else 2
    return f"{value:.{digits}f}" if round(value, digits) == value else str(value)


def _markdown_groups(summary: dict[str, Any], shown: list[str], metrics: list[str]) -> list[str]:
    """One table a protocol, in which the groups of a class stand below each other."""
    groups = summary.get("groups") or {}
    parts = ["## By group", _group_sizes(groups)] if groups else []
    for name in shown if groups else []:
        entries: _Entries = {(g,): own["protocols"][name] for g, own in groups.items()}
        of_protocol = [m for m in metrics if m in summary["protocols"][name]["mean"]]
        classes = summary["label_names"][1:]
        parts += [
            f"### {name}",
            _markdown_scores(classes, entries, ("class", "group"), of_protocol),
        ]
        parts += _notes(classes, entries, of_protocol)
    return parts


def _markdown_scores(
    classes: Sequence[str], entries: _Entries, names: Sequence[str], metrics: list[str]
) -> str:
    rows = [
        [f"**{cell}**" if line.is_mean and cell else cell for cell in line.cells]
        for line in _lines(classes, entries, metrics, own_n=True)
    ]
    return lay_out([*names, *(HEADINGS[metric] for metric in metrics), *COUNT_HEADINGS], rows)


def _markdown_reference(reference: dict[str, Any] | None) -> list[str]:
    if not reference:
        return []
    rows = reference_rows(reference["rows"])
    parts = ["## As printed in the paper, not measured here", f"{reference['title']}."]
    parts.append(lay_out(["network", *reference["columns"]], rows))
    return [*parts, reference["note"]] if reference.get("note") else parts
