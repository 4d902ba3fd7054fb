"""Pixels of DICOM slices: unpacked no further than their headers declare, and rescaled.

Axes: Y rows, X columns of a slice.
"""

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.dicom.pydicom_io import parsing, read_pixels, require
from msa2net.data.dicom.slice_geometry import Slice
from msa2net.data.io.validation import check_finite, check_held, format_shape
from msa2net.errors import DataError

MAX_PIXELS = 2**26
"""Of a slice; mammograms, the largest, have 2^24."""

_TAGS = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PlanarConfiguration"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
_LARGEST_VALUE = 8  # bytes, of DoubleFloatPixelData
_TRUSTED = 2**30  # bytes that any series may unpack to
_RATIO = 1000  # how far packed slices expand that hold an image; empty ones are small
_RLE = "1.2.840.10008.1.2.5"
_RLE_PADDING = 1024  # bytes after a segment; one is usual
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_END = b"\xff\xd9"
_J2K_START = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream, then of its sizes
_JPEG_SIZES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # markers; F7 is JPEG-LS's


def check_sizes(slices: Sequence[Slice], whole_bytes: int) -> None:
    """Check, before any pixel is read, that slices can hold what they declare.

    Args:
        slices: of a series.
        whole_bytes: of its volume, unpacked.

    Raises:
        DataError: a slice above `MAX_PIXELS`, or files far too small for the volume.
    """
    for slice_ in slices:
        if slice_.shape[0] * slice_.shape[1] > MAX_PIXELS:
            raise DataError(
                f"{slice_.path} declares {format_shape(slice_.shape)} pixels in a slice; more than "
                f"{MAX_PIXELS:,} are not read"
            )
    if whole_bytes > _TRUSTED:
        held = sum(path.stat().st_size for path in {slice_.path for slice_ in slices})
        check_held(slices[0].path.parent, whole_bytes, held, _RATIO)


def decoded(slices: Sequence[Slice]) -> Iterator[NDArray[Any]]:
    """Yield each slice's values (Y, X): int64, or float32 where they are fractions.

    Raises:
        DataError: damaged, or another size than its header says.
    """
    frames = Counter(slice_.path for slice_ in slices)
    opened: Path | None = None
    dataset: Any = None
    for slice_ in slices:
        if slice_.path != opened:
            pixel_bytes = slice_.shape[0] * slice_.shape[1] * _LARGEST_VALUE * frames[slice_.path]
            dataset = read_pixels(slice_.path, _TAGS, pixel_bytes)
            opened = slice_.path
        with parsing(slice_.path, "its pixels are too few, or cannot be unpacked"):
            # Files from before 1993 have no such tag, and only this way of writing values.
            plain = require("pydicom.uid").ImplicitVRLittleEndian
            dataset.file_meta.setdefault("TransferSyntaxUID", plain)
            stored_YX = _decode(slice_, dataset)
        if stored_YX.shape != slice_.shape:
            raise _other_size(slice_, stored_YX.shape)
        yield _rescale(slice_, stored_YX)


def _decode(slice_: Slice, dataset: Any) -> NDArray[Any]:
    syntax, index = dataset.file_meta.TransferSyntaxUID, slice_.frame or 0
    options: dict[str, str] = {}
    if syntax.is_encapsulated:
        frame = _packed(dataset, index)
        if syntax == _RLE:
            _check_rle(slice_, frame)
            # The compiled decoder panics at damage, and prints so by itself.
            options["decoding_plugin"] = "pydicom"
        else:
            shape = _j2k_shape(frame) or _jpeg_shape(frame)
            if shape is not None and shape != slice_.shape:
                raise _other_size(slice_, shape)
            if syntax in _JPEG_LS and not frame.rstrip(b"\0").endswith(_JPEG_END):
                # The decoder looks for the end far beyond it, for many seconds.
                raise DataError(f"{slice_.path} ends before its image does; copy it again")
    stored_YX: NDArray[Any] = require("pydicom.pixels").pixel_array(dataset, index=index, **options)
    return stored_YX


def _packed(dataset: Any, index: int) -> bytes:
    """Return one packed frame."""
    offsets = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    frame: bytes = require("pydicom.encaps").get_frame(
        dataset.PixelData,
        index,
        number_of_frames=int(dataset.get("NumberOfFrames") or 1),
        extended_offsets=offsets if all(offsets) else None,
    )
    return frame


def _check_rle(slice_: Slice, frame: bytes) -> None:
    """Raise for segments that run out, or unpack to more or less than the slice's pixels.

    Source: PS3.5, annex G.
    """
    count, *offsets = struct.unpack_from("<16I", frame)
    plane = slice_.shape[0] * slice_.shape[1]
    ends = [*offsets[1:count], len(frame)]
    for start, end in zip(offsets[:count], ends, strict=True):
        position, unpacked = start, 0
        while position < end - 1 and unpacked < plane:
            run = frame[position]
            unpacked += run + 1 if run < 128 else 257 - run if run > 128 else 0
            position += run + 2 if run < 128 else 2 if run > 128 else 1
        if unpacked < plane or position > end or start < 64 or end - position > _RLE_PADDING:
            raise DataError(f"{slice_.path} has a damaged RLE segment; copy it again")


def _j2k_shape(frame: bytes) -> tuple[int, int] | None:
    """Return what a JPEG 2000 codestream says of its rows and columns; None if it is none."""
    start = frame.find(_J2K_START)
    if start < 0:
        return None
    columns, rows, left, top = struct.unpack_from(">4I", frame, start + 8)
    return rows - top, columns - left


def _jpeg_shape(frame: bytes) -> tuple[int, int] | None:
    """Return what a JPEG or JPEG-LS stream says of its rows and columns; None if it is none."""
    position = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while position + 9 <= len(frame) and frame[position] == 0xFF:
        marker, length = struct.unpack_from(">BH", frame, position + 1)
        if marker in _JPEG_SIZES:
            rows, columns = struct.unpack_from(">2H", frame, position + 5)
            return rows, columns
        position += 1 if marker == 0xFF else 2 + length
    return None


def _other_size(slice_: Slice, held: tuple[int, ...]) -> DataError:
    return DataError(
        f"{slice_.path} declares {format_shape(slice_.shape)} pixels and holds "
        f"{format_shape(held)}; it is damaged"
    )


def _rescale(slice_: Slice, stored_YX: NDArray[Any]) -> NDArray[Any]:
    slope, intercept = slice_.slope, slice_.intercept
    if stored_YX.dtype.kind != "f" and slope.is_integer() and intercept.is_integer():
        return stored_YX.astype(np.int64) * int(slope) + int(intercept)
    with np.errstate(over="ignore", invalid="ignore"):  # found below
        values_YX = (stored_YX.astype(np.float64) * slope + intercept).astype(np.float32)
    check_finite(slice_.path, values_YX)
    return values_YX
