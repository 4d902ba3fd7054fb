"""A summary.json as a table for people: Markdown for the run folder, rich for the terminal.

Both show the standard protocol and the published one of this kind of image, line under line, so
that the figures of a class stand below each other.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from msa2net.evaluation.schema import GroupScores, PublishedResults, Summary
from msa2net.evaluation.tables.columns import (
    ALL_COUNT_HEADINGS,
    DISCLAIMER,
    DISTANCES,
    FEW_CASES,
    HEADINGS,
    NOT_APPLICABLE,
    SHORT_COUNT_HEADINGS,
    format_interval,
    format_metric,
    heading,
    interval_notes,
    legend,
    reference_rows,
    selection_note,
    subset_note,
)
from msa2net.evaluation.tables.markdown import escaped, lay_out
from msa2net.evaluation.tables.rows import (
    Entries,
    ScoreRow,
    bold,
    differing,
    further_table,
    has_distances,
    has_intervals,
    notes,
    other_n,
    score_rows,
    shown,
    spread_table,
    worst_table,
)
from msa2net.evaluation.tables.rows import (
    Table as TextTable,
)
from msa2net.metrics.bootstrap import FEW
from msa2net.metrics.protocol import DISTANCE_FAILED, all_rules
from msa2net.text import all_printable, count_noun, folded_name

_SPARED_FOR_TWO = 37  # of 80 columns, for class and case together beside the spread
_COUNTS_WIDTH = 13  # n, missed and false positives, with the spaces before them and the protocol
_SPREAD_LEGEND = (
    "Of the DSC by the standard protocol: 95 % interval of the mean, lower quartile (Q1), median, "
    "upper quartile (Q3), number of cases that it does not apply to (n/a){}."
)


def markdown_table(summary: Summary) -> str:
    """Write a summary as Markdown: scores, groups, rules that differ, the paper's own numbers.

    Returns:
        The whole of table.md. A figure over other cases than the line's `n` has its own n in
        brackets.
    """
    names, scores, metrics = shown(summary)
    classes = summary.classes
    warning, selection = selection_note(summary)
    parts = [
        f"# {escaped(heading(summary))}",
        *([f"**Warning:** {escaped(subset)}"] if (subset := subset_note(summary)) else []),
        *([("**Warning:** " if warning else "") + escaped(selection)] if selection else []),
        *([escaped(summary.note)] if summary.note else []),
        _explanation(metrics),
        _markdown_scores(classes, scores, ("class", "protocol"), metrics),
        *map(escaped, notes(classes, scores, metrics)),
        *_about_failures(summary, metrics),
        *map(escaped, _about_intervals(summary, scores)),
    ]
    parts += _markdown_part("Spread", spread_table(summary), _about_spread(summary, metrics))
    parts += _markdown_part(
        "Further", further_table(summary), _about_further(summary, has_distances(metrics))
    )
    parts += _markdown_part("Worst cases", worst_table(summary), "Standard protocol.")
    parts += _markdown_groups(summary, names, metrics)
    rules = differing(scores, metrics)
    if rules:
        parts += ["## Rules that differ", lay_out(["situation", *names], rules)]
    every = all_rules([entry.rules for entry in scores.values()], distances=has_distances(metrics))
    parts += ["## All rules", lay_out(["situation", *names], every)]
    parts += _markdown_reference(summary.reference)
    parts.append(f"*{DISCLAIMER}*")
    return "\n\n".join(parts) + "\n"


def console_table(summary: Summary) -> RenderableType:
    """Make a summary ready for `rich.print`: scores, rules that differ, the paper's own result.

    Groups are shown under the standard protocol, with Dice and distances only; intervals and
    quartiles under the standard protocol, of the Dice only. Meant for a terminal of 80 columns or
    more.
    """
    summary = Summary.model_validate(all_printable(summary.model_dump()))
    names, scores, metrics = shown(summary)
    classes = summary.classes
    warning, selection = selection_note(summary)
    parts: list[RenderableType] = [Text(heading(summary), style="bold")]
    if subset := subset_note(summary):
        parts.append(Text(f"Warning: {subset}", style="bold yellow"))
    if selection:
        text = f"Warning: {selection}" if warning else selection
        parts.append(Text(text, style="bold yellow" if warning else ""))
    if summary.note:
        parts.append(Text(summary.note))
    parts += [
        _console_scores(score_rows(classes, scores, metrics), "protocol", metrics),
        Text(_console_legend(metrics, len(classes) > 1), style="dim"),
        *(Text(note) for note in notes(classes, scores, metrics)),
        *(Text(sentence) for sentence in other_n(classes, scores, metrics)),
    ]
    parts += _console_spread(summary)
    groups = summary.groups
    if groups and names:
        entries: Entries = {(g,): own.protocols[names[0]] for g, own in groups.items()}
        few = [metric for metric in metrics if metric in ("dice", *DISTANCES)]
        parts.append(Text(f"By group, {names[0]} protocol. {_group_sizes(groups)}"))
        parts.append(_console_scores(score_rows(classes, entries, few), "group", few))
    rules = differing(scores, metrics)
    if rules:
        parts.append(_console_rules(names, rules))
    if summary.reference:
        parts.append(Text(_console_reference(summary.reference, metrics)))
    parts.append(Text(DISCLAIMER, style="dim"))
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts[:-1]), parts[-1])


def _explanation(metrics: Sequence[str]) -> str:
    return (
        f"{legend(metrics)} n is the number of cases in the DSC, a number "
        "in brackets that of another figure; missed are cases with the class in the truth and not "
        "in the prediction, false positives the other way round; not appl. are cases whose DSC is "
        "not applicable. In the line of the mean these four are sums over the classes."
    )


def _console_legend(metrics: Sequence[str], mean: bool) -> str:
    """Explain the short headings of `_console_scores`."""
    sums = "; in the line of the mean these three are sums over the classes" if mean else ""
    return (
        f"{legend(metrics)} n: cases in the DSC; miss: of these, in the truth and not predicted; "
        f"FP: false positives, predicted and not in the truth{sums}."
    )


def _about_failures(summary: Summary, metrics: Sequence[str]) -> list[str]:
    """Say what the distance of a failure counts, which decides a mean with failures in it."""
    standard = summary.standard
    counted = dict(standard.rules).get(DISTANCE_FAILED) if standard else None
    if not counted or not has_distances(metrics):
        return []
    return [f"By the standard protocol the distance of a missed or false positive is {counted}."]


def _about_intervals(summary: Summary, scores: Entries) -> list[str]:
    """Say how intervals were made, which are of few cases, and why some are missing."""
    if not has_intervals(scores):
        return []
    how = "by bootstrap over cases"
    if made := summary.intervals:
        how = f"a {made.method}, {made.resamples:,} resamples, seed {made.seed}"
    parts = [
        f"The 95 % interval of a mean ({how}) is about other cases, not about training the "
        "network again."
    ]
    names_of: dict[str, list[str]] = {}
    for (name,), entry in scores.items():
        for note in interval_notes(entry, "dice"):
            names_of.setdefault(note, []).append(name)
    for note, names in names_of.items():
        parts.append(note if len(names) == len(scores) else f"{', '.join(names)}: {note}")
    return parts


def _about_spread(summary: Summary, metrics: Sequence[str]) -> str:
    """Say of which protocol it is, and which intervals of a distance are missing."""
    distance = next((metric for metric in metrics if metric in DISTANCES), None)
    said = interval_notes(summary.standard, distance) if summary.standard and distance else []
    return " ".join(["Standard protocol.", *(n for n in said if not n.startswith(FEW_CASES))])


def _about_further(summary: Summary, distances: bool) -> str:
    """Define the further figures in the words of the standard protocol's rules."""
    rules = dict(summary.standard.rules if summary.standard else ())
    terms = {
        "distance: hd": "HD",
        "distance: hd95_directed_max": "HD95 directed max",
        "distance: assd": "ASSD",
        "distance: surface_dice": "Surface DSC",
    }
    terms = terms if distances else {}
    terms["volume difference"] = "Volume difference"
    words = [f"{term}: {rules[key]}." for key, term in terms.items() if key in rules]
    return " ".join(["Standard protocol.", *words])


