"""DICOM through the command: as NIfTI in the same space, one series a study, a sentence else."""

import gzip
import re
import traceback
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

pydicom = pytest.importorskip("pydicom")

import nibabel  # noqa: E402
from PIL import Image as Pillow  # noqa: E402

import dicom_files as files  # noqa: E402
from commands import assert_one_sentence, msa2net  # noqa: E402
from msa2net.data.case import Segmentation  # noqa: E402
from msa2net.data.dicom.headers import _TAGS  # noqa: E402
from msa2net.data.dicom.reader import list_series, load_series  # noqa: E402
from msa2net.data.dicom.segmentation import read_back  # noqa: E402
from msa2net.data.phantom import abdomen  # noqa: E402
from msa2net.errors import DataError  # noqa: E402
from msa2net.prediction.inputs import find_images  # noqa: E402
from msa2net.prediction.run import predict_files  # noqa: E402
from prediction_runs import NAMES, write_run  # noqa: E402

RLE, J2K = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"
SMALL = np.arange(-60, 60, dtype=np.int16).reshape(6, 5, 4)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def phantom() -> np.ndarray:
    """A small abdomen (Z, H, W) in HU."""
    image = abdomen(0, shape=(8, 64, 64)).image[0]
    return np.clip(image, -1024, 2000).astype(np.int16)


@pytest.mark.parametrize("packing", [None, RLE, J2K])
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_a_series_equals_the_same_volume_as_nifti(run, phantom, tmp_path, packing, kind):
    """Shuffled names, 16 bits with sign, rescaled; the segmentation reads back equal."""
    pytest.importorskip("highdicom")
    if packing == J2K:
        pytest.importorskip("openjpeg")
    images = files.headers(phantom, slope=1, intercept=-1024, dtype=np.int16)
    if packing:
        images = [files.as_compressed(image, packing) for image in images]
    paths = files.save(tmp_path / "scan", images)
    assert paths != sorted(paths)
    said = msa2net("predict", run, "scan", "--out", "masks", "--dicom-seg", kind, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    (tmp_path / "nifti").mkdir()
    files.save_nifti(tmp_path / "nifti" / "scan.nii.gz", phantom, files.affine())
    predict_files(run, [tmp_path / "nifti"], tmp_path / "others")
    mask, other = (
        nibabel.load(tmp_path / folder / "scan.nii.gz") for folder in ("masks", "others")
    )
    labels_XYZ = np.asarray(mask.dataobj)
    assert len(np.unique(labels_XYZ)) > 1
    assert_array_equal(labels_XYZ, np.asarray(other.dataobj))
    assert mask.get_data_dtype() == np.uint8
    assert_allclose(mask.affine, other.affine, atol=2e-5)  # float32 in NIfTI
    [series] = list_series(tmp_path / "scan")
    case = load_series(series)
    empty = Segmentation("scan", np.zeros(case.image.shape[1:], np.uint8), NAMES, case.geometry)
    found_ZYX = read_back(tmp_path / "masks" / "dicom-seg" / "scan.dcm", empty)
    assert_array_equal(found_ZYX.T, labels_XYZ)
    written = pydicom.dcmread(tmp_path / "masks" / "dicom-seg" / "scan.dcm")
    assert written.PatientID == "P-17"
    labels = [segment.SegmentLabel for segment in written.SegmentSequence]
    assert labels[-2:] == list(NAMES[1:])  # a label map describes its background, too
    for path in (tmp_path / "masks").rglob("*"):  # nothing else carries the patient
        if path.is_file() and path.suffix != ".dcm":
            assert b"P-17" not in path.read_bytes()
            assert "Müller".encode() not in path.read_bytes()


def broken_series(kind: str) -> list[Any]:
    images = files.headers(SMALL)
    if kind == "gap":
        del images[2]
    elif kind == "duplicate":
        images[3].ImagePositionPatient = images[2].ImagePositionPatient
    elif kind == "unequal":
        x, y, z = images[5].ImagePositionPatient
        images[5].ImagePositionPatient = [x, y, z + 1.2]
    elif kind == "tilt":
        for index, image in enumerate(images):
            x, y, z = image.ImagePositionPatient
            image.ImagePositionPatient = [x + 0.5 * index, y, z]
    elif kind == "colours":
        images[1].PhotometricInterpretation = "RGB"
    elif kind == "no place":
        del images[1].ImagePositionPatient
    elif kind == "no header":
        del images[1].Rows
    elif kind == "no decoder":
        images[0].file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
        images[0].PixelData = pydicom.encaps.encapsulate([images[0].PixelData])
        images[0]["PixelData"].is_undefined_length = True
    return images


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("gap", "1 slice is missing"),
        ("duplicate", "same place"),
        ("unequal", "2.5 to 3.7 mm apart"),
        ("tilt", "gantry tilt"),
        ("colours", "holds colours (RGB)"),
        ("no place", "lacks ImagePositionPatient"),
        ("no header", "without Rows"),
        ("no decoder", "MPEG-4"),
        ("cut", "IM0"),
    ],
)
def test_each_broken_kind_has_its_sentence_and_no_mask(run, tmp_path, kind, part):
    paths = files.save(tmp_path / "scan", broken_series(kind))
    if kind == "cut":
        paths[2].write_bytes(paths[2].read_bytes()[:-20])
    said = msa2net("predict", run, "scan", "--out", "out", "--dicom-seg", "binary", cwd=tmp_path)
    assert_one_sentence(said, part, "scan")
    assert "0 of 1 images segmented" in said.stdout
    assert not [path for path in (tmp_path / "out").rglob("*.*") if path.suffix in (".gz", ".dcm")]
    assert part in (tmp_path / "out" / "failures.csv").read_text()


