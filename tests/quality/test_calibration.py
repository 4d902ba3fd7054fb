"""Confidences beside the truth: by hand, against drawn answers, and as a training leaves them."""

import math

import numpy as np
import pytest
import torch

from msa2net.metrics.calibration import (
    BINS,
    HIGHEST,
    LOWEST,
    calibrate,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_points,
    reliability_table,
)
from msa2net.quality.confidence import temperature_scaled


def test_error_by_hand():
    """Ten answers at 0.95, nine right; ten at 0.55, four right."""
    confidence = np.repeat([0.95, 0.55], 10)
    right = np.r_[[True] * 9, False, [True] * 4, [False] * 6]
    table = reliability_table(confidence, right)
    assert expected_calibration_error(table) == pytest.approx((0.05 + 0.15) / 2)
    assert reliability_points(table) == [
        (pytest.approx(0.55), pytest.approx(0.4), 0.5),
        (pytest.approx(0.95), pytest.approx(0.9), 0.5),
    ]
    halves = (
        reliability_table(confidence[::2], right[::2]),
        reliability_table(confidence[1::2], right[1::2]),
    )
    np.testing.assert_allclose(sum(halves), table)


def test_an_answer_of_full_confidence_has_a_bin_and_nothing_has_no_error():
    table = reliability_table(np.array([1.0, 0.0]), np.array([True, False]))
    assert table[-1, 0] == table[0, 0] == 1
    assert expected_calibration_error(np.zeros((BINS, 3))) is None
    assert reliability_points(np.zeros((BINS, 3))) == []


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_drawn_with_is_found(temperature):
    """Truths are drawn from softmax(logits / T): no other temperature explains them better."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (40_000, 4))
    p = torch.tensor(logits / temperature).softmax(1).numpy()
    truth = (rng.random((len(p), 1)) > p.cumsum(1)[:, :-1]).sum(1)
    found = fit_temperature(logits, truth)
    assert found == pytest.approx(temperature, rel=0.03)
    before, after = (
        reliability_table(q.max(1), q.argmax(1) == truth)
        for q in (torch.tensor(logits / t).softmax(1).numpy() for t in (1.0, found))
    )
    assert expected_calibration_error(after) < 0.01
    if temperature != 1:
        assert expected_calibration_error(after) < expected_calibration_error(before) / 3
    best = negative_log_likelihood(logits, truth, found)
    assert best <= negative_log_likelihood(logits, truth, found * 1.05)
    assert best <= negative_log_likelihood(logits, truth, found / 1.05)


def test_a_temperature_has_ends():
    logits = np.array([[5.0, 0.0]] * 10)
    assert fit_temperature(logits, np.zeros(10, int)) == pytest.approx(LOWEST, rel=1e-3)
    assert fit_temperature(logits, np.ones(10, int)) == pytest.approx(HIGHEST, rel=1e-3)
    assert fit_temperature(np.empty((0, 2)), np.empty(0, int)) == 1


def drawn_cases(rng, temperatures, pixels=3000):
    """Per case logits, and truths drawn from softmax(logits / T)."""
    for temperature in temperatures:
        logits = rng.normal(0, 3, (pixels, 4)).astype(np.float32)
        p = torch.tensor(logits / temperature).softmax(1).numpy()
        yield logits, (rng.random((pixels, 1)) > p.cumsum(1)[:, :-1]).sum(1)


def test_a_temperature_is_used_where_it_helps_cases_it_was_not_fitted_to():
    rng = np.random.default_rng(0)
    found, reason = calibrate(list(drawn_cases(rng, [2.0] * 6)))
    assert found == pytest.approx(2, rel=0.05)
    assert reason == ""
    # One half of the cases says the opposite of the other.
    found, reason = calibrate(list(drawn_cases(rng, [0.4, 2.5] * 3)))
    assert found == 1
    assert "other half no better" in reason


@pytest.mark.parametrize(
    ("count", "said"), [(1, "of 1 validation case no"), (4, "of 4 validation cases")]
)
def test_a_temperature_is_not_fitted_to_few_cases(count: int, said: str):
    found, reason = calibrate(list(drawn_cases(np.random.default_rng(0), [2.0] * count)))
    assert found == 1
    assert reason.startswith(said)


def test_no_answer_changes():
    logits_BKhw = torch.randn(2, 5, 8, 8)
    p_BKhw = logits_BKhw.softmax(1)
    for temperature in (0.3, 1.0, 3.0):
        mended = temperature_scaled(p_BKhw, temperature)
        assert torch.equal(mended.argmax(1), p_BKhw.argmax(1))
        torch.testing.assert_close(mended, (logits_BKhw / temperature).softmax(1))
    # Powers of a mean of answers are probabilities as well, and nothing becomes infinite.
    certain = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    assert math.isclose(float(temperature_scaled(certain, 10.0).sum()), 1, rel_tol=1e-6)