def _group_sizes(groups: Mapping[str, GroupScores]) -> str:
    sizes = (f"{group}: {count_noun(own.cases, 'case')}" for group, own in groups.items())
    return ", ".join(sizes) + "."


def _markdown_part(title: str, table: TextTable | None, words: str) -> list[str]:
    return [f"## {title}", escaped(words), lay_out(table.header, table.rows)] if table else []


def _markdown_scores(
    classes: Sequence[str], entries: Entries, names: Sequence[str], metrics: Sequence[str]
) -> str:
    first, *others = (HEADINGS[metric] for metric in metrics)
    intervals = has_intervals(entries)
    rows = []
    for row in score_rows(classes, entries, metrics):
        figures = list(map(str, row.cells.values()))
        figures[1:1] = [row.cells["dice"].interval] if intervals else []
        cells = [row.label, *row.names, *figures, *row.counts]
        rows.append(bold(cells) if row.is_mean else cells)
    headings = [first, *(["95 % interval"] if intervals else []), *others]
    return lay_out([*names, *headings, *ALL_COUNT_HEADINGS], rows)


def _markdown_groups(summary: Summary, names: Sequence[str], metrics: Sequence[str]) -> list[str]:
    """One table a protocol, in which the groups of a class stand below each other."""
    groups = summary.groups
    parts = ["## By group", escaped(_group_sizes(groups))] if groups else []
    for name in names if groups else []:
        entries: Entries = {(g,): own.protocols[name] for g, own in groups.items()}
        of_protocol = [m for m in metrics if m in summary.protocols[name].mean]
        classes = summary.classes
        parts += [
            f"### {name}",
            _markdown_scores(classes, entries, ("class", "group"), of_protocol),
        ]
        parts += map(escaped, notes(classes, entries, of_protocol))
    sizes = [entry.cases for entry in groups.values()]
    if min(sizes, default=FEW) < FEW and any("95 % interval" in part for part in parts):
        parts.append(f"{FEW_CASES}.")
    return parts