def test_a_series_that_broke_leaves_none_of_its_old_outputs(run, tmp_path: Path):
    paths = files.save(tmp_path / "scan", files.headers(SMALL))
    predict_files(run, [tmp_path / "scan"], tmp_path / "out", dicom_seg="labelmap")
    assert (tmp_path / "out" / "dicom-seg" / "scan.dcm").is_file()
    for damage in (lambda: paths[2].unlink(), lambda: paths[3].write_bytes(b"\0" * 128 + b"DICM")):
        damage()
        result = predict_files(run, [tmp_path / "scan"], tmp_path / "out", existing="overwrite")
        assert len(result.failures) == 1
        assert sorted(p.name for p in (tmp_path / "out").rglob("scan*")) == ["scan.json"]


# Which series -------------------------------------------------------------------------------------


def study(folder: Path, *descriptions: str, uid: str = "1.2.3", apart: bool = False) -> Path:
    """Write series of one study, all in one folder or each in its own."""
    for number, description in enumerate(descriptions, start=1):
        images = files.headers(
            SMALL, SeriesNumber=number, SeriesDescription=description, StudyInstanceUID=uid
        )
        place = folder / f"s{number}" if apart else folder
        files.save(place, images, ending=f"_{number}")
    return folder


@pytest.mark.parametrize("apart", [False, True])
def test_one_series_of_a_study_is_chosen_or_all_are_listed(run, tmp_path: Path, apart: bool):
    study(tmp_path / "scan", "thin B70f", "portal venous", apart=apart)
    said = msa2net("predict", run, "scan", "--out", "out", cwd=tmp_path)
    assert_one_sentence(
        said, "scan holds 2 series", "number 1, CT", "number 2, CT", "--series", "--series all"
    )
    assert "portal" not in said.stderr  # people write names into descriptions
    [chosen] = find_images([tmp_path / "scan"], series="portal")
    assert chosen.name == ("scan_s2" if apart else "scan_2")
    assert {path.name[-2:] for path in chosen.files} == {"_2"}
    [by_uid] = find_images([tmp_path / "scan"], series=chosen.uid)
    assert by_uid.files == chosen.files
    both = find_images([tmp_path / "scan"], series="all")
    assert [image.name for image in both] == (
        ["scan_s1", "scan_s2"] if apart else ["scan_1", "scan_2"]
    )
    none = msa2net("predict", run, "scan", "--out", "no", "--series", "late", cwd=tmp_path)
    assert_one_sentence(none, "holds no series 'late'; there are")


