"""DICOM segmentations: labels on the grid of the series that they were made from.

A file counts as written only after it was read back and every voxel found where it belongs in
the patient. It carries the study's patient tags, as the standard asks.
"""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Segmentation
from msa2net.data.dicom.headers import slices_of
from msa2net.data.dicom.pydicom_io import blame, parsing, read_header, require, silent
from msa2net.data.dicom.series import Series
from msa2net.data.dicom.slice_geometry import SIDEWAYS, Slice
from msa2net.data.geometry import Geometry, require_same_grid, to_canonical, to_file
from msa2net.errors import DataError
from msa2net.files import atomic_path

Kind = Literal["BINARY", "LABELMAP"]
Colour = tuple[int, int, int]

_SOFTWARE = "msa2net"
_LONGEST = 64  # characters of a segment's label
_ORGANS = {  # class name → pydicom's name of the SNOMED CT code
    "aorta": "Aorta",
    "duodenum": "Duodenum",
    "gallbladder": "Gallbladder",
    "inferior vena cava": "InferiorVenaCava",
    "kidney": "Kidney",
    "left adrenal": "AdrenalGland",  # the side stands in the segment's label
    "left kidney": "Kidney",
    "left ventricle": "LeftVentricle",
    "liver": "Liver",
    "myocardium": "LeftVentricleMyocardium",
    "oesophagus": "Esophagus",
    "esophagus": "Esophagus",
    "pancreas": "Pancreas",
    "prostate": "Prostate",
    "right adrenal": "AdrenalGland",
    "right kidney": "Kidney",
    "right ventricle": "RightVentricle",
    "spleen": "Spleen",
    "stomach": "Stomach",
}
_INSTEAD = "predict without --dicom-seg, which writes NIfTI"
_NEEDED = ("StudyInstanceUID", "FrameOfReferenceUID")
# The standard wants these, perhaps empty; series without names often lack them altogether.
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)


def write_segmentation(
    segmentation: Segmentation,
    source_series: Series,
    path: Path,
    *,
    kind: Kind = "BINARY",
    colours: Sequence[Colour] | None = None,
) -> Path:
    """Write labels as a DICOM segmentation of the series, and read it back before it counts.

    A segmentation without any structure is written, too: all of its frames are empty.

    Args:
        segmentation: what `load_series(source_series)` led to, on its grid.
        source_series: of `list_series`; its files must still be there.
        path: where to; usually ends in .dcm.
        kind: BINARY, one bit a voxel and structure, which most viewers read, or LABELMAP, one
            byte a voxel, of the standard's 2024 edition.
        colours: RGB, 0–255, one per class with background; without, viewers choose.

    Returns:
        `path`.

    Raises:
        DataError: highdicom is missing, another grid than the series', labels beyond the names, a
            series without study or coordinate system, the file cannot be written, or it does not
            read back equal; nothing is left at `path` then that was not there before.
    """
    require("highdicom")
    slices, geometry = source_series.grid()
    labels_NYX = _frames(path, segmentation, source_series.folder, slices, geometry)
    sources = _sources(slices)
    segments = _describe(segmentation.label_names, colours)
    with atomic_path(path) as temporary:
        try:
            with silent():
                _build(labels_NYX, sources, kind, segments).save_as(temporary)
        except OSError:
            raise
        except Exception as error:  # whatever highdicom stumbles over in a foreign header
            raise DataError(
                f"{path} cannot be written as a segmentation of {source_series.folder}, whose "
                f"headers are not what the standard asks: {_culprit(error, sources)}; {_INSTEAD}"
            ) from None
        difference = _difference(temporary, segmentation)
        if difference:
            raise DataError(f"{path} was not written: read back, {difference}; please report this")
    return path


