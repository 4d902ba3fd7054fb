"""Spread, signed-rank test and worst cases of one score a case; intervals are in `bootstrap`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from msa2net.errors import ConfigError

Better: TypeAlias = Literal["higher", "lower", "nearer 0"]

WORST = 5

# Metric, whatever unit, tolerance or protocol its column names after it → which way is better.
BETTER: dict[str, Better] = {
    "dice": "higher",
    "iou": "higher",
    "sensitivity": "higher",
    "specificity": "higher",
    "precision": "higher",
    "accuracy": "higher",
    "surface_dice": "higher",
    "hd": "lower",
    "hd95": "lower",
    "assd": "lower",
    "volume_difference": "nearer 0",
}

_MAX_EXACT = 50  # differences; beyond, the normal approximation is off by .001 near p = .05


class Spread(TypedDict):
    """One score a case, summed up.

    `n` and `not_applicable` add up to all values. What does not exist is None: everything for
    n = 0; `sd` (n - 1 below the fraction) for n = 1 or an infinite value too.
    """

    n: int
    not_applicable: int
    mean: float | None
    sd: float | None
    lower_quartile: float | None
    median: float | None
    upper_quartile: float | None


def spread(values: Sequence[float | None]) -> Spread:
    """Sum up one score a case; the order of the cases changes nothing.

    Args:
        values: None or nan is not applicable, counted and in no value; infinity (a distance
            that has none) makes the mean infinite.

    Returns:
        See `Spread`; quartiles are linear between ranks, as numpy's.
    """
    ordered = np.sort(applicable_scores(values))
    n = len(ordered)
    finite = bool(np.isfinite(ordered).all())
    return {
        "n": n,
        "not_applicable": len(values) - n,
        "mean": fmean(ordered) if n else None,
        "sd": float(ordered.std(ddof=1)) if n > 1 and finite else None,
        "lower_quartile": _quantile(ordered, 0.25),
        "median": _quantile(ordered, 0.5),
        "upper_quartile": _quantile(ordered, 0.75),
    }


def applicable_scores(values: Iterable[float | None]) -> NDArray[np.float64]:
    """Keep the values that are neither None nor nan, in their order."""
    scores = np.array([math.nan if value is None else value for value in values], np.float64)
    return scores[~np.isnan(scores)]


def signed_rank_p(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that differences are symmetric around 0.

    Differences of 0 are left out; 1 if none is left. Up to 50, p is exact given the ranks, the
    mean of them where magnitudes are equal (scipy's exact p knows no equal ones); beyond, it is
    scipy's normal approximation, corrected for equal ones. Infinite differences rank highest.
    """
    signed = np.asarray(differences, np.float64)
    signed = signed[signed != 0]
    if not signed.size:
        return 1.0
    if signed.size > _MAX_EXACT:
        from scipy.stats import wilcoxon

        return float(wilcoxon(signed).pvalue)
    ranks = doubled_ranks(signed)
    above = int(ranks[signed > 0].sum())
    total = int(ranks.sum())
    # The chance of every sum of ranks, each rank counted or not like a coin. These are multiples
    # of 2^-50 or more, so adding and halving them is exact.
    chance = np.zeros(total + 1)
    chance[0] = 1
    for rank in ranks:
        chance[rank:] += chance[:-rank].copy()
        chance /= 2
    return min(1.0, 2 * float(chance[: min(above, total - above) + 1].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for being several (Holm, Scand. J. Statist. 6, 1979), in their own order.

    The smallest of m counts m times, the next m - 1 times and so on; none becomes smaller than
    one before it, none larger than 1.
    """
    order = np.argsort(p_values, kind="stable")
    multiplied = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(multiplied), 1)
    return [float(p) for p in corrected]


def doubled_ranks(signed: NDArray[np.float64]) -> NDArray[np.int64]:
    """Twice the ranks of the magnitudes, which are whole numbers even where some are equal."""
    _, where, counts = np.unique(np.abs(signed), return_inverse=True, return_counts=True)
    doubled: NDArray[np.int64] = (2 * np.cumsum(counts) - counts + 1)[where]
    return doubled


def worst_cases(
    scores: Mapping[str, float | None], better: Better, count: int = WORST
) -> list[tuple[str, float]]:
    """Name the worst cases with their scores, worst first; equals in the order of their names.

    Args:
        scores: case → score; None or nan is not applicable and cannot be worst.
        better: which way, as from `which_is_better`.
        count: how many at most.
    """
    applicable = [
        (case, float(score))
        for case, score in scores.items()
        if score is not None and not math.isnan(score)
    ]

    def badness(entry: tuple[str, float]) -> tuple[float, str]:
        case, score = entry
        towards_bad = {"higher": -score, "lower": score, "nearer 0": abs(score)}[better]
        return -towards_bad, case

    return sorted(applicable, key=badness)[:count]


def which_is_better(metric: str) -> Better:
    """Look up which way a metric is better, by its name or the name of a column.

    Raises:
        ConfigError: no such metric; the message lists those there are.
    """
    for name, better in BETTER.items():
        if metric == name or metric.startswith(f"{name}_"):
            return better
    raise ConfigError(
        f"nobody says whether more of {metric!r} is better; known are {', '.join(BETTER)}, alone "
        "or with a unit after them"
    )


def _quantile(ordered: NDArray[np.float64], share: float) -> float | None:
    """Interpolate linearly between ranks; numpy's own gives nan between two infinite values."""
    if not len(ordered):
        return None
    rank = share * (len(ordered) - 1)
    low, high = float(ordered[math.floor(rank)]), float(ordered[math.ceil(rank)])
    return low if low == high else low + (rank - math.floor(rank)) * (high - low)
