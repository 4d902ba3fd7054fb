"""A summary.json as a LaTeX table in the paper's columns, to be read into a document of one's own.

It needs the package booktabs and nothing else.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msa2net.evaluation.schema import Summary
from msa2net.evaluation.tables.columns import (
    DISTANCES,
    HEADINGS,
    NOT_APPLICABLE,
    format_interval,
    format_metric,
    heading,
    interval_notes,
    selection_note,
    subset_note,
)
from msa2net.evaluation.tables.rows import Entries, has_distances, shown
from msa2net.metrics.protocol import DISTANCE
from msa2net.metrics.schema import ProtocolScores
from msa2net.text import printable

# The paper's abbreviations of the eight organs, in its order; class names in any spelling.
_ORGANS = {
    "spleen": "Spl",
    "right kidney": "RKid",
    "left kidney": "LKid",
    "gallbladder": "Gal",
    "liver": "Liv",
    "stomach": "Sto",
    "aorta": "Aor",
    "pancreas": "Pan",
}
_PAPER_OF_PICTURES = ("dice", "sensitivity", "specificity", "accuracy")

_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # At the beginning of a row these would be read as an argument of the line break before it.
    "[": "{[}",
    "*": "{*}",
    "–": "--",
    "∞": r"$\infty$",
    "²": r"\textsuperscript{2}",
}


class _Column(NamedTuple):
    """One column: its heading in LaTeX, and a metric of one class, or of the mean if None."""

    heading: str
    metric: str
    label: str | None = None


def latex_table(summary: Summary) -> str:
    """Write a summary as a `tabular` for booktabs, one row a protocol.

    Eight organs of Synapse: mean Dice, HD95 in voxels, the Dice of each organ in the paper's
    order, Dice in percent. A single class of pictures: Dice, sensitivity, specificity and accuracy
    as fractions. Others: mean Dice, HD95 and, if there are several, the Dice of each class; of
    volumes in percent.

    Returns:
        The whole of table.tex: comments with the rules, n and intervals of each row, then the
        table, without a preamble.
    """
    _, scores, metrics = shown(summary)
    columns, in_percent = _columns(summary, metrics)
    rows = [
        [_escaped(_row_name(summary, name)), *(_cell(entry, one, in_percent) for one in columns)]
        for (name,), entry in scores.items()
    ]
    header = ["", *(column.heading for column in columns)]
    lines = [
        *_comments(summary, scores, metrics, in_percent),
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _columns(summary: Summary, metrics: Sequence[str]) -> tuple[list[_Column], bool]:
    """Choose the columns, and whether shares are in percent, as the paper has it of volumes."""
    labels = summary.classes
    volumes = summary.image_kind == "volume"
    if not volumes and len(labels) == 1:
        shown_here = [metric for metric in _PAPER_OF_PICTURES if metric in metrics]
        return [_Column(HEADINGS[metric], metric) for metric in shown_here], False
    plain = {" ".join(label.lower().replace("_", " ").split()): label for label in labels}
    synapse = plain.keys() == _ORGANS.keys()
    dice = _Column(r"DSC$\uparrow$", "dice")
    if synapse:
        distance = [_Column(r"HD95$\downarrow$", "hd95_voxels")] * ("hd95_voxels" in metrics)
        organs = [_Column(short, "dice", plain[organ]) for organ, short in _ORGANS.items()]
        return [dice, *distance, *organs], True
    distances = [
        _Column(rf"{HEADINGS[metric]}$\downarrow$", metric)
        for metric in DISTANCES
        if metric in metrics
    ]
    classes = [_Column(_escaped(label), "dice", label) for label in labels]
    return [dice, *distances, *(classes if len(classes) > 1 else [])], volumes


def _row_name(summary: Summary, protocol: str) -> str:
    """Name what was scored, and the protocol."""
    scored = summary.model.name if summary.model else summary.data.predictions
    return ", ".join(filter(None, (scored, protocol)))


def _cell(entry: ProtocolScores, column: _Column, in_percent: bool) -> str:
    if column.label is None:
        value = entry.mean.get(column.metric)
    else:
        value = entry.classes[column.label][column.metric].mean
    return _escaped(_figure(column.metric, value, in_percent))


def _figure(metric: str, value: float | None, in_percent: bool) -> str:
    if in_percent and metric not in DISTANCES and value is not None:
        return f"{100 * value:.2f}"
    return format_metric(metric, value)


def _comments(
    summary: Summary, scores: Entries, metrics: Sequence[str], in_percent: bool
) -> Iterator[str]:
    """Say of each row by which rules, of how many cases and how sure; LaTeX skips these lines."""
    distances = has_distances(metrics)
    unit = "in percent" if in_percent else "as fractions"
    yield _comment(f"{heading(summary)}; {unit}, a dash is not applicable. Needs booktabs.")
    if subset := subset_note(summary):
        yield _comment(f"Warning: {subset}")
    warning, selection = selection_note(summary)
    if selection:
        yield _comment(f"{'Warning: ' if warning else ''}{selection}")
    for (name,), entry in scores.items():
        dice = entry.counts()
        text = (
            f"{dice.n} scores, {dice.missed} missed, {dice.false_positives} false positives, "
            f"{dice.not_applicable} not applicable"
        )
        yield _comment(f"{name}: {entry.title}. Cases times classes: {text}.")
        for metric in metrics:
            n = entry.counts(metric).n
            if entry.mean.get(metric) is not None and n != dice.n:
                yield _comment(f"{name}: the {HEADINGS[metric]} is a mean of {n} scores.")
        interval = format_interval("dice", entry.mean_interval.get("dice"))
        if interval != NOT_APPLICABLE:
            yield _comment(f"{name}: the 95 % interval of the DSC is {interval} (as fractions).")
        for note in interval_notes(entry, "dice"):
            yield _comment(f"{name}: {note}")
        for situation, counted in entry.rules:
            if distances or not situation.startswith(DISTANCE):
                yield _comment(f"{name} counts: {situation}: {counted}")


def _comment(text: str) -> str:
    return f"% {printable(' '.join(text.split()))}"  # a line break would end the comment


def _escaped(text: str) -> str:
    text = printable(" ".join(text.split()))
    return "".join(_ESCAPES.get(character, character) for character in text)