def test_of_a_folder_of_patients_each_has_one(run, tmp_path: Path):
    study(tmp_path / "all" / "anna", "portal", uid="1.2.1")
    study(tmp_path / "all" / "bert" / "disc", "scout", "portal", uid="1.2.2")
    study(tmp_path / "all" / "carl", "native", uid="1.2.4")
    gone = study(tmp_path / "all" / "dora", "portal", uid="1.2.5")
    del_one = sorted(gone.iterdir())[0]
    del_one.write_bytes(del_one.read_bytes()[:400])  # a slice of any series of dora's
    found = {image.name: image for image in find_images([tmp_path / "all"])}
    assert found.keys() == {"anna", "bert", "carl", "dora"}
    assert [name for name, image in found.items() if not image.problem] == ["anna", "carl"]
    assert "bert holds 2 series" in found["bert"].problem
    result = predict_files(run, [tmp_path / "all"], tmp_path / "out", series="portal")
    assert result.predicted == ("anna", "bert_disc_2")
    assert {failure.name for failure in result.failures} == {"carl", "dora"}
    written = sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz"))
    assert written == ["anna.nii.gz", "bert_disc_2.nii.gz"]


def test_slices_given_one_by_one_are_no_volumes(tmp_path: Path):
    paths = files.save(tmp_path / "scan", files.headers(SMALL))
    [refused] = find_images(sorted(paths))
    assert "are slices of one series; give their folder, " in refused.problem
    [alone] = find_images(paths[:1])
    assert alone.name == paths[0].stem


def test_a_thumbnail_beside_a_series_hides_it_not(tmp_path: Path):
    from PIL import Image

    files.save(tmp_path / "scan", files.headers(SMALL))
    Image.new("RGB", (9, 9)).save(tmp_path / "scan" / "preview.jpg")
    assert [image.name for image in find_images([tmp_path / "scan"])] == ["preview", "scan"]


def test_an_interrupted_folder_of_series_goes_on(run, tmp_path: Path):
    for name, uid in (("anna", "1.2.1"), ("bert", "1.2.2"), ("carl", "1.2.4")):
        study(tmp_path / "all" / name, "portal", uid=uid)
    predict_files(run, [tmp_path / "all" / "bert"], tmp_path / "out", dicom_seg="binary")
    result = predict_files(
        run, [tmp_path / "all"], tmp_path / "out", dicom_seg="binary", existing="resume"
    )
    assert (result.predicted, result.finished) == (("anna", "carl"), ("bert",))
    other = predict_files(
        run, [tmp_path / "all"], tmp_path / "out", dicom_seg="labelmap", existing="resume"
    )
    assert len(other.predicted) == 3
    assert pydicom.dcmread(tmp_path / "out/dicom-seg/bert.dcm").SegmentationType == "LABELMAP"


# Trees as they come from a disc or an archive -----------------------------------------------------


def disc(root: Path) -> None:
    """Write several patients, index files, copies, strays and damage, in folders and flat."""
    whole = files.headers(SMALL, SeriesNumber=1, StudyInstanceUID="1.2.1")
    files.save(root / "anna" / "part1", whole[:3])
    files.save(root / "anna" / "part2", whole[3:])  # discs split long series
    files.save(root / "anna" / "zip", whole)
    bert = files.headers(SMALL, SeriesNumber=2, StudyInstanceUID="1.2.2")
    files.save(root / "flat", bert, ending="_b")
    carl = files.headers(SMALL, SeriesNumber=3, StudyInstanceUID="1.2.3")
    paths = files.save(root / "flat", carl, ending="_c")
    for path, cut in ((paths[2], paths[2]), (root / "flat/IM0001_b", root / "flat/again")):
        content = path.read_bytes()  # cut behind the identifiers, so that it says what it is
        cut.write_bytes(content[: content.index(b"\x28\0\x02\0US")])
    dora = files.headers(SMALL, SeriesNumber=4, StudyInstanceUID="1.2.4")
    paths = files.save(root / "dora", dora)
    paths[3].write_bytes(paths[3].read_bytes()[:200])
    emil = files.headers(SMALL, SeriesNumber=5, StudyInstanceUID="1.2.5")
    files.save(root / "emil", [*emil[:2], *emil[3:]])
    (root / "fred").mkdir()
    (root / "fred" / "a.dcm").write_bytes(b"no image at all")
    report = files.headers(SMALL[:1], Rows=None, Columns=None, StudyInstanceUID="1.2.2")[0]
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    files.save(root / "structures", [report], ending=".dcm")
    for name in ("readme.txt", "Thumbs.db", "autorun.inf", "report.pdf"):
        (root / name).write_bytes(b"stray")
    (root / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(40))


