"""Distances: by hand, against stored answers of others, every pair of voxels, and laws."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from golden_masks import GOLDEN_CASES, golden_masks
from msa2net.errors import ConfigError, DataError
from msa2net.metrics.surface import (
    SurfaceScores,
    assd,
    both_directions,
    class_surfaces,
    diagonal,
    hd,
    hd95_directed_max,
    hd95_of_surfaces,
    hd95_pooled,
    surface_dice,
    surface_distances,
    surface_scores,
    surface_voxels,
)

GOLDEN_SPACING_MM = (2.5, 0.8, 1.1)  # spacing_mm_zyx of metrics.json
MEASURED = [name for name, case in GOLDEN_CASES.items() if "medpy" in case]
DISTANCES = (hd, hd95_pooled, hd95_directed_max, assd)


def scores_of(first, second, spacing, tolerance):
    """Ask every public function for itself."""
    distances = [score(first, second, spacing) for score in DISTANCES]
    return SurfaceScores(*distances, surface_dice(first, second, spacing, tolerance))


def points(shape, *voxels):
    made = np.zeros(shape, bool)
    made[tuple(zip(*voxels, strict=True))] = True
    return made


def cube(shape, corner, side):
    made = np.zeros(shape, bool)
    made[tuple(slice(at, at + side) for at in corner)] = True
    return made


def brute_surface(mask):
    """Every mask voxel with a face neighbour that is outside or beyond the image, one by one."""
    found = []
    for voxel in np.ndindex(mask.shape):
        neighbours = []
        for axis, step in product(range(mask.ndim), (-1, 1)):
            at = list(voxel)
            at[axis] += step
            beyond = not 0 <= at[axis] < mask.shape[axis]
            neighbours.append(not beyond and bool(mask[tuple(at)]))
        if mask[voxel] and not all(neighbours):
            found.append(voxel)
    return found


def brute_percentile95(distances):
    """Sort, and interpolate at rank 0.95·(n - 1)."""
    ordered = sorted(distances)
    rank = 0.95 * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (rank - low) * (ordered[high] - ordered[low])


def brute_scores(first, second, spacing, tolerance):
    """Every score from its definition, all pairs of surface voxels compared."""
    a, b = brute_surface(first), brute_surface(second)
    if not a or not b:
        return SurfaceScores(*[math.nan] * 4, 0 if a or b else math.nan)

    def nearest(voxel, others):
        scaled = (
            [(i - j) * s for i, j, s in zip(voxel, other, spacing, strict=True)] for other in others
        )
        return min(math.hypot(*difference) for difference in scaled)

    there, back = [nearest(v, b) for v in a], [nearest(v, a) for v in b]
    return SurfaceScores(
        hd=max(there + back),
        hd95_pooled=brute_percentile95(there + back),
        hd95_directed_max=max(brute_percentile95(there), brute_percentile95(back)),
        assd=math.fsum(there + back) / len(there + back),
        surface_dice=sum(
            d < tolerance or math.isclose(d, tolerance, rel_tol=1e-9) for d in there + back
        )
        / len(there + back),
    )


# --- by hand ---------------------------------------------------------------------------------


def test_surface_by_hand():
    mask = np.zeros((5, 5), bool)
    mask[1:4, 1:4] = True
    expected = [[1, 1], [1, 2], [1, 3], [2, 1], [2, 3], [3, 1], [3, 2], [3, 3]]
    assert surface_voxels(mask).tolist() == expected  # all but the middle
    mask[0, 2] = True  # (1, 2) now has all four neighbours
    assert [1, 2] not in surface_voxels(mask).tolist()
    mask[0, 1] = False
    assert surface_voxels(np.ones((3, 3, 3), bool)).tolist() == [
        list(voxel) for voxel in np.ndindex(3, 3, 3) if voxel != (1, 1, 1)
    ]  # the border of the image counts as outside
    assert len(surface_voxels(np.ones((1, 4, 4), bool))) == 16  # a single slice is all surface


def test_distance_of_two_voxels_by_hand():
    first, second = np.zeros((2, 4, 6, 6), bool)
    first[0, 0, 0] = second[1, 3, 4] = True
    assert hd95_pooled(first, second, (1, 1, 1)) == math.sqrt(1 + 9 + 16)
    assert hd95_pooled(first, second, (3, 2, 0.5)) == math.sqrt(9 + 36 + 4)


def test_one_voxel_against_two_by_hand():
    # One voxel against itself and one 10 away: there 0; back 0 and 10.
    first, second = points((12,), [0]), points((12,), [0], [10])
    assert hd(first, second, (1,)) == 10
    assert hd95_pooled(first, second, (1,)) == pytest.approx(9, abs=1e-12)  # 0, 0, 10; rank 1.9
    assert hd95_directed_max(first, second, (1,)) == pytest.approx(9.5, abs=1e-12)  # 0, 10; 0.95
    assert assd(first, second, (1,)) == pytest.approx(10 / 3, abs=1e-15)  # not (0 + 5) / 2
    assert surface_dice(first, second, (1,), 9.9) == 2 / 3
    assert surface_dice(first, second, (1,), 10) == 1  # as far as the tolerance is within it


def test_directed_percentile_may_be_the_smaller_on_tiny_surfaces():
    # 0 and 10 against 10 and 20: there and back 10, 0. Of four 0, 0, 10, 10 rank 2.85 is 10.
    first, second = points((21,), [0], [10]), points((21,), [10], [20])
    assert hd95_pooled(first, second, (1,)) == 10
    assert hd95_directed_max(first, second, (1,)) == pytest.approx(9.5, abs=1e-12)


def test_shifted_cube_by_hand():
    # Cubes of side 4, one moved by 2 along the last axis. From the first, layer by layer along it:
    # a face of 16, all 2 away from the other's; a ring of 12, all 1 away from that face; a ring of
    # 12 that lies on it; a face of 16, whose rim of 12 lies on the other's side walls and whose
    # inner 4 are 1 away from them. Back it is the mirror image.
    first, second = cube((12, 12, 12), (4, 4, 3), 4), cube((12, 12, 12), (4, 4, 5), 4)
    there, back = both_directions(surface_voxels(first), surface_voxels(second), (1, 1, 1))
    assert sorted(there) == sorted(back) == [0] * 24 + [1] * 16 + [2] * 16
    assert scores_of(first, second, (1, 1, 1), 1) == pytest.approx((2, 2, 2, 48 / 56, 40 / 56))
    # 3 mm along that axis: the inner 4 stay 1 away, the ring is 3 and the leading face 6.
    ours = sorted(both_directions(surface_voxels(first), surface_voxels(second), (1, 1, 3))[0])
    assert ours == [0] * 24 + [1] * 4 + [3] * 12 + [6] * 16
    assert hd(first, second, (1, 1, 3)) == 6


def test_masks_at_the_border_by_hand():
    # A plate that fills the image's first two slices, and one that fills its first three: beyond
    # the border is outside, so slice 0 is surface in both and lies on top of itself.
    first, second = np.zeros((2, 6, 5, 5), bool)
    first[:2], second[:3] = True, True
    # Slices 0 and 1 of the first are all surface: 50 voxels. The second: 0, 2 and the ring of 1
    # (16 voxels). Of the first only the inner 9 of slice 1 are off, by 1; of the second slice 2 is.
    there, back = both_directions(surface_voxels(first), surface_voxels(second), (2, 9, 9))
    assert sorted(there) == [0] * 41 + [2] * 9
    assert sorted(back) == [0] * 41 + [2] * 25
    expected = (2, 2, 2, 68 / 116, 82 / 116)
    assert scores_of(first, second, (2, 9, 9), 1.9) == pytest.approx(expected, abs=1e-15)
    assert surface_dice(first, second, (2, 9, 9), 2) == 1


def test_tolerance_is_reached_wherever_the_steps_begin():
    # 20 steps of 0.1 mm are 2 mm, though 2.3 - 0.3 and the like are not in floating point.
    for start in range(40):
        first, second = points((64,), [start]), points((64,), [start + 20])
        assert surface_dice(first, second, (0.1,), 2) == 1
        assert surface_dice(first, second, (0.1,), 1.9999) == 0


def test_directed_distances_and_reuse():
    first, second = np.zeros((2, 1, 5), bool)
    first[0, 0] = second[0, [1, 4]] = True
    a, b = surface_voxels(first), surface_voxels(second)
    assert surface_distances(a, b, (1, 1)).tolist() == [1]
    assert surface_distances(b, a, (1, 1)).tolist() == [1, 4]
    assert surface_distances(b, a, (9, 2)).tolist() == [2, 8]
    assert [d.tolist() for d in both_directions(a, b, (9, 2))] == [[2], [2, 8]]
    assert hd95_of_surfaces(a, b, (9, 2)) == hd95_pooled(first, second, (9, 2))
    assert surface_scores(a, b, (9, 2), 3) == scores_of(first, second, (9, 2), 3)


def test_diagonal_by_hand():
    assert diagonal((1, 4, 5), (1, 1, 1)) == 5.0
    assert diagonal((3, 4, 5), (6, 1, 1)) == 13.0  # 12, 3, 4
    assert diagonal((1, 1), (2, 2)) == 0.0


@pytest.mark.parametrize("situation", ["missed", "false positive", "both empty"])
def test_empty_masks_are_not_a_number(situation):
    some, nothing = np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    prediction = some if situation == "false positive" else nothing
    truth = some if situation == "missed" else nothing
    *distances, dice = scores_of(prediction, truth, (1, 1, 1), 2)
    assert all(map(math.isnan, distances))
    assert math.isnan(dice) if situation == "both empty" else dice == 0
    assert surface_voxels(nothing).shape == (0, 3)
    assert math.isnan(hd95_of_surfaces(*map(surface_voxels, (prediction, truth)), (1, 1, 1)))


def test_class_surfaces_are_those_of_each_mask():
    labels = np.random.default_rng(0).integers(0, 4, (6, 7, 8)).astype(np.uint8)
    labels[labels == 2] = 0  # a class that is nowhere
    labels[0] = 255  # no class at all
    surfaces = class_surfaces(labels, 6)
    assert [len(voxels) > 0 for voxels in surfaces] == [True, False, True, False, False]
    for index, voxels in enumerate(surfaces, start=1):
        assert voxels.tolist() == surface_voxels(labels == index).tolist()


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.int64, np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_mask_type_and_memory_order(dtype, order):
    mask = np.zeros((4, 5, 6), dtype, order=order)
    mask[1:3, 1:4, 2:5] = 1
    assert surface_voxels(mask).tolist() == [list(voxel) for voxel in brute_surface(mask)]


# --- an independent implementation -----------------------------------------------------------


@pytest.mark.parametrize("name", MEASURED)
def test_agrees_with_medpy(name):
    prediction, truth = golden_masks(name)
    stored = GOLDEN_CASES[name]["medpy"]
    # 1e-9: the same distances, rounded along another way (at most a few 1e-15 each)
    voxels = hd95_pooled(prediction, truth, (1, 1, 1))
    assert voxels == pytest.approx(stored["hd95_voxel"], abs=1e-9)
    for name, score in {"hd95_mm": hd95_pooled, "hd_mm": hd, "assd_mm": assd}.items():
        ours = score(prediction, truth, GOLDEN_SPACING_MM)
        assert ours == pytest.approx(stored[name], abs=1e-9), name
    there = surface_distances(*map(surface_voxels, (prediction, truth)), GOLDEN_SPACING_MM)
    assert there.mean() == pytest.approx(stored["asd_mm"], abs=1e-9)


@pytest.mark.parametrize("name", [name for name, case in GOLDEN_CASES.items() if "monai" in case])
def test_directed_percentile_agrees_with_monai(name):
    masks, stored = golden_masks(name), GOLDEN_CASES[name]["monai"]
    for spacing, stored_as in (((1, 1, 1), "hd95_voxel"), (GOLDEN_SPACING_MM, "hd95_mm")):
        # MONAI takes the percentile in float32, its rank included: with that, the same number.
        both = both_directions(*map(surface_voxels, masks), spacing)
        as_monai = [torch.quantile(torch.tensor(d, dtype=torch.float32), 0.95) for d in both]
        assert float(max(as_monai)) == pytest.approx(stored[stored_as], abs=1e-9)
        # A rank near 4600 is off by up to 2.5e-4 there, so a value between two ranks by as much of
        # their difference, here 0.035.
        ours = hd95_directed_max(*masks, spacing)
        assert ours == pytest.approx(stored[stored_as], rel=2e-7, abs=2.5e-4 * 0.035), stored_as


@pytest.mark.parametrize(
    "name", [name for name, case in GOLDEN_CASES.items() if "surface_distance" in case]
)
def test_surface_distance_is_another_definition(name):
    """It measures between pieces of surface among the voxels, weighed by their area."""
    ours, theirs = golden_masks(name), GOLDEN_CASES[name]["surface_distance"]
    dice = surface_dice(*ours, GOLDEN_SPACING_MM, 2)
    hd95 = hd95_directed_max(*ours, GOLDEN_SPACING_MM)  # it takes the larger direction, too
    if name == "single_voxels":  # two surfaces of one shape: the pieces lie as far apart as they do
        assert dice == theirs["surface_dice_2mm"] == 0
        assert hd95 == pytest.approx(theirs["hd95_mm"], abs=1e-9)
        return
    assert dice == pytest.approx(theirs["surface_dice_2mm"], abs=0.09)
    # A piece is at most half a voxel's diagonal from the voxel it belongs to, on either side.
    assert hd95 == pytest.approx(theirs["hd95_mm"], abs=math.hypot(*GOLDEN_SPACING_MM))
    assert dice != pytest.approx(theirs["surface_dice_2mm"], abs=1e-5)  # near, and not equal


def test_every_stored_value_is_compared_somewhere():
    tested = {
        "medpy": {"hd95_voxel", "hd95_mm", "hd_mm", "assd_mm", "asd_mm"}
        # in test_metrics_overlap.py
        | {"dice", "jaccard", "sensitivity", "specificity", "precision"},
        "monai": {"hd95_voxel", "hd95_mm"},
        "surface_distance": {"hd95_mm", "surface_dice_2mm"},
    }
    # and these in test_protocol.py
    whole = {"shape", "transunet_dice", "transunet_hd95_voxel"}
    for case in GOLDEN_CASES.values():
        assert case.keys() <= whole | tested.keys()
        for library in tested.keys() & case.keys():
            assert case[library].keys() == tested[library]


def test_a_picture_is_measured_in_two_dimensions():
    prediction, truth = golden_masks("flat_2d")
    assert hd95_pooled(prediction[0], truth[0], (1, 1)) == 3.0  # as the golden README has it
    assert hd95_pooled(prediction, truth, (1, 1, 1)) == 2.0


mask_pairs = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.bool_, shape)] * 2)
)
spacings = st.tuples(*[st.floats(0.1, 10)] * 3)


@given(mask_pairs, spacings, st.floats(0, 20))
def test_agrees_with_every_pair_of_voxels(pair, spacing, tolerance):
    first, second = pair
    spacing = spacing[: first.ndim]
    assert surface_voxels(first).tolist() == [list(voxel) for voxel in brute_surface(first)]
    expected = brute_scores(first, second, spacing, tolerance)
    measured = scores_of(first, second, spacing, tolerance)
    # relative 1e-12: numbers up to 87, some roundings of 2.2e-16 and one interpolation
    assert measured == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True)


# --- laws ------------------------------------------------------------------------------------


@given(mask_pairs, spacings, st.integers(0, 2), st.integers(0, 3), st.integers(0, 3))
def test_laws(pair, spacing, axis, before, after):
    first, second = pair
    spacing = spacing[: first.ndim]
    tolerance = 1.5 * spacing[0]
    measured = scores_of(first, second, spacing, tolerance)

    def same(scores, factor=1.0):
        expected = [*(factor * distance for distance in measured[:4]), measured.surface_dice]
        return scores == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True)

    assert same(scores_of(second, first, spacing, tolerance))
    tripled = [3 * s for s in spacing]
    assert same(scores_of(first, second, tripled, 3 * tolerance), 3)  # mm scale with spacing
    # Empty slices around change nothing, so cutting them off does not either.
    widths = [(0, 0)] * first.ndim
    widths[axis % first.ndim] = (before, after)
    assert same(scores_of(np.pad(first, widths), np.pad(second, widths), spacing, tolerance))
    assert same(scores_of(first.T, second.T, spacing[::-1], tolerance))
    assert same(scores_of(np.flip(first), np.flip(second), spacing, tolerance))
    if first.any():
        assert scores_of(first, first, spacing, 0) == (0, 0, 0, 0, 1)


@given(mask_pairs, spacings, st.lists(st.floats(0, 60), min_size=2, max_size=2))
def test_laws_between_the_scores(pair, spacing, tolerances):
    first, second = pair
    if not first.any() or not second.any():
        return
    spacing = spacing[: first.ndim]
    less, more = sorted(tolerances)
    scores = scores_of(first, second, spacing, less)
    largest = diagonal(first.shape, spacing)
    for distance in scores[:4]:
        assert 0 <= distance <= scores.hd * (1 + 1e-12) <= largest * (1 + 2e-12)
    assert surface_dice(first, second, spacing, more) >= scores.surface_dice
    assert surface_dice(first, second, spacing, scores.hd) == 1
    # What is within less is at most less away, the rest at most hd: a bound on their mean.
    within = scores.surface_dice
    bound = within * less + (1 - within) * scores.hd
    assert scores.assd <= bound * (1 + 1e-8)
    # All are within 0 if the surfaces are the same, and only then.
    assert (surface_dice(first, second, spacing, 0) == 1) == (scores.hd == 0)


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spacing", [(1, 1), (1, 1, 1, 1), (1, 0, 1), (1, -2, 1), (1, math.nan, 1), (1, math.inf, 1), 1]
)
def test_wrong_spacing_is_refused(spacing):
    full, nothing = np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    for other in (full, nothing):
        for score in DISTANCES:
            with pytest.raises(DataError, match="one positive number for each of the 3 axes"):
                score(other, full, spacing)
        with pytest.raises(DataError, match="one positive number for each of the 3 axes"):
            surface_dice(other, full, spacing, 2)
    with pytest.raises(DataError, match="one positive number for each of the 3 axes"):
        diagonal((2, 2, 2), spacing)


def test_wrong_shapes_are_refused():
    with pytest.raises(DataError, match=r"\(2, 2\).*\(2, 3\).*the same grid"):
        hd95_pooled(np.ones((2, 2), bool), np.ones((2, 3), bool), (1, 1))


@pytest.mark.parametrize("tolerance", [-1, math.nan, math.inf])
def test_wrong_tolerance_is_refused(tolerance):
    for other in (np.ones((2, 2), bool), np.zeros((2, 2), bool)):
        with pytest.raises(ConfigError, match="tolerance is .*; it must be a distance of 0 or"):
            surface_dice(np.ones((2, 2), bool), other, (1, 1), tolerance)
