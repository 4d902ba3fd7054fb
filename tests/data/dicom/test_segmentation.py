"""DICOM segmentations: what is written reads back equal, in the patient, by another program."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

highdicom = pytest.importorskip("highdicom")

import pydicom  # noqa: E402

import dicom_files as files  # noqa: E402
from msa2net import __version__  # noqa: E402
from msa2net.data.case import Segmentation  # noqa: E402
from msa2net.data.dicom import segmentation as module  # noqa: E402
from msa2net.data.dicom.reader import list_series, load_series, read_series  # noqa: E402
from msa2net.data.dicom.segmentation import read_back, write_segmentation  # noqa: E402
from msa2net.data.dicom.series import Series  # noqa: E402
from msa2net.errors import DataError  # noqa: E402

SHAPE = (6, 12, 10)
NAMES = ("background", "liver", "right kidney", "Wirbelkörper 脊椎", "lesion", "empty")
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


def labelled(tmp_path: Path, *, labels: Any = None, **grid: Any) -> tuple[Segmentation, Series]:
    """A series on disk, and random labels on its grid; class 5 is nowhere."""
    images = files.headers(np.zeros(SHAPE, np.int16), **grid)
    files.save(tmp_path / "scan", images)
    [series] = list_series(tmp_path / "scan")
    case = load_series(series)
    if labels is None:
        labels = np.random.default_rng(1).integers(0, 5, case.image.shape[1:])
        labels[0] = 0  # slices without a structure, which BINARY leaves out
    return Segmentation("scan", labels.astype(np.uint8), NAMES, case.geometry), series


def by_place(path: Path, segmentation: Segmentation) -> np.ndarray:
    """Read labels with highdicom's own volumes, voxel by voxel through the patient."""
    seg = highdicom.seg.segread(path)
    volume = seg.get_volume(combine_segments=True, skip_overlap_checks=False)
    found = np.zeros(segmentation.labels.shape, int)
    index = np.argwhere(volume.array > 0)
    lps = np.c_[index, np.ones(len(index))] @ volume.affine.T
    ours = lps @ files.LPS_TO_RAS @ np.linalg.inv(segmentation.geometry.affine).T
    column, row, slice_ = np.rint(ours[:, :3]).astype(int).T
    assert np.abs(ours[:, :3] - np.c_[column, row, slice_]).max(initial=0) < 1e-3
    found[slice_, row, column] = volume.array[tuple(index.T)]
    return found


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("orientation", [files.AXIAL, files.SAGITTAL, files.CORONAL, OBLIQUE])
def test_labels_read_back_where_they_were(tmp_path: Path, kind: Any, orientation: Any):
    segmentation, series = labelled(tmp_path, orientation=orientation)
    path = write_segmentation(segmentation, series, tmp_path / "seg.dcm", kind=kind)
    assert_array_equal(read_back(path, segmentation), segmentation.labels)
    assert_array_equal(by_place(path, segmentation), segmentation.labels)
    seg = pydicom.dcmread(path)
    assert seg.SegmentationType == kind
    assert seg.NumberOfFrames < (len(NAMES) - 1) * SHAPE[0]  # only what holds a structure
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["seg.dcm"]


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_labels_of_a_multi_frame_file_read_back(tmp_path: Path, kind: Any):
    image = files.enhanced(np.zeros(SHAPE, np.int16), [3, 0, 5, 1, 4, 2])
    [source] = files.save(tmp_path, [image])
    [series] = list_series(source)
    labels = np.random.default_rng(1).integers(0, 5, SHAPE).astype(np.uint8)
    segmentation = Segmentation("scan", labels, NAMES, load_series(series).geometry)
    path = write_segmentation(segmentation, series, tmp_path / "seg.dcm", kind=kind)
    assert_array_equal(by_place(path, segmentation), labels)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_segmentation_without_structures_is_written(tmp_path: Path, kind: Any):
    segmentation, series = labelled(tmp_path, labels=np.zeros(SHAPE))
    path = write_segmentation(segmentation, series, tmp_path / "seg.dcm", kind=kind)
    assert not by_place(path, segmentation).any()


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize(("multi_frame", "frames"), [(False, 1), (False, 3), (True, 3)])
def test_few_and_many_structures_in_one_and_many_frames(
    tmp_path: Path, kind: Any, multi_frame: bool, frames: int
):
    """Writers put what all frames share, such as the only structure, into one place."""
    values = np.zeros((frames, 4, 5), np.int16)
    images = [files.enhanced(values, range(frames))] if multi_frame else files.headers(values)
    files.save(tmp_path / "scan", images)
    [series] = list_series(tmp_path / "scan")
    geometry = load_series(series).geometry
    for structures, found in ((1, 1), (1, 0), (2, 2), (2, 1), (5, 5)):
        labels = (np.arange(values.size).reshape(values.shape) % (found + 1)).astype(np.uint8)
        segmentation = Segmentation("s", labels, NAMES[: structures + 1], geometry)
        path = tmp_path / f"{structures}_{found}.dcm"
        write_segmentation(segmentation, series, path, kind=kind)
        assert_array_equal(read_back(path, segmentation), labels)
        if structures < 3:
            assert_array_equal(by_place(path, segmentation), labels)


def test_one_slice(tmp_path: Path):
    [source] = files.save(tmp_path, files.headers(np.zeros((1, 5, 4), np.int16)))
    [series] = list_series(source)
    labels = np.arange(20).reshape(1, 5, 4).astype(np.uint8) % 3
    segmentation = Segmentation("one", labels, NAMES, load_series(series).geometry)
    path = write_segmentation(segmentation, series, tmp_path / "seg.dcm")
    assert_array_equal(read_back(path, segmentation), labels)