def test_of_a_disc_every_whole_series_is_predicted(run, tmp_path: Path):
    disc(tmp_path / "disc")
    said = msa2net("predict", run, "disc", "--out", "out", "--series", "all", cwd=tmp_path)
    assert said.returncode == 2
    masks = sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz"))
    assert masks == ["disc_anna_1.nii.gz", "disc_flat_2.nii.gz"]
    found = {image.name: image.problem for image in find_images([tmp_path / "disc"], series="all")}
    assert "without Rows" in found["disc_flat_3"]
    assert "could be a slice of any series beside it" in found["disc_dora_4"]
    assert found["disc_emil_5"] == ""  # found out when its pixels are wanted
    assert "1 slice is missing" in said.stderr
    assert "a.dcm" in found["disc_fred"]
    assert len(found) == 6
    assert "left out, no images of a kind that is read, or copies: 12 files" in said.stdout


def test_a_structure_set_beside_a_series_is_a_failure_of_its_own(run, tmp_path: Path):
    disc(tmp_path / "disc")
    (tmp_path / "photo.png").write_bytes(b"a picture")
    inputs = ("disc/anna", "disc/structures/IM0000.dcm", "disc/structures", "photo.png", "gone.dcm")
    said = msa2net("predict", run, *inputs, "--out", "o", "--dicom-seg", "binary", cwd=tmp_path)
    assert said.returncode == 2
    assert "1 of 5 images segmented, 4 failed" in said.stdout
    assert (tmp_path / "o" / "dicom-seg" / "anna.dcm").is_file()
    for part in (
        "IM0000.dcm is a DICOM file without an image (RT Structure Set Storage)",
        "disc/structures holds no DICOM image",
        "photo.png is no DICOM",
        "there is no file or folder gone.dcm",
    ):
        assert part in said.stderr


# Names and dates of patients ----------------------------------------------------------------------

