"""HD95: by hand, against MedPy's stored answers, against every pair of voxels, and laws."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from msa2net.errors import DataError
from msa2net.metrics import (
    class_surfaces,
    diagonal,
    hd95_of_surfaces,
    hd95_pooled,
    surface_distances,
    surface_voxels,
)
from test_metrics_overlap import GOLDEN_CASES, golden_masks

GOLDEN_SPACING_MM = (2.5, 0.8, 1.1)  # spacing_mm_zyx of metrics.json
MEASURED = [name for name, case in GOLDEN_CASES.items() if "medpy" in case]


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


def brute_hd95(first, second, spacing):
    """Sort the pooled distances, all pairs compared, and interpolate at rank 0.95·(n - 1)."""
    a, b = brute_surface(first), brute_surface(second)
    if not a or not b:
        return math.nan

    def nearest(voxel, others):
        scaled = (
            [(i - j) * s for i, j, s in zip(voxel, other, spacing, strict=True)] for other in others
        )
        return min(math.hypot(*difference) for difference in scaled)

    pooled = sorted([*(nearest(v, b) for v in a), *(nearest(v, a) for v in b)])
    rank = 0.95 * (len(pooled) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(pooled) - 1)
    return pooled[low] + (rank - low) * (pooled[high] - pooled[low])


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


def test_percentile_is_of_both_directions_together():
    # One voxel against itself and one 10 away: pooled 0, 0, 10; rank 0.95·2 = 1.9.
    first, second = np.zeros((2, 12), bool)
    first[0] = second[[0, 10]] = True
    assert hd95_pooled(first, second, (1,)) == pytest.approx(9, abs=1e-12)
    # The larger of one percentile a direction would be that of 0, 10: 9.5.


def test_directed_distances_and_reuse():
    first, second = np.zeros((2, 1, 5), bool)
    first[0, 0] = second[0, [1, 4]] = True
    a, b = surface_voxels(first), surface_voxels(second)
    assert surface_distances(a, b, (1, 1)).tolist() == [1]
    assert surface_distances(b, a, (1, 1)).tolist() == [1, 4]
    assert surface_distances(b, a, (9, 2)).tolist() == [2, 8]
    assert hd95_of_surfaces(a, b, (9, 2)) == hd95_pooled(first, second, (9, 2))


def test_diagonal_by_hand():
    assert diagonal((1, 4, 5), (1, 1, 1)) == 5.0
    assert diagonal((3, 4, 5), (6, 1, 1)) == 13.0  # 12, 3, 4
    assert diagonal((1, 1), (2, 2)) == 0.0


@pytest.mark.parametrize("situation", ["missed", "false positive", "both empty"])
def test_empty_masks_are_not_a_number(situation):
    some, nothing = np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    prediction = some if situation == "false positive" else nothing
    truth = some if situation == "missed" else nothing
    assert math.isnan(hd95_pooled(prediction, truth, (1, 1, 1)))
    assert surface_voxels(nothing).shape == (0, 3)


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
    mm = hd95_pooled(prediction, truth, GOLDEN_SPACING_MM)
    assert mm == pytest.approx(stored["hd95_mm"], abs=1e-9)
    furthest = max(
        surface_distances(a, b, GOLDEN_SPACING_MM).max()
        for masks in ((prediction, truth), (truth, prediction))
        for a, b in [map(surface_voxels, masks)]
    )
    assert furthest == pytest.approx(stored["hd_mm"], abs=1e-9)


def test_a_picture_is_measured_in_two_dimensions():
    prediction, truth = golden_masks("flat_2d")
    assert hd95_pooled(prediction[0], truth[0], (1, 1)) == 3.0  # as the golden README has it
    assert hd95_pooled(prediction, truth, (1, 1, 1)) == 2.0


mask_pairs = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.bool_, shape)] * 2)
)
spacings = st.tuples(*[st.floats(0.1, 10)] * 3)


@settings(deadline=None, max_examples=60)
@given(mask_pairs, spacings)
def test_agrees_with_every_pair_of_voxels(pair, spacing):
    first, second = pair
    spacing = spacing[: first.ndim]
    assert surface_voxels(first).tolist() == [list(voxel) for voxel in brute_surface(first)]
    expected = brute_hd95(first, second, spacing)
    measured = hd95_pooled(first, second, spacing)
    # relative 1e-12: numbers up to 87, some roundings of 2.2e-16 and one interpolation
    assert measured == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True)


# --- laws ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(mask_pairs, spacings, st.integers(0, 2), st.integers(0, 3), st.integers(0, 3))
def test_laws(pair, spacing, axis, before, after):
    first, second = pair
    spacing = spacing[: first.ndim]
    measured = hd95_pooled(first, second, spacing)

    def same(value, factor=1.0):
        return value == pytest.approx(factor * measured, rel=1e-12, abs=1e-12, nan_ok=True)

    assert same(hd95_pooled(second, first, spacing))
    assert same(hd95_pooled(first, second, [3 * s for s in spacing]), 3)  # mm scale with spacing
    # Empty slices around change nothing, so cutting them off does not either.
    widths = [(0, 0)] * first.ndim
    widths[axis % first.ndim] = (before, after)
    assert same(hd95_pooled(np.pad(first, widths), np.pad(second, widths), spacing))
    assert same(hd95_pooled(first.T, second.T, spacing[::-1]))
    assert same(hd95_pooled(np.flip(first), np.flip(second), spacing))
    if first.any():
        assert hd95_pooled(first, first, spacing) == 0
        if second.any():
            assert measured <= diagonal(first.shape, spacing) * (1 + 1e-12)


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spacing", [(1, 1), (1, 1, 1, 1), (1, 0, 1), (1, -2, 1), (1, math.nan, 1), (1, math.inf, 1), 1]
)
def test_wrong_spacing_is_refused(spacing):
    mask = np.ones((2, 2, 2), bool)
    with pytest.raises(DataError, match="one positive number for each of the 3 axes"):
        hd95_pooled(mask, mask, spacing)
    with pytest.raises(DataError, match="one positive number for each of the 3 axes"):
        diagonal((2, 2, 2), spacing)


def test_wrong_shapes_are_refused():
    with pytest.raises(DataError, match=r"\(2, 2\).*\(2, 3\).*the same grid"):
        hd95_pooled(np.ones((2, 2), bool), np.ones((2, 3), bool), (1, 1))
