"""Grids in the patient: orientations against nibabel and by hand, and what cases have in common."""

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from msa2net.data.case import Case
from msa2net.data.geometry import (
    FileLayout,
    Geometry,
    canonical_orientation,
    common_orientation,
    describe_recut,
    note_on_slices,
    orientation_code,
    to_canonical,
)
from msa2net.data.preprocessing import Preprocessing
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


def along(code: str | None) -> Preprocessing:
    return Preprocessing(channels=1, image_size=(8, 8), orientation=code)


def case_of(geometry: Geometry, shape=(1, 2, 3, 4)) -> Case:
    values = np.arange(np.prod(shape)).reshape(shape)
    return Case("any", values, values[0].astype(np.uint8), geometry)


@given(affines(), st.sampled_from(["LPS", "RAS", "ASL", "IPR"]))
def test_a_case_in_memory_is_turned_as_nibabel_turns_it(affine, code):
    """nibabel counts (X, Y, Z) = (column, row, slice); and a NIfTI file is read in the same way."""
    case = case_of(Geometry(None, affine))
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(code)
    )
    expected_XYZ = nibabel.apply_orientation(case.image[0].T, turn)
    found = along(code).to_plane(case)
    assert np.array_equal(found.image[0], expected_XYZ.T)
    assert np.array_equal(found.label, found.image[0])
    placed = affine @ nibabel.orientations.inv_ornt_aff(turn, case.image[0].T.shape)
    np.testing.assert_allclose(found.geometry.affine, placed, atol=1e-9)
    np.testing.assert_allclose(
        found.geometry.spacing_mm, np.linalg.norm(placed[:3, :3], axis=0)[::-1]
    )
    if code == "LPS":
        read = to_canonical(case.image[0].T, canonical_orientation(affine))
        assert np.array_equal(found.image[0], read)
    assert np.shares_memory(found.image, case.image)
    assert np.array_equal(along(code).from_plane(found.label, case), case.label)


@given(affines())
def test_whatever_a_reader_gives_lies_in_the_plane_of_training_already(affine):
    layout = FileLayout((4, 3, 2), affine, canonical_orientation(affine), 1, 1, "mm")
    case = case_of(Geometry.from_layout(layout))
    assert orientation_code(case.geometry.affine) == "LPS"
    found = along("LPS").to_plane(case)
    assert found.image.strides == case.image.strides
    assert np.array_equal(found.image, case.image)
    assert np.array_equal(found.geometry.affine, case.geometry.affine)
    assert found.geometry.spacing_mm == case.geometry.spacing_mm


def test_a_sagittal_scan_by_hand():
    """Columns run to the back, rows down, slices to the left: cut axially, rows become slices."""
    affine = np.array([[0, 0, -4.0, 0], [-1, 0, 0, 0], [0, -0.5, 0, 0], [0, 0, 0, 1]])
    geometry = Geometry((4.0, 0.5, 1.0), affine)
    assert orientation_code(affine) == "PIL"
    case = case_of(geometry)  # sagittal slices, rows, columns
    axial = along("LPS").to_plane(case)
    assert np.array_equal(axial.image, case.image[:, :, ::-1].transpose(0, 2, 3, 1))
    assert axial.geometry.spacing_mm == (0.5, 1.0, 4.0)
    unsaid = along("LPS").to_plane(case_of(Geometry(None, affine)))
    assert unsaid.geometry.spacing_mm == (0.5, 1.0, 4.0)  # the affine says it too
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
    orientation = canonical_orientation(affine)
    return Geometry.from_layout(FileLayout((4, 4, 4), affine, orientation, 1, 1, "mm"))


@pytest.mark.parametrize("turn", [0, 30])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.5, 0.7, 4.0), (0.9, 0.9, 1.0)])
@pytest.mark.parametrize("plane", PLANES)
def test_a_file_s_own_slices_are_known_after_it_was_turned(plane: str, spacing_mm, turn: float):
    axes, axis, recut = PLANES[plane]
    geometry = scan(axes, spacing_mm, turn)
    assert orientation_code(geometry.affine) == "LPS"
    assert geometry.slice_axis == axis
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
    assert (turned.slice_axis, describe_recut(turned)) == (2, ("sagittal", "0.5×4 mm"))
    assert note_on_slices(turned, "LPS").endswith("of 0.5×4 mm pixels")
    assert scan("PIL", (4.0, 4.0, 1.0)).slice_axis == 2  # two coarse axes say nothing
    assert not turned.is_isotropic
    assert scan("PIL", (1.0, 0.9, 1.1)).is_isotropic


def test_without_an_affine_or_a_code_arrays_stay_as_they_lie():
    for geometry, code in ((Geometry(), "LPS"), (Geometry(None, RAS), None)):
        case = case_of(geometry)
        assert np.array_equal(along(code).to_plane(case).image, case.image)


@pytest.mark.parametrize(
    ("affines", "code"),
    [
        ([LPS, LPS], "LPS"),
        ([LPS, LPS * [2, 3, 0.5, 1]], "LPS"),
        ([LPS, RAS, LPS], None),
        ([LPS, None, LPS], None),
        ([None, None], None),
        ([], None),
    ],
)
def test_what_training_data_have_in_common(affines, code):
    assert common_orientation(Geometry(None, affine) for affine in affines) == code


@pytest.mark.parametrize("affine", [np.zeros((4, 4)), np.diag([1.0, 1.0, np.nan, 1.0]), np.eye(3)])
def test_an_affine_that_places_nothing_is_refused(affine):
    for ask in (orientation_code, lambda a: Geometry(None, a).turn_to("LPS")):
        with pytest.raises(DataError, match="three independent axes"):
            ask(affine)
