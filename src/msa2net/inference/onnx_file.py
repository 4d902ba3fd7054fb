"""What an ONNX file says of itself, and which other files it names, without a library.

Only as much of it is read as that takes, and before onnxruntime sees it: a file that was damaged
on its way must not reach code that takes it at its word.

Source: onnx.proto and onnx-ml.proto of https://github.com/onnx/onnx; the encoding is
https://protobuf.dev/programming-guides/encoding.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from msa2net.errors import WeightsError

_MAX_DEPTH = 32  # of graphs within graphs; ours have one
_VARINT, _FIXED_64, _MESSAGE, _FIXED_32 = 0, 1, 2, 5

# Message → its fields that hold messages which matter here; `metadata` and `outside` are pairs.
_FIELDS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 14: "metadata", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "outside"},
}


class _DamagedError(Exception):
    """The bytes are no such message."""


@dataclass(frozen=True)
class OnnxFile:
    """What is known of a file.

    Attributes:
        metadata: key → value.
        outside: names of files that hold weights of it.
    """

    metadata: Mapping[str, str]
    outside: frozenset[str]


def read_onnx(file: Path) -> OnnxFile:
    """Read a file's metadata, and the names of the files that hold weights of it.

    Raises:
        WeightsError: missing, or no ONNX file.
    """
    metadata: dict[str, str] = {}
    outside: set[str] = set()
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as m:
            for kind, key, value in _pairs(m, "model", 0, len(m), 0):
                if kind == "metadata":
                    if key in metadata:
                        raise _DamagedError
                    metadata[key] = value
                elif key == "location":
                    outside.add(value)
    except OSError as error:
        raise WeightsError(f"cannot read {file}: {error.strerror or error}") from error
    except (_DamagedError, ValueError) as error:  # also of an empty file, and of other text
        raise WeightsError(
            f"{file} cannot be opened as an ONNX network, it may be damaged; copy or export it "
            "again"
        ) from error
    return OnnxFile(metadata, frozenset(outside))


def _pairs(
    content: mmap.mmap, message: str, start: int, end: int, depth: int
) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, key, value) of all pairs in a message that matter here."""
    if depth > _MAX_DEPTH:
        raise _DamagedError
    known = _FIELDS[message]
    for field, first, last in _messages(content, start, end):
        kind = known.get(field, "")
        if kind in _FIELDS:
            yield from _pairs(content, kind, first, last, depth + 1)
        elif kind:
            parts = _messages(content, first, last)
            texts = {number: content[one:two].decode() for number, one, two in parts}
            yield kind, texts.get(1, ""), texts.get(2, "")


def _messages(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field, first byte, end) of every message or text in a message."""
    at = start
    while at < end:
        tag, at = _varint(content, at, end)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(content, at, end)
            continue
        if kind == _MESSAGE:
            length, at = _varint(content, at, end)
        elif kind in (_FIXED_64, _FIXED_32):
            length = 8 if kind == _FIXED_64 else 4
        else:
            raise _DamagedError
        if at + length > end:
            raise _DamagedError
        if kind == _MESSAGE:
            yield tag >> 3, at, at + length
        at += length


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """Return a whole number, and where the next thing begins."""
    value = 0
    for place in range(10):
        if at + place >= end:
            break
        byte = content[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise _DamagedError
