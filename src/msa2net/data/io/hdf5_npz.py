"""Named arrays out of HDF5 and NPZ files that somebody else made.

Nothing in a file is executed: no pickle, no reference into other files, no filter plug-in. Shape,
type and size are checked from the headers before memory is taken.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from msa2net.data.io.validation import (
    DEFLATE_RATIO,
    MAX_BYTES,
    check_finite,
    check_held,
    declared_bytes,
    file_errors,
    format_bytes,
    read_bytes,
    to_native_byte_order,
)
from msa2net.errors import DataError
from msa2net.text import listed

_SHOWN_KEYS = 10
_LARGEST_NPY_HEADER = 4096

_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
_RATIOS = {"gzip": DEFLATE_RATIO, "lzf": 264}  # lzf: a reference of 3 bytes stands for at most 264
_LARGEST_CHUNK = 256 * 2**20  # bytes of a piece of an array that is smaller itself


def read_hdf5(path: Path, keys: Sequence[str], most: int = MAX_BYTES) -> dict[str, NDArray[Any]]:
    """Read data sets of an HDF5 file.

    Args:
        path: the file.
        keys: names of data sets, such as `image`, `label` or `group/image`.
        most: bytes of all of them.

    Returns:
        One array per key, in native byte order: booleans, integers or floats up to 64 bits.

    Raises:
        DataError: missing or damaged file, a key that is missing (the sentence names those there),
            a group, a link into another file, values that are no numbers, NaN, an unusual filter,
            or more than `most` bytes.
    """
    with file_errors(path, "HDF5"):
        # Locks fail on read-only and network folders; a file in the middle of being written is
        # found by its checksum or its end.
        with h5py.File(path, "r", locking="best-effort") as file:
            arrays: dict[str, NDArray[Any]] = {}
            for key in keys:
                data_set = _data_set(path, file, key)
                done = sum(array.nbytes for array in arrays.values())
                _check_total(path, done + _check(path, key, data_set), most)
                dtype = data_set.dtype.newbyteorder("=")
                arrays[key] = np.empty(data_set.shape, dtype)
                data_set.read_direct(arrays[key])
                check_finite(path, arrays[key])
        return arrays


def read_npz(path: Path, keys: Sequence[str], most: int = MAX_BYTES) -> dict[str, NDArray[Any]]:
    """Read arrays of an NPZ file.

    Args:
        path: the file.
        keys: names of arrays, such as `image` and `label`.
        most: bytes of all of them.

    Returns:
        One array per key, in native byte order: booleans, integers or floats up to 64 bits.

    Raises:
        DataError: missing or damaged file, a key that is missing (the sentence names those there),
            pickled objects or other values that are no numbers, NaN, or more than `most` bytes.
    """
    with file_errors(path, "NPZ"):
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy"): name for name in archive.namelist()}
            arrays: dict[str, NDArray[Any]] = {}
            for key in keys:
                if key not in members:
                    raise DataError(_missing(path, key, list(members)))
                done = sum(array.nbytes for array in arrays.values())
                arrays[key] = _read_member(path, archive, members[key], done, most)
        return arrays


def _missing(path: Path, key: str, known: Sequence[str]) -> str:
    shown = listed(map(repr, sorted(known)), _SHOWN_KEYS) or "none"
    return f"{path} holds no array '{key}'; there are {shown}"


def _check_plain(path: Path, key: str, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "buif" or dtype.itemsize > 8 or dtype.subdtype:
        what = "text or pickled objects" if dtype.kind in "OSU" else f"values of type {dtype}"
        raise DataError(f"{path}: array '{key}' holds {what[:80]}; only plain numbers are read")


def _check_total(path: Path, size: int, most: int) -> None:
    if size > most:
        raise DataError(
            f"{path} declares {format_bytes(size)} of arrays; more than {format_bytes(most)} are "
            "not read"
        )


# NPZ ----------------------------------------------------------------------------------------------


def _read_member(
    path: Path, archive: zipfile.ZipFile, name: str, done: int, most: int
) -> NDArray[Any]:
    """Read one array, after `done` bytes of others."""
    info = archive.getinfo(name)
    # Others expand without a bound that could be checked, and NumPy writes only these.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{path}: array '{name}' is packed in a way that NPZ does not use")
    with archive.open(info) as stream:
        shape, fortran_order, dtype = _npy_header(path, name, stream)
        size = declared_bytes(path, shape, dtype.itemsize)
        _check_total(path, done + size, most)
        packed = info.compress_type == zipfile.ZIP_DEFLATED
        held = min(info.compress_size, path.stat().st_size)
        check_held(path, size, held, DEFLATE_RATIO if packed else 1)
        flat = read_bytes(stream, size).view(dtype)
        if stream.read(1):
            raise DataError(f"{path}: array '{name}' holds more bytes than it declares")
    flat = to_native_byte_order(flat)
    check_finite(path, flat)
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _npy_header(
    path: Path, name: str, stream: IO[bytes]
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, order and type; of headers beyond version 1 NumPy takes up to 4 GiB."""
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise DataError(
            f"{path}: array '{name}' has a header of NumPy's version {version[0]}, which plain "
            "arrays do not need; save it by numpy.savez"
        )
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(
        stream, max_header_size=_LARGEST_NPY_HEADER
    )
    _check_plain(path, name, dtype)
    return shape, fortran_order, dtype


