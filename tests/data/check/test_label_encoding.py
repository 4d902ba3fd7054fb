"""Telling label encodings by the organs."""

from functools import cache

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msa2net.data.check.label_encoding import CLEAR_MARGIN, GOOD_FIT, Labelled, recognise_encoding
from msa2net.data.check.organ_statistics import ORGANS
from msa2net.data.labels import ENCODINGS, IGNORE, convert
from msa2net.data.phantom import abdomen
from msa2net.data.phantom.heart import heart

SHAPE = (24, 96, 96)
EIGHT = ("transunet", "cascade", "samed")
TURNS = st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans())


@cache
def phantom(index: int) -> Labelled:
    case = abdomen(index, seed=5, shape=SHAPE)
    assert case.label is not None
    return case.label, case.geometry.spacing_mm


def turned(labelled: Labelled, turn: tuple[bool, bool, bool, bool]) -> Labelled:
    label_ZHW, spacing = labelled
    exchange, *flips = turn
    label_ZHW = label_ZHW[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    if not exchange:
        return label_ZHW, spacing
    return label_ZHW.transpose(0, 2, 1), spacing and (spacing[0], spacing[2], spacing[1])


def in_encoding(index: int, encoding: str, spacing: bool = True) -> Labelled:
    label_ZHW, spacing_mm = phantom(index)
    return convert(label_ZHW, "transunet", encoding), spacing_mm if spacing else None


@pytest.mark.parametrize("spacing", [True, False])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_encoding_from_one_case_and_from_three(encoding: str, spacing: bool):
    for indices in ([0], [1, 2, 3]):
        result = recognise_encoding([in_encoding(index, encoding, spacing) for index in indices])
        assert result.best == encoding
        assert result.margin > 2 * CLEAR_MARGIN  # far from the threshold, not just over it
        fits = result.penalties[encoding].values()
        assert sum(fits) / len(fits) < GOOD_FIT / 2
        assert result.scores[encoding] == min(result.scores.values())


@settings(max_examples=24)
@given(TURNS, st.sampled_from(EIGHT), st.booleans(), st.integers(0, 3))
def test_in_every_orientation(turn, encoding: str, spacing: bool, index: int):
    """Also a law: a turned body has the very same penalty."""
    straight = in_encoding(index, encoding, spacing)
    result = recognise_encoding([turned(straight, turn)])
    assert result.best == encoding
    assert result.scores == pytest.approx(recognise_encoding([straight]).scores, rel=1e-9)


@settings(max_examples=24)
@given(
    st.sampled_from(EIGHT),
    st.integers(0, 3),
    st.sets(st.sampled_from(sorted(ENCODINGS["samed"].values())), max_size=2),
    st.booleans(),
)
def test_although_organs_are_missing(encoding: str, index: int, removed: set[str], spacing: bool):
    label_ZHW, spacing_mm = in_encoding(index, encoding, spacing)
    gone = [value for value, organ in ENCODINGS[encoding].items() if organ in removed]
    left = np.where(np.isin(label_ZHW, gone), 0, label_ZHW).astype(np.uint8)
    result = recognise_encoding([(left, spacing_mm)])
    # Without the pancreas or the aorta, two encodings may be too much alike to tell.
    assert result.best == encoding or (result.best is None and removed & {"pancreas", "aorta"})


@given(st.floats(0.5, 2.0), st.booleans())
@settings(max_examples=10)
def test_the_size_of_the_body_does_not_matter_without_spacing(factor: float, ignore: bool):
    label_ZHW, spacing = in_encoding(1, "cascade")
    marked = label_ZHW.copy()
    if ignore:
        marked[:, :3] = IGNORE
    unknown = recognise_encoding([(marked, None)])
    assert unknown.best == "cascade"
    known = recognise_encoding([(marked, tuple(side * factor for side in spacing))])
    assert known.scores["cascade"] < min(v for k, v in known.scores.items() if k != "cascade")


def test_a_value_outside_an_encoding_rules_it_out():
    label_ZHW, spacing = in_encoding(0, "btcv")
    assert 11 in label_ZHW
    result = recognise_encoding([(label_ZHW, spacing)])
    assert [result.scores[name] for name in EIGHT] == [np.inf] * 3
    assert result.best == "btcv"


def test_what_speaks_for_the_better_one():
    result = recognise_encoding([in_encoding(0, "transunet")])
    for declared in ("btcv", "cascade", "samed"):
        value = result.telling_value(declared)
        assert ENCODINGS[declared][value] != ENCODINGS["transunet"][value]
        assert result.penalties[declared][value] > 10 * result.penalties["transunet"][value]
    assert recognise_encoding([in_encoding(0, "btcv")]).telling_value("samed") == 11


def test_four_organs_are_too_few():
    """However well they fit: spleen, right kidney, stomach and aorta."""
    label_ZHW, spacing = in_encoding(0, "cascade")
    for kept, best in (((1, 2, 7, 8), None), ((1, 2, 6, 7, 8), "cascade")):
        few = np.where(np.isin(label_ZHW, kept), label_ZHW, 0).astype(np.uint8)
        assert recognise_encoding([(few, spacing)]).best == best


def test_other_labels_are_no_encoding():
    hearts = [heart(index) for index in range(2)]
    result = recognise_encoding([(case.label, case.geometry.spacing_mm) for case in hearts])
    assert (result.best, result.margin) == (None, 0.0)
    assert recognise_encoding([]).best is None
    assert recognise_encoding([(np.zeros((3, 4, 5), np.uint8), None)]).best is None


@given(st.permutations(range(1, 9)), st.booleans())
def test_eight_organs_in_another_order_are_no_known_encoding(order, spacing: bool):
    label_ZHW, spacing_mm = in_encoding(2, "transunet", spacing)
    known = [
        [
            0,
            *(
                list(ENCODINGS[name].values()).index(organ) + 1
                for organ in ENCODINGS["transunet"].values()
            ),
        ]
        for name in EIGHT
    ]
    if [0, *order] in known:
        return
    look_up = np.array([0, *order], np.uint8)
    result = recognise_encoding([(look_up[label_ZHW], spacing_mm)])
    # Few exchanges leave a known order recognisable: then most organs must agree with it.
    if result.best is not None:
        table = ENCODINGS[result.best]
        agreeing = sum(
            table[int(look_up[value])] == organ for value, organ in ENCODINGS["transunet"].items()
        )
        assert agreeing >= 5


def test_the_table_knows_every_organ_and_its_typical_volume():
    assert set(ORGANS) == {organ for organs in ENCODINGS.values() for organ in organs.values()}
    for organ in ORGANS.values():
        assert 3 * organ.least_ml <= organ.volume_ml <= organ.most_ml / 3
    # The law of the body: what is left, high and at the back.
    assert ORGANS["spleen"].place_mm[0] > 0 > ORGANS["liver"].place_mm[0]
    assert ORGANS["left kidney"].place_mm[2] > ORGANS["right kidney"].place_mm[2]
    assert ORGANS["aorta"].place_mm[1] > ORGANS["stomach"].place_mm[1]


@pytest.mark.parametrize("spacing", [True, False])
def test_a_real_scan(real_data, spacing: bool):
    """Thirteen raw ids as they are, and its eight organs in each of the other encodings."""
    file = nibabel.load(real_data / "ct_example/Training/label/label0001.nii.gz")
    raw_XYZ = np.asarray(file.dataobj).astype(np.uint8)
    raw_ZHW = raw_XYZ.transpose(2, 1, 0)  # not turned: no orientation is asked for
    spacing_mm = tuple(map(float, file.header.get_zooms()[::-1])) if spacing else None
    assert recognise_encoding([(raw_ZHW, spacing_mm)]).best == "btcv"
    for encoding in EIGHT:
        result = recognise_encoding([(convert(raw_ZHW, "btcv", encoding), spacing_mm)])
        assert result.best == encoding
        assert result.margin > 2 * CLEAR_MARGIN