def read_back(path: Path, segmentation: Segmentation) -> NDArray[np.uint8]:
    """Read a DICOM segmentation onto another one's grid, by what its frames say of their place.

    Args:
        path: BINARY or LABELMAP.
        segmentation: whose grid; its labels are not looked at.

    Returns:
        Labels (Z, H, W); voxels without a frame are background.

    Raises:
        DataError: unreadable, or a frame that does not lie on the grid.
    """
    assert segmentation.geometry.affine is not None
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    to_index = np.asarray(np.linalg.inv(segmentation.geometry.affine) @ to_ras, np.float64)
    labels_ZHW = np.zeros(segmentation.labels.shape, np.uint8)
    with parsing(path):
        dataset = require().dcmread(path)
        frames = require("pydicom.pixels").iter_pixels(dataset)
        shared = dataset.SharedFunctionalGroupsSequence[0]
        groups = dataset.PerFrameFunctionalGroupsSequence
        for group, slice_, pixels_YX in zip(groups, slices_of(path, dataset), frames, strict=True):
            value = pixels_YX
            if dataset.SegmentationType == "BINARY":
                # What is the same in all frames, as with one structure, may stand in one place.
                place = group if "SegmentIdentificationSequence" in group else shared
                value = place.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            view_YX = _plane(labels_ZHW, to_index, slice_)
            np.copyto(view_YX, np.asarray(value, np.uint8), where=pixels_YX > 0)
    return labels_ZHW


def _difference(path: Path, segmentation: Segmentation) -> str:
    """Return how a written file differs from what was to be written; empty if it does not."""
    try:
        different = read_back(path, segmentation) != segmentation.labels
    except DataError as error:
        return str(error)
    count = int(different.sum())
    return f"{count} of {different.size} voxels differ" if count else ""


def _plane(labels_ZHW: NDArray[Any], to_index: NDArray[np.float64], slice_: Slice) -> NDArray[Any]:
    """Return the view (rows, columns) of a volume in which a frame lies.

    Args:
        labels_ZHW: the volume.
        to_index: 4×4, LPS position → (column, row, slice) of the volume.
        slice_: the frame.
    """
    row_mm, column_mm = slice_.pixel_mm
    ends = np.array(slice_.shape) - 1
    place = np.zeros((4, 3))  # (column, row, 1) of the frame → LPS position
    place[:3, 0] = slice_.directions[0] * column_mm
    place[:3, 1] = slice_.directions[1] * row_mm
    place[:, 2] = *slice_.position_mm, 1.0
    exact = (to_index @ place)[:3]
    whole = np.rint(exact).astype(int)
    corners = np.array([[0, 0, 1], [ends[1], 0, 1], [0, ends[0], 1], [ends[1], ends[0], 1]]).T
    found = whole @ corners
    sides = np.array(labels_ZHW.shape[::-1])
    inside = (found >= 0).all() and (found < sides[:, None]).all()
    steps = np.abs(whole[:, :2])
    straight = (steps.sum(axis=0) == 1).all() and (steps.sum(axis=1) <= 1).all()
    if not (inside and straight and np.abs(found - exact @ corners).max() <= SIDEWAYS):
        raise DataError(f"{slice_} does not lie on the grid of the labels")
    index: list[Any] = whole[:, 2].tolist()
    for step, count in zip(whole[:, :2].T, slice_.shape[::-1], strict=True):
        axis = int(np.abs(step).argmax())
        stop = index[axis] + step[axis] * count
        index[axis] = slice(index[axis], None if stop < 0 else stop, step[axis])
    view = labels_ZHW.transpose(2, 1, 0)[tuple(index)]
    across, down = steps.argmax(axis=0)
    return view.T if across < down else view


# Writing ------------------------------------------------------------------------------------------


def _build(labels_NYX: NDArray[np.uint8], sources: list[Any], kind: Kind, segments: Any) -> Any:
    """Make the data set; identifiers are new, and nobody is named as its creator."""
    highdicom = require("highdicom")
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=labels_NYX,
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=_SOFTWARE,
        manufacturer_model_name=_SOFTWARE,
        software_versions=version(_SOFTWARE),
        device_serial_number="0",
        content_label="SEGMENTATION",
        content_description="Automatic segmentation, research use only",
        series_description=f"{_SOFTWARE} segmentation",
        specific_character_set="ISO_IR 192",  # UTF-8: names of classes and people may need it
        omit_empty_frames=bool(labels_NYX.any()),
    )


