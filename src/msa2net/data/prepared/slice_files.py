"""Training slices on disk: one file a case and preprocessing, beside the prepared data.

Resizing a slice costs more than augmenting it, so it is done once. Whatever the split or fold, a
case's slices are the same file, `slices/PREPROCESSING/CASE.npy`: both names are hashes of what it
depends on. Its rows are an image (C, h, w) float16 in [0, 1] and its labels (h, w) uint8; half
precision keeps 11 bits, images have 8 to 12.

Axes: C channels, h rows and w columns of the network's input.
"""

import hashlib
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msa2net.data.prepared.store import Store, StoredCase, image_path
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import DataError, is_out_of_memory
from msa2net.files import WRITING, clean_temporaries, put_in_place, remove, staging
from msa2net.locks import alone_in

FOLDER = "slices"
_SUFFIX = ".npy"
_DIGITS = 16
_FORMER = ("origin.json", "images.npy", "labels.npy")  # one file for all cases of a split


class SampleError(DataError):
    """A sample cannot be loaded; its sentence survives the way out of a worker.

    torch raises a worker's exception anew, from the text of its traceback. That text ends with the
    sentence.
    """

    def __init__(self, message: str) -> None:
        last = message.strip().splitlines()[-1]
        super().__init__(last.removeprefix(f"{SampleError.__module__}.{SampleError.__name__}: "))


@contextmanager
def error_context(case_id: str, file: Path) -> Iterator[None]:
    """Add the case and the file to the sentence of whatever fails inside.

    Raises:
        SampleError: something failed.
    """
    try:
        yield
    except SampleError:
        raise
    except Exception as error:  # whatever it is, what it was about is worth knowing
        if is_out_of_memory(error):
            raise SampleError(
                f"case {case_id}: not enough memory to load {file}; lower train.workers, each of "
                "them loads a batch of its own"
            ) from error
        detail = " ".join(str(error).split()) or "no message"
        if not isinstance(error, DataError):
            detail = f"{type(error).__name__}: {detail}"
        where = "" if str(file) in detail else f", file {file}"
        raise SampleError(f"case {case_id}{where}: {detail}") from error


