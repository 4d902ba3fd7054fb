"""Whether confidences can be believed: reliability, its error, and the temperature that mends it.

A network is calibrated if, of all pixels that it answers with a confidence of 0.8, 80 % are right.
Dividing logits by one temperature (Guo et al., 2017, "On Calibration of Modern Neural Networks")
brings confidences closer to that and changes no answer, since it changes no order.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.text import count_noun

BINS = 15
COLUMNS = 3
"""Of a reliability table: pixels, their confidences added up, how many of them are right."""

LOWEST, HIGHEST = 0.1, 10.0  # a temperature beyond says that there was nothing to fit it to

FEWEST_CASES = 5
"""With fewer, a temperature is of these very cases."""

Pixels = tuple[NDArray[np.floating[Any]], NDArray[np.integer[Any]]]
"""Log-probabilities (N, K) and true classes (N,) of a case."""

_GOLDEN = (math.sqrt(5) - 1) / 2
_STEPS = 40  # each leaves 62 % of the interval: what is left is far below what matters


def reliability_table(
    confidence_N: NDArray[np.floating[Any]], right_N: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Sort answers into bins of equal width by their confidence.

    Args:
        confidence_N: of each answer, 0 to 1.
        right_N: whether it is right.

    Returns:
        (BINS, 3), see `COLUMNS`. Tables of parts add up to that of the whole.
    """
    index_N = np.minimum((confidence_N * BINS).astype(np.intp), BINS - 1)
    ones_N = np.ones(len(index_N))
    columns = (ones_N, confidence_N.astype(np.float64), right_N.astype(np.float64))
    return np.stack([np.bincount(index_N, column, BINS) for column in columns], axis=1)


def expected_calibration_error(table_B3: NDArray[np.float64]) -> float | None:
    """Return the mean distance between confidence and accuracy over all answers, 0 to 1.

    Bins count by their answers; None if there are none at all.
    """
    total = float(table_B3[:, 0].sum())
    if not total:
        return None
    return float(np.abs(table_B3[:, 1] - table_B3[:, 2]).sum() / total)


def reliability_points(table_B3: NDArray[np.float64]) -> list[tuple[float, float, float]]:
    """Return (mean confidence, accuracy, share of all answers) of each bin that holds any."""
    total = float(table_B3[:, 0].sum())
    return [
        (confidence / count, right / count, count / total)
        for count, confidence, right in table_B3.tolist()
        if count
    ]


def fit_temperature(
    log_probability_NK: NDArray[np.floating[Any]], truth_N: NDArray[np.integer[Any]]
) -> float:
    """Find the temperature that makes the truth most probable, between 0.1 and 10.

    The mean negative log-likelihood has one minimum along the temperature, which is closed in on
    by the golden section; 1 where there is nothing to fit to.

    Args:
        log_probability_NK: logits or logarithms of probabilities; finite.
        truth_N: the true class of each.
    """
    if not len(truth_N):
        return 1.0
    scores_NK = log_probability_NK.astype(np.float64)
    low, high = math.log(LOWEST), math.log(HIGHEST)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left = negative_log_likelihood(scores_NK, truth_N, math.exp(left))
    at_right = negative_log_likelihood(scores_NK, truth_N, math.exp(right))
    for _ in range(_STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = negative_log_likelihood(scores_NK, truth_N, math.exp(left))
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = negative_log_likelihood(scores_NK, truth_N, math.exp(right))
    return math.exp((low + high) / 2)


def calibrate(cases: Sequence[Pixels]) -> tuple[float, str]:
    """Fit a temperature to cases, if one that is fitted to half of them helps the other half.

    Returns:
        The temperature, and why it is 1; "" if it was fitted.
    """
    if len(cases) < FEWEST_CASES:
        found = count_noun(len(cases), "validation case")
        return 1.0, f"of {found} no temperature is fitted, {FEWEST_CASES} are needed"
    halves = [_joined(cases[start::2]) for start in (0, 1)]
    likelihoods, tables_2B3 = np.zeros(2), np.zeros((2, BINS, COLUMNS))
    for fitted_to, (scores_NK, truth_N) in zip(halves, reversed(halves), strict=True):
        for index, temperature in enumerate((1.0, fit_temperature(*fitted_to))):
            loss = negative_log_likelihood(scores_NK, truth_N, temperature)
            likelihoods[index] += loss * len(truth_N)
            scaled_NK = np.exp(_log_softmax(scores_NK / temperature))
            right_N = scaled_NK.argmax(axis=1) == truth_N
            tables_2B3[index] += reliability_table(scaled_NK.max(axis=1), right_N)
    errors = [expected_calibration_error(table) or 0.0 for table in tables_2B3]
    if likelihoods[1] >= likelihoods[0] or errors[1] > errors[0]:
        return 1.0, (
            "a temperature fitted to half of the validation cases made the confidences of the "
            "other half no better"
        )
    return fit_temperature(*_joined(cases)), ""


def _joined(cases: Sequence[Pixels]) -> Pixels:
    scores, truth = zip(*cases, strict=True)
    return np.concatenate(scores), np.concatenate(truth)


def negative_log_likelihood(
    scores_NK: NDArray[np.floating[Any]], truth_N: NDArray[np.integer[Any]], temperature: float
) -> float:
    """Return the mean of −log p(truth) where p is the softmax of scores / temperature."""
    scaled_NK = _log_softmax(scores_NK / temperature)
    return float(-np.mean(scaled_NK[np.arange(len(truth_N)), truth_N]))


def _log_softmax(scores_NK: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    scores_NK = scores_NK - scores_NK.max(axis=1, keepdims=True)
    log_NK: NDArray[np.floating[Any]] = scores_NK - np.log(
        np.exp(scores_NK).sum(axis=1, keepdims=True)
    )
    return log_NK
