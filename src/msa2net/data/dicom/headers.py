"""What is believed of a DICOM file's header, and one sentence where it cannot be.

Needs pydicom (`pip install ".[dicom]"`), imported where it is used.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.dicom.detect import is_dicom
from msa2net.data.dicom.pydicom_io import (
    EXTRA,
    is_uid,
    numbers_in,
    parsing,
    read_header,
    require,
)
from msa2net.data.dicom.slice_geometry import Slice
from msa2net.errors import DataError

_SEGMENTATIONS = "1.2.840.10008.5.1.4.1.1.66."  # classes of masks; pydicom does not know all
_LOSSLESS_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")

_COLOURS = ("RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

# What is kept of a header. Positions come first, then how values are stored.
_TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"),
    *("Modality", "ImageType", "NumberOfFrames", "FrameOfReferenceUID", "ImagePositionPatient"),
    *("ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows", "Columns"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "SamplesPerPixel"),
    *("PhotometricInterpretation", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("StudyInstanceUID", "PatientID"),
]

_MACROS = (  # parts of a frame's description, each a sequence of one item
    *("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"),
    *("PixelValueTransformationSequence", "CTImageFrameTypeSequence", "MRImageFrameTypeSequence"),
)


def kind_of(path: Path) -> str:
    """Return what the standard calls the kind of a DICOM file; "" if it is none that it knows."""
    uid = require("pydicom.uid")
    with parsing(path):
        header = read_header(path, ["SOPClassUID"])
        kind = uid.UID(header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID"))
        return str(kind.name) if kind in uid.UID_dictionary else ""


def read_image_header(path: Path) -> Any:
    """Return the kept part of an image's header; None if the file is no DICOM image."""
    if path.name == "DICOMDIR" or not is_dicom(path):  # a disc's index is always called so
        return None
    header = read_header(path, _TAGS)
    with parsing(path):
        # A DICOMDIR, the table of contents of a disc, names its class in its first lines only.
        kinds = [header.file_meta.get("MediaStorageSOPClassUID"), header.get("SOPClassUID")]
        named = [require("pydicom.uid").UID(kind) for kind in kinds if kind]
        # The name of a class that pydicom does not know, such as a vendor's, is its number.
        known = any(kind.name != kind for kind in named)
        image = any("Image Storage" in kind.name for kind in named)
        if any(kind.startswith(_SEGMENTATIONS) for kind in named):
            return None
        if not image and (known or ("SeriesInstanceUID" in header and "Rows" not in header)):
            return None
        missing = [tag for tag in ("SeriesInstanceUID", "Rows", "Columns") if not header.get(tag)]
    if missing:
        raise DataError(
            f"{path} is a DICOM file without {missing[0]}, it is damaged or truncated; copy it "
            "again, or take it away if it is not needed"
        )
    with parsing(path):
        # Enough to tell two patients apart, and no more is kept of whose images they are.
        patient = str(header.get("PatientID") or "").strip()
        header.PatientID = hashlib.sha256(patient.encode()).hexdigest()
        header.get("SOPInstanceUID")  # read here, where a malformed one makes no noise
    return header


def check_storage(path: Path, header: Any) -> None:
    """Check that values are plain measurements, packed in a way that can be unpacked here."""
    pydicom = require()
    with parsing(path):
        photometric = str(header.get("PhotometricInterpretation") or "MONOCHROME2")
        samples = whole_number(header, "SamplesPerPixel")
        table = header.get("ModalityLUTSequence")
        syntax = header.file_meta.get("TransferSyntaxUID") or pydicom.uid.ImplicitVRLittleEndian
    if photometric == "MONOCHROME1":
        raise DataError(
            f"{path} stores its greys inverted (MONOCHROME1), as X-rays do; convert it to "
            "MONOCHROME2"
        )
    if photometric != "MONOCHROME2" or samples != 1:
        kind = f" ({photometric})" if photometric in _COLOURS else ""
        raise DataError(
            f"{path} holds colours{kind}, not measured values; give the scan itself, or save the "
            "images as PNG"
        )
    if table:
        raise DataError(
            f"{path} turns stored values into measured ones by a table (ModalityLUTSequence), "
            "which is not read; export it with RescaleSlope and RescaleIntercept"
        )
    if not is_uid(syntax):
        raise DataError(f"{path} has a TransferSyntaxUID that is none; its header is damaged")
    try:
        available = pydicom.pixels.get_decoder(syntax).is_available
    except NotImplementedError:
        raise DataError(
            f"{path} is packed as {syntax.name} ({syntax}), which is not read; convert it to "
            "Explicit VR Little Endian"
        ) from None
    if not available:
        # For lossless JPEG there are a GPL plug-in and this one, which asks nothing in return.
        package = "pip install python-gdcm" if syntax in _LOSSLESS_JPEG else EXTRA
        raise DataError(
            f"{path} is packed as {syntax.name} ({syntax}), and no decoder for that is installed: "
            f"{package}"
        )


