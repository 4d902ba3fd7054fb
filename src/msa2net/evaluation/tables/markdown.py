"""Tables in Markdown that read well as plain text too."""

import re
from collections.abc import Sequence

from msa2net.text import printable

# What would end a cell, begin code, HTML, an entity or a link, or stand for something else.
_MARKUP = re.compile(r"[\\`*|]|\](?=[(\[:])|<(?=[A-Za-z/!?])|&(?=#?\w+;)")


def lay_out(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table, padded so that it reads as plain text; text left, numbers right.

    Cells are escaped.

    Args:
        header: one heading a column.
        rows: as many cells each. A column of numbers (∞ and 0.1–0.2 are such), dashes (–) and
            empty cells is one of numbers; bold ones (`**1**`) too.
    """
    lines = [[_cell(cell) for cell in row] for row in (header, *rows)]
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


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is: names are no markup."""
    text = printable(" ".join(text.split()))
    return _MARKUP.sub(lambda found: _HTML.get(found[0], f"\\{found[0]}"), text)


_HTML = {"<": "&lt;", "&": "&amp;"}


def _cell(cell: str) -> str:
    """Escape a cell but for the asterisks of a bold one."""
    bold = len(cell) > 4 and cell.startswith("**") and cell.endswith("**")
    return f"**{escaped(cell[2:-2])}**" if bold else escaped(cell)


def _is_number(cell: str) -> bool:
    bare = cell.strip("*").replace("–", "").replace("∞", "").lstrip("+-")
    return not bare or bare[0].isdigit()
