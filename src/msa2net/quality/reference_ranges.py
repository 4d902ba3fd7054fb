"""Reference ranges of a training's cases, as they stand in `model.json`; `fit_ranges` fits them."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from msa2net.metrics.calibration import HIGHEST, LOWEST
from msa2net.quality.features import DICE_ERROR, SIDE, Features, name_feature, parts_of
from msa2net.text import count_noun

TARGET = 0.05
"""The share of clean cases that may be flagged, at most."""

CONFIDENCE = 0.95
"""With which that is known of enough validation cases."""

FEWEST = math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - TARGET))
"""Validation cases that tell, with none flagged, that no more than `TARGET` of others are."""

Value = Annotated[float, Field(ge=-500, le=500)]  # all are shares or logarithms
Share = Annotated[float, Field(ge=0, le=1)]


class Range(BaseModel):
    """The reference range of a feature.

    Attributes:
        low, centre, high: one deviation down, none, and one up; None is without end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: Value | None
    centre: Value
    high: Value | None

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        known = [end for end in (self.low, self.centre, self.high) if end is not None]
        if any(one >= two for one, two in pairwise(known)):
            raise ValueError("low must be below centre, and centre below high")
        return self

    def deviation(self, value: float) -> float:
        """Return how far a value is from the centre, 1 at either end of the range."""
        end = self.high if value > self.centre else self.low
        if end is None or value == self.centre:
            return 0.0
        return abs(value - self.centre) / abs(end - self.centre)

    def signed(self, value: float) -> float:
        """Return how far up a value is, 1 at the high end; below the centre it is negative."""
        end = self.low if self.high is None else self.high
        return 0.0 if end is None else (value - self.centre) / abs(end - self.centre)


class ReferenceRanges(BaseModel):
    """Reference ranges of features, and the limits beyond which `flags.assess` flags a case.

    Attributes:
        target: the share of clean cases that may be flagged.
        train_cases, val_cases: how many it was learnt from; without val no confidence is judged.
        flagged: of the validation cases.
        temperature: divides the logits wherever confidences are asked for.
        temperature_reason: why it is 1 although there were validation cases; "" if it was fitted.
        calibration_error: of the validation cases, before and after; None without any. Those that
            the temperature was fitted to are among them.
        ranges: feature → its range.
        limits: criterion → the deviation from which on it is flagged.
        thumbnail: mean of the inputs, row by row; None of networks that see no common layout.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    target: Share = TARGET
    train_cases: int = Field(ge=0)
    val_cases: int = Field(ge=0)
    flagged: int = Field(0, ge=0)
    temperature: float = Field(1.0, ge=LOWEST, le=HIGHEST)
    temperature_reason: str = ""
    calibration_error: tuple[Share, Share] | None = None
    ranges: dict[str, Range]
    limits: dict[str, Annotated[float, Field(gt=0)]]
    thumbnail: list[float] = []

    @field_validator("thumbnail")
    @classmethod
    def _has_all_pixels(cls, thumbnail: list[float]) -> list[float]:
        if len(thumbnail) not in (0, SIDE**2):
            raise ValueError(f"{len(thumbnail)} pixels are no thumbnail of {SIDE}×{SIDE}")
        return thumbnail

    @model_validator(mode="after")
    def _have_names_and_limits(self) -> Self:
        for feature in self.ranges:
            if feature.count(":") < 2:
                raise ValueError(f"'{feature}' names no feature; train again")
        if DICE_ERROR in self.ranges and criterion(DICE_ERROR) not in self.limits:
            raise ValueError(f"'{DICE_ERROR}' has a range and no limit")
        return self


def describe_limits(val_cases: int, target: float = TARGET) -> str:
    """Say how far it is known which share of clean cases is flagged."""
    if not val_cases:
        return "No validation case was held out, so the network's doubts are not judged."
    cases = count_noun(val_cases, "validation case")
    if val_cases < FEWEST:
        return (
            f"Limits were set on {cases}: of so few nothing can be said about the share of clean "
            f"cases that is flagged ({FEWEST} would do)."
        )
    return (
        f"Limits were set on {cases} so that at most {100 * target:g} % of clean cases are flagged."
    )


def criterion(feature: str) -> str:
    """Return the criterion that a feature belongs to."""
    return parts_of(feature)[0]


def deviations(features: Features, ranges: Mapping[str, Range]) -> dict[str, float]:
    """Return feature → its deviation, of those that have a range."""
    return {
        name: ranges[name].deviation(value)
        for name, value in features.items()
        if name in ranges and not _said_better(name, features, ranges)
    }


def _said_better(feature: str, features: Features, ranges: Mapping[str, Range]) -> bool:
    """Tell whether a size is known in mm³ too, which is what counts then."""
    _, which, of = parts_of(feature)
    if which != "share":
        return False
    in_mm3 = name_feature("size", "mm3", of)
    return in_mm3 in features and in_mm3 in ranges
