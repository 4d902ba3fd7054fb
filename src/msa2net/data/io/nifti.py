"""NIfTI files: volumes in, masks back into the same space.

Axes: C channels, Z slices, H rows, W columns in the training orientation (see `geometry`);
X, Y, Z are a file's own axes. nibabel knows the header's fields; what they say is checked here
before any of it is believed.
"""

import gzip
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from msa2net.data.geometry import (
    MM_PER_UNIT,
    FileLayout,
    Geometry,
    canonical_orientation,
    to_canonical,
    to_file,
)
from msa2net.data.io.validation import (
    DEFLATE_RATIO,
    ByteStream,
    as_integer_labels,
    blocks,
    check_end,
    check_finite,
    check_held,
    declared_bytes,
    file_errors,
    format_shape,
    read_bytes,
    to_native_byte_order,
)
from msa2net.errors import DataError
from msa2net.files import atomic_path

NIFTI_SUFFIXES = (".nii", ".nii.gz")

_UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
_QFORM_FIELDS = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
_LARGEST_FORM_CODE = 5  # "template"
_SCALED = np.dtype(np.float32)  # what values become that the header scales
_MM_RANGE = 1e-6, 1e6  # of voxel sizes; beyond lie damaged headers only
_FARTHEST_MM = 1e9
_FLATTEST = 1e-3  # volume of a voxel over that of a box with its edges; a gantry tilt has 0.8


@dataclass(frozen=True, eq=False)
class _Header:
    """What a checked header says.

    Attributes:
        shape: (X, Y, Z, C).
        dtype: of a stored value, byte order included.
        offset: where the data start, in bytes.
        slope, intercept: true value = stored × slope + intercept.
        layout: position in the patient.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    layout: FileLayout

    @property
    def scaled(self) -> bool:
        return (self.slope, self.intercept) != (1.0, 0.0)


def is_nifti(path: Path) -> bool:
    """Return whether a file is read and written as NIfTI, by its name."""
    return path.name.lower().endswith(NIFTI_SUFFIXES)


def read_nifti_image(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a volume, or several of one grid as channels.

    Returns:
        The image (C, Z, H, W) in the training orientation and native byte order: in the file's
        own type, or float32 if the header scales the values; and its geometry.

    Raises:
        DataError: missing, damaged, too large, not 3-D or 4-D, of complex or colour values, without
            a usable position, or with NaN or infinities.
    """
    with file_errors(path, "NIfTI"):
        header, flat = _read(path)
        file_XYZC = flat.reshape(header.shape, order="F")
        image_CZHW = to_canonical(file_XYZC.transpose(3, 0, 1, 2), header.layout.orientation)
        return np.ascontiguousarray(image_CZHW), Geometry.from_layout(header.layout)


