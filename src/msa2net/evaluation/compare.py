"""Evaluations on disk compared, and the comparison as tables for the terminal and for Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from msa2net.errors import ConfigError, DataError
from msa2net.evaluation.summary import read_summary
from msa2net.evaluation.tables.columns import (
    DISCLAIMER,
    NOT_APPLICABLE,
    selection_note,
    subset_note,
)
from msa2net.evaluation.tables.markdown import escaped, lay_out
from msa2net.files import EVALUATIONS, clean_temporaries, write_json, write_text
from msa2net.metrics.comparison import compare
from msa2net.metrics.protocol import (
    DISTANCES_MM,
    DISTANCES_VOXELS,
    RENAMED,
    CaseRow,
    get_protocol,
)
from msa2net.metrics.summary import failed_distances, read_cases_csv
from msa2net.text import all_printable, count_noun, folded_name

CASES, SUMMARY = "cases.csv", "summary.json"
_SHARE = 4  # decimals of a figure from 0 to 1
_UNITS = {"_mm": 2, "_voxels": 2, "_percent": 2}  # decimals by the end of a metric's name
_CLASS_WIDTH = 18  # of 80 columns, beside the numbers


def compare_evaluations(
    folders: Sequence[str | Path],
    *,
    metric: str = "dice",
    protocol: str = "standard",
    common: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare the evaluations in some folders with that in the first; writes nothing.

    Args:
        folders: run folders, or folders with a `cases.csv`; two or more.
        metric: one of the protocol's.
        protocol: a protocol with one score a case.
        common: compare the cases that all have; otherwise a case that one lacks is an error.
        seed: of the bootstrap.

    Returns:
        As `msa2net.metrics.comparison.compare`, with `schema` and `warnings`: sentences to be read
        before the figures. Names are the folders', as long as is needed to tell them apart. `notes`
        also say whose weights were chosen by these cases.

    Raises:
        ConfigError: fewer than two folders, one given twice, or no such metric or protocol.
        DataError: a folder has no evaluation, they are not of the same cases, or the distances of
            failures were not counted alike.
    """
    if len(folders) < 2:
        raise ConfigError("one evaluation has nothing to be compared with; give two or more")
    metric = RENAMED.get(metric, metric)
    tables = [_cases_file(Path(folder)) for folder in folders]
    names = _short_names([table.parent for table in tables])
    rows = dict(zip(names, map(read_cases_csv, tables), strict=True))
    of_distance = metric in (*DISTANCES_MM, *DISTANCES_VOXELS)
    warnings = list(_failures(rows, protocol)) if of_distance else []
    result = compare(
        *rows.values(),
        names=names,
        metric=metric,
        protocol=protocol,
        common=common,
        seed=seed,
    )
    result["notes"] += [
        note
        for name, table in zip(names, tables, strict=True)
        for note in _selection(name, table.with_name(SUMMARY))
    ]
    return {"schema": 1, "warnings": warnings, **result}


def write_comparison(result: dict[str, Any], folder: Path) -> None:
    """Write `comparison.json` and `comparison.md`.

    Raises:
        DataError: the folder cannot be written.
    """
    clean_temporaries(folder)
    write_json(folder / "comparison.json", result)
    write_text(folder / "comparison.md", markdown_comparison(result))


def console_comparison(result: dict[str, Any]) -> RenderableType:
    """Make a comparison ready for `rich.print`, for a terminal of 80 columns or more."""
    result = all_printable(result)
    letters = _letters(result)
    legend = "\n".join(f"{letter}  {_role(name, result)}" for name, letter in letters.items())
    parts: list[RenderableType] = [Text(_heading(result), style="bold"), Text(legend)]
    parts += [Text(warning, style="bold yellow") for warning in result.get("warnings", ())]
    for one in result["comparisons"]:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
        first, *short = _short_headings(one, letters)
        table.add_column(first)
        for heading in short:
            table.add_column(heading, justify="right", no_wrap=True)
        for label, entry in one["classes"].items():
            cells = _cells(folded_name(label, _CLASS_WIDTH), entry, result["metric"])
            table.add_row(*map(Text, cells))
        if one["mean"]:
            table.add_section()
            table.add_row(*map(Text, _cells("mean", one["mean"], result["metric"])), style="bold")
        explained = Text(_legend(one, letters, result["metric"]), style="dim")
        parts += [table, explained, Text("\n".join(_verdicts(one)))]
    parts += [Text("\n".join(result["notes"]), style="dim"), Text(DISCLAIMER, style="dim")]
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts[:-1]), parts[-1])