def test_names_codes_colours_and_author(tmp_path: Path):
    segmentation, series = labelled(tmp_path)
    colours = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 180, 0), (9, 9, 9)]
    path = write_segmentation(segmentation, series, tmp_path / "seg.dcm", colours=colours)
    seg = highdicom.seg.segread(path)
    segments = seg.SegmentSequence
    assert [str(one.SegmentLabel) for one in segments] == list(NAMES[1:])
    codes = [one.SegmentedPropertyTypeCodeSequence[0] for one in segments]
    # SNOMED CT's own numbers: liver, kidney and lesion; others are ours.
    assert [code.CodeValue for code in codes[:2]] == ["10200004", "64033007"]
    assert codes[2].CodingSchemeDesignator == codes[4].CodingSchemeDesignator == "99MSA2NET"
    assert codes[3].CodeValue == "52988006"
    for one, colour in zip(segments, colours[1:], strict=True):
        lab = highdicom.color.CIELabColor.from_dicom_value(one.RecommendedDisplayCIELabValue)
        assert np.abs(np.subtract(lab.to_rgb(), colour)).max() <= 1
        assert one.SegmentAlgorithmType == "AUTOMATIC"
        author = one.SegmentationAlgorithmIdentificationSequence[0]
        assert (author.AlgorithmName, author.AlgorithmVersion) == ("msa2net", __version__)


def test_it_has_the_study_s_tags_and_no_private_ones(tmp_path: Path):
    segmentation, series = labelled(tmp_path)
    seg = pydicom.dcmread(write_segmentation(segmentation, series, tmp_path / "seg.dcm"))
    source = pydicom.dcmread(series.files[0])
    for tag in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate"),
        *("StudyInstanceUID", "FrameOfReferenceUID", "AccessionNumber"),
    ):
        assert str(seg[tag].value) == str(source[tag].value), tag
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    assert seg.Modality == "SEG"
    assert not seg.get("ContentCreatorName")
    assert not [element for element in seg.iterall() if element.tag.is_private]
    referred = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert len(referred) == SHAPE[0]


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_segmentation_beside_its_scan_is_not_taken_for_one(tmp_path: Path, kind: Any):
    segmentation, series = labelled(tmp_path)
    write_segmentation(segmentation, series, tmp_path / "scan" / "seg.dcm", kind=kind)
    assert [one.uid for one in list_series(tmp_path / "scan")] == [series.uid]
    with pytest.raises(DataError, match="holds no DICOM image"):
        read_series(tmp_path / "scan" / "seg.dcm")


def test_series_without_names_of_people_are_taken(tmp_path: Path):
    segmentation, series = labelled(
        tmp_path,
        **dict.fromkeys(["PatientName", "PatientID", "PatientBirthDate", "StudyID", "StudyTime"]),
    )
    seg = pydicom.dcmread(write_segmentation(segmentation, series, tmp_path / "seg.dcm"))
    assert not seg.PatientName
    assert not seg.PatientID


def refused(segmentation: Segmentation, series: Series, path: Path, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        write_segmentation(segmentation, series, path)
    for part in parts:
        assert part in str(caught.value)
    assert not path.exists()
    assert not list(path.parent.glob(".msa2net*"))


def test_what_does_not_fit_is_refused(tmp_path: Path):
    segmentation, series = labelled(tmp_path)
    path = tmp_path / "seg.dcm"
    small = Segmentation("x", segmentation.labels[:3], NAMES, segmentation.geometry)
    refused(small, series, path, path.name, "3×12×10", "6×12×10")
    nowhere = Segmentation("x", segmentation.labels, NAMES)
    refused(nowhere, series, path, "without a place in space")
    unnamed = Segmentation("x", segmentation.labels, NAMES[:3], segmentation.geometry)
    refused(unnamed, series, path, "label 4 has no name")
    (tmp_path / "other").mkdir()
    moved, _ = labelled(tmp_path / "other", origin=(0, 0, 0))
    refused(moved, series, path, "mm apart")


def test_a_series_without_coordinate_system_is_refused(tmp_path: Path):
    segmentation, series = labelled(tmp_path, FrameOfReferenceUID=None)
    with pytest.raises(DataError, match="lacks FrameOfReferenceUID"):
        write_segmentation(segmentation, series, tmp_path / "seg.dcm")


@pytest.mark.parametrize("spoil", ["flip", "shift", "voxel"])
def test_a_file_that_reads_back_otherwise_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str
):
    """An older file survives, too."""
    segmentation, series = labelled(tmp_path)
    build, path = module._build, tmp_path / "seg.dcm"

    def spoilt(labels: np.ndarray, sources: list[Any], *others: Any) -> Any:
        if spoil == "flip":
            return build(labels[:, ::-1].copy(), sources, *others)
        if spoil == "voxel":
            labels[2, 3, 4] = (labels[2, 3, 4] + 1) % 5
        dataset = build(labels, sources, *others)
        if spoil == "shift":
            for group in dataset.PerFrameFunctionalGroupsSequence:
                x, y, z = group.PlanePositionSequence[0].ImagePositionPatient
                group.PlanePositionSequence[0].ImagePositionPatient = [x, y, z + 2.5]
        return dataset

    path.write_bytes(b"older")
    monkeypatch.setattr(module, "_build", spoilt)
    with pytest.raises(DataError, match=r"not written: read back, (\d+ of 720|.* grid)"):
        write_segmentation(segmentation, series, path)
    assert path.read_bytes() == b"older"
    assert not list(tmp_path.glob(".msa2net*"))


def test_without_highdicom_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    segmentation, series = labelled(tmp_path)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    refused(segmentation, series, tmp_path / "seg.dcm", "DICOM needs the package highdicom")
