"""A network that thresholds intensity, sent through the whole way: the mask must be the threshold.

What the oracle answers is known without it, in the image's own space; whatever differs was moved,
turned, resampled or dropped on the way there or back. Axes: Z slices, H rows, W columns.
"""

import math
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor, nn

from msa2net.data.case import Case, Geometry
from msa2net.data.preprocessing import Preprocessing
from msa2net.inference.predictor import Predictor

NAMES = ("background", "bright")
CODES = [
    "".join(letters)
    for axes in permutations(("LR", "PA", "SI"))
    for letters in product(*axes)
]  # fmt: skip
DTYPES = ("u1", "i2", "u2", "i4", "f4", "f8", ">i2")
LOW, HIGH = 20, 220  # of the image; fits every dtype
ENOUGH = 0.999


class Oracle(nn.Module):
    """Class 1 where the first channel lies above the middle; remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, image_BCHW: Tensor) -> Tensor:
        self.seen.append(image_BCHW[:, 0].clone())
        above_BHW = image_BCHW[:, :1]  # the middle of [0, 255] is 0 after standardising
        return torch.cat([-1000 * above_BHW, 1000 * above_BHW], dim=1)


class Graded(nn.Module):
    """As probable as bright."""

    def forward(self, image_BCHW: Tensor) -> Tensor:
        logit_B1HW = torch.logit((image_BCHW / 2 + 0.5).clamp(1e-4, 1 - 1e-4))
        return torch.cat([torch.zeros_like(logit_B1HW), logit_B1HW], dim=1)


class LeftHalf(nn.Module):
    """Class 1 in the left half of its input, whatever is there."""

    def forward(self, image_BCHW: Tensor) -> Tensor:
        logits_BKHW = torch.zeros(len(image_BCHW), 2, *image_BCHW.shape[2:])
        logits_BKHW[:, 1, :, : image_BCHW.shape[3] // 2] = 10
        logits_BKHW[:, 0] += 1
        return logits_BKHW


def affine_along(code: str, spacing=(1.0, 1.0, 1.0), tilt_degrees: float = 0.0) -> np.ndarray:
    """Return an affine whose (column, row, slice) run along `code`, perhaps turned by some."""
    directions = {"R": (1, 0, 0), "A": (0, 1, 0), "S": (0, 0, 1)}
    directions |= {
        new: tuple(-np.array(directions[old])) for new, old in zip("LPI", "RAS", strict=True)
    }
    c, s = np.cos(np.deg2rad(tilt_degrees)), np.sin(np.deg2rad(tilt_degrees))
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine = np.eye(4)
    columns = np.array([directions[letter] for letter in code]).T * np.array(spacing)
    affine[:3, :3] = about_z @ about_x @ columns
    affine[:3, 3] = (-31.5, 12.25, 400.0)
    return affine


def turned(array_ZHW: np.ndarray, affine: np.ndarray, code: str) -> np.ndarray:
    """nibabel's way: an array along the axes of a code."""
    wanted = nibabel.orientations.axcodes2ornt(code)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), wanted)
    return nibabel.apply_orientation(array_ZHW.T, turn).T


def case_of(mask_ZHW: np.ndarray, affine, dtype="i2", seed=0) -> Case:
    """Return an image that is bright where the mask is, with noise of 2 % of the contrast.

    A pixel alone that is enlarged keeps 9/16 of the contrast, so 3 % would bring it to the middle.
    """
    noise_ZHW = np.random.default_rng(seed).integers(-4, 5, mask_ZHW.shape)
    image_ZHW = (np.where(mask_ZHW, HIGH, LOW) + noise_ZHW).astype(dtype)
    width, height, depth = np.linalg.norm(affine[:3, :3], axis=0)
    geometry = Geometry((float(depth), float(height), float(width)), affine)
    return Case("oracle", image_ZHW[None], geometry=geometry)


def predictor(size: tuple[int, int], model=None, mode="resize", **options) -> Predictor:
    p = Preprocessing(channels=1, image_size=size, **{"orientation": "LPS"} | options)
    return Predictor(model or Oracle(), p, NAMES, batch_slices=3, mode=mode)


@st.composite
def patients(draw):
    """Draw a code, spacing, tilt, shape (Z, H, W), dtype and a seed for the mask."""
    spacing = tuple(draw(st.sampled_from([0.5, 0.78125, 1.0, 3.0, 5.0])) for _ in range(3))
    shape = tuple(draw(st.integers(1, 11)) for _ in range(3))
    affine = affine_along(draw(st.sampled_from(CODES)), spacing, draw(st.floats(-30, 30)))
    return affine, shape, draw(st.sampled_from(DTYPES)), draw(st.integers(0, 999))


@given(patients())
def test_windows_at_the_image_s_own_pixels_answer_every_pixel_alike(patient):
    """Slices smaller than the window, larger, and both; any mask, single voxels included."""
    affine, shape, dtype, seed = patient
    mask_ZHW = np.random.default_rng(seed).random(shape) < 0.4
    found = predictor((7, 6), mode="sliding")(case_of(mask_ZHW, affine, dtype))
    assert np.array_equal(found.labels, mask_ZHW)
    assert found.geometry.affine is affine


@given(patients(), st.sampled_from([1, 2]), st.booleans())
def test_slices_brought_to_the_network_s_size_come_back_the_same(patient, factor, padded):
    """Enlarged by 1 or 2, any mask survives: a pixel keeps 9/16 of its value, see bilinear."""
    affine, shape, dtype, seed = patient
    mask_ZHW = np.random.default_rng(seed).random(shape) < 0.4
    case = case_of(mask_ZHW, affine, dtype)
    _, height, width = turned(case.image[0], case.geometry.affine, "LPS").shape
    size = height * factor, width * factor
    if padded:  # the longer side fits, the other is surrounded
        size = max(size), max(size)
    found = predictor(size, fit="pad" if padded else "stretch")(case)
    assert np.array_equal(found.labels, mask_ZHW)


