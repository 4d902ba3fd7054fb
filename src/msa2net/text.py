"""Words for sentences and tables: lists that end, and foreign text made safe to print."""

import re
from collections.abc import Iterable

MAX_SENTENCE = 2000
"""Longest sentence in characters; longer ones lose their middle, since their end is the advice."""

# Terminals obey control characters, and bidirectional ones change the order of what is read.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


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


def listed(names: Iterable[object], shown: int = 5) -> str:
    """Return "a, b, c and 3 more": the first names, and how many there are besides."""
    every = [str(name) for name in names]
    more = len(every) - shown
    return ", ".join(every[:shown]) + (f" and {more} more" if more > 0 else "")


def csv_cell(text: str) -> str:
    """Return foreign text as a CSV cell that no spreadsheet takes for a formula.

    Numbers, negative ones too, stay as they are; text that begins as a formula does gets an
    apostrophe in front, which spreadsheets do not show.

    Source: OWASP, "CSV Injection".
    """
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
