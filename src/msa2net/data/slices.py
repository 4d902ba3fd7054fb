"""Training samples: slices at the network's size, read at random from arrays on disk.

Resizing a slice costs more than augmenting it, so it is done once: `build_slices` writes every
training slice at the input's size, and an epoch only reads.

Axes: N slices of all cases, C channels, h rows and w columns of the network's input.
"""

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from msa2net.data.augment import Augmentation
from msa2net.data.preprocessing import Preprocessing
from msa2net.data.store import Store, image_path
from msa2net.errors import DataError, is_out_of_memory
from msa2net.files import read_json, write_json
from msa2net.locks import alone_in

Position = tuple[int, ...]  # (epoch, index), and with repeated streams a place in the stream


class SampleError(DataError):
    """A sample cannot be loaded; its sentence survives the way out of a worker.

    torch raises a worker's exception anew, from the text of its traceback. That text ends with the
    sentence.
    """

    def __init__(self, message: str) -> None:
        last = message.strip().splitlines()[-1]
        super().__init__(last.removeprefix(f"{SampleError.__module__}.{SampleError.__name__}: "))


@contextmanager
def naming(case_id: str, file: Path) -> Iterator[None]:
    """Let whatever fails inside say which case and file it was about.

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
        raise SampleError(f"case {case_id}, file {file}: {detail}") from error


class Rows:
    """A `.npy` file of which one row at a time is read.

    Not a memory map: pages of a map count as the process's own memory, which would grow with the
    data set until all of it had been seen. And without an open file, so that it can be sent to
    workers, however they start.

    Raises:
        DataError: the file is missing or shorter than its header says.
    """

    def __init__(self, path: Path) -> None:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (EOFError, OSError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error}); delete {path.parent}") from error
        self.path, self.shape, self.dtype = path, array.shape, array.dtype
        self._start, self._count = array.offset, math.prod(array.shape[1:])

    def __getitem__(self, index: int) -> NDArray[Any]:
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"row {index} of {self.shape[0]}")
        offset = self._start + index * self._count * self.dtype.itemsize
        try:
            row = np.fromfile(self.path, dtype=self.dtype, count=self._count, offset=offset)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror or error}") from error
        if row.size < self._count:
            raise DataError(f"{self.path} was cut short; delete {self.path.parent}")
        return row.reshape(self.shape[1:])


class SliceArrays:
    """Slices ready to train on.

    Attributes:
        images: rows (C, h, w) float16 in [0, 1]; half precision keeps 11 bits, images have 8 to 12.
        labels: rows (h, w) uint8.
        origin: for each slice, its case's id and its index in the case.
    """

    def __init__(self, folder: Path) -> None:
        self.images = Rows(folder / "images.npy")
        self.labels = Rows(folder / "labels.npy")
        rows = read_json(folder / "origin.json")
        self.origin: list[tuple[str, int]] = [(case_id, index) for case_id, index in rows]


def build_slices(store: Store, preprocessing: Preprocessing, splits: Sequence[str]) -> SliceArrays:
    """Resize the slices of splits to the network's input, or open them if that was done before.

    Of several processes one does it, and the others wait; the system lifts a dead one's lock.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    shape = preprocessing.model_dump_json(exclude={"mean", "std", "orientation", "pixel_mm"})
    key = f"{store.hash} {' '.join(splits)} {shape}"
    folder = store.root / "slices" / hashlib.sha256(key.encode()).hexdigest()[:16]
    if not (folder / "origin.json").is_file():
        try:
            with alone_in(folder.parent, wait=True):
                if not (folder / "origin.json").is_file():
                    _write_slices(store, preprocessing, splits, folder)
        except OSError as error:
            raise DataError(
                f"cannot write training slices to {folder}: {error.strerror or error}; check that "
                "the folder is writable and the disk has room"
            ) from error
    return SliceArrays(folder)


def _write_slices(
    store: Store, preprocessing: Preprocessing, splits: Sequence[str], folder: Path
) -> None:
    ids = {case_id for split in splits for case_id in store.ids(split)}
    rows = [case for case in store.cases if case.id in ids]
    total = sum(row.shape[1] for row in rows)
    h, w = preprocessing.image_size
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".writing-"))
    temporary.chmod(0o755)  # mkdtemp makes folders that only their owner can enter
    origin: list[tuple[str, int]] = []
    try:
        # Through file handles, not a writable memory map: on a full disk a map kills the process
        # where a write says so.
        with (
            _new_array(
                temporary / "images.npy", (total, preprocessing.channels, h, w), "<f2"
            ) as images,
            _new_array(temporary / "labels.npy", (total, h, w), "|u1") as labels,
        ):
            for row in rows:
                for unit, label in _prepared_slices(store, preprocessing, row.id):
                    images.write(unit)
                    labels.write(label)
                origin += [(row.id, index) for index in range(row.shape[1])]
        write_json(temporary / "origin.json", origin)
        try:
            temporary.replace(folder)
        except OSError:
            if not (folder / "origin.json").is_file():  # another process was not just faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _prepared_slices(
    store: Store, preprocessing: Preprocessing, case_id: str
) -> Iterator[tuple[bytes, bytes]]:
    """Yield a case's slices and their labels as bytes.

    Raises:
        SampleError: naming case and file.
    """
    file = image_path(store.root, case_id)
    with naming(case_id, file):
        case = store.case(case_id)
        assert case.label is not None
        value_range = preprocessing.intensity_range(case.image)
    for index in range(case.image.shape[1]):
        with naming(case_id, file):
            image = case.image[:, index : index + 1]
            unit = preprocessing.unit_slices(image, value_range)
            label = preprocessing.label_slices(case.label[index : index + 1])
        yield np.ascontiguousarray(unit, dtype="<f2").tobytes(), label.tobytes()