# HDF5 ---------------------------------------------------------------------------------------------


def _data_set(path: Path, file: h5py.File, key: str) -> h5py.Dataset:
    """Walk to a data set by hard links only, so that no other file is opened on the way."""
    node: Any = file
    for part in key.split("/"):
        names = [str(name) for name in node] if isinstance(node, h5py.Group) else []
        if part not in names:
            raise DataError(_missing(path, key, names))
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            raise DataError(
                f"{path}: '{key}' is a link to another place or file; store the array itself"
            )
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise DataError(f"{path}: '{key}' is a group; an array is expected there")
    return node


def _check(path: Path, key: str, data_set: h5py.Dataset) -> int:
    """Check that a data set may be read; return the bytes that it will take."""
    _check_plain(path, key, data_set.dtype)
    if data_set.shape is None:
        raise DataError(f"{path}: array '{key}' is empty")
    size = declared_bytes(path, data_set.shape, data_set.dtype.itemsize)
    properties = data_set.id.get_create_plist()
    if data_set.is_virtual or properties.get_external_count():
        raise DataError(f"{path}: array '{key}' lies in other files; store the array itself")
    if properties.get_layout() == h5py.h5d.CHUNKED:
        _check_chunks(path, key, data_set, size)
    elif properties.get_layout() == h5py.h5d.CONTIGUOUS:
        check_held(path, size, min(data_set.id.get_storage_size(), path.stat().st_size))
    return size


def _check_chunks(path: Path, key: str, data_set: h5py.Dataset, size: int) -> None:
    """Check that pieces are packed in a known way, and none is larger than it says."""
    properties = data_set.id.get_create_plist()
    codes = [properties.get_filter(place)[0] for place in range(properties.get_nfilters())]
    names = [_FILTERS.get(code, f"number {code}") for code in codes]
    ratios = [_RATIOS[name] for name in names if name in _RATIOS]
    if len(ratios) > 1 or not set(names) <= set(_FILTERS.values()):
        raise DataError(
            f"{path}: array '{key}' is packed by the filters {', '.join(names)}; save it with "
            "gzip or unpacked"
        )
    stored: list[h5py.h5d.StoreInfo] = []
    data_set.id.chunk_iter(stored.append)
    held = min(sum(chunk.size for chunk in stored), path.stat().st_size)
    check_held(path, size, held, max(ratios, default=1))
    chunk_bytes = declared_bytes(path, data_set.chunks, data_set.dtype.itemsize)
    if chunk_bytes > max(size, _LARGEST_CHUNK):
        raise DataError(f"{path}: array '{key}' is stored in pieces larger than itself")
    # HDF5 unpacks whatever is there; what is packed takes hardly more bytes than what is not.
    if any(chunk.size > 1.01 * chunk_bytes + 1024 for chunk in stored):
        raise DataError(f"{path}: array '{key}' has a piece that holds more than it declares")