def markdown_comparison(result: dict[str, Any]) -> str:
    """Write a comparison as Markdown: the whole of comparison.md."""
    letters = _letters(result)
    parts = [f"# {escaped(_heading(result))}"]
    parts.append(lay_out(["", "evaluation"], [[at, _role(n, result)] for n, at in letters.items()]))
    parts += [f"**{escaped(warning)}**" for warning in result.get("warnings", ())]
    for one in result["comparisons"]:
        rows = [_cells(label, entry, result["metric"]) for label, entry in one["classes"].items()]
        if one["mean"]:
            cells = _cells("mean", one["mean"], result["metric"])
            rows.append([f"**{cell}**" if cell else cell for cell in cells])
        parts.append(f"## {letters[one['other']]} against {letters[one['reference']]}")
        parts.append(lay_out(_headings(one, letters), rows))
        parts.append("\n".join(f"* {escaped(verdict)}" for verdict in _verdicts(one)))
    said = "\n".join(f"* {escaped(note)}" for note in result["notes"])
    parts += ["## Notes", said, f"*{DISCLAIMER}*"]
    return "\n\n".join(parts) + "\n"


def _failures(rows: Mapping[str, Sequence[CaseRow]], protocol: str) -> Iterator[str]:
    """Say where failures flatter distances; refuse evaluations that count them differently."""
    ways = {name: failed_distances(of_one) for name, of_one in rows.items()}
    if protocol == "standard" and len(set().union(*ways.values())) > 1:
        counted = ", ".join(f"{name} as {' and '.join(way)}" for name, way in ways.items() if way)
        raise DataError(
            f"the distances of failures are counted differently ({counted}); evaluate again with "
            "the same --failed-distance"
        )
    flatters = {"transunet": "as perfect"}.get(protocol)
    if protocol == "standard" and set().union(*ways.values()) == {"nan"}:
        flatters = "not at all"
    for name, of_one in rows.items():
        failed = sum(
            get_protocol(protocol).outcome(row) in ("missed", "false_positive") for row in of_one
        )
        if flatters and failed:
            plural = "" if failed == 1 else "s"
            yield (
                f"Warning: {name} missed or invented a class {failed} time{plural}, which "
                f"{'this protocol' if protocol == 'transunet' else 'this evaluation'} counts "
                f"{flatters}: these distances do not tell which is better. Compare dice, or "
                "distances under standard with --failed-distance diagonal."
            )


def _cases_file(folder: Path) -> Path:
    """Find the cases.csv of a run folder, of an evaluation's folder, or given itself."""
    candidates = [folder / EVALUATIONS["test"] / CASES, folder / CASES]
    if folder.name == CASES:
        candidates = [folder]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(
        f"{folder} holds no evaluation: there is no {' and no '.join(map(str, candidates))}; "
        "`msa2net evaluate` makes one"
    )


def _short_names(folders: Sequence[Path]) -> list[str]:
    """Name folders by as many of their last parts as tell them apart; a run by itself."""
    whole = [folder.resolve() for folder in folders]
    whole = [path.parent if path.name == EVALUATIONS["test"] else path for path in whole]
    for folder in whole:
        if whole.count(folder) > 1:
            raise ConfigError(f"{folder} is given twice; compare it with another evaluation")
    for length in count(1):
        names = ["/".join(path.parts[-length:]) for path in whole]
        if len(set(names)) == len(names):
            break
    return names


