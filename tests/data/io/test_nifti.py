"""Volumes in and out: orientation, geometry, and files that are damaged or hostile."""

import gzip
import itertools
import json
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

from msa2net.data.case import Geometry, Segmentation
from msa2net.data.io import validation
from msa2net.data.io.hdf5_npz import read_hdf5, read_npz
from msa2net.data.io.nifti import is_nifti, read_nifti_image, read_nifti_label, write_nifti_labels
from msa2net.data.io.readers import read_path
from msa2net.errors import DataError

SHAPE = (3, 4, 5)  # X, Y, Z of most files here
VALUES = np.arange(60, dtype=np.uint8).reshape(SHAPE)  # every voxel its own value
SPACING_LPS = (0.7, 0.9, 2.5)  # mm along left, posterior, superior
ORDERS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
LIMITED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

Reader = Callable[[Path], Any]


def image_and_label(read: Callable[..., dict[str, np.ndarray]]) -> Reader:
    return lambda path: read(path, ["image", "label"])


def affine_of(order: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    """File axis i runs along patient axis order[i] (left, posterior, superior), or against it."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (patient, sign) in enumerate(zip(order, signs, strict=True)):
        to_ras = -1 if patient < 2 else 1
        affine[patient, axis] = to_ras * sign * SPACING_LPS[patient]
    affine[:3, 3] = 11.25, -20.5, 33.125
    return affine


def save(
    path: Path,
    array: np.ndarray,
    affine: np.ndarray | None = None,
    *,
    sform: int = 1,
    qform: int = 1,
    kind: Any = nibabel.Nifti1Image,
    **fields: Any,
) -> Path:
    """Write a NIfTI file; `fields` are header fields, put in unchecked."""
    affine = np.diag([-0.75, -1.0, 2.5, 1.0]) if affine is None else affine
    image = kind(array, affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    path.write_bytes(with_fields(image.to_bytes(), **fields))
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    return path


def with_fields(content: bytes, **fields: Any) -> bytes:
    """Change header fields of an unpacked NIfTI-1 or NIfTI-2 file."""
    kind = nibabel.Nifti1Header if content[0] == 348 % 256 else nibabel.Nifti2Header
    header = kind(content[: kind.sizeof_hdr], check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + content[kind.sizeof_hdr :]


def raw(path: Path) -> tuple[np.ndarray, Any]:
    image = nibabel.load(path)
    return np.asarray(image.dataobj), image.header


def there_and_back(path: Path) -> tuple[np.ndarray, Any, np.ndarray, Any]:
    """Read a label, write it beside; return both files' arrays and headers."""
    labels, geometry = read_nifti_label(path)
    copy = path.with_name(f"copy-{path.name}")
    write_nifti_labels(copy, labels, geometry)
    return *raw(path), *raw(copy)


def refused(read: Reader, path: Path, match: str = "") -> None:
    with pytest.raises(DataError, match=match or None) as caught:
        read(path)
    check_sentence(caught.value, path)


def check_sentence(error: DataError, path: Path) -> None:
    assert path.name in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 600


def read_or_refused(read: Reader, path: Path) -> Any:
    """Return what the reader gives, or None after one sentence; anything else fails the test."""
    try:
        return read(path)
    except DataError as error:
        check_sentence(error, path)
        return None


# Orientation and geometry -------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_every_axis_order_and_flip_is_brought_in_and_taken_back(tmp_path: Path, order, signs):
    affine = affine_of(order, signs)
    path = save(tmp_path / "x.nii.gz", VALUES, affine)
    labels_ZHW, geometry = read_nifti_label(path)
    image_CZHW, _ = read_nifti_image(path)

    # An independent way: nibabel turns the file to RAS, and LPS is that with two axes flipped.
    canonical = nibabel.as_closest_canonical(nibabel.load(path))
    expected_WHZ = np.asarray(canonical.dataobj)[::-1, ::-1]
    assert_array_equal(labels_ZHW, expected_WHZ.transpose(2, 1, 0))
    assert_array_equal(image_CZHW, labels_ZHW[None])
    assert labels_ZHW.dtype == image_CZHW.dtype == np.uint8
    assert labels_ZHW.flags.c_contiguous
    assert_allclose(geometry.spacing_mm, SPACING_LPS[::-1], rtol=1e-6)  # float32 in the header
    assert nibabel.aff2axcodes(geometry.affine) == ("L", "P", "S")

    before, old, after, new = there_and_back(path)
    assert_array_equal(after, before)
    assert after.dtype == np.uint8
    assert_array_equal(new.get_best_affine(), old.get_best_affine())
    for name in ("sform_code", "qform_code", "xyzt_units", "dim", "pixdim", "scl_slope"):
        assert_array_equal(new[name], old[name], err_msg=name)


@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_the_patient_s_left_posterior_superior_are_the_ends_of_the_axes(
    tmp_path: Path, order, signs
):
    array = np.zeros((3, 3, 3), np.uint8)
    for patient in range(3):
        at = [1, 1, 1]
        axis = order.index(patient)
        at[axis] = 2 if signs[axis] > 0 else 0
        array[tuple(at)] = patient + 1  # 1 lies left, 2 posterior, 3 superior
    path = save(tmp_path / "x.nii", array, affine_of(order, signs))
    labels_ZHW, _ = read_nifti_label(path)
    assert labels_ZHW[1, 1, 2] == 1
    assert labels_ZHW[1, 2, 1] == 2
    assert labels_ZHW[2, 1, 1] == 3


@st.composite
def oblique(draw: st.DrawFn) -> tuple[np.ndarray, bool]:
    """An affine of any rotation, voxel size and position; sheared or not."""
    unit = st.floats(-1, 1, width=32)
    quaternion = np.array(draw(st.tuples(unit, unit, unit, unit)))
    if np.linalg.norm(quaternion) < 0.1:
        quaternion = np.array([0.0, 0.0, 0.0, 1.0])
    sizes = draw(st.tuples(*[st.floats(0.25, 6, width=32)] * 3))
    sheared = draw(st.booleans())
    tilt = np.eye(3)
    tilt[1, 2] = np.tan(np.radians(draw(st.floats(-30, 30)))) if sheared else 0
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_quat(quaternion).as_matrix() @ tilt @ np.diag(sizes)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-900, 900, width=32)] * 3))
    return affine, sheared


