"""Words for sentences and tables: lists that end, and foreign text made safe to print."""

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MAX_SENTENCE = 2000
"""Longest sentence in characters; longer ones lose their middle, since their end is the advice."""

MAX_CELL = 20_000
"""Longest cell of a table, which may hold several sentences; spreadsheets take 32,767."""

# Terminals obey control characters, and bidirectional ones change the order of what is read.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
# What spreadsheets take for a formula, or what `csv_cell` made of it before.
_FORMULA = re.compile("'*[=+\\-@]")


def printable(text: str, limit: int = MAX_SENTENCE) -> str:
    r"""Return `text` on one line, with control characters escaped (`\x1b`) and its length bounded.

    Args:
        text: from a file name, a header or another library.
        limit: characters of the result; beyond, the middle gives way to "…".
    """
    if len(text) > limit:
        start = limit * 3 // 4
        text = f"{text[:start]}…{text[start + 1 - limit :]}"
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def folded(line: str, width: int) -> str:
    """Return a line in lines of `width` columns that end between words; what follows is indented.

    A word that is longer than a line, such as a path, stays whole.
    """
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def folded_name(name: str, width: int) -> str:
    """Return a name in lines of `width` columns that end after a space, _, -, . or /.

    A part that is longer than a line stays whole.
    """
    lines = [""]
    for part in re.findall(r"[^\s_./-]*[\s_./-]+|[^\s_./-]+$", name):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip(" ") for line in lines)


def listed(
    names: Iterable[object], shown: int = 5, total: int | None = None, between: str = ", "
) -> str:
    """Return "a, b, c and 3 more": the first names, and how many there are besides.

    Args:
        names: all of them, or the first.
        shown: how many are named.
        total: how many there are, where not all are given.
        between: what parts them; after anything but a comma it stands before "and" too.
    """
    every = [str(name) for name in names]
    more = (len(every) if total is None else total) - min(shown, len(every))
    rest = f"{between.rstrip(', ')} and {more} more" if more > 0 else ""
    return between.join(every[:shown]) + rest


def joined(words: Sequence[str], last: str = "and") -> str:
    """Return "a, b and c"."""
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def count_noun(number: int, word: str) -> str:
    """Return `1 case`, `2,000 cases`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def csv_cell(text: str) -> str:
    """Return foreign text as a CSV cell that no spreadsheet takes for a formula.

    Numbers, negative ones too, stay as they are; text that begins as a formula does gets an
    apostrophe in front, which spreadsheets do not show; `plain_cell` takes it away.

    Source: OWASP, "CSV Injection".
    """
    text = printable(text, MAX_CELL)
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def plain_cell(cell: str) -> str:
    """Return the printable text that `csv_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Return a table as CSV: text by `csv_cell`, numbers in full, None as an empty cell.

    Args:
        columns: their order; what else rows hold is left out.
        rows: by column.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writerow({column: csv_cell(column) for column in columns})
    for row in rows:
        writer.writerow({k: csv_cell(v) if isinstance(v, str) else v for k, v in row.items()})
    return text.getvalue()


def all_printable(content: Any) -> Any:
    """Return parsed JSON with every text in it, keys too, made printable."""
    if isinstance(content, str):
        return printable(content)
    if isinstance(content, Mapping):
        return {all_printable(key): all_printable(own) for key, own in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(map(all_printable, content))
    return content


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