def whole_number(header: Any, tag: str) -> int:
    """Return a tag's value as a whole number; 1 if it is not there."""
    with numbers_in(tag):
        return int(header.get(tag) or 1)


def count_frames(header: Any) -> int:
    """Return how many images a file says it has."""
    return whole_number(header, "NumberOfFrames")


def rows_and_columns(header: Any) -> tuple[int, int]:
    """Return the size that an image says it has."""
    return whole_number(header, "Rows"), whole_number(header, "Columns")


def slices_of(path: Path, header: Any) -> Iterator[Slice]:
    """Yield the file's image, or each frame of an enhanced multi-frame file."""
    with parsing(path):
        frames = count_frames(header)
        groups = header.get("PerFrameFunctionalGroupsSequence")
        shared = header.get("SharedFunctionalGroupsSequence") or []
    if groups is None:
        if frames > 1:
            raise DataError(
                f"{path} holds {frames} frames that do not say where they lie; export the series "
                "as one file a slice, or as an enhanced multi-frame file"
            )
        yield _slice(path, None, [header], header)
        return
    if len(groups) != frames:
        raise DataError(f"{path} holds {frames} frames and describes {len(groups)}; it is damaged")
    for index, own in enumerate(groups):
        with parsing(path):
            places = [
                group[name][0] for group in (own, *shared) for name in _MACROS if group.get(name)
            ]
        yield _slice(path, index, [*places, header], header)


def _slice(path: Path, frame: int | None, places: Sequence[Any], header: Any) -> Slice:
    """Make a Slice of the first of `places` that has each tag."""

    def find(tag: str) -> Any:
        with numbers_in(tag):
            return next((v for place in places if (v := place.get(tag)) not in (None, "")), None)

    def number(tag: str, default: float) -> float:
        value = find(tag)
        with numbers_in(tag):
            return default if value is None else float(value)

    def need(tag: str, count: int) -> NDArray[np.float64]:
        value = find(tag)
        if value is None:
            raise DataError(
                f"{path} lacks {tag}, so where its image lies in the patient is unknown; export "
                "the series again, with all of its headers"
            )
        with numbers_in(tag):
            numbers = np.array([float(number) for number in value])
        if len(numbers) != count:
            raise DataError(f"{path} has {len(numbers)} numbers in {tag} where {count} belong")
        return numbers

    with parsing(path):
        directions = need("ImageOrientationPatient", 6).reshape(2, 3)
        row_mm, column_mm = need("PixelSpacing", 2).tolist()
        modality = str(header.get("Modality") or "")
        _check_rescale(path, modality, find("RescaleSlope"), find("RescaleIntercept"))
        slope, intercept = number("RescaleSlope", 1.0), number("RescaleIntercept", 0.0)
        thickness = None if find("SliceThickness") is None else number("SliceThickness", 0.0)
        if slope == 0 or not np.isfinite([slope, intercept]).all():
            raise DataError(
                f"{path} scales its values by {slope:g} and adds {intercept:g}; it is damaged"
            )
        return Slice(
            path=path,
            frame=frame,
            position_mm=need("ImagePositionPatient", 3),
            directions=directions,
            pixel_mm=(row_mm, column_mm),
            shape=rows_and_columns(header),
            thickness_mm=thickness,
            slope=slope,
            intercept=intercept,
            localiser="LOCALIZER" in (find("FrameType") or find("ImageType") or ()),
            reference=str(header.get("FrameOfReferenceUID") or ""),
            study=str(header.get("StudyInstanceUID") or ""),
            patient=str(header.get("PatientID") or ""),
        )


def _check_rescale(path: Path, modality: str, slope: Any, intercept: Any) -> None:
    """Check that the unit of values is known: a CT's stored numbers are not Hounsfield units.

    The standard lets other modalities leave both tags out; stored values are then measured ones.
    """
    missing = [
        tag
        for tag, value in (("RescaleSlope", slope), ("RescaleIntercept", intercept))
        if value is None
    ]
    if len(missing) == 1 or (missing and modality == "CT"):
        raise DataError(
            f"{path} lacks {' and '.join(missing)}, so what its stored values measure is unknown; "
            "export the series again, with all of its headers"
        )
