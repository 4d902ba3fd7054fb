"""What a check of a data set says."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]

LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""Training or evaluation would fail or mean nothing; probably wrong; worth knowing."""

WHOLE = "the data set"
"""`Finding.where` of what concerns no case in particular."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        level: how bad it is, see `LEVELS`.
        where: the case, or what else it is about.
        what: what is found; the same words for every case of its kind, so that they can be grouped.
        advice: what to do; "" if nothing.
        detail: the numbers of this one case; "" if there are none.
    """

    level: Level
    where: str
    what: str
    advice: str
    detail: str = ""
