"""Mistakes of a whole data set are named, and a network's usual ones are not taken for them."""

import numpy as np
import pytest

from msa2net.metrics import systematic_errors
from msa2net.metrics.scoring import case_rows
from msa2net.metrics.systematic_errors import case_error_pattern, describe_systematic_errors

NAMES = ("background", "liver", "spleen", "aorta")


def truth_of(seed: int, shape=(10, 24, 24)) -> np.ndarray:
    """Three boxes that do not touch, somewhere else in each case."""
    draw, labels = np.random.default_rng(seed), np.zeros(shape, np.uint8)
    for index in (1, 2, 3):
        corner = draw.integers(0, 2, len(shape)) + [2] * len(shape)
        corner[-1] = 7 * (index - 1) + draw.integers(1, 2)
        labels[tuple(slice(at, at + 4) for at in corner)] = index
    return labels


def sentences(change, cases: int = 8, **options) -> str:
    found, rows = [], []
    for seed in range(cases):
        truth = truth_of(seed, **options)
        prediction = change(truth.copy(), np.random.default_rng(seed))
        found.append(case_error_pattern(prediction, truth, len(NAMES)))
        rows += case_rows(str(seed), prediction, truth, NAMES)
    return " ".join(describe_systematic_errors(found, rows, NAMES))


def renamed(*numbers: int):
    return lambda truth, _: np.array((0, *numbers), np.uint8)[truth]


def test_a_case_by_hand():
    truth = np.array([[1, 1, 0, 2, 255]])
    prediction = np.array([[0, 1, 1, 1, 2]])
    pattern = case_error_pattern(prediction, truth, 3)
    assert pattern.named.tolist() == [[0, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert pattern.offsets.tolist() == [[0, 1.5]]  # from the middle of 0, 1 to that of 1, 2, 3


def test_pieces_are_put_together(monkeypatch):
    truth, prediction = truth_of(0), truth_of(1)
    truth[0, 0, :9] = 255
    whole = case_error_pattern(prediction, truth, len(NAMES))
    monkeypatch.setattr(systematic_errors, "_CHUNK", 3 * 24 * 24)
    for made, expected in zip(
        case_error_pattern(prediction, truth, len(NAMES)), whole, strict=True
    ):
        np.testing.assert_allclose(made, expected, rtol=1e-12, atol=1e-12)
    assert whole.named.sum() == np.isin(truth, (1, 2, 3)).sum()


def test_perfect_masks_and_none():
    assert sentences(renamed(1, 2, 3)) == ""
    assert describe_systematic_errors([], [], NAMES) == []
    nothing = np.zeros((3, 4), np.uint8)
    rows = case_rows("a", nothing, nothing, NAMES)
    assert (
        "Every prediction is empty"
        in describe_systematic_errors([case_error_pattern(nothing, nothing, 4)], rows, NAMES)[0]
    )


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((2, 1, 3), ["liver is called spleen (100%", "spleen is called liver", "look exchanged"]),
        ((2, 3, 1), ["liver is called spleen", "aorta is called liver", "look exchanged"]),
        ((1, 1, 3), ["spleen is called liver (100%", "mean the same on both sides"]),
        ((0, 2, 3), ["No prediction shows liver: it is missed in all 8 cases that hold it."]),
        ((0, 0, 0), ["Every prediction is empty: all 8 masks are background throughout."]),
    ],
)
def test_wrong_numbers(numbers: tuple[int, ...], expected: list[str]):
    said = sentences(renamed(*numbers))
    for part in expected:
        assert part in said
    assert ("exchanged" in said) == any("exchanged" in part for part in expected)
    assert "same side" not in said


@pytest.mark.parametrize(("axis", "name"), [(0, "slices"), (1, "rows"), (2, "columns")])
@pytest.mark.parametrize("voxels", [-1, 1])
def test_shifts(axis: int, name: str, voxels: int):
    said = sentences(lambda truth, _: np.roll(truth, voxels, axis))
    assert f"in voxels (median): 1.0 along the {name};" in said


def test_a_shift_in_pictures_and_along_two_axes():
    said = sentences(lambda truth, _: np.roll(truth, (1, 2), (0, 1)), shape=(24, 24))
    assert "1.0 along the rows, 2.0 along the columns;" in said


@pytest.mark.parametrize("cases", [1, 7])
def test_few_cases_say_nothing_of_a_shift(cases: int):
    """However many structures: those of a case are shifted together."""
    assert sentences(lambda truth, _: np.roll(truth, 1, 2), cases=cases) == ""


@pytest.mark.parametrize(("other", "said"), [(1, True), (2, False)])
def test_cases_to_the_other_side_speak_against_a_shift(other: int, said: bool):
    cases = iter(range(20))

    def change(truth, _):
        return np.roll(truth, -1 if next(cases) < other else 1, 2)

    assert ("In nearly all of 20 cases" in sentences(change, cases=20)) is said


def test_usual_mistakes_are_no_pattern():
    """Shifts to any side, a third of a class under another name, cases that miss one."""

    def usual(truth, draw):
        moved = np.roll(truth, draw.integers(-1, 2), int(draw.integers(0, 3)))
        wrong = (moved == 1) & (draw.random(moved.shape) < 0.33)
        moved[wrong] = 2
        if draw.random() < 0.5:
            moved[moved == 3] = 0
        return moved

    assert sentences(usual, cases=12) == ""