def _markdown_reference(reference: PublishedResults | None) -> list[str]:
    if not reference:
        return []
    rows = reference_rows(reference.rows)
    parts = ["## As printed in the paper, not measured here", f"{reference.title}."]
    parts.append(lay_out(["network", *reference.columns], rows))
    return [*parts, reference.note] if reference.note else parts


def _console_scores(rows: Sequence[ScoreRow], name: str, metrics: Sequence[str]) -> Table:
    """One row a class, its protocols or groups on lines of their own: only a long class folds."""
    table = _console_frame()
    table.add_column("class")
    table.add_column(name, no_wrap=True, max_width=20)
    titles = (*(HEADINGS[metric] for metric in metrics), *SHORT_COUNT_HEADINGS)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    names = [", ".join(row.names) for row in rows]
    figures = sum(max(7, len(HEADINGS[metric]) + 1) for metric in metrics)
    spared = 80 - min(20, max(map(len, (name, *names)))) - figures - _COUNTS_WIDTH
    for (label, is_mean), of_class in groupby(rows, lambda row: (row.label, row.is_mean)):
        if is_mean:
            table.add_section()
        columns = zip(*(_console_cells(row) for row in of_class), strict=True)
        texts = (Text("\n".join(column)) for column in columns)
        table.add_row(Text(folded_name(label, spared)), *texts, style="bold" if is_mean else "")
    return table


def _console_cells(row: ScoreRow) -> list[str]:
    return [*row.names, *(cell.text for cell in row.cells.values()), *row.counts[:-1]]


def _console_spread(summary: Summary) -> list[RenderableType]:
    """The Dice under the standard protocol once more: interval, quartiles, the worst case."""
    entry, worst = summary.standard, summary.worst
    if entry is None or not entry.has_intervals:
        return []
    table = _console_frame()
    cases = {label: [one.case for one in own[:1]] for label, own in worst.items()}
    width = _width_of_two(summary.classes, [one for own in cases.values() for one in own])
    table.add_column("class")
    for title in ("95 % interval", "Q1", "median", "Q3", "n/a"):
        table.add_column(title, justify="right", no_wrap=True)
    if worst:
        table.add_column("worst case")
    for label in summary.classes:
        dice = entry.classes[label]["dice"]
        quartiles = (dice.lower_quartile, dice.median, dice.upper_quartile)
        cells = [format_interval("dice", dice.interval)]
        cells += [format_metric("dice", value) for value in quartiles]
        cells.append(str(dice.not_applicable))
        if worst:
            cells += [folded_name(one, width) for one in cases.get(label) or [NOT_APPLICABLE]]
        table.add_row(Text(folded_name(label, width)), *map(Text, cells))
    if len(summary.classes) > 1:
        table.add_section()
        cells = [format_interval("dice", entry.mean_interval["dice"]), *[""] * 3]
        cells.append(str(entry.counts().not_applicable))
        table.add_row(*(Text(cell) for cell in ("mean", *cells)), style="bold")
    explained = _SPREAD_LEGEND.format(", case where it is lowest" if worst else "")
    said = [explained, *_about_intervals(summary, {("standard",): entry})]
    return [table, *(Text(sentence, style="dim") for sentence in said)]


def _width_of_two(classes: Sequence[str], cases: Sequence[str]) -> int:
    """Return the width of either column, so that both have room."""
    longest = [max(map(len, names), default=1) for names in (classes, cases)]
    if sum(longest) <= _SPARED_FOR_TWO:
        return max(longest)
    return max(_SPARED_FOR_TWO // 2, _SPARED_FOR_TWO - min(longest))


def _console_rules(names: Sequence[str], rules: Sequence[Sequence[str]]) -> Table:
    table = _console_frame()
    for name in ("where the rules differ", *names):
        table.add_column(name)
    for row in rules:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _console_frame() -> Table:
    # One space between columns and no edge: 80 columns are few.
    return Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)


def _console_reference(reference: PublishedResults, metrics: Sequence[str]) -> str:
    """The paper's own network (the last row) in the figures we have too; table.md has it all."""
    name, *figures = reference_rows(reference.rows)[-1]
    pairs = zip(reference.columns, figures, strict=True)
    known = {*HEADINGS.values(), *(["HD95"] if "hd95_voxels" in metrics else [])}
    ours = [f"{column} {figure}" for column, figure in pairs if column in known]
    note = f"\n{reference.note}" if reference.note else ""
    return f"{reference.title}:\n{name}: {', '.join(ours)}{note}"
