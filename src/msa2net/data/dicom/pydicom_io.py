"""DICOM files through pydicom, within bounds, and one sentence where it fails.

Needs pydicom (`pip install ".[dicom]"`), imported where it is used. A header may hold a name, a
birth date or a remark in any of its fields, also in those that are damaged. Whatever pydicom says
of a value holds the value, so neither its errors nor its warnings go further: sentences name the
tag.
"""

import logging
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import BufferedReader
from pathlib import Path
from typing import Any

from msa2net.data.io.validation import file_errors, format_bytes
from msa2net.errors import DataError

HEADER_BYTES = 16 * 2**20
"""No header is larger: one of two thousand frames takes ten mebibytes at most."""

_MAX_READS = 2_000_000  # an element takes two, and pydicom ten microseconds

EXTRA = 'pip install ".[dicom]" in msa2net\'s folder'
_PIXELS = 0x7FE00000  # from here on elements hold pixels, or say where they lie
_LAST = 0x7FE00010  # PixelData
_SERIES = 0x0020000E  # SeriesInstanceUID
_UID = re.compile(r"[0-9.]{1,64}")
_TAG = re.compile(r"\(([0-9A-Fa-f]{4}), ?([0-9A-Fa-f]{4})\)")
_NOT_DICOM = "its header is not what the standard asks"
_SILENT = threading.RLock()


def require(part: str = "pydicom") -> Any:
    """Import pydicom, or a module of it, when it is needed."""
    try:
        return import_module(part)
    except ImportError as error:
        raise DataError(f"DICOM needs the package {error.name or part}: {EXTRA}") from error


@contextmanager
def silent() -> Iterator[None]:
    """Silence pydicom and highdicom for the whole process: their warnings print values."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    with _SILENT, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = [logger.level for logger in loggers]
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def parsing(path: Path, reason: str = _NOT_DICOM) -> Iterator[None]:
    """Raise one sentence, without any value, for whatever pydicom stumbles over in `path`.

    Decoders written in Rust panic with what is no `Exception`; it is one here.

    Args:
        path: that is read.
        reason: for the sentence, where no tag is to blame.

    Raises:
        DataError: the block raised; Ctrl-C and the like pass unchanged.
    """
    require()
    with file_errors(path, "DICOM"), silent():
        try:
            yield
        except (DataError, MemoryError, EOFError):
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
                raise
            if isinstance(error, OSError) and error.strerror:
                raise
            raise ValueError(blame(error, reason)) from None


@contextmanager
def numbers_in(tag: str) -> Iterator[None]:
    """Raise the tag of what a block takes for numbers, in place of its value."""
    try:
        yield
    except (TypeError, ValueError, OverflowError):
        raise NotANumberError(tag) from None


class NotANumberError(ValueError):
    """A tag holds no number where one belongs; its message is the tag."""


def blame(error: BaseException, otherwise: str = _NOT_DICOM) -> str:
    """Return which tag an error is about, or else what is likely to be wrong; never a value."""
    if isinstance(error, NotANumberError):
        return f"{error} is no number"
    named = _TAG.search(str(error))
    if named is not None:
        return tag_name(int(named[1] + named[2], 16))
    if isinstance(error, AttributeError) and error.name:
        return f"it lacks {error.name}"
    if isinstance(error, RecursionError):
        return "its sequences lie in each other too deep"
    return "it ends within a value" if isinstance(error, struct.error) else otherwise


def tag_name(tag: int) -> str:
    """Return a tag's keyword in the standard, or its number where it has none."""
    keyword = require("pydicom.datadict").keyword_for_tag(tag)
    return str(keyword) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def read_header(path: Path, tags: Sequence[str] | None = None) -> Any:
    """Read a header up to its pixels.

    Args:
        path: with a preamble, or of a time when files had none.
        tags: keywords of what is kept; None is everything.

    Raises:
        DataError: damaged, or larger than `HEADER_BYTES` when it is unpacked.
    """
    reached = False

    def at_pixels(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal reached
        reached = tag >= _PIXELS
        return reached

    with parsing(path), path.open("rb") as file:
        source = _Bounded(path, file, HEADER_BYTES)
        header = _read(source, at_pixels, tags)
        if source.cut and not reached:
            raise source.too_large()
    return header


def read_identifiers(path: Path) -> tuple[str, str]:
    """Return the UIDs of a damaged image's series and of itself; "" where they cannot be read."""
    tags = ["SeriesInstanceUID", "SOPInstanceUID"]
    try:
        with parsing(path), path.open("rb") as file:
            source = _Bounded(path, file, HEADER_BYTES)
            header = _read(source, lambda tag, _vr, _length: tag > _SERIES, tags)
            series, own = (str(header.get(tag) or "") for tag in tags)
    except DataError:
        return "", ""
    return series, own


def is_uid(text: str) -> bool:
    """Return whether a value is what its tag promises; others may hold anything."""
    return _UID.fullmatch(text) is not None


def read_pixels(path: Path, tags: Sequence[str], pixel_bytes: int) -> Any:
    """Read a file's packed or plain pixels, and of its header the tags.

    Args:
        path: a file whose header was read.
        tags: keywords.
        pixel_bytes: that the header declares, unpacked.

    Raises:
        DataError: damaged, or far larger than it declares.
    """
    done = False

    def past_pixels(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal done
        done, before = tag >= _LAST, done
        return before

    with parsing(path), path.open("rb") as file:
        source = _Bounded(path, file, HEADER_BYTES + 2 * pixel_bytes)
        dataset = _read(source, past_pixels, tags)
        if source.cut:
            raise source.too_large()
    return dataset


def _read(source: "_Bounded", stop_when: Any, tags: Sequence[str] | None) -> Any:
    tag_of = require("pydicom.tag").Tag
    kept = None if tags is None else [tag_of(tag) for tag in tags]
    read_partial = require("pydicom.filereader").read_partial
    return read_partial(source, stop_when=stop_when, force=True, specific_tags=kept)


class _Bounded:
    """A file of which pydicom takes no more than a limit, packed or plain.

    pydicom inflates whole data sets (the deflated transfer syntax) before it looks at any of
    them, and a few MB may hold GB. It asks for them by `read()`, and gets what was inflated within
    the limit, deflated again without compression.

    Attributes:
        cut: whether there was more.
    """

    def __init__(self, path: Path, file: BufferedReader, limit: int) -> None:
        self.cut = False
        self._path = path
        self._file = file
        self._limit = self._left = limit
        self._reads = 0

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return self._inflated()
        data = self._file.read(min(size, self._left + 1))
        self._left -= len(data)
        self._reads += 1
        if self._left < 0 or self._reads > _MAX_READS:
            raise self.too_large()
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def too_large(self) -> DataError:
        return DataError(
            f"{self._path} holds more than {format_bytes(self._limit)} or millions of elements, "
            "far more than its image needs; it is damaged or no image"
        )

    def _inflated(self) -> bytes:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        packed = self._file.read(self._limit)
        plain = inflater.decompress(packed, self._limit)
        self.cut = not inflater.eof
        if self.cut and len(plain) < self._limit and not self._file.read(1):
            raise EOFError
        stored = zlib.compressobj(0, wbits=-zlib.MAX_WBITS)
        return stored.compress(plain) + stored.flush()
