"""Checks that every reader of foreign files shares: sizes, values, and one sentence when they fail.

A file is believed only as far as it can be true: before memory is taken for what a header
declares, the declaration is held against a limit and against the bytes that are there.
"""

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from msa2net.errors import MORE_MEMORY, DataError, is_out_of_memory

MAX_BYTES = 8 * 2**30
"""No array larger than this is read; a whole-body CT at 512² × 2000 slices takes 1 GiB."""

DEFLATE_RATIO = 1032
"""Deflate (gzip, ZIP, HDF5's gzip) cannot expand further: 258 bytes need at least two bits."""

_BLOCK = 4 * 2**20  # elements or bytes looked at in one go, so that checking takes little memory
_PADDING = 64 * 2**20  # bytes after the data that are read to reach the end, and then ignored
_LARGEST_LABEL = 2**31 - 1
_LABEL_TOLERANCE = 1e-3  # from a whole number


class ByteStream(Protocol):
    """A stream of bytes, of a plain file or of one that is unpacked on the way."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


_PARSER_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,  # h5py, zipfile; RecursionError and NotImplementedError are of it too
    SyntaxError,
    ArithmeticError,
    MemoryError,
    struct.error,
    tokenize.TokenError,  # of NumPy, which takes a broken header for one of Python 2
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def file_errors(path: Path, kind: str) -> Iterator[None]:
    """Raise one sentence for whatever a parser stumbles over in `path`.

    Args:
        path: the file that the block reads.
        kind: what it should be, for the sentence: "NIfTI", "HDF5", "NPZ".

    Raises:
        DataError: the block raised; errors that cannot come from a file pass unchanged.
    """
    try:
        if not path.exists():
            raise DataError(f"there is no file {path}")
        if not path.is_file():
            raise DataError(f"{path} is not a file; a {kind} file is expected there")
        yield
    except DataError:
        raise
    except EOFError as error:
        raise DataError(f"{path} is truncated: it ends before its data do") from error
    except _PARSER_ERRORS as error:
        if is_out_of_memory(error):
            raise DataError(f"not enough memory to read {path}; {MORE_MEMORY}") from error
        detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        shown = " ".join(detail.split())[:200] or "its reader says no more"
        raise DataError(
            f"{path} cannot be read as {kind}, it may be damaged or truncated: {shown}"
        ) from error


def declared_bytes(path: Path, shape: Sequence[int], itemsize: int) -> int:
    """Return the bytes of an array that a header declares.

    Raises:
        DataError: an axis is not positive, or the array exceeds `MAX_BYTES`.
    """
    if any(side < 1 for side in shape):
        raise DataError(
            f"{path} declares an array of {format_shape(shape)}; every side must be positive"
        )
    size = math.prod(int(side) for side in shape) * itemsize
    if size > MAX_BYTES:
        raise DataError(
            f"{path} declares an array of {format_shape(shape)}, {format_bytes(size)}; "
            f"more than {format_bytes(MAX_BYTES)} are not read"
        )
    return size


def check_held(path: Path, declared: int, held: int, ratio: int = 1) -> None:
    """Check that a file can hold what it declares.

    Args:
        path: for the sentence.
        declared: bytes of data that the header promises.
        held: bytes that are there, packed or plain.
        ratio: how far a packed byte can expand at most; 1 for plain data.

    Raises:
        DataError: `declared` exceeds `held` × `ratio`.
    """
    if declared > held * ratio:
        packed = " packed" if ratio > 1 else ""
        raise DataError(
            f"{path} declares {format_bytes(declared)} of data and holds "
            f"{format_bytes(held)}{packed}, too little for that; it is truncated or damaged"
        )


def read_bytes(stream: ByteStream, size: int) -> NDArray[np.uint8]:
    """Read exactly `size` bytes; memory is touched only as data arrive.

    Raises:
        EOFError: the stream ends before.
    """
    raw = np.empty(size, np.uint8)
    done = 0
    while done < size:
        block = stream.read(min(_BLOCK, size - done))
        if not block:
            raise EOFError
        raw[done : done + len(block)] = np.frombuffer(block, np.uint8)
        done += len(block)
    return raw


def check_end(path: Path, stream: ByteStream) -> None:
    """Read what follows the data, so that a packed stream compares its checksum.

    Raises:
        DataError: there is more than any padding.
    """
    for _ in range(_PADDING // _BLOCK):
        if not stream.read(_BLOCK):
            return
    raise DataError(f"{path} holds far more data than it declares; its header is damaged")


def to_native_byte_order(flat: NDArray[Any]) -> NDArray[Any]:
    """Return the values in this machine's byte order, swapped in place if they are not."""
    if flat.dtype.isnative:
        return flat
    return flat.byteswap(inplace=True).view(flat.dtype.newbyteorder("="))


def blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield views on a contiguous array's elements, a few million at a time."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        yield flat[start : start + _BLOCK]


def check_finite(path: Path, array: NDArray[Any]) -> None:
    """Check that no value is NaN or infinite.

    Raises:
        DataError: says how many there are.
    """
    if array.dtype.kind != "f":
        return
    wrong = sum(block.size - int(np.isfinite(block).sum()) for block in blocks(array))
    if wrong:
        raise DataError(
            f"{path}: {wrong} of {array.size} values are NaN or infinite; replace them "
            "by a number, such as the background's"
        )


def as_integer_labels(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """Turn label values into integers; floats must be whole numbers, as nearly as 1e-3.

    Programs that scale, resample or average labels leave 0.9999999 where 1 was meant.

    Args:
        path: for the sentence.
        array: contiguous, boolean, integer, or float without NaN.

    Returns:
        Integers of the same shape; integers come back unchanged, floats in the smallest type of
        uint8, uint16 and int32.

    Raises:
        DataError: fractions, or values beyond any label's.
    """
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    if array.dtype.kind in "ui":
        return array
    low, high, wrong, example = 0.0, 0.0, 0, 0.0
    for block in blocks(array):
        fraction = np.abs(block - np.rint(block)) > _LABEL_TOLERANCE
        if not wrong and fraction.any():
            example = float(block[fraction][0])
        wrong += int(fraction.sum())
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    if wrong:
        raise DataError(
            f"{path} holds fractions in {wrong} of {array.size} voxels, such as {example:.9g}; "
            "a label holds whole class indices"
        )
    if max(-low, high) > _LARGEST_LABEL:
        raise DataError(f"{path} holds values from {low:g} to {high:g}, which are no class indices")
    dtype = np.int32 if low < 0 or high > 65535 else np.uint16 if high > 255 else np.uint8
    labels = np.empty(array.shape, dtype)
    for target, block in zip(blocks(labels), blocks(array), strict=True):
        target[:] = np.rint(block)
    return labels


def format_shape(shape: Sequence[int]) -> str:
    """Write a shape for people: 512×512×90."""
    return "×".join(str(side) for side in shape) or "no axes"


def format_bytes(size: int) -> str:
    """Write a number of bytes for people: 7.0 GiB."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