@contextmanager
def _new_array(path: Path, shape: tuple[int, ...], dtype: str) -> Iterator[BinaryIO]:
    """Open a new `.npy` file whose header is written and whose data follow in order."""
    with path.open("wb") as file:
        header = {"descr": dtype, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield file
        file.flush()
        os.fsync(file.fileno())


def sample_key(seed: int, position: Position) -> tuple[int, int, int]:
    """Return what a sample's augmentation is drawn from: (seed, epoch, index).

    A third number in its position stands for both: the place in a stream that is the same in
    every epoch.
    """
    epoch, index, *place = position
    return (seed, 0, place[0]) if place else (seed, epoch, index)


def holders_of_classes(
    labels: Iterable[NDArray[np.uint8]], num_classes: int
) -> list[NDArray[np.int64]]:
    """Return for each class but the background the slices that hold it."""
    held = np.array([np.bincount(label.ravel(), minlength=256) > 0 for label in labels])
    return [np.flatnonzero(held[:, index]) for index in range(1, num_classes)]


class SliceDataset(Dataset[dict[str, Any]]):
    """Augmented training slices, indexed by (epoch, index).

    A sample depends on (seed, epoch, index) and on nothing else: not on the worker, the number of
    workers, how they were started, or what was drawn before.
    """

    def __init__(
        self,
        arrays: SliceArrays,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        self.arrays = arrays
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.arrays.origin)

    def labels(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the label (h, w) of each slice."""
        return (self.arrays.labels[row] for row in range(len(self)))

    def __getitem__(self, position: Position) -> dict[str, Any]:
        """Return `image` (C, h, w) float32, `label` (h, w) uint8, `case` and `slice`.

        Raises:
            SampleError: naming case and file.
        """
        case_id, slice_index = self.arrays.origin[index := position[1]]
        with naming(f"{case_id}, slice {slice_index}", self.arrays.images.path):
            unit_Chw = torch.from_numpy(self.arrays.images[index].astype(np.float32))
        with naming(f"{case_id}, slice {slice_index}", self.arrays.labels.path):
            label_hw = torch.from_numpy(self.arrays.labels[index])
        with naming(f"{case_id}, slice {slice_index}", self.arrays.images.path):
            key = sample_key(self.seed, position)
            unit_Chw, label_hw = self.augmentation(unit_Chw, label_hw, key)
            image_Chw: Tensor = self.preprocessing.standardise(unit_Chw)
        return {"image": image_Chw, "label": label_hw, "case": case_id, "slice": slice_index}


class EpochSampler(Sampler[Position]):
    """A new order for each epoch, from (seed, epoch) only; yields (epoch, index).

    Several processes share one order: with `world` of them, batch k of all together, each of
    `batch / world` samples, holds what batch k of a single process holds. What does not divide
    among them is left out, and what comes after the first `used` samples.

    With `balance`, that share of an epoch's places is drawn for a class, each class as often as
    every other however rare: first the class, then one of the samples that hold it. Where those
    places lie in the order is drawn as well. Source: nnU-Net (Isensee et al., Nature Methods 2021)
    makes sure of foreground in a third of its patches in this way.

    Args:
        length: number of samples.
        seed: of the order.
        rank: number of this process, counted from 0.
        world: number of processes.
        start: (epoch, count): the first epoch, and how many of this process's samples in it were
            seen before an interruption and are left out.
        used: samples of an epoch, of all processes together; None is all.
        streams: (batch size, workers) of this process repeats the paper's defect: every worker
            draws from the same stream, and from its start in each epoch. Positions then have a
            third number, the place in it.
        balance: 0 to 1.
        holders: for each class, the samples that hold it; classes without any are passed over.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        *,
        rank: int = 0,
        world: int = 1,
        start: tuple[int, int] = (0, 0),
        used: int | None = None,
        streams: tuple[int, int] | None = None,
        balance: float = 0.0,
        holders: Sequence[NDArray[np.int64]] = (),
    ) -> None:
        self.balance = balance
        self.holders = [samples for samples in holders if len(samples)]
        self.length = length
        self.seed = seed
        self.rank = rank
        self.world = world
        self.start = start
        self.shared = (length if used is None else used) // world * world
        self.streams = streams
        self.epoch = start[0]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this at the start of each."""
        self.epoch = epoch

    @property
    def _seen(self) -> int:
        return self.start[1] if self.epoch == self.start[0] else 0

    def __len__(self) -> int:
        return self.shared // self.world - self._seen

    def __iter__(self) -> Iterator[Position]:
        draw = np.random.default_rng([self.seed, self.epoch])
        order = draw.permutation(self.length)
        if self.balance and self.holders:
            places = draw.permutation(self.length)[: round(self.balance * self.length)]
            classes = draw.integers(len(self.holders), size=len(places))
            order[places] = [draw.choice(self.holders[index]) for index in classes]
        own = order[: self.shared][self.rank :: self.world][self._seen :]
        epoch = self.epoch  # of this pass, even if it is set anew while somebody still reads
        if self.streams is None:
            return ((epoch, index) for index in own.tolist())
        batch, workers = self.streams
        seen = range(self._seen, self._seen + len(own))
        in_stream = [at // (batch * workers) * batch + at % batch for at in seen]
        return zip(repeat(epoch), own.tolist(), in_stream, strict=False)