@given(patients())
def test_reduced_slices_come_back_the_same_where_nothing_is_finer_than_a_pixel(patient):
    """Halved, all that the network can be shown are masks of 2×2 blocks; those it returns."""
    affine, shape, dtype, seed = patient
    coarse_ZHW = np.random.default_rng(seed).random(shape) < 0.4
    axial_ZHW = turned(coarse_ZHW, affine, "LPS")
    blocks_ZHW = axial_ZHW.repeat(2, 1).repeat(2, 2)
    mask_ZHW = turned(blocks_ZHW, affine_along("LPS"), "".join(nibabel.aff2axcodes(affine)))
    halved = predictor(axial_ZHW.shape[1:], fit="stretch")
    assert np.array_equal(halved(case_of(mask_ZHW, affine, dtype)).labels, mask_ZHW)


@given(
    st.tuples(st.integers(40, 240), st.integers(40, 240)),
    st.tuples(st.floats(0.25, 0.4), st.floats(0.25, 0.4)),
    st.sampled_from(["pad", "stretch"]),
)
def test_any_size_brings_smooth_shapes_back(shape, radii, fit):
    """An ellipse, at sizes that divide 128² by nothing: probabilities are resized, then compared.

    An answer that is certain of every pixel of the network's has lost what lay between them: it
    may differ by one of these pixels at the border, and nowhere else.
    """
    rows, columns = np.indices(shape)
    across = (columns - 0.55 * shape[1]) / (radii[1] * shape[1])
    down = (rows - 0.45 * shape[0]) / (radii[0] * shape[0])
    mask_HW = down**2 + across**2 < 1
    picture_HW = np.where(mask_HW, 255, 0).astype(np.uint8)
    graded = predictor((128, 128), Graded(), fit=fit)(picture_HW).labels[0]
    assert (graded == mask_HW).mean() >= ENOUGH
    certain = predictor((128, 128), fit=fit)(picture_HW).labels[0]
    inside = ndimage.distance_transform_cdt(mask_HW)
    outside = ndimage.distance_transform_cdt(~mask_HW)
    assert (inside + outside)[certain != mask_HW].max(initial=0) <= math.ceil(max(shape) / 128)


@pytest.mark.parametrize("code", CODES)
def test_the_network_sees_the_training_orientation(code):
    """What lies in the patient decides what is shown, not how the file lays it out."""
    rng = np.random.default_rng(0)
    axial_ZHW = rng.integers(0, 256, (3, 4, 5)).astype(np.uint8)
    own_ZHW = turned(axial_ZHW, affine_along("LPS"), code)
    oracle = Oracle()
    case = Case("any", own_ZHW[None], geometry=Geometry((1.0, 1.0, 1.0), affine_along(code)))
    predictor((4, 5), oracle)(case)
    shown_ZHW = torch.cat(oracle.seen).numpy()
    expected = (axial_ZHW / 255 - 0.5) / 0.5
    np.testing.assert_allclose(shown_ZHW, expected, atol=1e-6)


@pytest.mark.parametrize("code", CODES)
def test_an_answer_lies_on_the_patient_s_own_side(code):
    """Columns of an axial slice run to the left: its left half is the patient's right."""
    shape = (4, 6, 8)
    affine = affine_along(code)
    blank = Case("any", np.zeros((1, *shape), np.uint8), geometry=Geometry((1, 1, 1), affine))
    labels_ZHW = predictor((8, 8), LeftHalf(), fit="stretch")(blank).labels
    z, h, w = np.indices(shape)
    x_ZHW = affine[0, 0] * w + affine[0, 1] * h + affine[0, 2] * z
    assert np.array_equal(labels_ZHW == 1, x_ZHW > x_ZHW.mean())


@pytest.mark.parametrize("mode", ["resize", "sliding"])
@pytest.mark.parametrize("code", ["RAS", "LPS", "ASL", "SRP", "IAR"])
def test_from_file_to_file(tmp_path: Path, code: str, mode: str):
    """NIfTI of any layout: the saved mask thresholds the file's own array, on its own grid."""
    mask_XYZ = np.random.default_rng(3).random((9, 5, 7)) < 0.4
    values_XYZ = np.where(mask_XYZ, HIGH, LOW).astype(np.int16)
    affine = affine_along(code, (0.7, 1.5, 4.0), 12.0)
    nibabel.save(nibabel.Nifti1Image(values_XYZ, affine), tmp_path / "scan.nii")
    oracle = Oracle()
    if mode == "sliding":
        apply = predictor((6, 6), oracle, mode)
    else:
        case = Case("x", values_XYZ.transpose(2, 1, 0)[None], geometry=Geometry(None, affine))
        _, height, width = turned(case.image[0], case.geometry.affine, "LPS").shape
        apply = predictor((2 * height, 2 * width), oracle, mode, fit="stretch")
    out = apply(tmp_path / "scan.nii").save(tmp_path / "mask.nii.gz")
    written = nibabel.load(out)
    np.testing.assert_allclose(written.affine, affine, atol=1e-5)
    assert np.array_equal(np.asarray(written.dataobj), mask_XYZ)


def test_pictures_and_bare_arrays_lie_as_they_lie():
    mask_HW = np.random.default_rng(5).random((13, 9)) < 0.4
    picture_HW = np.where(mask_HW, HIGH, LOW).astype(np.uint8)
    apply = predictor((13, 9))
    assert np.array_equal(apply(picture_HW).labels[0], mask_HW)
    assert np.array_equal(apply(np.stack([picture_HW] * 2)).labels[1], mask_HW)
