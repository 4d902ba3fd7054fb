"""What the sections of a configuration are made of: their base, and kinds of values."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _as_pair(value: object) -> object:
    return (value, value) if isinstance(value, int) else value


def _as_minutes(value: object) -> object:
    """Read a limit on time: a number of minutes, or text such as 11:30:00 or 1-06:00:00."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(?:(\d{1,6})-)?(\d{1,6}):([0-5]\d):([0-5]\d)", value)
    if found is None:
        raise ValueError("minutes, or HOURS:MM:SS, or DAYS-HH:MM:SS are needed")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return days * 1440 + hours * 60 + minutes + seconds / 60


MAX_SIDE = 4096
"""Of a network's input, in pixels; beyond it no machine has the memory."""

MAX_CLASSES, MAX_CHANNELS = 255, 1024
"""Of a network: labels are bytes, whose largest marks what is not scored."""

_STRIDE = 32  # of the deepest feature


def _is_possible(value: tuple[int, int]) -> tuple[int, int]:
    for side in value:
        if side > MAX_SIDE:
            raise ValueError(
                f"a side of more than {MAX_SIDE} pixels takes more memory than there is"
            )
        if side < _STRIDE or side % _STRIDE:
            lower = max(_STRIDE, side // _STRIDE * _STRIDE)
            raise ValueError(
                f"both sides must be multiples of {_STRIDE} (near {side}: {lower} or "
                f"{lower + _STRIDE})"
            )
    return value


@dataclass(frozen=True)
class Kind:
    """Says in words what may be written, where a type does not tell."""

    words: str


Minutes = Annotated[float, BeforeValidator(_as_minutes), Kind("minutes, or a time")]
ImageSize = Annotated[
    tuple[int, int],
    BeforeValidator(_as_pair),
    AfterValidator(_is_possible),
    Kind("whole number, or a list of 2"),
]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Range = tuple[float, float]

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISION_WORDS: dict[str, str] = {
    "32-true": "32-bit floating point",
    "bf16-mixed": "bfloat16 (16 bits) mixed with 32-bit floating point",
    "16-mixed": "16-bit mixed with 32-bit floating point",
}
"""Precision → what it means, for people."""
LEVELS_WORDS: dict[int, str] = {
    4: "",
    5: "five levels: the paper's four, and one at stride 2, our extension",
}
"""Levels of the decoder → words for reports; none for Figure 1's own four."""
LabelEncoding = Literal["btcv", "transunet", "cascade", "samed"]
PaperDefect = Literal["noise", "streams"]
LoggerName = Literal["tensorboard", "wandb", "mlflow"]


class SectionModel(BaseModel):
    """What all sections have in common. A field's description is what `msa2net settings` shows."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )
