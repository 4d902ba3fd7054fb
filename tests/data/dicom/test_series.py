"""DICOM series in: order and place by positions, and a sentence for whatever breaks them."""

import itertools
import shutil
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.transform import Rotation

pydicom = pytest.importorskip("pydicom")

import dicom_files as files  # noqa: E402
from msa2net.data.dicom.detect import holds_dicom, is_dicom  # noqa: E402
from msa2net.data.dicom.reader import (  # noqa: E402
    choose_series,
    list_series,
    load_series,
    read_series,
)
from msa2net.data.dicom.slice_geometry import Slice, stack  # noqa: E402
from msa2net.data.io.readers import read_path  # noqa: E402
from msa2net.errors import DataError  # noqa: E402

SHAPE = (6, 5, 4)  # slices, rows, columns of most series here
VALUES = np.arange(-60, 60, dtype=np.int16).reshape(SHAPE)  # every voxel its own value
LIMITED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
NATIVE = "1.2.840.10008.1.2.1"
RLE, J2K, LOSSLESS_JPEG = (
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.70",
)


def refused(path: Path, *parts: str, **options: Any) -> str:
    """Reading fails with one sentence that has all the parts."""
    with pytest.raises(DataError) as caught:
        read_series(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    for part in parts:
        assert part in message
    return message


def assert_equal_to_nifti(case: Any, tmp_path: Path, values: np.ndarray, **grid: Any) -> None:
    """The Case equals what the NIfTI reader makes of the same volume."""
    path = files.save_nifti(tmp_path / "same.nii", values, files.affine(**grid))
    other = read_path(path)
    assert_array_equal(case.image, other.image)
    assert case.image.dtype == other.image.dtype
    assert case.image.flags.c_contiguous
    assert_allclose(case.geometry.affine, other.geometry.affine, atol=2e-5)  # float32 in NIfTI
    assert_allclose(case.geometry.spacing_mm, other.geometry.spacing_mm, rtol=1e-6)


# Whole series -------------------------------------------------------------------------------------


def test_a_signed_rescaled_series_with_shuffled_names_equals_its_nifti(tmp_path: Path):
    values = VALUES * 10 - 1000
    images = files.headers(values, slope=2, intercept=-1024)
    names = [path.name for path in files.save(tmp_path / "scan", images)]
    assert names != sorted(names)
    case = read_series(tmp_path / "scan")
    assert (case.id, case.source) == ("scan", tmp_path / "scan")
    assert case.image.dtype == np.int16
    assert_equal_to_nifti(case, tmp_path, values)


def test_positions_worked_out_by_hand(tmp_path: Path):
    """Columns run left, rows to the back, slices up; RAS has the first two the other way."""
    files.save(tmp_path / "scan", files.headers(VALUES))
    geometry = read_series(tmp_path / "scan").geometry
    expected = [[-0.7, 0, 0, 30], [0, -0.8, 0, 40], [0, 0, 2.5, 100], [0, 0, 0, 1]]
    assert_allclose(geometry.affine, expected, atol=1e-9)
    assert geometry.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert (geometry.layout.sform_code, geometry.layout.units) == (1, "mm")


@pytest.mark.parametrize("orientation", [files.AXIAL, files.SAGITTAL, files.CORONAL])
@pytest.mark.parametrize("reverse", [False, True])
def test_every_plane_and_order_equals_its_nifti(tmp_path: Path, orientation: Any, reverse: bool):
    images = files.headers(VALUES, orientation=orientation)
    files.save(tmp_path / "scan", images[::-1] if reverse else images, seed=None)
    case = read_series(tmp_path / "scan")
    assert_equal_to_nifti(case, tmp_path, VALUES, orientation=orientation)


def signed_axes() -> list[tuple[float, ...]]:
    """All 48 pairs of directions along the patient's axes, of either handedness of the stack."""
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    return [(*a, *b) for a, b in itertools.permutations(axes, 2) if not a @ b]


@st.composite
def orientations(draw: st.DrawFn) -> tuple[float, ...]:
    straight = draw(st.sampled_from(signed_axes()))
    if draw(st.booleans()):
        return straight
    turn = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True)
    return tuple((np.array(straight).reshape(2, 3) @ turn.as_matrix().T).ravel())


@LIMITED
@given(
    orientations(),
    st.tuples(*[st.floats(-500, 500)] * 3),
    st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)),
    st.floats(0.4, 8),
    st.integers(0, 99),
)
def test_any_direction_equals_its_nifti(
    tmp_path: Path, orientation: Any, origin: Any, pixel_mm: Any, step_mm: float, seed: int
):
    shutil.rmtree(tmp_path / "scan", ignore_errors=True)
    grid = {
        "orientation": orientation,
        "origin": origin,
        "pixel_mm": tuple(round(size, 6) for size in pixel_mm),
        "step_mm": step_mm,
    }
    files.save(tmp_path / "scan", files.headers(VALUES, **grid), seed=seed)
    case = read_series(tmp_path / "scan")
    nifti = read_path(files.save_nifti(tmp_path / "x.nii", VALUES, files.affine(**grid)))
    # Between two axes at 45° either is the nearer one: places are compared, not array order.
    for value in (-60, -13, 0, 59):
        ours, theirs = (
            one.geometry.affine @ [*np.argwhere(one.image[0] == value)[0][::-1], 1]
            for one in (case, nifti)
        )
        assert_allclose(ours, theirs, atol=2e-4)  # float32 in NIfTI, at up to 600 mm


@pytest.mark.parametrize("syntax", [RLE, J2K])
def test_packed_series_equal_the_plain_one(tmp_path: Path, syntax: str):
    if syntax == J2K:
        pytest.importorskip("openjpeg")
    values = VALUES.repeat(10, axis=1).repeat(10, axis=2)  # JPEG 2000 packs blocks of 32
    images = files.headers(values, intercept=-1024)
    files.save(tmp_path / "scan", [files.as_compressed(image, syntax) for image in images])
    assert_equal_to_nifti(read_series(tmp_path / "scan"), tmp_path, values)


def test_twelve_of_sixteen_bits_may_have_others_in_the_rest(tmp_path: Path):
    """Old scanners drew overlays into the bits that values do not use."""
    values = VALUES + 60
    images = files.headers(values, dtype=np.uint16)
    for image in images:
        image.BitsStored, image.HighBit = 12, 11
        pixels = np.frombuffer(image.PixelData, np.uint16) | 0x1000
        image.PixelData = pixels.tobytes()
    files.save(tmp_path / "scan", images)
    assert_equal_to_nifti(read_series(tmp_path / "scan"), tmp_path, values)


def test_every_slice_has_its_own_scale(tmp_path: Path):
    """As in PET, where a slice's largest value is stored as 32767."""
    images = files.headers(VALUES, dtype=np.int16)
    expected = VALUES.astype(np.float64)
    for index, image in enumerate(images):
        image.RescaleSlope, image.RescaleIntercept = f"{0.1 * (index + 1):.6g}", 0
        expected[index] *= 0.1 * (index + 1)
    files.save(tmp_path / "scan", images)
    case = read_series(tmp_path / "scan")
    assert_equal_to_nifti(case, tmp_path, expected.astype(np.float32))


@pytest.mark.parametrize("middle", [32760, -32760])
def test_values_beyond_int16_become_float32(tmp_path: Path, middle: int):
    values = VALUES.astype(np.int32) + middle  # some fit, some do not
    files.save(tmp_path / "scan", files.headers(values, dtype=np.uint16, intercept=middle - 99))
    case = read_series(tmp_path / "scan")
    assert_equal_to_nifti(case, tmp_path, values.astype(np.float32))


def test_a_single_slice_is_as_thick_as_it_says(tmp_path: Path):
    [path] = files.save(tmp_path, files.headers(VALUES[:1]), ending=".dcm")
    case = read_path(path)
    assert case.id == "IM0000"
    assert case.image.shape == (1, 1, 5, 4)
    assert case.geometry.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    [path] = files.save(tmp_path, files.headers(VALUES[:1], SliceThickness=None), ending=".dcm")
    pydicom_image = pydicom.dcmread(path)
    del pydicom_image.SliceThickness
    pydicom_image.save_as(path)
    refused(path, "IM0000.dcm", "without SliceThickness")


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 0, 5, 1, 4, 2]])
def test_an_enhanced_multi_frame_file_equals_its_nifti(tmp_path: Path, order: list[int]):
    image = files.enhanced(VALUES, order, orientation=files.SAGITTAL, intercept=-1024)
    [path] = files.save(tmp_path, [image])
    assert_equal_to_nifti(read_series(path), tmp_path, VALUES, orientation=files.SAGITTAL)


def test_rounded_positions_are_within_the_tolerance(tmp_path: Path):
    """Scanners write tenths of a millimetre, also where slices are 0.625 mm apart."""
    values = np.repeat(VALUES, 5, axis=0)
    images = files.headers(values, step_mm=0.625)
    for image in images:
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y, round(float(z), 1)]
    files.save(tmp_path / "scan", images)
    case = read_series(tmp_path / "scan")
    assert_array_equal(case.image[0], values)
    assert case.geometry.spacing_mm[0] == pytest.approx(0.625, rel=5e-3)


def test_nothing_of_the_patient_is_kept(tmp_path: Path):
    files.save(tmp_path / "scan", files.headers(VALUES))
    [series] = list_series(tmp_path / "scan")
    assert "Zo" not in repr(series) + "".join(map(str, series._headers))
    assert "P-17" not in repr(series) + "".join(map(str, series._headers))


# Several series -----------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two series in nested folders, among other things."""
    study = tmp_path / "study"
    thin = {"SeriesNumber": 4, "SeriesDescription": "Lung 1.0 B70f", "step_mm": 1.0}
    files.save(study / "a" / "deep", files.headers(VALUES))
    files.save(study / "b", files.headers(VALUES + 1, **thin))
    (study / "notes.txt").write_text("no image")
    (study / "empty").write_bytes(b"")
    (study / "b" / ".hidden.dcm").write_bytes(b"left by a system")
    return study


def test_series_are_listed_by_their_headers(study: Path):
    first, second = list_series(study)
    assert (first.number, first.description, first.modality) == (3, "Abdomen 2.5 B30f", "CT")
    assert (first.slices, first.shape) == (6, (5, 4))
    assert first.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    assert (second.number, second.spacing_mm) == (4, pytest.approx((1.0, 0.8, 0.7)))
    assert (first.name, second.name) == ("study_a_deep", "study_b")
    assert holds_dicom(study)
    (study.parent / "other").mkdir()
    assert not holds_dicom(study.parent / "other")


@pytest.mark.parametrize("wanted", ["4", "lung", "B70", "uid"])
def test_a_series_is_chosen(study: Path, wanted: str):
    found = list_series(study)
    chosen = choose_series(found, study, found[1].uid if wanted == "uid" else wanted)
    case = load_series(chosen)
    assert case.id == "study_b"
    assert_array_equal(case.image[0], VALUES + 1)
    assert read_series(study, series="lung").id == "study_b"


def test_series_that_read_alike_are_listed_with_their_folders_or_uids(tmp_path: Path):
    for name in ("a", "b"):
        files.save(tmp_path / "apart" / name, files.headers(VALUES))
        files.save(tmp_path / "together", files.headers(VALUES), ending=name)
    message = refused(tmp_path / "apart", "holds 2 series", "6 × 5×4 in ", "apart/a;", "apart/b;")
    assert "UID 1" not in message
    message = refused(tmp_path / "together", "holds 2 series")
    assert all(f"UID {one.uid};" in message for one in list_series(tmp_path / "together"))


def test_several_or_no_series_are_listed(study: Path):
    listed = ("number 3, CT, 6 × 5×4 in ", "number 4, CT, 6 × 5×4 in ")
    refused(study, "holds 2 series:", *listed, "--series")
    refused(study, "2 series that match 'b'", *listed, "--series", series="b")
    refused(study, "no series 'head'; there are", *listed, series="head")
    with pytest.raises(DataError, match="holds 2 series"):
        read_path(study)


def test_series_in_one_folder_are_named_apart(tmp_path: Path):
    files.save(tmp_path / "flat", files.headers(VALUES), ending="a")
    files.save(tmp_path / "flat", files.headers(VALUES, SeriesNumber=9), ending="b")
    assert [one.name for one in list_series(tmp_path / "flat")] == ["flat_3", "flat_9"]
    files.save(tmp_path / "flat", files.headers(VALUES), ending="c")
    assert len({one.name for one in list_series(tmp_path / "flat")}) == 3


def test_what_is_no_image_is_left_out(tmp_path: Path):
    files.save(tmp_path / "scan", files.headers(VALUES))
    report = files.headers(VALUES[:1], Rows=None, Columns=None)[0]
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    files.save(tmp_path / "scan", [report], ending="report")
    contents = pydicom.dataset.FileDataset("", {}, preamble=b"\0" * 128)
    contents.file_meta = pydicom.dataset.FileMetaDataset()
    contents.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    contents.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    contents.file_meta.TransferSyntaxUID = NATIVE
    contents.FileSetID = "DISC"
    contents.save_as(tmp_path / "scan" / "DICOMDIR", enforce_file_format=True)
    assert len(list_series(tmp_path / "scan")) == 1
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no DICOM image")
    refused(tmp_path / "gone", "no file or folder")


# Broken series ------------------------------------------------------------------------------------


def broken(tmp_path: Path, images: list[Any]) -> Path:
    files.save(tmp_path / "scan", images)
    return tmp_path / "scan"


def move(image: Any, along_mm: float = 0, sideways_mm: float = 0) -> Any:
    x, y, z = image.ImagePositionPatient
    image.ImagePositionPatient = [x + sideways_mm, y, z + along_mm]
    return image


@pytest.mark.parametrize("missing", [1, 2, 3, 4])
def test_a_missing_slice_is_named_by_its_neighbours(tmp_path: Path, missing: int):
    images = files.headers(VALUES)
    del images[missing]
    z = 100 + 2.5 * (missing - 1)
    refused(
        broken(tmp_path, images), f"{z:g}) mm and", f"{z + 5:g}) mm", "5 mm where 2.5", "1 slice is"
    )


@given(st.integers(3, 300), st.data(), st.floats(0.3, 10), st.integers(1, 3))
def test_no_missing_slice_is_ever_overlooked(kept: int, data: Any, step_mm: float, missing: int):
    place = data.draw(st.integers(1, kept - 1))
    indices = [*range(place), *range(place + missing, kept + missing)]
    slices = [
        Slice(
            path=Path(f"IM{index}"),
            frame=None,
            position_mm=np.array([0, 0, round(index * step_mm, 3)]),
            directions=np.eye(3)[:2],
            pixel_mm=(1, 1),
            shape=(2, 2),
        )
        for index in indices
    ]
    with pytest.raises(DataError, match=f"{missing} slices? (is|are) missing") as caught:
        stack(slices)
    assert f"between IM{place - 1} at" in str(caught.value)


def test_two_slices_at_one_place(tmp_path: Path):
    images = files.headers(VALUES)
    images[3].ImagePositionPatient = images[2].ImagePositionPatient
    # Slice 3 is gone from its place, too; the repeated place is the cause.
    refused(broken(tmp_path, images), "105) mm and", "same place", "keep the right one")


def test_several_time_points(tmp_path: Path):
    first, second = files.headers(VALUES), files.headers(VALUES)
    for image in second:
        image.SeriesInstanceUID = first[0].SeriesInstanceUID
    refused(broken(tmp_path, first + second), "each of the 6 places has 2 images", "time points")


def test_unequal_distances(tmp_path: Path):
    images = files.headers(VALUES)
    move(images[5], 1.2)
    refused(broken(tmp_path, images), "mm from its place", "2.5 to 3.7 mm apart")


def test_distances_that_change_slowly(tmp_path: Path):
    """No two neighbours look wrong, yet the stack is no grid."""
    images = files.headers(np.zeros((60, 2, 2), np.int16), step_mm=1.0)
    for index, image in enumerate(images):
        move(image, 0.06 * max(0, index - 20))
    refused(broken(tmp_path, images), "1 to 1.06 mm apart")


def test_a_gantry_tilt(tmp_path: Path):
    images = [move(im, sideways_mm=0.5 * index) for index, im in enumerate(files.headers(VALUES))]
    refused(broken(tmp_path, images), "leans by 11°", "gantry tilt", "dcm2niix", "IM000")


def test_a_slice_that_moved_sideways(tmp_path: Path):
    images = files.headers(VALUES)
    move(images[4], sideways_mm=3)
    refused(broken(tmp_path, images), "(-27, -40, 110) mm lies 3 mm beside", "straight above")


def test_a_localiser_among_the_slices(tmp_path: Path):
    images = files.headers(VALUES)
    [scout] = files.headers(VALUES[:1], orientation=files.CORONAL)
    scout.SeriesInstanceUID = images[0].SeriesInstanceUID
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    path = broken(tmp_path, [*images, scout])
    refused(path, "(a localiser)", "(-30, -40, 100) mm", "another direction", "folder of their own")
    assert list_series(path)[0].spacing_mm is None  # listed all the same


def test_sizes_spacings_and_coordinate_systems_are_not_mixed(tmp_path: Path):
    for what, change in {
        "rows × columns 4×5": {"Rows": 4, "Columns": 5},
        "pixel spacing 0.7×0.8": {"PixelSpacing": [0.7, 0.8]},
        "another coordinate system (FrameOfReferenceUID)": {"FrameOfReferenceUID": "1.2.3"},
    }.items():
        images = files.headers(VALUES)
        for tag, value in change.items():
            setattr(images[2], tag, value)
        refused(broken(tmp_path, images), what, "as most slices", "105) mm")
        shutil.rmtree(tmp_path / "scan")


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_missing_tag_is_named(tmp_path: Path, tag: str):
    images = files.headers(VALUES)
    delattr(images[2], tag)
    refused(broken(tmp_path, images), f"lacks {tag}", "scan/IM")


def test_patients_and_studies_under_one_series_are_not_mixed(tmp_path: Path):
    """Tools that make series anonymous may give many patients one UID."""
    for tag, what in {"PatientID": "patient", "StudyInstanceUID": "study"}.items():
        images = files.headers(VALUES)
        setattr(images[2], tag, "1.2.3")
        path = broken(tmp_path, images)
        refused(path, f"is of another {what} than", "105) mm", "part them into folders")
        [series] = list_series(path)
        assert "P-17" not in str(series._headers)
        shutil.rmtree(path)


def test_stored_values_of_a_ct_are_no_hounsfield_units(tmp_path: Path):
    """The standard asks for both numbers in a CT; an MR may leave out both, and only both."""
    for modality, missing, part in (
        ("CT", ("RescaleSlope", "RescaleIntercept"), "lacks RescaleSlope and RescaleIntercept"),
        ("CT", ("RescaleIntercept",), "lacks RescaleIntercept, so"),
        ("MR", ("RescaleSlope",), "lacks RescaleSlope, so"),
        ("MR", ("RescaleSlope", "RescaleIntercept"), None),
    ):
        images = files.headers(VALUES, Modality=modality)
        for image in images:
            for tag in missing:
                delattr(image, tag)
        path = broken(tmp_path, images)
        if part is None:
            assert_array_equal(read_series(path).image[0], VALUES)
        else:
            refused(path, part, "what its stored values measure is unknown")
        shutil.rmtree(path)


@pytest.mark.parametrize(
    ("tags", "part"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "perpendicular"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 1, 0]}, "perpendicular"),
        ({"ImageOrientationPatient": [1, 0, 0]}, "3 numbers"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing 0×1 mm"),
        ({"PixelSpacing": ["1e300", "1e300"]}, "PixelSpacing 1e+300×1e+300 mm"),
        ({"RescaleSlope": 0}, "scales its values by 0"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "inverted"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "colours (RGB)"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colours (PALETTE COLOR)"),
        ({"NumberOfFrames": 7}, "7 frames that do not say"),
        ({"Rows": None}, "without Rows"),
        ({"SeriesInstanceUID": None}, "without SeriesInstanceUID"),
    ],
)
def test_headers_that_cannot_be_believed(tmp_path: Path, tags: dict[str, Any], part: str):
    images = files.headers(VALUES)
    for tag, value in tags.items():
        if value is None:
            delattr(images[2], tag)
        else:
            setattr(images[2], tag, value)
    refused(broken(tmp_path, images), part, "scan/IM")


@pytest.mark.parametrize("syntax", [NATIVE, RLE, J2K])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, syntax: str):
    """Never a shorter or half black volume."""
    if syntax == J2K:
        pytest.importorskip("openjpeg")
    images = files.headers(np.random.default_rng(0).integers(-999, 999, (3, 32, 32)))
    if syntax != NATIVE:
        images = [files.as_compressed(image, syntax) for image in images]
    paths = files.save(tmp_path / "scan", images, ending=".dcm")
    content = paths[0].read_bytes()
    for length in range(0, len(content) - 9, 13 if syntax == NATIVE else 101):
        paths[0].write_bytes(content[:length])
        assert "Error" not in refused(tmp_path / "scan", paths[0].name)


def test_a_file_without_preamble_is_read_by_its_ending(tmp_path: Path):
    paths = files.save(tmp_path / "scan", files.headers(VALUES), ending=".dcm")
    for path in paths:
        image = files.implicit(pydicom.dcmread(path))
        image.preamble = None
        del image.file_meta
        image.save_as(path, enforce_file_format=False, implicit_vr=True, little_endian=True)
        assert path.read_bytes()[128:132] != b"DICM"
    assert_array_equal(read_series(tmp_path / "scan").image[0], VALUES)


def test_other_files_with_the_ending_are_refused(tmp_path: Path):
    (tmp_path / "x.dcm").write_bytes(b"GIF89a is no DICOM file, whatever its name says" * 9)
    refused(tmp_path / "x.dcm", "x.dcm")
    with pytest.raises(DataError, match="x.dcm"):
        read_path(tmp_path / "x.dcm")


def test_a_packing_without_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images = files.headers(VALUES)
    for image in images:
        image.file_meta.TransferSyntaxUID = LOSSLESS_JPEG
        image.PixelData = pydicom.encaps.encapsulate([image.PixelData])
        image["PixelData"].is_undefined_length = True
    path = broken(tmp_path, images)
    if not pydicom.pixels.get_decoder(LOSSLESS_JPEG).is_available:
        refused(path, "JPEG Lossless", LOSSLESS_JPEG, "pip install python-gdcm")
    for image in images:
        image.file_meta.TransferSyntaxUID = J2K
    files.save(path, images)
    decoder = pydicom.pixels.get_decoder(J2K)
    monkeypatch.setattr(type(decoder), "is_available", property(lambda self: False))
    refused(path, "JPEG 2000", J2K, 'pip install ".[dicom]" in msa2net\'s folder')


# Costs and decoders -------------------------------------------------------------------------------


def packed_series(folder: Path, frame: bytes, syntax: str, **tags: Any) -> Path:
    """Write a series of three 16×16 slices, the middle one with this packed frame."""
    images = files.headers(np.zeros((3, 16, 16), np.int16))
    images = [files.as_compressed(image, RLE) for image in images]
    images[1].file_meta.TransferSyntaxUID = syntax
    images[1].PixelData = pydicom.encaps.encapsulate([frame])
    images[1]["PixelData"].is_undefined_length = True
    for tag, value in tags.items():
        setattr(images[1], tag, value)
    files.save(folder, images, seed=None)
    return folder


def rle_frame(first: bytes, second: bytes) -> bytes:
    return struct.pack("<16I", 2, 64, 64 + len(first), *[0] * 13) + first + second


PLANE = bytes([129, 7, 129, 7])  # twice 128 sevens


@pytest.mark.parametrize(
    "frame",
    [
        rle_frame(PLANE * 600, PLANE),  # the compiled decoder panics
        rle_frame(PLANE[:2], PLANE),
        rle_frame(PLANE, PLANE[:2] + bytes([127, 1])),
        rle_frame(b"", PLANE),
        struct.pack("<16I", 2**31, *[64] * 15) + PLANE,
        struct.pack("<16I", 2, 2**31, 2**31, *[0] * 13) + PLANE,
        PLANE,
    ],
)
def test_a_damaged_rle_frame_is_refused(tmp_path: Path, frame: bytes, capfd: Any):
    refused(packed_series(tmp_path / "scan", frame, RLE), "IM0001")
    assert capfd.readouterr() == ("", "")  # a panic prints by itself


def test_a_whole_rle_frame_may_be_padded(tmp_path: Path):
    path = packed_series(tmp_path / "scan", rle_frame(PLANE + b"\0\0", PLANE + b"\0"), RLE)
    assert (read_series(path).image[0, 1] == 0x0707).all()


@pytest.mark.parametrize("syntax", [J2K, "1.2.840.10008.1.2.4.80"])
def test_a_packed_picture_of_another_size_is_not_unpacked(tmp_path: Path, syntax: str):
    """Its own header may declare gigabytes."""
    j2k = b"\xff\x4f\xff\x51" + struct.pack(">2H4I", 41, 0, 60000, 50000, 0, 0) + bytes(40)
    jpeg = b"\xff\xd8\xff\xf7" + struct.pack(">HB2HB", 11, 16, 50000, 60000, 1) + bytes(40)
    path = packed_series(tmp_path / "scan", j2k if syntax == J2K else jpeg, syntax)
    refused(path, "IM0001 declares 16×16 pixels and holds 50000×60000")


def test_a_jpeg_ls_frame_without_its_end_is_not_unpacked(tmp_path: Path):
    """The decoder would look for it for 13 seconds, far behind the frame."""
    jpeg = b"\xff\xd8\xff\xf7" + struct.pack(">HB2HB", 11, 16, 16, 16, 1) + bytes(40)
    path = packed_series(tmp_path / "scan", jpeg, "1.2.840.10008.1.2.4.80")
    refused(path, "IM0001 ends before its image does")


def test_a_decoder_s_panic_is_an_error_and_ctrl_c_is_not(tmp_path: Path, monkeypatch: Any):
    files.save(tmp_path / "scan", files.headers(VALUES))
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    def stop(*_: Any, **__: Any) -> None:
        raise kind("index 7 of Zoë Müller")

    monkeypatch.setattr(pydicom.pixels, "pixel_array", stop)
    kind: Any = panic
    assert "Zo" not in refused(tmp_path / "scan", "scan/IM000", "its pixels are too few, or")
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind):
            read_series(tmp_path / "scan")


def deflated(path: Path, image: Any, *, extra: int = 0) -> None:
    """Write an image in the deflated transfer syntax, with so many zeros behind its pixels."""
    image.save_as(path, enforce_file_format=True)
    content = path.read_bytes()
    start = 144 + struct.unpack_from("<I", content, 140)[0]
    syntax, deflated_syntax = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"
    head = content[:start].replace(syntax, deflated_syntax)
    head = head.replace(b"UI\x14\0" + deflated_syntax, b"UI\x16\0" + deflated_syntax)
    head = head[:140] + struct.pack("<I", len(head) - 144) + head[144:]
    packer = zlib.compressobj(1, wbits=-15)
    with path.open("wb") as file:
        file.write(head + packer.compress(content[start:]))
        for _ in range(extra >> 20):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())


def test_a_deflated_series_equals_the_plain_one(tmp_path: Path):
    (tmp_path / "scan").mkdir()
    for index, image in enumerate(files.headers(VALUES)):
        deflated(tmp_path / "scan" / f"{index}.dcm", image)
    assert_equal_to_nifti(read_series(tmp_path / "scan"), tmp_path, VALUES)
    content = (tmp_path / "scan" / "3.dcm").read_bytes()
    for length in range(len(content) - 500, len(content) - 9, 61):
        (tmp_path / "scan" / "3.dcm").write_bytes(content[:length])
        refused(tmp_path / "scan", "3.dcm")


@pytest.mark.parametrize("place", ["pixels", "header"])
def test_a_small_file_that_unpacks_to_much_is_bounded(tmp_path: Path, place: str):
    [image] = files.headers(VALUES[:1])
    if place == "header":
        image.add_new(0x00091010, "UN", bytes(100 << 20))
    deflated(tmp_path / "b.dcm", image, extra=(place == "pixels") * (100 << 20))
    tracemalloc.start()
    try:
        if place == "pixels":
            assert len(list_series(tmp_path)) == 1  # headers do not need it
        refused(tmp_path / "b.dcm", "b.dcm holds more than 16.0 MiB or millions of elements")
        assert tracemalloc.get_traced_memory()[1] < 90 << 20
    finally:
        tracemalloc.stop()


def test_sizes_that_no_file_can_hold_are_refused_before_memory_is_taken(tmp_path: Path):
    [image] = files.headers(VALUES[:1], Rows=9000, Columns=9000)
    files.save(tmp_path / "one", [image])
    refused(tmp_path / "one", "declares 9000×9000 pixels in a slice")
    many = files.enhanced(np.zeros((40, 2, 2), np.int16), range(40))
    many.Rows = many.Columns = 4096
    files.save(tmp_path / "many", [many])
    refused(tmp_path / "many", "declares 2.5 GiB of data and holds", "packed")


def test_sequences_in_sequences_end_in_a_sentence(tmp_path: Path):
    [path] = files.save(tmp_path, files.headers(VALUES[:1]), ending=".dcm")
    content = path.read_bytes()
    place = content.index(b"\x28\0\x02\0US")
    opened = b"\x09\0\x02\x10SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    path.write_bytes(content[:place] + opened * 5000 + content[place:])
    refused(path, path.name, "lie in each other too deep")


def test_a_film_is_not_a_volume(tmp_path: Path):
    [image] = files.headers(VALUES[:1])
    image.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    image.PixelData = pydicom.encaps.encapsulate([image.PixelData])
    image["PixelData"].is_undefined_length = True
    refused(broken(tmp_path, [image]), "MPEG-4", "which is not read")


def test_without_pydicom_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files.save(tmp_path / "scan", files.headers(VALUES))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    message = refused(tmp_path / "scan", "DICOM needs the package pydicom")
    assert message.endswith('pip install ".[dicom]" in msa2net\'s folder')


def test_files_are_known_by_their_content(tmp_path: Path):
    [path] = files.save(tmp_path, files.headers(VALUES[:1]))
    assert path.suffix == ""
    assert is_dicom(path)
    assert read_path(path).image.shape == (1, 1, 5, 4)
    (tmp_path / "text").write_text("no image")
    assert not is_dicom(tmp_path / "text")
    with pytest.raises(DataError, match="is no DICOM, and files ending in '' are not read"):
        read_path(tmp_path / "text")