def _selection(name: str, path: Path) -> Iterator[str]:
    """Say if a summary's weights saw, or were chosen by, its cases, or if cases were left out."""
    if path.is_file():
        summary = read_summary(path)
        warning, sentence = selection_note(summary)
        if warning:
            yield f"Warning: {name}: {sentence}"
        if subset := subset_note(summary):
            yield f"Note: {name} is of a part of its folders. {subset}"


def _letters(result: dict[str, Any]) -> dict[str, str]:
    """Give every evaluation a letter, for columns that have no room for names."""
    return {name: chr(ord("A") + index) for index, name in enumerate(result["names"])}


def _role(name: str, result: dict[str, Any]) -> str:
    return f"{name} (reference)" if name == result["names"][0] else name


def _heading(result: dict[str, Any]) -> str:
    cases = count_noun(result["cases"], "case")
    better = (
        "nearer 0 is better" if result["better"] == "nearer 0" else f"{result['better']} is better"
    )
    return f"{result['metric']} by the {result['protocol']} protocol, {cases}; {better}"


def _headings(one: dict[str, Any], letters: Mapping[str, str]) -> list[str]:
    a, b = letters[one["reference"]], letters[one["other"]]
    return ["class", "n", a, b, f"{b} - {a}", "95 % interval", "Holm p", f"{b} win/tie/loss"]


def _short_headings(one: dict[str, Any], letters: Mapping[str, str]) -> list[str]:
    """As `_headings`, for a terminal: none breaks at 80 columns, and `_legend` explains them."""
    a, b = letters[one["reference"]], letters[one["other"]]
    return ["class", "n", a, b, f"{b}-{a}", "95 % interval", "p", "W/T/L"]


def _legend(one: dict[str, Any], letters: Mapping[str, str], metric: str) -> str:
    a, b = letters[one["reference"]], letters[one["other"]]
    ends = {"_mm": "in millimetres", "_voxels": "in voxels", "_percent": "in percent"}
    unit = next((unit for end, unit in ends.items() if metric.endswith(end)), "from 0 to 1")
    return (
        f"n: cases with a figure on both sides; {a}, {b}: mean {metric}, {unit}; {b}-{a}: mean "
        f"difference, and its 95 % interval; p: Wilcoxon signed-rank test, corrected by Holm's "
        f"method; W/T/L: cases that {b} wins, ties and loses; {NOT_APPLICABLE}: not applicable."
    )


def _cells(label: str, entry: dict[str, Any], metric: str) -> list[str]:
    digits = next((n for end, n in _UNITS.items() if metric.endswith(end)), _SHARE)
    interval = entry["interval"]
    return [
        label,
        str(entry["n"]),
        _number(entry["reference_mean"], digits),
        _number(entry["other_mean"], digits),
        _number(entry["mean_difference"], digits, "+"),
        " to ".join(_number(end, digits, "+") for end in interval) if interval else NOT_APPLICABLE,
        _p_text(entry["p_holm"]),
        f"{entry['wins']}/{entry['ties']}/{entry['losses']}",
    ]


def _number(value: float | None, digits: int, sign: str = "") -> str:
    if value is None:
        return NOT_APPLICABLE
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"  # adding 0 makes -0 positive


def _p_text(p: float | None) -> str:
    if p is None:
        return NOT_APPLICABLE
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _verdicts(one: dict[str, Any]) -> list[str]:
    """One sentence for all classes of which the same is to be said; the mean by itself."""
    by_words: dict[str, list[str]] = {}
    for label, entry in one["classes"].items():
        by_words.setdefault(entry["words"], []).append(label)
    sentences = [f"{', '.join(labels)}: {words}." for words, labels in by_words.items()]
    if one["mean"]:
        sentences.append(f"Mean over classes: {one['mean']['words']}.")
    return sentences
