"""Fitting reference ranges to a training's cases, and the limits beyond which a case is flagged.

Every feature (see `features`) has a range: its centre and how far it goes down and up. A case's
deviation is its distance from the centre in units of that range, and of a criterion (size, place,
…) the largest deviation of its features. It is flagged beyond the criterion's limit.

Few cases say little about rare ones, so limits go beyond what was seen: an exponential tail fitted
to the highest deviations gives them, and no range is narrower than what is known to be harmless
(`FLOORS`). Ranges learnt from a part of the training cases are asked about the rest, and about the
validation cases. Values and grids are measured alike in both, so theirs is the tail of all these
cases together: the more cases, the less far it has to be drawn out. Structures are labels in one
and predictions in the other, and training cases have a part in the mean thumbnail: there the limit
is that of the larger deviations. At last limits move, so that several criteria flag no more than
one would: with many validation cases down together, or up where one flags too many, to where so
many cases are flagged that, with 95 % confidence, no more than `TARGET` of further ones are; with
few up to where none of them is.

What is there or not has no limit to move: where it flags too many, the one feature in question is
judged no more. That a structure which all training cases hold is missing, or fills a slice as in
none of them, is judged whatever the validation cases say: a network that fails in them is to be
looked at, not to be taken as normal.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from msa2net.quality.features import AXES, Features, name_feature, parts_of
from msa2net.quality.reference_ranges import (
    CONFIDENCE,
    TARGET,
    Range,
    ReferenceRanges,
    criterion,
    deviations,
)

RATES = {
    "confidence": 0.010,
    "disagreement": 0.003,
    "missing": 0.003,
    "extent": 0.001,
    "size": 0.003,
    "place": 0.003,
    "intensity": 0.003,
    "noise": 0.001,
    "colour": 0.001,
    "layout": 0.002,
    "spacing": 0.001,
    "unknown": 0.001,
}
"""Criterion → the share of clean cases that it is meant to flag; together 3 %: there is room."""

FLOORS = {
    "confidence": 0.7,
    "disagreement": 0.7,
    "missing": 0.5,
    "extent": 0.5,
    "size": math.log(1.5),
    "place": 0.05,
    "intensity": 0.04,
    "noise": math.log(1.3),
    "colour": math.log(1.3),
    "layout": 0.1,
    "spacing": math.log(1.5),
    "unknown": 0.5,
}
"""Criterion → the least range of its features, in their own units."""

OF_VALIDATION = ("confidence", "disagreement")
"""Criteria about predictions alone, of which training cases would say too much good."""

OF_IMAGES = ("intensity", "noise", "colour", "spacing")
"""Criteria about images alone, which are measured alike in training and validation cases."""

# Which feature → its floor, where it is not its criterion's: standard deviations, logarithms.
_FLOORS = {f"{axis} among all": 0.5 for axis in AXES} | {"dark": 0.7, "bright": 0.7}
_NETWORKS = name_feature("disagreement", "networks")
_RANGE_RATE = 0.01
_RARE = 0.01  # of training cases without a structure: more, and its absence means nothing
_RARE_PREDICTION = 0.025  # of validation cases of which something is not known
_TAIL = 10  # of the highest deviations say how the others go on
_FEW = 30  # cases, of which a limit lies above all
_LOWEST_FACTOR = 0.5  # limits may come down to this share of what the tail gave
_PARTS = 5
_OF_TRAINING = ("missing", "extent")  # flagged come what may
_YES_OR_NO = (*_OF_TRAINING, "unknown")  # 0 or 1: beyond the range, or not
_UP_ONLY = (*_YES_OR_NO, *OF_VALIDATION)
_DOWN_ONLY = ("layout",)


def upper_limit(values: Sequence[float] | NDArray[np.float64], rate: float) -> float:
    """Return a value that about `rate` of further cases exceeds, rather fewer than more.

    From the highest ten, or the upper half of fewer than twenty, an exponential tail goes on; of
    few values the limit is above all of them.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    count = len(ordered)
    above = min(_TAIL, count // 2)
    if count * rate >= above or not above:
        return float(ordered[max(0, math.floor((1 - rate) * (count - 1)))])
    start = float(ordered[count - above - 1])
    mean_excess = float((ordered[count - above :] - start).mean())
    tail = start + mean_excess * math.log(above / count / rate) * (1 + 1 / above)
    return max(tail, float(ordered[-1])) if count < _FEW else tail


def fit_reference_ranges(
    train: Sequence[Features], val: Sequence[Features], errors: Sequence[float] = ()
) -> ReferenceRanges:
    """Fit ranges and limits.

    Args:
        train: the features of training cases, structures by their labels; at least one.
        val: of validation cases, structures as predicted. Without any, what is about predictions
            is not judged.
        errors: of these predictions, see `CalibrationAccumulator.error`: networks that differ from
            each other by more than one usually does from the ground truth disagree.
    """
    ranges = _ranges(train, val)
    limits = {}
    train_deviations = _crossed(train, lambda rest: _ranges(rest, val), ranges)
    val_deviations = _crossed(val, lambda rest: _ranges(train, rest), ranges)
    for name, rate in RATES.items():
        known = [
            [found[name] for found in map(largest, part) if name in found]
            for part in (train_deviations, val_deviations)
        ]
        if name in _YES_OR_NO:
            known = []  # one deviation says it all, and the limit stays there
        elif name in OF_IMAGES:
            known = [known[0] + known[1]]
        limits[name] = max([1.0, *(upper_limit(part, rate) for part in known if part)])
    flagged = _keep_target(val_deviations, limits, ranges)
    if errors:
        ranges[_NETWORKS] = _range(_NETWORKS, errors)
    return ReferenceRanges(
        train_cases=len(train),
        val_cases=len(val),
        flagged=flagged,
        ranges={name: _rounded(found) for name, found in sorted(ranges.items())},
        limits={name: round(limit, 7) for name, limit in limits.items()},
    )


def largest(found: Mapping[str, float]) -> dict[str, float]:
    """Return criterion → the largest deviation of its features."""
    by_criterion: dict[str, float] = {}
    for feature, deviation in found.items():
        name = criterion(feature)
        by_criterion[name] = max(deviation, by_criterion.get(name, 0.0))
    return by_criterion


def _ranges(train: Sequence[Features], val: Sequence[Features]) -> dict[str, Range]:
    ranges = {}
    for name, values in _by_name(train).items():
        if len(values) < len(train) and parts_of(name)[1] == "mm3":
            continue  # of cases without a spacing nothing is known
        if _judged(name, train, val):
            ranges[name] = _range(name, values)
    for name, values in _by_name(val).items():
        if criterion(name) in OF_VALIDATION:
            ranges[name] = _range(name, values)
    return ranges


def _judged(name: str, train: Sequence[Features], val: Sequence[Features]) -> bool:
    """Leave out what is often missing, of which absence tells nothing."""
    if criterion(name) in _YES_OR_NO:
        share = float(np.mean([one.get(name, 1.0) for one in train]))
        predicted = float(np.mean([one.get(name, 0.0) for one in val])) if val else 0.0
        return share <= _RARE and (predicted <= _RARE_PREDICTION or criterion(name) in _OF_TRAINING)
    return criterion(name) not in OF_VALIDATION


def _range(name: str, values: Sequence[float]) -> Range:
    centre = float(np.median(values))
    of_criterion, which, _ = parts_of(name)
    floor = _FLOORS.get(which, FLOORS[of_criterion])
    apart = np.asarray(values) - centre
    up = max(floor, upper_limit(apart, _RANGE_RATE))
    down = max(floor, upper_limit(-apart, _RANGE_RATE))
    return Range(
        low=None if of_criterion in _UP_ONLY else centre - down,
        centre=centre,
        high=None if of_criterion in _DOWN_ONLY else centre + up,
    )


def _crossed(
    cases: Sequence[Features],
    learnt: Callable[[Sequence[Features]], dict[str, Range]],
    judged: Collection[str],
) -> list[dict[str, float]]:
    """Return the deviations of cases from ranges that they had no part in."""
    parts = min(_PARTS, len(cases))
    found: list[dict[str, float]] = [{} for _ in cases]
    for part in range(parts):
        rest = [one for index, one in enumerate(cases) if index % parts != part or parts == 1]
        ranges = {name: own for name, own in learnt(rest).items() if name in judged}
        for index in range(part, len(cases), parts):
            found[index] = deviations(cases[index], ranges)
    return found


def allowed_flags(cases: int) -> int:
    """Return how many of so many clean cases may be flagged.

    The most with which, if more than `TARGET` of all clean cases were flagged, so few would be
    found in less than one of twenty samples.
    """
    allowed, chance = 0, 0.0
    for flagged in range(cases + 1):
        chance += math.comb(cases, flagged) * TARGET**flagged * (1 - TARGET) ** (cases - flagged)
        if chance > 1 - CONFIDENCE:
            break
        allowed = flagged
    return allowed


def _keep_target(
    found: Sequence[Mapping[str, float]], limits: dict[str, float], ranges: dict[str, Range]
) -> int:
    """Move limits, and drop yes-or-no features, to where the target is kept.

    Cases that lack a structure are flagged come what may, so they come first of those that may be.

    Returns:
        How many of the cases are flagged.
    """
    allowed = allowed_flags(len(found))
    least = {name: _LOWEST_FACTOR * limit for name, limit in limits.items()}
    rest = sorted(found, key=lambda case: _excess(largest(case), limits), reverse=True)
    rest.sort(key=_is_wrong, reverse=True)
    for case in rest[allowed:]:
        for feature, value in case.items():
            name = criterion(feature)
            if value <= limits[name] or _is_wrong(case):
                continue
            if name in _YES_OR_NO:
                ranges.pop(feature, None)
            else:
                limits[name] = value
    judged = [largest({name: case[name] for name in case if name in ranges}) for case in found]
    if allowed:
        _lower(judged, limits, least, allowed)
    return sum(_excess(case, limits) > 1 for case in judged)


def _lower(
    found: Sequence[Mapping[str, float]],
    limits: dict[str, float],
    least: Mapping[str, float],
    allowed: int,
) -> None:
    """Move limits down, to one more case at a time, until more would be too many."""
    movable = limits.keys() - set(_YES_OR_NO)
    while movable:
        nearest = [
            (value / limits[name], name)
            for case in found
            if _excess(case, limits) <= 1
            for name, value in case.items()
            if name in movable and value > least[name]
        ]
        if not nearest:
            return
        share, name = max(nearest)
        lower = limits[name] * share * (1 - 1e-6)
        if sum(_excess(case, {**limits, name: lower}) > 1 for case in found) <= allowed:
            limits[name] = lower
        else:
            movable.discard(name)


def _is_wrong(case: Mapping[str, float]) -> bool:
    """Tell whether a structure is missing, or fills a slice, as in no training case."""
    return any(value > 1 for name, value in case.items() if criterion(name) in _OF_TRAINING)


def _excess(case: Mapping[str, float], limits: Mapping[str, float]) -> float:
    return max((value / limits[name] for name, value in case.items()), default=0.0)


def _by_name(cases: Sequence[Features]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for case in cases:
        for name, value in case.items():
            found.setdefault(name, []).append(value)
    return found


def _rounded(found: Range) -> Range:
    return Range(
        **{
            name: None if value is None else round(value, 5)
            for name, value in (("low", found.low), ("centre", found.centre), ("high", found.high))
        }
    )