def _frames(
    path: Path,
    segmentation: Segmentation,
    folder: Path,
    slices: Sequence[Slice],
    geometry: Geometry,
) -> NDArray[np.uint8]:
    """Return the labels (N, rows, columns) in the order of the images in `_sources`."""
    layout = geometry.layout
    assert layout is not None
    shape_ZHW = to_canonical(np.broadcast_to(np.uint8(0), layout.shape), layout.orientation).shape
    if segmentation.geometry.affine is None:
        raise DataError(f"{path}: a segmentation without a place in space is no DICOM")
    require_same_grid(
        segmentation.id,
        (path, segmentation.labels.shape, segmentation.geometry),
        (folder, shape_ZHW, geometry),
    )
    largest, classes = int(segmentation.labels.max()), len(segmentation.label_names)
    if largest >= classes:
        raise DataError(f"{path}: label {largest} has no name; there are {classes}")
    if len({slice_.path for slice_ in slices}) not in (1, len(slices)):
        raise DataError(
            f"{path}: {folder} spreads its slices over several multi-frame files, for which no "
            f"DICOM segmentation is written; {_INSTEAD}"
        )
    file_NYX = to_file(segmentation.labels, layout.orientation).transpose(2, 1, 0)
    # A multi-frame file lists its slices in any order; files come sorted as `slices` are.
    order = np.argsort([slice_.frame or 0 for slice_ in slices], kind="stable")
    return np.ascontiguousarray(file_NYX[order])


def _sources(slices: Sequence[Slice]) -> list[Any]:
    """Read the headers that a segmentation refers to and takes the study's tags from."""
    sources = []
    for path in dict.fromkeys(slice_.path for slice_ in slices):
        with parsing(path):
            header = read_header(path)
            for tag in _NEEDED:
                if not header.get(tag):
                    raise DataError(
                        f"{path} lacks {tag}, without which no DICOM segmentation can refer to "
                        f"it; {_INSTEAD}"
                    )
            for tag in _MAY_BE_EMPTY:
                if tag not in header:
                    setattr(header, tag, None)
            for tag in (*_NEEDED, *_MAY_BE_EMPTY):
                if header[tag].VM > 1:
                    raise DataError(
                        f"{path}: {tag} holds several values, parted by backslashes, where one "
                        f"belongs; mend it, or {_INSTEAD}"
                    )
            sources.append(header)
    return sources


def _culprit(error: Exception, sources: Sequence[Any]) -> str:
    """Return the tag whose value an error shows, or else what kind of error it is."""
    tags = (*_MAY_BE_EMPTY, *_NEEDED)
    values = {tag: str(header.get(tag) or "") for header in sources for tag in tags}
    shown = [tag for tag, value in values.items() if value and value in str(error)]
    return (
        max(shown, key=lambda tag: len(values[tag])) if shown else blame(error, "no tag is named")
    )


def _describe(names: Sequence[str], colours: Sequence[Colour] | None) -> list[Any]:
    """Return label, code, colour and author of each class but the background."""
    highdicom = require("highdicom")
    codes = require("pydicom.sr.codedict").codes
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=_SOFTWARE, family=codes.DCM.ArtificialIntelligence, version=version(_SOFTWARE)
    )
    segments = []
    for number, name in enumerate(names[1:], start=1):
        label = " ".join(name.split())[:_LONGEST] or f"class {number}"
        category, kind = (
            codes.SCT.Tissue,
            highdicom.sr.CodedConcept(
                value=f"CLASS{number}", scheme_designator="99MSA2NET", meaning=label
            ),
        )
        if name.lower() in _ORGANS:
            category = codes.SCT.AnatomicalStructure
            kind = getattr(codes.SCT, _ORGANS[name.lower()])
        elif name.lower() == "lesion":
            category, kind = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion
        colour = None if colours is None else highdicom.color.CIELabColor.from_rgb(*colours[number])
        segments.append(
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=label,
                segmented_property_category=category,
                segmented_property_type=kind,
                algorithm_type="AUTOMATIC",
                algorithm_identification=algorithm,
                display_color=colour,
            )
        )
    return segments