PLANTED = re.compile(rb"ZQXNAME|ZQXDATE|19640812|112233|064Y|12\.8\.64", re.IGNORECASE)
TEXTS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
PERSON = dict.fromkeys(TEXTS, "ZQXNAME") | {
    "AS": "064Y", "DA": "19640812", "TM": "112233", "DT": "19640812112233", "IS": "19640812",
    "DS": "19640812", "UI": "1.2.19640812.7", "UN": b"ZQXNAME ", "OB": b"ZQXNAME ",
    "UL": 19640812, "FD": 19640812.0,
}  # fmt: skip
NEEDED = {
    *("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "Modality", "SliceThickness"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SeriesNumber", "FrameIncrementPointer"),
    *("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
}


@cache
def person(most: int) -> pydicom.Dataset:
    """A person in the fields of patients, studies and devices, and in private ones.

    Args:
        most: fields of a kind and group.
    """
    fields, item, number = pydicom.Dataset(), pydicom.Dataset(), Counter()
    for tag, (kind, multiplicity, *_, keyword) in pydicom.datadict.DicomDictionary.items():
        own = 0x00080000 <= tag < 0x00280000 or tag >> 16 in (0x0032, 0x0038, 0x0040)
        if own and keyword not in NEEDED and kind in PERSON and multiplicity[:1] == "1":
            value = PERSON[kind]
            number[kind, tag >> 16] += 1
            if number[kind, tag >> 16] > most:
                continue
            fields.add_new(tag, kind, f"{value}{len(fields)}" if kind in TEXTS else value)
    fields.PatientSex = "F"
    item.PatientName, item.PatientBirthDate = "ZQXNAME^Erika", "19640812"
    fields.ReferencedPatientSequence = [item]
    fields.add_new(0x00190010, "LO", "ZQXNAME INC")
    fields.add_new(0x00191001, "SQ", [item])
    fields.add_new(0x00191002, "UN", b"ZQXNAME ")
    return fields


def planted(
    folder: Path, images: list[Any] | None = None, most: int = 3, **malformed: str
) -> list[Path]:
    """Write a series with a person in its fields.

    Args:
        folder: where to.
        images: of the series.
        most: see `person`.
        malformed: values that their tags' kinds do not allow.
    """
    images = images or files.headers(SMALL[:3])
    folder.mkdir(parents=True)
    paths = [folder / f"IM{index:04d}" for index in range(len(images))]
    with pydicom.config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path, image in zip(paths, images, strict=True):
            image.update(person(most))
            for tag, value in malformed.items():
                number = pydicom.datadict.tag_for_keyword(tag)
                image[number] = pydicom.DataElement(number, "LO", value)
                kind = pydicom.datadict.dictionary_VR(number)
                image[number].VR = "LO" if kind == "US" else kind
            image.save_as(path, enforce_file_format=True)
    return paths


def assert_untold(*texts: str, out: Path | None = None) -> None:
    """The person is in none of the texts, and in no file of a folder but DICOM segmentations."""
    for text in texts:
        assert not PLANTED.search(text.encode()), text
    for path in out.rglob("*") if out is not None else ():
        if path.is_file() and path.parent.name != "dicom-seg":
            content = path.read_bytes()
            content += gzip.decompress(content) if path.suffix == ".gz" else b""
            assert not PLANTED.search(content), path
            if path.suffix == ".jpg":
                with Pillow.open(path) as picture:
                    assert not picture.getexif()
                    assert not any("jfif" not in key for key in picture.info)


@pytest.mark.parametrize("verbose", [[], ["-v"]])
def test_patients_are_told_of_in_dicom_segmentations_only(run, tmp_path: Path, verbose: list[str]):
    pytest.importorskip("highdicom")
    planted(tmp_path / "a", most=9999)
    planted(tmp_path / "b", SeriesDescription="ZQXNAME " * 20, StudyID="ZQXNAME " * 9)
    said = msa2net(
        "predict", run, "a", "b", "--out", "out", "--dicom-seg", "binary", *verbose, cwd=tmp_path
    )
    assert said.returncode == 0, said.stderr
    assert_untold(said.stdout, said.stderr, out=tmp_path / "out")
    written = (tmp_path / "out" / "dicom-seg" / "a.dcm").read_bytes()
    for part in (b"ZQXNAME", b"19640812", b"112233"):  # what is searched for can be found
        assert part in written


def test_malformed_tags_of_patients_are_named_and_not_told(run, tmp_path: Path):
    pytest.importorskip("highdicom")
    wrong = {
        "PatientBirthDate": "12.8.64 ZQXNAME", "PatientSex": "ZQXNAME female", "PatientAge": "?",
        "StudyDate": "12.8.64 ZQXNAME", "StudyTime": "at ZQXDATE", "StudyID": "ZQXNAME" * 9,
        "SeriesNumber": "ZQXNAME", "StudyInstanceUID": "ZQXNAME 12.8.64",
    }  # fmt: skip
    for tag, value in wrong.items():
        planted(tmp_path / tag, **{tag: value})
    for path in planted(tmp_path / "PatientName"):
        image = pydicom.dcmread(path)
        image.PatientName = "ZQXNAME\\ZQXNAME"
        image.save_as(path)
    said = msa2net(
        "predict",
        run,
        *wrong,
        "PatientName",
        "--out",
        "out",
        "--dicom-seg",
        "binary",
        "-v",
        cwd=tmp_path,
    )
    assert said.returncode == 2
    assert_untold(said.stdout, said.stderr, out=tmp_path / "out")
    failed = (tmp_path / "out" / "failures.csv").read_text()
    for tag in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        assert f"asks: {tag}; predict without --dicom-seg" in failed, tag
    assert "PatientName holds several values, parted by backslashes, where one belongs" in failed
    assert "Error" not in failed
    masks = {path.name for path in (tmp_path / "out").glob("*.nii.gz")}
    assert "SeriesNumber.nii.gz" in masks  # nobody needs it


def test_no_failure_tells_of_the_patient(tmp_path: Path, recwarn: Any, caplog: Any):
    """Each tag that is read, with something else in it; each broken kind; choosing a series."""
    texts = []
    for tag in _TAGS:
        if not tag.endswith("Sequence"):
            planted(tmp_path / tag, **{tag: "ZQXNAME 12.8.64"})
    for kind in ("gap", "duplicate", "unequal", "tilt", "colours", "no place", "no header", "cut"):
        paths = planted(tmp_path / "kinds" / kind, broken_series(kind))
        if kind == "cut":
            paths[2].write_bytes(paths[2].read_bytes()[:-20])
    planted(tmp_path / "two" / "one")
    planted(tmp_path / "two" / "two")
    caplog.clear()
    recwarn.clear()
    for folder in [*tmp_path.iterdir(), *(tmp_path / "kinds").iterdir()]:
        for image in find_images([folder], series="nothing" if folder.name == "two" else "all"):
            try:
                texts.append(str(image.read()) * 0)
            except DataError as error:
                texts.append("".join(traceback.format_exception(error)))
    assert len(texts) > 25
    assert any("PixelSpacing is no number" in text for text in texts)
    assert_untold(*texts, *(str(warning.message) for warning in recwarn), caplog.text)
