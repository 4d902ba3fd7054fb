"""Orientations: against nibabel, by hand, and what training data have in common."""

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from msa2net.data.geometry import FileLayout, Geometry, to_training, training_orientation
from msa2net.data.orientation import (
    common_orientation,
    describe_recut,
    is_isotropic,
    note_on_slices,
    orientation_code,
    slice_axis,
    view_along,
)
from msa2net.errors import DataError

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
RAS = np.eye(4)


@st.composite
def affines(draw):
    """Draw any affine of three well-separated axes: all orientations, oblique and anisotropic."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * rng.uniform(0.3, 6.0, 3)
    affine[:3, 3] = rng.normal(size=3) * 100
    return affine


@given(affines(), st.sampled_from(["LPS", "RAS", "ASL", "IPR"]))
def test_views_are_nibabel_s_reorientation(affine, code):
    """nibabel counts (X, Y, Z) = (column, row, slice); and a NIfTI file is read in the same way."""
    values_ZHW = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(code)
    )
    expected_XYZ = nibabel.apply_orientation(values_ZHW.transpose(2, 1, 0), turn)
    found_ZHW = view_along(Geometry(None, affine), code).of(values_ZHW)
    assert np.array_equal(found_ZHW, expected_XYZ.transpose(2, 1, 0))
    if code == "LPS":
        read = to_training(values_ZHW.transpose(2, 1, 0), training_orientation(affine))
        assert np.array_equal(found_ZHW, read)


@given(affines())
def test_what_is_written_through_a_view_lies_where_it_was_seen(affine):
    view = view_along(Geometry(None, affine), "LPS")
    values_CZHW = np.random.default_rng(0).random((2, 3, 4, 5))
    written_CZHW = np.zeros_like(values_CZHW)
    view.of(written_CZHW)[...] = view.of(values_CZHW)
    assert np.array_equal(written_CZHW, values_CZHW)
    assert np.shares_memory(view.of(values_CZHW), values_CZHW)


def test_a_sagittal_scan_by_hand():
    """Columns run to the back, rows down, slices to the left: cut axially, rows become slices."""
    affine = np.array([[0, 0, -4.0, 0], [-1, 0, 0, 0], [0, -0.5, 0, 0], [0, 0, 0, 1]])
    geometry = Geometry((4.0, 0.5, 1.0), affine)
    assert orientation_code(affine) == "PIL"
    view = view_along(geometry, "LPS")
    values_ZHW = np.arange(2 * 3 * 4).reshape(2, 3, 4)  # sagittal slices, rows, columns
    assert np.array_equal(view.of(values_ZHW), values_ZHW[:, ::-1].transpose(1, 2, 0))
    assert view.spacing_mm(geometry) == (0.5, 1.0, 4.0)
    assert view.spacing_mm(Geometry(None, affine)) == (0.5, 1.0, 4.0)  # the affine says it too
    assert view.spacing_mm(Geometry()) is None
    note = note_on_slices(geometry, "LPS")
    assert note is not None
    assert "between left and right" in note
    assert note.endswith("of 1×4 mm pixels")
    assert note_on_slices(geometry, "PIL") is None
    assert note_on_slices(geometry, "ASR") is None  # the same slices, turned
    assert note_on_slices(geometry, None) is None
    assert note_on_slices(Geometry(), "LPS") is None


PLANES = {  # file axes (X, Y, Z) of scans whose slices follow along Z → array axis of the slices
    "axial": ("RAS", 0, None),
    "axial, head first": ("LPI", 0, None),
    "coronal": ("RSA", 1, "coronal"),
    "sagittal": ("PIL", 2, "sagittal"),
}


def scan(axes: str, spacing_mm: tuple[float, float, float], turn: float = 0.0) -> Geometry:
    """A scan's geometry as its file gives it; `turn` in degrees about the patient's long axis."""
    ways = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0)}
    ways |= {"S": (0, 0, 1), "I": (0, 0, -1)}
    affine = np.eye(4)
    affine[:3, :3] = np.array([ways[letter] for letter in axes]).T * spacing_mm
    affine[:3, :3] = Rotation.from_euler("z", turn, degrees=True).as_matrix() @ affine[:3, :3]
    orientation = training_orientation(affine)
    return Geometry.from_layout(FileLayout((4, 4, 4), affine, orientation, 1, 1, "mm"))


@pytest.mark.parametrize("turn", [0, 30])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.5, 0.7, 4.0), (0.9, 0.9, 1.0)])
@pytest.mark.parametrize("plane", PLANES)
def test_a_file_s_own_slices_are_known_after_it_was_turned(plane: str, spacing_mm, turn: float):
    axes, axis, recut = PLANES[plane]
    geometry = scan(axes, spacing_mm, turn)
    assert orientation_code(geometry.affine) == "LPS"
    assert slice_axis(geometry) == axis
    note = note_on_slices(geometry, "LPS")
    if recut is None:
        assert note is None
        assert describe_recut(geometry) is None
    else:
        own = {1: "front and back", 2: "left and right"}[axis]
        assert f"the scan's slices follow one another between {own}, and those the network" in note
        assert describe_recut(geometry)[0] == recut
        assert note_on_slices(geometry, {1: "RSA", 2: "PIL"}[axis]) is None  # a network of such
    unknown = note_on_slices(geometry, None)  # cut as the array lies
    assert (unknown is None) == (note is None)
    assert unknown is None or "and it is taken for one between feet and head: it is cut" in unknown


def test_thick_slices_are_told_whatever_a_file_s_order():
    """Programs that turn a sagittal scan to RAS leave its slices 4 mm apart, along X now."""
    turned = scan("RAS", (4.0, 0.5, 0.7))
    assert (slice_axis(turned), describe_recut(turned)) == (2, ("sagittal", "0.5×4 mm"))
    assert note_on_slices(turned, "LPS").endswith("of 0.5×4 mm pixels")
    assert slice_axis(scan("PIL", (4.0, 4.0, 1.0))) == 2  # two coarse axes say nothing
    assert not is_isotropic(turned)
    assert is_isotropic(scan("PIL", (1.0, 0.9, 1.1)))


def test_without_an_affine_or_a_code_arrays_stay_as_they_lie():
    values_ZHW = np.arange(24).reshape(2, 3, 4)
    for geometry, code in ((Geometry(), "LPS"), (Geometry(None, RAS), None)):
        assert np.array_equal(view_along(geometry, code).of(values_ZHW), values_ZHW)


@pytest.mark.parametrize(
    ("affines", "code", "reason"),
    [
        ([LPS, LPS], "LPS", ""),
        ([LPS, LPS * [2, 3, 0.5, 1]], "LPS", ""),
        ([LPS, RAS, LPS], None, "the cases lie in different orientations: 2 of LPS, 1 of RAS"),
        ([LPS, None, LPS], None, "1 of 3 cases do not say where they lie in the patient"),
        ([None, None], None, "no case says where it lies in the patient"),
        ([], None, "no case says where it lies in the patient"),
    ],
)
def test_what_training_data_have_in_common(affines, code, reason):
    assert common_orientation(Geometry(None, affine) for affine in affines) == (code, reason)


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.diag([1.0, 1.0, np.nan, 1.0]), np.eye(3)])
def test_an_affine_that_places_nothing_is_refused(affine):
    for ask in (orientation_code, lambda a: view_along(Geometry(None, a), "LPS")):
        with pytest.raises(DataError, match="three independent axes"):
            ask(affine)
