"""Trees and transforms find the same distances, and noise does not take minutes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msa2net.metrics import nearest as module
from msa2net.metrics.nearest import nearest_by_transform, nearest_by_tree
from msa2net.metrics.surface import surface_distances, surface_voxels

SPACINGS = st.lists(st.sampled_from((0.3, 0.8, 1.0, 1.1, 2.5, 7.0)), min_size=4, max_size=4)


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    shares=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)),
    spacing=SPACINGS,
    corners=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_trees_and_transforms_agree(seed, shape, shares, spacing, corners):
    draw = np.random.default_rng(seed)
    start, end = (
        np.argwhere(draw.random(shape) < share) + corner
        for share, corner in zip(shares, corners, strict=True)
    )
    if not len(start) or not len(end):
        return
    scale = np.array(spacing[: len(shape)])
    by_tree = nearest_by_tree(start, end, scale)
    by_transform = nearest_by_transform(start, end, scale)
    np.testing.assert_allclose(by_transform, by_tree, rtol=0, atol=1e-9)


def mask_of(kind: str) -> np.ndarray:
    mask = np.zeros((120, 40, 40), bool)
    if kind == "noise":
        mask[:40] = np.random.default_rng(0).random((40, 40, 40)) < 0.5
    elif kind == "organ":
        mask[10:25, 5:20, 5:20] = True
    else:  # a plate as large as noise's surface, but thin in the box around it and an organ
        mask[119] = True
    return mask


@pytest.mark.parametrize(
    ("start", "end", "way"),
    [
        ("noise", "organ", "transform"),
        ("organ", "noise", "tree"),
        ("noise", "noise", "transform"),
        ("organ", "organ", "tree"),
        ("plate", "organ", "tree"),
    ],
)
def test_which_way_is_taken(monkeypatch, start, end, way):
    monkeypatch.setattr(module, "MANY", 1500)
    monkeypatch.setattr(module, "DENSE", 40)
    if start == "plate":
        assert surface_voxels(mask_of("plate")).shape[0] > module.MANY
    taken = []

    def noted(name, original):
        def measure(*arguments):
            taken.append(name)
            return original(*arguments)

        return measure

    monkeypatch.setattr(module, "nearest_by_tree", noted("tree", nearest_by_tree))
    monkeypatch.setattr(module, "nearest_by_transform", noted("transform", nearest_by_transform))
    first, second = surface_voxels(mask_of(start)), surface_voxels(mask_of(end))
    found = surface_distances(first, second, (2, 1, 1))
    assert taken == [way]
    expected = nearest_by_tree(first, second, np.array((2.0, 1, 1)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_the_limits_as_they_are():
    noise = np.random.default_rng(0).random((64, 64, 64)) < 0.5
    assert len(surface_voxels(noise)) > module.MANY
    # a body: the largest organ of a 512×512 scan has fewer surface voxels
    z, y, x = np.ogrid[-80:80, -80:80, -80:80]
    ball = z**2 + y**2 + x**2 < 75**2
    assert len(surface_voxels(ball)) < module.MANY


def test_a_box_beyond_memory_is_left_to_trees(monkeypatch):
    monkeypatch.setattr(module, "MANY", 10)
    monkeypatch.setattr(module, "LARGEST", 63)
    monkeypatch.delattr(module, "nearest_by_transform")
    every = np.argwhere(np.ones((4, 4, 4)))
    assert not surface_distances(every, every, (1, 1, 1)).any()
    monkeypatch.setattr(module, "LARGEST", 64)
    with pytest.raises(NameError):
        surface_distances(every, every, (1, 1, 1))