def read_nifti_label(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a label volume.

    Returns:
        Integers (Z, H, W) in the training orientation, and the geometry.

    Raises:
        DataError: as `read_nifti_image`, or several volumes, or values that are not whole.
    """
    with file_errors(path, "NIfTI"):
        header, flat = _read(path)
        if header.shape[3] != 1:
            raise DataError(
                f"{path} holds {header.shape[3]} volumes; a label holds one, with one class index "
                "per voxel"
            )
        labels = as_integer_labels(path, flat)
        file_XYZ = labels.reshape(header.shape[:3], order="F")
        labels_ZHW = to_canonical(file_XYZ, header.layout.orientation)
        return np.ascontiguousarray(labels_ZHW), Geometry.from_layout(header.layout)


def write_nifti_labels(path: Path, labels_ZHW: NDArray[Any], geometry: Geometry) -> None:
    """Write class indices as uint8 (uint16 beyond 255), all of the file or nothing.

    With `geometry.layout` the file has the source file's shape, axis order, affine, codes and
    units; without, its axes are (column, row, slice) with `geometry.affine`.

    Args:
        path: ends in .nii or .nii.gz.
        labels_ZHW: (Z, H, W) integers in the training orientation, 0 to 65535.
        geometry: of the grid; that of a 2-D image is refused.

    Raises:
        DataError: values or shape that do not fit, no affine, or the file cannot be written.
    """
    if not is_nifti(path):
        raise DataError(f"{path}: NIfTI files end in {' or '.join(NIFTI_SUFFIXES)}")
    layout = geometry.layout
    if layout is None and geometry.affine is None:
        raise DataError(f"{path}: a 2-D image has no place in a patient; save it as .png")
    dtype = _mask_dtype(path, labels_ZHW)
    if layout is None:
        file_XYZ = labels_ZHW.transpose(2, 1, 0).astype(dtype)
        image = _image_class(file_XYZ.shape)(file_XYZ, geometry.affine, dtype=dtype)
        image.header.set_xyzt_units("mm")
    else:
        file_XYZ = to_file(labels_ZHW, layout.orientation).astype(dtype)
        if file_XYZ.shape != layout.shape:
            raise DataError(
                f"{path}: the mask is {format_shape(file_XYZ.shape)} and the scan it belongs to "
                f"{format_shape(layout.shape)} voxels; they must be the same grid"
            )
        image_class = _image_class(layout.shape, layout.version)
        image = image_class(file_XYZ, None, _mask_header(image_class.header_class(), layout, dtype))
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def _image_class(shape: tuple[int, ...], version: int = 1) -> Any:
    """Choose NIfTI-1 where it is wanted and its 16-bit sides suffice."""
    fits = max(shape) <= np.iinfo(np.int16).max
    return nibabel.Nifti1Image if version == 1 and fits else nibabel.Nifti2Image


def _mask_dtype(path: Path, labels: NDArray[Any]) -> type[np.unsignedinteger[Any]]:
    if labels.dtype.kind not in "bui":
        raise DataError(f"{path}: class indices are integers; these are {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise DataError(
            f"{path}: class indices from {low} to {high} cannot be written; they go from 0 to 65535"
        )
    return np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16


def _mask_header(header: Any, layout: FileLayout, dtype: type[np.generic]) -> Any:
    """Fill an empty header so that it places a mask where `layout` says."""
    header.set_data_dtype(dtype)
    header.set_data_shape(layout.shape)
    header.set_xyzt_units(layout.units)
    header.set_qform(layout.affine, code=layout.qform_code)  # sets the voxel sizes, too
    if layout.qform is not None:
        header["pixdim"][:4] = layout.qform[:4]
        for name, value in zip(_QFORM_FIELDS, layout.qform[4:], strict=True):
            header[name] = value
    header.set_sform(layout.affine, code=layout.sform_code)
    return header


# Reading ------------------------------------------------------------------------------------------


def _read(path: Path) -> tuple[_Header, NDArray[Any]]:
    """Read header and values; the values are flat, the file's first axis running fastest."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"  # names lie: .nii is found packed, .nii.gz plain
        file.seek(0)
        stream: io.BufferedIOBase = gzip.GzipFile(fileobj=file) if packed else file
        header = _read_header(path, stream)
        size = declared_bytes(path, header.shape, header.dtype.itemsize)
        if header.scaled:
            declared_bytes(path, header.shape, _SCALED.itemsize)
        ratio = DEFLATE_RATIO if packed else 1
        check_held(path, header.offset + size, path.stat().st_size, ratio)
        stream.seek(header.offset)
        flat = read_bytes(stream, size).view(header.dtype)
        # A packed stream's checksum is compared only at its end.
        check_end(path, stream)
    flat = to_native_byte_order(flat)
    if header.scaled:
        flat = _scale(flat, header.slope, header.intercept)
    check_finite(path, flat)
    return header, flat


def _scale(flat: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float32]:
    scaled = np.empty(flat.shape, _SCALED)
    for target, block in zip(blocks(scaled), blocks(flat), strict=True):
        with np.errstate(over="ignore", invalid="ignore"):  # found by `check_finite`
            target[:] = block.astype(np.float64) * slope + intercept
    return scaled


def _read_header(path: Path, stream: ByteStream) -> _Header:
    raw = _parse_header(path, stream)
    version = 2 if isinstance(raw, nibabel.Nifti2Header) else 1
    dtype = _dtype(path, raw)
    shape = _shape(path, raw)
    offset, least = float(raw["vox_offset"]), raw.sizeof_hdr + 4
    if not least <= offset < 2**53:
        raise DataError(
            f"{path} says that its data begin at byte {offset:g}, which cannot be; it is damaged"
        )
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or math.isnan(slope):  # how the standard says "not scaled"
        slope, intercept = 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise DataError(
            f"{path} scales its values by {slope:g} and adds {intercept:g}; it is damaged"
        )
    layout = _layout(path, raw, shape, version)
    return _Header(shape, dtype, int(offset), slope, intercept, layout)


def _dtype(path: Path, raw: Any) -> np.dtype[Any]:
    try:
        dtype = np.dtype(raw.get_data_dtype())
        if dtype.kind in "iuf" and dtype.itemsize <= 8:
            return dtype
        what = f"values of type {raw.get_value_label('datatype')}"
    except KeyError:
        what = f"values of the unknown type {int(raw['datatype'])}"
    raise DataError(f"{path} holds {what}; a volume of plain integers or floats is needed")


def _parse_header(path: Path, stream: ByteStream) -> Any:
    """Return nibabel's header, of version 1 or 2; its contents are not checked yet."""
    start = stream.read(nibabel.Nifti2Header.sizeof_hdr)
    if not start:
        raise DataError(f"{path} is empty")
    for header_class in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        size = header_class.sizeof_hdr
        for endianness, order in (("<", "little"), (">", "big")):
            if start[:4] != size.to_bytes(4, order):
                continue
            if len(start) < size:
                raise EOFError
            raw = header_class(start[:size], endianness=endianness, check=False)
            magic = raw["magic"].item()[:3]
            if magic == header_class.single_magic[:3]:
                return raw
            if magic == header_class.pair_magic[:3]:
                raise DataError(
                    f"{path} is one half of a .hdr and .img pair; save the two as one .nii.gz"
                )
    raise DataError(f"{path} is not a NIfTI file: it does not begin with a NIfTI header")


def _shape(path: Path, raw: Any) -> tuple[int, int, int, int]:
    """Return (X, Y, Z, C); whether they are positive and not too large is asked later."""
    count, *dims = raw["dim"].tolist()
    if not 1 <= count <= len(dims):
        raise DataError(f"{path} declares {count} dimensions; it is damaged")
    shape = dims[:count]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) not in (3, 4):
        raise DataError(
            f"{path} has {len(shape)} dimensions ({format_shape(shape)}); a volume has 3, or 4 "
            "with one channel per volume"
        )
    x, y, z, channels = (*shape, 1)[:4]
    return x, y, z, channels