class SliceArrays:
    """Slices ready to train on, of which one at a time is read.

    Not memory maps: pages of a map count as the process's own memory, which would grow with the
    data set until all of it had been seen. And without open files, so that it can be sent to
    workers, however they start.

    Args:
        folder: of the files.
        cases: (id, name of its file, slices) of each.
        channels: of the images.
        size: (h, w).

    Attributes:
        origin: for each slice, its case's id and its index in the case.
    """

    def __init__(
        self,
        folder: Path,
        cases: Sequence[tuple[str, str, int]],
        channels: int,
        size: tuple[int, int],
    ) -> None:
        self._folder = str(folder)
        self._names = {case_id: name for case_id, name, _ in cases}
        self._starts = {case_id: len(_header(count, channels, size)) for case_id, _, count in cases}
        self._shape, self._size = (channels, *size), size
        self._image_bytes, self._label_bytes = 2 * math.prod(self._shape), math.prod(size)
        self.origin = [(case_id, index) for case_id, _, count in cases for index in range(count)]

    def path(self, index: int) -> Path:
        """Return the file of a slice."""
        return Path(self._folder, self._names[self.origin[index][0]])

    def __getitem__(self, index: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """Read a slice (C, h, w) and its labels (h, w).

        Raises:
            DataError: its file is gone, or was cut short.
        """
        row = self._read(index, 0, self._image_bytes + self._label_bytes)
        image_Chw = row[: self._image_bytes].view("<f2").reshape(self._shape)
        return image_Chw, row[self._image_bytes :].reshape(self._size)

    def label(self, index: int) -> NDArray[np.uint8]:
        """Read a slice's labels (h, w) alone."""
        return self._read(index, self._image_bytes, self._label_bytes).reshape(self._size)

    def _read(self, index: int, offset: int, count: int) -> NDArray[np.uint8]:
        case_id, place = self.origin[index]
        path = f"{self._folder}/{self._names[case_id]}"
        start = self._starts[case_id] + place * (self._image_bytes + self._label_bytes) + offset
        try:
            row = np.fromfile(path, dtype=np.uint8, count=count, offset=start)
        except OSError as error:
            raise DataError(
                f"cannot read {path}: {error.strerror or error}; start again, it is written anew"
            ) from error
        if row.size < count:
            raise DataError(f"{path} was cut short; start again, it is written anew")
        return row


def build_slices(store: Store, preprocessing: Preprocessing, splits: Sequence[str]) -> SliceArrays:
    """Resize the slices of splits to the network's input, those that are not there yet.

    Of several processes one does it, and the others wait; the system lifts a dead one's lock.

    Raises:
        DataError: the disk is full or the folder cannot be written.
        SampleError: a case cannot be used.
    """
    folder = (
        store.root
        / FOLDER
        / _key(preprocessing.model_dump_json(exclude={"mean", "std", "orientation", "pixel_mm"}))
    )
    clean_temporaries(folder)
    ids = {case_id for split in splits for case_id in store.ids(split)}
    rows = [row for row in store.cases if row.id in ids]
    if any(not _is_whole(store, row, preprocessing, folder) for row in rows):
        with alone_in(folder, wait=True), staging(folder) as staged:
            for row in rows:
                if not _is_whole(store, row, preprocessing, folder):
                    name = file_name(store, row)
                    write_slices(
                        staged / name,
                        _prepared_slices(store, preprocessing, row.id),
                        (row.shape[1], preprocessing.channels, *preprocessing.image_size),
                    )
                    put_in_place(staged / name, folder / name)
    cases = [(row.id, file_name(store, row), row.shape[1]) for row in rows]
    return SliceArrays(folder, cases, preprocessing.channels, preprocessing.image_size)


def write_slices(
    path: Path, slices: Iterable[tuple[bytes, bytes]], shape: tuple[int, int, int, int]
) -> None:
    """Write a case's file from images and labels as bytes.

    Through a file handle, not a writable memory map: on a full disk a map kills the process where
    a write says so.

    Args:
        path: where to.
        slices: image and label of each.
        shape: (slices, C, h, w).

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    count, channels, h, w = shape
    with path.open("wb") as file:
        file.write(_header(count, channels, (h, w)))
        for image, label in slices:
            file.write(image)
            file.write(label)


def file_name(store: Store, row: StoredCase) -> str:
    """Return the name of a case's slices, a hash of all that its stored arrays depend on."""
    hashes = [file["sha256"] for file in row.files]
    facts = [store.format, list(store.label_names), row.id, row.recipe, hashes]
    return _key(json.dumps(facts)) + _SUFFIX


def sliced(store: Store, image_size: tuple[int, int]) -> set[str]:
    """Return the cases whose slices of a size are there, in whichever preprocessing most are."""
    rows = {file_name(store, row): row for row in store.cases}
    most: set[str] = set()
    for folder in _folders(store):
        there: set[str] = set()
        for path in folder.glob(f"*{_SUFFIX}"):
            row = rows.get(path.name)
            if row is not None and _begins(path, _header(row.shape[1], store.channels, image_size)):
                there.add(row.id)
        most = max(most, there, key=len)
    return most


def clean_slices(store: Store) -> None:
    """Remove slices that no case of the prepared data has any more, and those of earlier versions.

    Slices of a preprocessing that no run uses any more stay: runs are not known here.
    """
    used = {file_name(store, row) for row in store.cases}
    clean_temporaries(store.root / FOLDER)
    for folder in _folders(store):
        clean_temporaries(folder)
        for path in folder.iterdir():
            unused = path.suffix == _SUFFIX and path.name not in used
            if unused or path.name in _FORMER:
                remove(path)
        with suppress(OSError):  # as a rule it is not empty
            folder.rmdir()
    for path in store.root.glob(f".{FOLDER}-*.lock"):
        remove(path)


def _folders(store: Store) -> list[Path]:
    root = store.root / FOLDER
    found = root.iterdir() if root.is_dir() else ()
    return sorted(path for path in found if path.is_dir() and path.name != WRITING)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _begins(path: Path, start: bytes) -> bool:
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(start)) == start
    return False


def _is_whole(store: Store, row: StoredCase, preprocessing: Preprocessing, folder: Path) -> bool:
    size = _file_bytes(row.shape[1], preprocessing.channels, preprocessing.image_size)
    try:
        return (folder / file_name(store, row)).stat().st_size == size
    except FileNotFoundError:
        return False


def _file_bytes(count: int, channels: int, size: tuple[int, int]) -> int:
    return len(_header(count, channels, size)) + count * (2 * channels + 1) * math.prod(size)


@lru_cache(maxsize=1024)
def _header(count: int, channels: int, size: tuple[int, int]) -> bytes:
    """Return how a `.npy` file of so many slices begins; NumPy and others open it by that."""
    header = io.BytesIO()
    descr = [("image", "<f2", (channels, *size)), ("label", "|u1", size)]
    fields = {"descr": descr, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


def _prepared_slices(
    store: Store, preprocessing: Preprocessing, case_id: str
) -> Iterator[tuple[bytes, bytes]]:
    """Yield a case's slices and their labels as bytes.

    Raises:
        SampleError: naming case and file.
    """
    file = image_path(store.root, case_id)
    with error_context(case_id, file):
        case = store.case(case_id)
        assert case.label is not None
        value_range = preprocessing.intensity_range(case.image)
    for index in range(case.image.shape[1]):
        with error_context(case_id, file):
            image = case.image[:, index : index + 1]
            unit = preprocessing.unit_slices(image, value_range)
            label = preprocessing.label_slices(case.label[index : index + 1])
        yield np.ascontiguousarray(unit, dtype="<f2").tobytes(), label.tobytes()
