"""DICOM series for tests, made with pydicom: what a scanner would write, whole or broken."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
STUDY, REFERENCE = generate_uid(), generate_uid()
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def headers(
    values_NYX: np.ndarray,
    *,
    orientation: Any = AXIAL,
    origin: Any = (-30.0, -40.0, 100.0),
    pixel_mm: tuple[float, float] = (0.8, 0.7),
    step_mm: float = 2.5,
    slope: float = 1,
    intercept: float = 0,
    dtype: Any = np.int16,
    **tags: Any,
) -> list[FileDataset]:
    """Make one CT image a slice, along the cross product of the directions.

    `values_NYX` are true values; what is stored is (value - intercept) / slope as `dtype`.
    """
    directions = np.array(orientation, float).reshape(2, 3)
    normal = np.cross(*directions)
    series, images = generate_uid(), []
    for index, values_YX in enumerate(values_NYX):
        image = _image(CTImageStorage, values_YX.shape, dtype, {"SeriesInstanceUID": series} | tags)
        image.InstanceNumber = len(values_NYX) - index  # of no meaning, and so it should stay
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.ImageOrientationPatient = [f"{number:.8f}" for number in directions.ravel()]
        image.ImagePositionPatient = [
            f"{number:.6f}" for number in np.array(origin) + index * step_mm * normal
        ]
        image.PixelSpacing = list(pixel_mm)
        image.SliceThickness = step_mm
        image.RescaleSlope, image.RescaleIntercept = slope, intercept
        image.PixelData = stored(values_YX, slope, intercept, dtype).tobytes()
        images.append(image)
    return images


def stored(values: np.ndarray, slope: float, intercept: float, dtype: Any) -> np.ndarray:
    return np.rint((values.astype(float) - intercept) / slope).astype(dtype)


def affine(
    *,
    orientation: Any = AXIAL,
    origin: Any = (-30.0, -40.0, 100.0),
    pixel_mm: tuple[float, float] = (0.8, 0.7),
    step_mm: float = 2.5,
    **_: Any,
) -> np.ndarray:
    """Voxel (column, row, slice) → RAS, by DICOM's own formula (PS3.3, C.7.6.2.1.1)."""
    row, column = np.array(orientation, float).reshape(2, 3)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = row * pixel_mm[1], column * pixel_mm[0]
    lps[:3, 2], lps[:3, 3] = np.cross(row, column) * step_mm, origin
    return LPS_TO_RAS @ lps


def save(folder: Path, images: list[Any], *, seed: int | None = 0, ending: str = "") -> list[Path]:
    """Write files under shuffled names; returns their paths in the order of `images`."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(len(images))
    if seed is not None:
        np.random.default_rng(seed).shuffle(numbers)
    paths = [folder / f"IM{number:04d}{ending}" for number in numbers]
    for path, image in zip(paths, images, strict=True):
        image.save_as(path, enforce_file_format=True)
    return paths


def save_nifti(path: Path, values_NYX: np.ndarray, matrix: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(values_NYX.transpose(2, 1, 0), matrix), path)
    return path


def enhanced(values_NYX: np.ndarray, order: Any, **grid: Any) -> FileDataset:
    """Make one multi-frame file of a series, its frames in `order`."""
    singles = headers(values_NYX, **grid)
    first = singles[0]
    shape = values_NYX.shape[1:]
    image = _image(EnhancedCTImageStorage, shape, np.int16, {"SeriesInstanceUID": generate_uid()})
    image.NumberOfFrames = len(values_NYX)
    shared = Dataset()
    shared.PixelMeasuresSequence = [_part(first, "PixelSpacing", "SliceThickness")]
    shared.PlaneOrientationSequence = [_part(first, "ImageOrientationPatient")]
    image.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index in order:
        group = Dataset()
        group.PlanePositionSequence = [_part(singles[index], "ImagePositionPatient")]
        transformation = _part(singles[index], "RescaleSlope", "RescaleIntercept")
        transformation.RescaleType = "HU"
        group.PixelValueTransformationSequence = [transformation]
        groups.append(group)
    image.PerFrameFunctionalGroupsSequence = groups
    image.PixelData = b"".join(singles[index].PixelData for index in order)
    return image


def _part(source: Dataset, *tags: str) -> Dataset:
    part = Dataset()
    for tag in tags:
        setattr(part, tag, source.get(tag))
    return part


def _image(kind: str, shape: tuple[int, ...], dtype: Any, tags: dict[str, Any]) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.FrameOfReferenceUID = STUDY, REFERENCE
    image.SpecificCharacterSet = "ISO_IR 100"
    image.PatientName, image.PatientID, image.PatientBirthDate = "Müller^Zoë", "P-17", "19700101"
    image.PatientSex, image.StudyID, image.AccessionNumber = "F", "S1", "A1"
    image.StudyDate, image.StudyTime, image.ReferringPhysicianName = "20240102", "101112", ""
    image.Modality, image.SeriesNumber, image.SeriesDescription = "CT", 3, "Abdomen 2.5 B30f"
    image.Rows, image.Columns = shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = np.dtype(dtype).itemsize * 8
    image.BitsAllocated = image.BitsStored = bits
    image.HighBit = bits - 1
    image.PixelRepresentation = int(np.dtype(dtype).kind == "i")
    image.add_new(0x00091001, "LO", "a vendor's private remark")
    image.add_new(0x00090010, "LO", "VENDOR")
    for tag, value in tags.items():
        if value is None:
            if tag in image:
                del image[tag]
        else:
            setattr(image, tag, value)
    return image


def implicit(image: FileDataset) -> FileDataset:
    """Return the image in the standard's default encoding."""
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return image


def as_compressed(image: FileDataset, syntax: str) -> FileDataset:
    image.compress(syntax, generate_instance_uid=False)
    return image
