"""Counts and ratios: by hand, against sets of pixels, against MedPy's stored answers, and laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from golden_masks import GOLDEN_CASES, golden_masks
from msa2net.errors import ConfigError, DataError
from msa2net.metrics import overlap
from msa2net.metrics.overlap import (
    accuracy,
    confusion_counts,
    dice,
    iou,
    overlap_metrics,
    precision,
    sensitivity,
    specificity,
    volume_difference_percent,
)


def test_counts_by_hand():
    prediction = np.array([[0, 1, 1], [2, 2, 0]])
    truth = np.array([[0, 1, 2], [2, 1, 255]])  # the last pixel is not counted
    # class 0: one pixel right; class 1: (0,1) right, (0,2) too many, (1,1) lost; class 2 alike
    expected = [[1, 0, 0, 4], [1, 1, 1, 2], [1, 1, 1, 2]]
    counts = confusion_counts(prediction, truth, 3)
    assert counts.dtype == np.int64
    assert counts.tolist() == expected


def test_ratios_by_hand():
    assert overlap_metrics(tp=3, fp=1, fn=2, tn=10) == {
        "dice": pytest.approx(6 / 9, abs=0),
        "iou": pytest.approx(3 / 6, abs=0),
        "sensitivity": pytest.approx(3 / 5, abs=0),
        "specificity": pytest.approx(10 / 11, abs=0),
        "precision": pytest.approx(3 / 4, abs=0),
        "accuracy": pytest.approx(13 / 16, abs=0),
        "volume_difference_percent": pytest.approx(-20, abs=0),  # four where there are five
    }
    assert volume_difference_percent(tp=3, fp=4, fn=1) == 75  # seven where there are four
    assert volume_difference_percent(tp=0, fp=5, fn=5) == 0  # as large, and somewhere else


NAN = math.nan
EMPTY_MASK_CASES = {
    # tp, fp, fn, tn → dice, iou, sensitivity, specificity, precision, accuracy, volume difference
    "missed": ((0, 0, 4, 6), (0, 0, 0, 1, NAN, 0.6, -100)),
    "missed, truth fills the image": ((0, 0, 10, 0), (0, 0, 0, NAN, NAN, 0, -100)),
    "false positive": ((0, 4, 0, 6), (0, 0, NAN, 0.6, 0, 0.6, NAN)),
    "false positive fills the image": ((0, 10, 0, 0), (0, 0, NAN, 0, 0, 0, NAN)),
    "both empty": ((0, 0, 0, 10), (NAN, NAN, NAN, 1, NAN, 1, NAN)),
    "both fill the image": ((10, 0, 0, 0), (1, 1, 1, NAN, 1, 1, 0)),
    "no pixel counted": ((0, 0, 0, 0), (NAN, NAN, NAN, NAN, NAN, NAN, NAN)),
}


@pytest.mark.parametrize("name", EMPTY_MASK_CASES)
def test_empty_masks(name):
    counts, expected = EMPTY_MASK_CASES[name]
    np.testing.assert_array_equal(list(overlap_metrics(*counts).values()), expected)


def test_ratios_take_arrays_and_broadcast():
    counts = np.array([case[0] for case in EMPTY_MASK_CASES.values()])
    ratios = np.array(list(overlap_metrics(*counts.T).values())).T
    np.testing.assert_array_equal(ratios, [case[1] for case in EMPTY_MASK_CASES.values()])
    np.testing.assert_array_equal(dice([[1], [3]], [0, 2], 0), [[1, 0.5], [1, 0.75]])


def test_ratios_of_scalars_are_floats():
    for value in overlap_metrics(3, 1, 2, 10).values():
        assert isinstance(value, float)


def test_small_integer_types_do_not_wrap_around():
    tp, fp, fn = np.array([200, 100, 0], dtype=np.uint8)
    assert dice(tp, fp, fn) == 400 / 500  # 2·200 and 200 + 100 do not fit into uint8
    assert iou(tp, fp, fn) == 200 / 300
    assert volume_difference_percent(*np.array([100, 100, 200], dtype=np.uint8)) == -100 / 3


label_pairs = hnp.array_shapes(max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.uint8, shape, elements=st.integers(0, 3)),
        hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, 255])),
    )
)


@given(label_pairs)
def test_counts_agree_with_sets_of_pixels(pair):
    prediction, truth = pair
    counted = {i for i in np.ndindex(truth.shape) if truth[i] != 255}
    for k, counts in enumerate(confusion_counts(prediction, truth, 4)):
        predicted = {i for i in counted if prediction[i] == k}
        true = {i for i in counted if truth[i] == k}
        expected = [
            len(predicted & true),
            len(predicted - true),
            len(true - predicted),
            len(counted - predicted - true),
        ]
        assert counts.tolist() == expected


@given(label_pairs, st.randoms(use_true_random=False))
def test_counts_do_not_depend_on_where_the_pixels_are(pair, random):
    prediction, truth = pair
    order = list(range(truth.size))
    random.shuffle(order)
    np.testing.assert_array_equal(
        confusion_counts(prediction, truth, 4),
        confusion_counts(prediction.ravel()[order], truth.ravel()[order], 4),
    )


@given(*[st.integers(0, 10**9)] * 4)
def test_laws_between_the_ratios(tp, fp, fn, tn):
    d, j = dice(tp, fp, fn), iou(tp, fp, fn)
    if tp + fp + fn:
        # 1e-15: a few roundings of float64 (2.2e-16 each) on numbers up to 1
        assert d == pytest.approx(2 * j / (1 + j), abs=1e-15)
    se, sp, acc = sensitivity(tp, fn), specificity(fp, tn), accuracy(tp, fp, fn, tn)
    if tp + fn and fp + tn:  # accuracy is a weighted mean of the two
        assert min(se, sp) - 1e-15 <= acc <= max(se, sp) + 1e-15
    if tp:  # Dice is the harmonic mean of precision and sensitivity
        assert 2 / d == pytest.approx(1 / se + 1 / precision(tp, fp), rel=1e-14)
        # Predicted over true volume is sensitivity over precision.
        grown = 1 + volume_difference_percent(tp, fp, fn) / 100
        assert grown == pytest.approx(se / precision(tp, fp), rel=1e-14, abs=1e-14)


def test_parts_of_a_large_array_add_up(monkeypatch):
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 3, (2, 7, 11, 13))
    whole = confusion_counts(prediction, truth, 3)
    monkeypatch.setattr(overlap, "_CHUNK", 10)
    np.testing.assert_array_equal(confusion_counts(prediction, truth, 3), whole)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64, np.uint64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_integer_type_and_memory_order(dtype, order):
    prediction = np.array([[0, 1, 2], [2, 1, 0]], dtype=dtype, order=order)
    truth = np.array([[0, 1, 1], [2, 2, 0]])
    expected = [[2, 0, 0, 4], [1, 1, 1, 3], [1, 1, 1, 3]]
    assert confusion_counts(prediction, truth, 3).tolist() == expected
    assert confusion_counts(truth, prediction, 3).tolist() == expected  # symmetric by hand


def test_masks_of_bool_are_two_classes():
    prediction, truth = np.array([True, True, False]), np.array([True, False, False])
    assert confusion_counts(prediction, truth, 2)[1].tolist() == [1, 1, 0, 1]


def test_no_pixels_at_all():
    nothing = np.zeros((0, 4), dtype=np.uint8)
    assert confusion_counts(nothing, nothing, 2).tolist() == [[0] * 4] * 2
    ignored = np.full((2, 2), 255, dtype=np.uint8)
    assert confusion_counts(np.ones_like(ignored), ignored, 2).tolist() == [[0] * 4] * 2


def test_ignore_index_can_be_another_class_or_none():
    prediction, truth = np.array([0, 1, 1]), np.array([0, 0, 1])
    assert confusion_counts(prediction, truth, 2, ignore_index=0)[1].tolist() == [1, 0, 0, 0]
    with pytest.raises(DataError, match=r"255 \(1 pixel\)"):
        confusion_counts(prediction, np.array([0, 0, 255]), 2, ignore_index=None)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        ([0, 7, 7, 9], [0, 0, 0, 0], r"the prediction .*: 7 \(2 pixels\), 9 \(1 pixel\); .*0\.\.2"),
        ([0, 0, 255, 0], [0, 0, 255, 0], r"the prediction .*: 255 \(1 pixel\)"),
        ([0, 0, 0, 0], [0, 3, 255, 3], r"the truth .*: 3 \(2 pixels\); .*0\.\.2 and 255"),
        ([0, 0, 0, 0], [0, -1, -1, 0], r"the truth .*: -1 \(2 pixels\)"),
        ([0, 0, 0, 0], np.array([0, 0, 0, 2**63], dtype=np.uint64), r"9223372036854775808"),
        (range(10, 17), [0] * 7, r"14 \(1 pixel\), and 2 more values"),
        ([0, 1], [0, 1, 1], r"\(2,\).*\(3,\)"),
        ([[0, 1]], [0, 1], r"\(1, 2\).*\(2,\)"),
        ([0.0, 1.0], [0, 1], r"the prediction holds float64 .*argmax"),
    ],
)
def test_wrong_arrays_are_refused(prediction, truth, message):
    with pytest.raises(DataError, match=message):
        confusion_counts(np.asarray(prediction), np.asarray(truth), 3)


def test_wrong_number_of_classes_is_refused():
    with pytest.raises(ConfigError, match="num_classes is 0"):
        confusion_counts(np.zeros(1, dtype=int), np.zeros(1, dtype=int), 0)


@pytest.mark.parametrize("name", [name for name, case in GOLDEN_CASES.items() if "medpy" in case])
def test_agrees_with_medpy(name):
    prediction, truth = golden_masks(name)
    ratios = overlap_metrics(*confusion_counts(prediction, truth, 2)[1])
    stored = {**GOLDEN_CASES[name]["medpy"]}
    stored["iou"] = stored.pop("jaccard")
    for metric in ("dice", "iou", "sensitivity", "specificity", "precision"):
        # both divide the same two integers once: equal to one rounding of float64
        assert ratios[metric] == pytest.approx(stored[metric], rel=2.3e-16, abs=0)