@LIMITED
@given(oblique(), st.sampled_from([(1, 0), (0, 1), (2, 3)]), st.sampled_from(["", ".gz"]))
def test_oblique_grids_keep_every_voxel_s_place(tmp_path: Path, oblique, codes, ending):
    affine, sheared = oblique
    if sheared:
        codes = (4, 0)  # a qform has no shear
    path = save(tmp_path / f"x.nii{ending}", VALUES, affine, sform=codes[0], qform=codes[1])
    labels_ZHW, geometry = read_nifti_label(path)
    file_affine = nibabel.load(path).affine
    for value in (0, 7, 31, 59):
        slice_, row, column = np.argwhere(labels_ZHW == value)[0]
        ours = geometry.affine @ [column, row, slice_, 1]
        theirs = file_affine @ [*np.argwhere(value == VALUES)[0], 1]
        assert_allclose(ours, theirs, atol=1e-9)  # float64 sums in another order
    sizes = np.linalg.norm(geometry.affine[:3, :3], axis=0)
    assert_allclose(geometry.spacing_mm, sizes[::-1], rtol=1e-12)

    before, old, after, new = there_and_back(path)
    assert_array_equal(after, before)
    assert_array_equal(new.get_best_affine(), old.get_best_affine())
    assert (new["sform_code"], new["qform_code"]) == codes
    if codes[1]:
        assert_array_equal(new.get_qform(), old.get_qform())


def contradictory(path: Path) -> Path:
    """A file whose qform has another place, direction, handedness and voxel size than its sform."""
    header = nibabel.Nifti1Header()
    header.set_qform(affine_of((1, 0, 2), (1, 1, 1)), 1)
    names = [f"quatern_{axis}" for axis in "bcd"] + [f"qoffset_{axis}" for axis in "xyz"]
    assert header["pixdim"][0] == -1
    return save(path, VALUES, **{name: header[name] for name in ("pixdim", *names)})


def test_a_qform_that_contradicts_the_sform_is_kept(tmp_path: Path):
    """Programs differ in which of the two they believe; scan and mask must not part in any."""
    _, old, _, new = there_and_back(contradictory(tmp_path / "x.nii"))
    assert not np.allclose(old.get_qform(), old.get_sform())
    assert_array_equal(new.get_qform(), old.get_qform())
    assert_array_equal(new.get_sform(), old.get_sform())


@pytest.mark.parametrize(
    ("units", "code", "millimetres"), [("unknown", 0, 1), ("meter", 1, 1000), ("micron", 3, 0.001)]
)
def test_units_of_length(tmp_path: Path, units, code, millimetres):
    affine = np.diag([0.5, 2.0, 4.0, 1.0])
    path = save(tmp_path / "x.nii", VALUES, affine, xyzt_units=code)
    _, geometry = read_nifti_label(path)
    assert geometry.layout.units == units
    assert_allclose(geometry.spacing_mm, np.array([4.0, 2.0, 0.5]) * millimetres, rtol=1e-12)
    _, old, _, new = there_and_back(path)
    assert new["xyzt_units"] == code
    assert_array_equal(new.get_sform(), old.get_sform())


def test_files_without_a_position_go_by_their_voxel_sizes(tmp_path: Path):
    fields = {"pixdim": [0, -2.0, 3.0, 4.0, 1, 1, 1, 1]}  # qfac 0 and a minus, as loose writers do
    path = save(tmp_path / "x.nii", VALUES, sform=0, qform=0, **fields)
    _, geometry = read_nifti_label(path)
    assert geometry.spacing_mm == (4.0, 3.0, 2.0)
    before, _, after, new = there_and_back(path)
    assert_array_equal(after, before)
    assert (new["sform_code"], new["qform_code"]) == (0, 0)
    assert_array_equal(new.get_best_affine(), nibabel.load(path).affine)
    _, geometry = read_nifti_label(save(path, VALUES, sform=0, qform=1, **fields))
    assert geometry.spacing_mm == (4.0, 3.0, 2.0)


def test_nifti_2_stays_nifti_2(tmp_path: Path):
    affine = np.diag([1 / 3, 1 / 7, 1 / 9, 1.0])  # float64 in NIfTI-2; float32 would round it
    path = save(tmp_path / "x.nii.gz", VALUES, affine, kind=nibabel.Nifti2Image)
    before, _, after, new = there_and_back(path)
    assert_array_equal(after, before)
    assert new.sizeof_hdr == 540
    assert_array_equal(new.get_sform(), affine)


def test_geometry_survives_json(tmp_path: Path):
    labels, geometry = read_nifti_label(contradictory(tmp_path / "x.nii"))
    back = Geometry.from_json(json.loads(json.dumps(geometry.to_json())))
    assert back.spacing_mm == geometry.spacing_mm
    assert_array_equal(back.affine, geometry.affine)
    for one, other in ((geometry, "one.nii"), (back, "other.nii")):
        write_nifti_labels(tmp_path / other, labels, one)
    assert (tmp_path / "one.nii").read_bytes() == (tmp_path / "other.nii").read_bytes()
    assert Geometry.from_json(Geometry().to_json()).to_json() == Geometry().to_json()


# Values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_file_s_own_type_is_kept(tmp_path: Path, dtype, order):
    array = (np.arange(60).reshape(SHAPE) - (0 if dtype[0] == "u" else 30)).astype(dtype)
    kind = nibabel.Nifti1Image
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(dtype)
    image = kind(array, np.diag([-1.0, -1.0, 1.0, 1.0]), header)
    path = tmp_path / "x.nii"
    nibabel.save(image, path)
    read, _ = read_nifti_image(path)
    assert read.dtype == np.dtype(dtype)
    assert read.dtype.isnative
    assert_array_equal(read[0].transpose(2, 1, 0), array)


def test_scaled_values_are_the_true_ones(tmp_path: Path):
    stored = np.arange(-30, 30, dtype=np.int16).reshape(SHAPE)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    path = save(tmp_path / "x.nii", stored, affine, scl_slope=0.25, scl_inter=-1024)
    image, _ = read_nifti_image(path)
    assert image.dtype == np.float32
    # Quarters are exact in float32: 30 · 0.25 − 1024 by hand is −1016.5.
    assert_array_equal(image[0].transpose(2, 1, 0), stored * 0.25 - 1024)
    assert_array_equal(image[0].transpose(2, 1, 0), nibabel.load(path).get_fdata())
    for slope in (0, np.nan, 1):  # three ways to say "not scaled"
        path = save(tmp_path / "x.nii", stored, affine, scl_slope=slope, scl_inter=0)
        assert read_nifti_image(path)[0].dtype == np.int16


def test_a_fourth_axis_becomes_channels(tmp_path: Path):
    array = np.arange(120, dtype=np.int16).reshape(*SHAPE, 2)
    path = save(tmp_path / "x.nii", array, np.diag([-1.0, -1.0, 1.0, 1.0]))
    image, geometry = read_nifti_image(path)
    assert image.shape == (2, 5, 4, 3)
    assert_array_equal(image[1].transpose(2, 1, 0), array[..., 1])
    assert geometry.layout.shape == SHAPE
    refused(read_nifti_label, path, "holds 2 volumes")
    # A mask of it is one volume of the same grid.
    write_nifti_labels(tmp_path / "m.nii", image[0].astype(np.uint8), geometry)
    assert raw(tmp_path / "m.nii")[0].shape == SHAPE


def test_labels_are_whole_numbers(tmp_path: Path):
    for array, dtype in ((VALUES.astype(np.float64), "u1"), (VALUES.astype("f4") * 1000, "u2")):
        labels, _ = read_nifti_label(save(tmp_path / "x.nii", array))
        assert labels.dtype == dtype
    array = VALUES.astype(np.float32)
    array[0, 0, 0] = 0.5
    refused(read_nifti_label, save(tmp_path / "x.nii", array), "fractions in 1 of 60 .* as 0.5;")
    array[0, 0, 0] = 1e30
    refused(read_nifti_label, save(tmp_path / "x.nii", array), "no class indices")
    # Writers that scale floats into integers leave 1.00002 where 1 was meant.
    image = nibabel.Nifti1Image(VALUES.astype(np.float32), np.diag([-1.0, -1.0, 1.0, 1.0]))
    image.set_data_dtype(np.int16)
    nibabel.save(image, path := tmp_path / "y.nii")
    assert (nibabel.load(path).get_fdata() % 1).any()
    assert_array_equal(read_nifti_label(path)[0].transpose(2, 1, 0), VALUES)


def test_written_types_and_refusals(tmp_path: Path):
    geometry = Geometry.from_spacing((2.0, 1.0, 1.0))
    labels = np.array([[[0, 255]]], np.int64)
    path = tmp_path / "x.NII.gz"
    write_nifti_labels(path, labels, geometry)
    assert gzip.decompress(path.read_bytes())[70:72] == b"\x02\x00"  # datatype: uint8
    write_nifti_labels(path, labels + 1, geometry)
    assert gzip.decompress(path.read_bytes())[70:72] == b"\x00\x02"  # uint16
    assert_array_equal(read_nifti_label(path)[0], labels + 1)
    path.unlink()
    layout_of = read_nifti_label(save(tmp_path / "scan.nii", VALUES))[1]
    for wrong, place, match in (
        (labels - 1, geometry, "from -1 to 254"),
        (labels * 300, geometry, "from 0 to 76500"),
        (labels / 2, geometry, "these are float64"),
        (labels, Geometry(), "no place in a patient"),
        (labels, layout_of, "mask is 2×1×1 and the scan it belongs to 3×4×5"),
    ):
        refused(lambda path, w=wrong, p=place: write_nifti_labels(path, w, p), path, match)
        assert not path.exists()


def test_volumes_are_read_by_path_and_saved_in_their_own_layout(tmp_path: Path):
    path = save(tmp_path / "scan.1.nii.gz", VALUES, affine_of((2, 0, 1), (-1, 1, 1)), sform=2)
    case = read_path(path)
    assert case.id == "scan.1"
    assert case.image.shape[1:] == tuple(VALUES.shape[axis] for axis in (0, 2, 1))
    mask = (case.image[0] % 3).astype(np.uint8)
    saved = Segmentation("x", mask, ("a", "b", "c"), case.geometry).save(tmp_path / "m.nii.gz")
    array, header = raw(saved)
    assert_array_equal(array, VALUES % 3)
    assert header["sform_code"] == 2
    assert_array_equal(nibabel.load(saved).affine, nibabel.load(path).affine)
    (tmp_path / "x.mha").write_text("ObjectType = Image")
    refused(read_path, tmp_path / "x.mha", r"supported are \.png, .*\.nii, \.nii\.gz$")
    assert [is_nifti(Path(name)) for name in ("A.NII", "a.nii.gz", "a.gz")] == [True, True, False]


def test_packed_and_plain_are_told_by_content(tmp_path: Path):
    path = save(tmp_path / "x.nii", VALUES)
    content = path.read_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(content)
    path.write_bytes(gzip.compress(content))
    for name in ("plain.nii.gz", "x.nii"):
        assert read_nifti_image(tmp_path / name)[0].sum() == VALUES.sum()


def test_a_real_scan_and_its_label_go_there_and_back(real_data: Path, tmp_path: Path):
    folder = real_data / "ct_example" / "Training"
    image, geometry = read_nifti_image(folder / "img" / "img0001.nii.gz")
    assert (image.shape, image.dtype) == ((1, 112, 101, 122), np.int16)
    assert_allclose(geometry.spacing_mm, (3, 3, 3))
    path = folder / "label" / "label0001.nii.gz"
    labels, label_geometry = read_nifti_label(path)
    # Liver (6) lies on the patient's right, spleen (1) on the left: columns run to the left.
    columns = {organ: np.argwhere(labels == organ)[:, 2].mean() for organ in (1, 6)}
    assert columns[6] < columns[1]
    write_nifti_labels(tmp_path / "x.nii.gz", labels, geometry)
    (before, old), (after, new) = raw(path), raw(tmp_path / "x.nii.gz")
    assert_array_equal(after, before)
    for name in old:
        assert_array_equal(new[name], old[name], err_msg=name)  # the whole header
    assert_array_equal(label_geometry.affine, geometry.affine)


# Damaged NIfTI ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"dim": [3, -3, 4, 5, 1, 1, 1, 1]}, "-3×4×5.* must be positive"),
        ({"dim": [3, 0, 4, 5, 1, 1, 1, 1]}, "must be positive"),
        ({"dim": [4, 30000, 30000, 30000, 30000, 1, 1, 1]}, "more than 8.0 GiB are not read"),
        ({"dim": [3, 1920, 1920, 1023, 1, 1, 1, 1]}, "declares 3.5 GiB of data and holds 412"),
        ({"dim": [9, 3, 4, 5, 1, 1, 1, 1]}, "declares 9 dimensions"),
        ({"dim": [-1, 3, 4, 5, 1, 1, 1, 1]}, "declares -1 dimensions"),
        ({"dim": [2, 12, 5, 1, 1, 1, 1, 1]}, "has 2 dimensions"),
        ({"dim": [5, 3, 4, 1, 1, 5, 1, 1]}, "has 5 dimensions"),
        ({"magic": b"nix"}, "not a NIfTI file"),
        ({"magic": b"ni1"}, "one half of a .hdr and .img pair"),
        ({"sizeof_hdr": 347}, "not a NIfTI file"),
        ({"datatype": 32}, "holds values of type complex64"),
        ({"datatype": 1792}, "holds values of type complex128"),
        ({"datatype": 128}, "holds values of type RGB"),
        ({"datatype": 1}, "holds values of type binary"),
        ({"datatype": 77}, "unknown type 77"),
        ({"vox_offset": 0}, "begin at byte 0,"),
        ({"vox_offset": np.nan}, "begin at byte nan"),
        ({"vox_offset": 1e30}, "begin at byte 1e"),
        ({"vox_offset": 1000}, "too little for that|truncated"),
        ({"scl_slope": np.inf}, "scales its values by inf"),
        ({"scl_slope": 1, "scl_inter": np.nan}, "adds nan"),
        ({"sform_code": 99}, "sform_code 99"),
        ({"qform_code": -1}, "qform_code -1"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "no usable position"),
        ({"srow_x": [0, 0, 0, 0]}, "no usable position"),
        ({"srow_x": [1, 1, 0, 0], "srow_y": [1, 1, 0, 0]}, "two of its axes point the same way"),
        ({"srow_x": [1e30, 0, 0, 0]}, "would measure 1e"),
        ({"srow_x": [-1, 0, 0, np.inf]}, "would lie at"),
        ({"sform_code": 0, "quatern_b": 5}, "no usable position"),
        ({"sform_code": 0, "qform_code": 0, "pixdim": [1, 0, 0, 0, 0, 0, 0, 0]}, "0 × 0 × 0 mm"),
    ],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_headers_that_cannot_be_are_refused(tmp_path: Path, fields, match, ending):
    if ending:
        match = match.replace("412", ".* packed")
    path = save(tmp_path / f"x.nii{ending}", VALUES, **fields)
    for read in (read_nifti_image, read_nifti_label, read_path):
        refused(read, path, match)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted(tmp_path: Path, wrong):
    array = VALUES.astype(np.float32)
    array[0, :2, 0] = wrong
    path = save(tmp_path / "x.nii", array)
    for read in (read_nifti_image, read_nifti_label):
        refused(read, path, "2 of 60 values are NaN or infinite")
    # Finite as stored, infinite once scaled to float32.
    path = save(tmp_path / "x.nii", VALUES.astype(np.float32), scl_slope=3e38)
    refused(read_nifti_image, path, "58 of 60 values")


def every_reader(path: Path) -> Reader:
    return {
        ".nii": read_nifti_image,
        ".gz": read_nifti_image,
        ".npz": image_and_label(read_npz),
        ".h5": image_and_label(read_hdf5),
    }[path.suffix]


def valid_files(folder: Path) -> dict[str, Path]:
    """One good file of every kind."""
    arrays = {"image": VALUES.astype(np.float32), "label": VALUES}
    np.savez(folder / "plain.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    with h5py.File(folder / "x.h5", "w") as file:
        for name, array in arrays.items():
            options = {"chunks": (1, 4, 5), "compression": "gzip", "shuffle": True}
            file.create_dataset(name, data=array, **options)
    paths = [folder / name for name in ("plain.npz", "packed.npz", "x.h5")]
    for name, kind in (("x.nii", nibabel.Nifti1Image), ("y.nii.gz", nibabel.Nifti1Image)):
        paths.append(save(folder / name, arrays["image"], kind=kind))
    paths.append(save(folder / "z.nii", arrays["image"], kind=nibabel.Nifti2Image))
    return {path.name: path for path in paths}


KINDS = ("plain.npz", "packed.npz", "x.h5", "x.nii", "y.nii.gz", "z.nii")


@pytest.mark.parametrize("name", KINDS)
@LIMITED
@given(data=st.data())
def test_truncated_files_are_refused(tmp_path: Path, name, data):
    path = valid_files(tmp_path)[name]
    content = path.read_bytes()
    read = every_reader(path)
    read(path)
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    refused(read, path)


@pytest.mark.parametrize("name", [name for name in KINDS if not name.endswith(".h5")])
@LIMITED
@given(data=st.data())
def test_changed_bytes_give_a_sentence_or_a_sound_array(tmp_path: Path, name, data):
    path = valid_files(tmp_path)[name]
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(content) - 1, 10_000)))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        content[place : place + len(patch)] = patch
    path.write_bytes(content)
    result = read_or_refused(every_reader(path), path)
    if result is None:
        return
    array = result["image"] if isinstance(result, dict) else result[0]
    assert np.isfinite(array).all()
    if name.endswith((".gz", ".npz")):  # these hold checksums: no change to a voxel goes unseen
        assert sorted(array.ravel()) == sorted(VALUES.ravel())


@LIMITED
@given(
    dims=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=8, max_size=8),
    datatype=st.integers(-(2**15), 2**15 - 1) | st.sampled_from([2, 4, 16, 64]),
    place=st.lists(st.floats(width=32), min_size=12, max_size=12),
    packed=st.booleans(),
)
@example([3, 32767, 32767, 2, 1, 1, 1, 1], 4, [0.0] * 12, True)
@example([4, 16384, 16384, 1, 16, 1, 1, 1], 2, [1.0] * 12, False)
def test_any_header_is_read_in_little_memory(tmp_path: Path, dims, datatype, place, packed):
    rows = {f"srow_{axis}": place[4 * i : 4 * i + 4] for i, axis in enumerate("xyz")}
    path = save(
        tmp_path / ("x.nii.gz" if packed else "x.nii"), VALUES, dim=dims, datatype=datatype, **rows
    )
    tracemalloc.start()
    try:
        read_or_refused(read_nifti_image, path)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.npz", "x.h5"])
def test_files_that_are_something_else(tmp_path: Path, name):
    path = tmp_path / name
    read = every_reader(path)
    refused(read, path, "there is no file")
    for content in (b"", b"\x1f\x8b", b"PK\x03\x04", b"hello\nworld" * 99, pickle.dumps([1, 2])):
        path.write_bytes(content)
        refused(read, path)
    path.unlink()
    path.mkdir()
    refused(read, path, "is not a file")


# NPZ ----------------------------------------------------------------------------------------------


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "sprung")


def npz(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(header: str, content: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def header_of(shape: Any, descr: Any = "<f4") -> str:
    return repr({"descr": descr, "fortran_order": False, "shape": shape})


def test_npz_arrays_come_back(tmp_path: Path):
    arrays = {
        "image": np.asfortranarray(VALUES.astype(">f4")),
        "half": VALUES.astype(np.float16),
        "flag": VALUES > 3,
        "one": np.array(7),
    }
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    read = read_npz(tmp_path / "x.npz", list(arrays))
    for name, array in arrays.items():
        assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype.newbyteorder("=")
        assert read[name].dtype.isnative


def test_pickled_objects_are_never_loaded(tmp_path: Path):
    np.savez(tmp_path / "x.npz", image=np.array([Trap(tmp_path / "sprung")], object))
    refused(lambda path: read_npz(path, ["image"]), tmp_path / "x.npz", "text or pickled objects")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("member", "match"),
    [
        (npy(header_of((-1, 4))), "must be positive"),
        (npy(header_of((0, 4))), "must be positive"),
        (npy(header_of((2**40, 2**40))), "more than 8.0 GiB are not read"),
        (npy(header_of((2**28,))), "too little for that"),
        (npy(header_of((True,))), "truncated"),
        (npy(header_of([3])), "cannot be read as NPZ"),
        (npy(header_of((3,), "<c8"), b"x" * 24), "values of type complex64; only plain numbers"),
        (npy(header_of((3,), "<U4"), b"x" * 48), "only plain numbers"),
        (npy(header_of((3,), [("a", "<f4")]), b"x" * 12), "only plain numbers"),
        (npy(header_of((3,)), struct.pack("<3f", 1, np.nan, np.inf)), "2 of 3 values are NaN"),
        (npy(header_of((3,)), b"x" * 11), "too little|truncated"),
        (npy(header_of((3,)), b"x" * 13), "more bytes than it declares"),
        (npy("{'descr': "), "cannot be read as NPZ"),
        (npy("(" * 400), "cannot be read as NPZ"),
        (npy("[" * 3000 + "]" * 900), "cannot be read as NPZ|more memory"),
        (npy("{}"), "cannot be read as NPZ"),
        (npy("3"), "cannot be read as NPZ"),
        (npy("x" * 5000), "cannot be read as NPZ"),
        (b"\x93NUMPY\x02\x00" + b"\xff" * 4, "NumPy.s version 2"),
        (b"\x93NUMPY\x09\x00" + b"\xff" * 4, "NumPy.s version 9"),
        (b"plain text", "cannot be read as NPZ"),
        (b"", "truncated"),
    ],
)
def test_broken_npz_members_are_refused(tmp_path: Path, member, match):
    path = npz(tmp_path / "x.npz", {"image": member})
    refused(lambda path: read_npz(path, ["image"]), path, match)


def test_npz_keys_methods_and_totals(tmp_path: Path):
    good = npy(header_of((2,)), bytes(8))
    path = npz(tmp_path / "x.npz", {"image": good, "mask": good})
    refused(lambda path: read_npz(path, ["label"]), path, "no array 'label'; .* 'image', 'mask'")
    path = npz(tmp_path / "x.npz", {f"a{index:03d}": good for index in range(40)})
    refused(lambda path: read_npz(path, ["label"]), path, "'a009' and 30 more")
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = npz(tmp_path / "x.npz", {"image": good}, method)
        refused(lambda path: read_npz(path, ["image"]), path, "packed in a way")
    path = npz(tmp_path / "x.npz", {"image": good, "mask": good})
    refused(lambda path: read_npz(path, ["image", "mask"], 15), path, "declares 16 bytes of arrays")


# HDF5 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (1, 4, 5)},
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf", "chunks": (2, 2, 2)},
        {"maxshape": (None, None, None)},
    ],
)
def test_hdf5_arrays_come_back(tmp_path: Path, options):
    arrays = {"image": VALUES.astype(">f4"), "in/half": VALUES.astype("f2"), "flag": VALUES > 3}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **options)
        file["one"] = 7
    read = read_hdf5(tmp_path / "x.h5", [*arrays, "one"])
    assert read["one"] == 7
    for name, array in arrays.items():
        assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype.newbyteorder("=")


def filtered_twice(file: h5py.File) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((60,))
    properties.set_deflate(6)
    properties.set_deflate(6)
    space = h5py.h5s.create_simple((60,))
    h5py.h5d.create(file.id, b"image", h5py.h5t.NATIVE_UINT8, space, dcpl=properties)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((60,), "u1")
    layout[:] = h5py.VirtualSource("other.h5", "image", (60,))
    file.create_virtual_dataset("image", layout)


def external(file: h5py.File) -> None:
    file.create_dataset("image", (60,), "u1", external=[("/etc/hostname", 0, 60)])


def soft(file: h5py.File) -> None:
    file["a"] = VALUES
    file["image"] = h5py.SoftLink("/a")


def lonely_chunk(file: h5py.File) -> None:
    options = {"chunks": (2**30,), "maxshape": (None,), "compression": "gzip"}
    data_set = file.create_dataset("image", (1,), "u1", **options)
    data_set.id.write_direct_chunk((0,), zlib.compress(bytes(9)))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda file: file.update(mask=VALUES), "no array 'image'; there are 'mask'"),
        (lambda file: None, "no array 'image'; there are none"),
        (lambda file: file.create_group("image"), "'image' is a group"),
        (lambda file: file.update(image=h5py.ExternalLink("a.h5", "/b")), "link to another place"),
        (soft, "link to another place"),
        (external, "lies in other files"),
        (virtual, "lies in other files"),
        (filtered_twice, "packed by the filters gzip, gzip"),
        (lambda file: file.create_dataset("image", data=VALUES, scaleoffset=0), "filters number 6"),
        (lambda file: file.update(image="text"), "holds text or pickled objects"),
        (lambda file: file.update(image=VALUES * 1j), "values of type complex128"),
        (lambda file: file.update(image=np.zeros(3, "u1,u1")), "only plain numbers"),
        (lambda file: file.update(image=np.zeros(3, np.longdouble)), "only plain numbers"),
        (lambda file: file.update(image=h5py.Empty("f4")), "is empty"),
        (lambda file: file.create_dataset("image", (0, 4), "f4"), "must be positive"),
        (lambda file: file.create_dataset("image", (2**40,), "f4", chunks=(9,)), "4096.0 GiB"),
        (lambda file: file.create_dataset("image", (2**30,), "f4", chunks=(9,)), "too little"),
        (lambda file: file.create_dataset("image", (2**30,), "f4"), "too little"),
        (lonely_chunk, "pieces larger than itself"),
        (lambda file: file.update(image=[1, np.nan]), "1 of 2 values are NaN"),
    ],
)
def test_unusable_hdf5_is_refused(tmp_path: Path, build, match):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        build(file)
    refused(lambda path: read_hdf5(path, ["image"]), path, match)


def test_hdf5_keys_below_groups_and_totals(tmp_path: Path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["a/image"] = file["b"] = VALUES
    refused(lambda path: read_hdf5(path, ["a/label"]), path, "'a/label'; there are 'image'")
    refused(lambda path: read_hdf5(path, ["b/label"]), path, "'b/label'; there are none")
    refused(lambda path: read_hdf5(path, ["a/image", "b"], 119), path, "declares 120 bytes of arr")


FUZZ_HDF5 = """
import random, sys
from pathlib import Path
from msa2net.data.io.hdf5_npz import read_hdf5
from msa2net.errors import DataError

content, path = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
draw = random.Random(0)
refused = 0
for _ in range(500):
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 2, 8))):
        damaged[draw.randrange(len(damaged))] = draw.choice((0, 1, 127, 128, 255))
    path.write_bytes(damaged)
    try:
        read_hdf5(path, ["image", "label"])
    except DataError as error:
        assert str(path) in str(error) and "\\n" not in str(error), error
        refused += 1
print(refused)
"""


def test_changed_bytes_in_hdf5(tmp_path: Path):
    """In a process of its own, as the reader underneath is a C library; bytes drawn once."""
    path = valid_files(tmp_path)["x.h5"]
    command = [sys.executable, "-c", FUZZ_HDF5, path, tmp_path / "damaged.h5"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 50


# Bombs --------------------------------------------------------------------------------------------

MEASURE = """
import resource, sys
from pathlib import Path
from msa2net.data.io.hdf5_npz import read_hdf5, read_npz
from msa2net.data.io.nifti import read_nifti_image
from msa2net.errors import DataError

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    path = Path(name)
    try:
        if path.suffix == ".h5":
            read_hdf5(path, ["image"])
        elif path.suffix == ".npz":
            read_npz(path, ["image"])
        else:
            read_nifti_image(path)
        print("read")
    except DataError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def zeros(size: int, start: bytes = b"", *, gz: bool = False) -> bytes:
    """Pack `start` and `size` zeros, as gzip or zlib, without ever holding them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if gz else 15)
    block = bytes(2**20)
    parts = [packer.compress(start)]
    parts += [packer.compress(block) for _ in range(size >> 20)]
    return b"".join([*parts, packer.flush()])


def nifti_bombs(folder: Path) -> dict[Path, str]:
    plain = save(folder / "whole.nii", VALUES).read_bytes()
    seven = with_fields(plain, dim=[3, 1920, 1920, 1019, 1, 1, 1, 1], datatype=4, bitpix=16)
    noise = np.random.default_rng(0).bytes(8 * 2**20)
    contents = {
        # 100 kB that declare 7 GiB and unpack to 100 MiB.
        "bomb.nii.gz": (zeros(100 << 20, seven, gz=True), "too little for that"),
        # 8 MiB that could unpack to 7 GiB, but do not.
        "short.nii.gz": (gzip.compress(seven + noise, 1), "truncated"),
        "plain.nii": (seven + noise, "too little for that"),
        # A small volume with little or much behind it, and one with much before it.
        "padded.nii.gz": (zeros(20 << 20, plain, gz=True), "read"),
        "tail.nii.gz": (zeros(200 << 20, plain, gz=True), "more data than it declares"),
        "offset.nii.gz": (
            zeros(200 << 20, with_fields(plain, vox_offset=192 << 20), gz=True),
            "read",
        ),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    return {folder / name: expected for name, (_, expected) in contents.items()}


def array_bombs(folder: Path) -> dict[Path, str]:
    nothing = bytes(100 << 20)
    liar = npz(folder / "liar.npz", {"image": npy(header_of((2**20,)), bytes(2**22))})
    content = bytearray(liar.read_bytes())
    at = content.rindex(b"PK\x01\x02") + 24  # the size that the directory states
    content[at : at + 4] = struct.pack("<I", 200)
    liar.write_bytes(content)
    long_header = b"\x93NUMPY\x02\x00" + b"\xff" * 4 + nothing
    seven = npy(header_of((7 * 2**28,)), nothing)
    with h5py.File(folder / "chunk.h5", "w") as file:
        data_set = file.create_dataset("image", (99, 99), "u1", chunks=(99, 99), compression="gzip")
        data_set.id.write_direct_chunk((0, 0), zeros(300 << 20))  # where 9801 bytes belong
    with h5py.File(folder / "unwritten.h5", "w") as file:
        file.create_dataset("image", (7 * 2**28,), "f4", chunks=(2**20,), compression="gzip")
    return {
        npz(folder / "header.npz", {"image": long_header}): "of NumPy's version 2",
        npz(folder / "seven.npz", {"image": seven}): "too little for that",
        liar: "truncated",
        folder / "chunk.h5": "a piece that holds more than it declares",
        folder / "unwritten.h5": "too little for that",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux reports it")
def test_bombs_are_refused_in_little_memory(tmp_path: Path):
    bombs = nifti_bombs(tmp_path) | array_bombs(tmp_path)
    assert (tmp_path / "bomb.nii.gz").stat().st_size < 110_000
    command = [sys.executable, "-c", MEASURE, *bombs]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    *sentences, kibibytes = result.stdout.splitlines()
    assert len(sentences) == len(bombs)
    for sentence, (path, expected) in zip(sentences, bombs.items(), strict=True):
        assert expected in sentence
        assert expected == "read" or path.name in sentence
    # 8 MiB of `short` are really there; buffers and libraries take the rest.
    assert int(kibibytes) < 64 * 2**10


def test_memory_that_cannot_be_had_is_a_sentence(tmp_path: Path, monkeypatch):
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("msa2net.data.io.nifti.read_bytes", full)
    refused(read_nifti_image, save(tmp_path / "x.nii", VALUES), "not enough memory to read")


def test_our_own_mistakes_are_not_blamed_on_files(tmp_path: Path):
    path = save(tmp_path / "x.nii", VALUES)
    with pytest.raises(AssertionError), validation.file_errors(path, "NIfTI"):
        raise AssertionError