def _layout(path: Path, raw: Any, shape: tuple[int, ...], version: int) -> FileLayout:
    sform_code, qform_code = int(raw["sform_code"]), int(raw["qform_code"])
    for name, code in (("sform_code", sform_code), ("qform_code", qform_code)):
        if not 0 <= code <= _LARGEST_FORM_CODE:
            raise DataError(f"{path} has {name} {code}, which NIfTI does not know; it is damaged")
    # Loose writers leave qfac 0 and negative voxel sizes; everybody reads them like this.
    raw["pixdim"][0] = -1 if raw["pixdim"][0] < 0 else 1
    raw["pixdim"][1:4] = np.abs(raw["pixdim"][1:4])
    units = _UNITS.get(int(raw["xyzt_units"]) & 7, "unknown")
    try:
        with np.errstate(all="ignore"):  # nonsense is found below
            affine = np.asarray(raw.get_best_affine(), np.float64)
    except (HeaderDataError, ValueError) as error:
        raise DataError(
            f"{path} has no usable position in its header: {' '.join(str(error).split())}"
        ) from error
    _check_affine(path, affine, units)
    return FileLayout(
        shape=(shape[0], shape[1], shape[2]),
        affine=affine,
        orientation=canonical_orientation(affine),
        sform_code=sform_code,
        qform_code=qform_code,
        units=units,
        qform=_qform_numbers(raw),
        version=version,
    )


def _check_affine(path: Path, affine: NDArray[np.float64], units: str) -> None:
    with np.errstate(all="ignore"):
        affine_mm = affine[:3] * MM_PER_UNIT[units]
        width, height, depth = sizes = np.linalg.norm(affine_mm[:, :3], axis=0)
    if not (_MM_RANGE[0] <= sizes.min() and sizes.max() <= _MM_RANGE[1]):  # also if one is NaN
        raise DataError(
            f"{path} has no usable position in its header: its voxels would measure "
            f"{width:g} × {height:g} × {depth:g} mm"
        )
    if not np.abs(affine_mm[:, 3]).max() <= _FARTHEST_MM:
        x, y, z = affine_mm[:, 3]
        raise DataError(
            f"{path} has no usable position in its header: its first voxel would lie at "
            f"({x:g}, {y:g}, {z:g}) mm"
        )
    if abs(np.linalg.det(affine_mm[:, :3] / sizes)) < _FLATTEST:
        raise DataError(
            f"{path} has no usable position in its header: two of its axes point the same way"
        )


def _qform_numbers(raw: Any) -> tuple[float, ...] | None:
    """Return `FileLayout.qform`, if the numbers mean anything."""
    if raw["sform_code"] and not raw["qform_code"]:
        return None
    numbers = (*raw["pixdim"][:4].tolist(), *(float(raw[name]) for name in _QFORM_FIELDS))
    try:
        with np.errstate(all="ignore"):
            usable = np.isfinite(raw.get_qform()).all()
    except (HeaderDataError, ValueError):
        return None
    return numbers if usable else None
