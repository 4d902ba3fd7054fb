"""Slices through networks and back: batches, windows, and what to do when memory runs out.

Axes: B slices of a batch, C channels, Z slices of a case, H rows, W columns, K classes, k some of
them; h, w are rows and columns of what a network looks at. Z, H and W are those of the training
orientation (see `orientation`): a case that lies otherwise is looked at along its axes, and its
labels are written through the same view.
"""

import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Case
from msa2net.data.io.validation import format_bytes
from msa2net.data.preprocessing import ValueRange
from msa2net.data.resampling import ResizePad
from msa2net.errors import ConfigError, DataError, is_out_of_memory
from msa2net.inference.backend import Backend
from msa2net.options import InferenceOptions
from msa2net.quality.confidence import MemberOutputs
from msa2net.quality.monitor import CaseMonitor

Resampling = Literal["probabilities", "labels"]
"""What is resampled to a case's own grid: class probabilities, or only the most probable class."""

_PLANE_BYTES = 2 * 2**30
"""What sliding over one slice may take: a photograph of 100 million pixels in two classes does."""


@dataclass(eq=False)
class Pending:
    """A case of which some slices are still on their way through the networks.

    Attributes:
        case: it.
        image: (C, Z, H, W), its image, along the training's axes.
        ranges, placements: for each group of networks.
        windows: that a slice takes, of all networks the most.
        labels: along the same axes, for each way back to its grid that is asked for.
        done: slices finished.
        watch: its monitor; None if nobody asks.
    """

    case: Case
    image: NDArray[np.generic]
    ranges: list[ValueRange]
    placements: list[ResizePad]
    windows: int
    labels: dict[Resampling, NDArray[np.uint8]]
    done: int = 0
    watch: CaseMonitor | None = None


@dataclass(eq=False)
class Slice:
    """One slice ready for the networks.

    Attributes:
        owner: its case.
        index: in the case.
        units: (1, C, h, w) for each group of networks.
    """

    owner: Pending
    index: int
    units: list[NDArray[np.float32]]


class Engine:
    """Groups of networks at work; may be used from several threads, of which one computes.

    Args:
        groups: their probabilities are averaged, every network with the same weight.
        classes: that the networks tell apart.
        options: how they are applied.
    """

    def __init__(
        self,
        groups: tuple[Backend, ...],
        classes: int,
        options: InferenceOptions,
    ) -> None:
        self.groups = groups
        self._classes = classes
        self.mode = options.mode
        self.overlap = options.overlap
        self._most = options.batch_slices
        self._block_bytes = options.block_bytes
        self._batch: int | None = None
        self._lock = threading.RLock()

    @property
    def batch(self) -> int:
        """Windows that go through a network at once; a resized slice is one window."""
        with self._lock:
            if self._batch is None:
                pixels = max(math.prod(one.preprocessing.image_size) for one in self.groups)
                slice_bytes = 4 * self._classes * pixels
                self._batch = self.groups[0].choose_batch_size(self._probe, slice_bytes, self._most)
            return self._batch

    def begin(self, case: Case, ways: tuple[Resampling, ...]) -> Pending:
        """Look at the whole image once, before any of it is segmented."""
        try:
            turned = self.groups[0].preprocessing.to_plane(case)
            image_CZHW, spacing_mm = turned.image, turned.geometry.spacing_mm
            size = image_CZHW.shape[2], image_CZHW.shape[3]
            ranges, placements, windows = [], [], 1
            for preprocessing in (group.preprocessing for group in self.groups):
                preprocessing.check_channels(len(image_CZHW))
                preprocessing.check_values(image_CZHW)  # before all of it is read
                ranges.append(preprocessing.intensity_range(image_CZHW))
                placement = preprocessing.placement(size)
                if self.mode == "sliding":
                    in_plane = None if spacing_mm is None else spacing_mm[1:]
                    placement = preprocessing.window_placement(size, in_plane)
                    self._check_plane(placement, size, in_plane)
                    count = count_windows(placement.size, preprocessing.image_size, self.overlap)
                    windows = max(windows, count)
                placements.append(placement)
        except DataError as error:
            raise DataError(f"{case.source or case.id}: {error}") from error
        labels = {way: np.zeros(image_CZHW.shape[1:], dtype=np.uint8) for way in ways}
        return Pending(case, image_CZHW, ranges, placements, windows, labels)

    def _check_plane(
        self, placement: ResizePad, size: tuple[int, int], spacing_mm: tuple[float, float] | None
    ) -> None:
        """Refuse what windows would have to slide over, before memory is taken for it.

        Raises:
            DataError: its outputs, or the matrices that lead to it, would exceed `_PLANE_BYTES`.
        """
        rows, columns = placement.size
        channels = self.groups[0].preprocessing.channels
        needed = 4 * max(
            rows * columns * (channels + self._classes), rows * size[0], columns * size[1]
        )
        if needed > _PLANE_BYTES:
            mm = "" if spacing_mm is None else "×".join(f"{mm:.4g}" for mm in spacing_mm)
            raise DataError(
                f"windows would slide over {rows:.6g}×{columns:.6g} pixels"
                f"{f', since those of the image are {mm} mm apart' if mm else ''}: more than "
                f"{format_bytes(_PLANE_BYTES)} of outputs; correct the spacing if it is wrong, or "
                "leave sliding windows"
            )

    def prepare(self, owner: Pending, index: int) -> Slice:
        """Bring one slice of a case to what the networks look at."""
        image_C1HW = owner.image[:, index : index + 1]
        each = zip(self.groups, owner.ranges, owner.placements, strict=True)
        units = [g.preprocessing.unit_slices(image_C1HW, r, p) for g, r, p in each]
        if owner.watch is not None and owner.watch.measures_slice(index):
            unit_1Chw, place = units[0], owner.placements[0]
            if self.mode == "sliding":  # what is usual is known of slices as they were trained on
                first = self.groups[0].preprocessing
                place = first.placement((owner.image.shape[2], owner.image.shape[3]))
                unit_1Chw = first.unit_slices(image_C1HW, owner.ranges[0], place)
            owner.watch.observe_input(unit_1Chw, place)
        return Slice(owner, index, units)

    def run(self, queue: list[Slice]) -> None:
        """Segment the slices of a queue and empty it, in smaller batches where memory runs out."""
        while queue:
            batch = self.batch
            part = _first_windows(queue, batch)
            try:
                with self._lock:
                    self._run_at_once(part, batch)
                del queue[: len(part)]
                continue
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of `except`: the error holds the arrays that are to be freed.
            with self._lock:
                if self._batch == batch:  # no other thread was faster
                    case = part[0].owner.case
                    try:
                        self._batch = self.groups[0].halved_batch_size(batch)
                    except ConfigError as error:
                        raise ConfigError(f"{case.source or case.id}: {error}") from error

    def _run_at_once(self, part: list[Slice], batch: int) -> None:
        finished, notes = [], []
        for _, same in groupby(part, key=lambda entry: [unit.shape for unit in entry.units]):
            entries = list(same)
            found = []  # probabilities (B, K, h, w) of each group of networks
            # Single outputs of the first group, if anybody asks for them. Those to windows say
            # nothing, since limits are known of outputs for resized slices.
            asked_for = self.mode == "resize" and any(entry.owner.watch for entry in entries)
            outputs = MemberOutputs() if asked_for else None
            for number, group in enumerate(self.groups):
                unit_BChw = np.concatenate([entry.units[number] for entry in entries])
                asked = None if number else outputs
                found.append(group.probabilities(unit_BChw, batch, self.mode, self.overlap, asked))
            for start, end in _same_owner(entries):
                owner, first = entries[start].owner, entries[start].index
                if owner.watch is not None and outputs is not None:
                    place = owner.placements[0]
                    notes.append(owner.watch.observe_output(outputs, start, end, first, place))
                own = [probability_BKhw[start:end] for probability_BKhw in found]
                finished += [
                    (owner, first, way, self._resample_to_native(own, owner, way))
                    for way in owner.labels
                ]
        # Nothing is kept before all is there: where memory runs out, the part comes again.
        for note in notes:
            note()
        for owner, first, way, labels_ZHW in finished:
            owner.labels[way][first : first + len(labels_ZHW)] = labels_ZHW
        for entry in part:
            entry.owner.done += 1

    def _resample_to_native(
        self, found_ZKhw: list[Any], owner: Pending, way: Resampling
    ) -> NDArray[np.uint8]:
        """Return labels (Z, H, W) of the case's size (H, W)."""
        size, first = (owner.image.shape[2], owner.image.shape[3]), self.groups[0]
        if way == "labels":
            labels_Zhw = most_probable(first, found_ZKhw[:1])
            return first.preprocessing.invert_labels(labels_Zhw, size, owner.placements[0])
        total, classes = found_ZKhw[0].shape[:2]
        a_class = 4 * math.prod(size)
        slices = max(1, self._block_bytes // (a_class * classes))
        some = max(1, self._block_bytes // a_class)  # all classes, where a slice of them has room
        rows = size[0]
        if a_class > self._block_bytes:  # not even one class has room: bands of rows
            rows = max(1, self._block_bytes // (64 * size[1]))
        labels_ZHW = np.empty((total, *size), np.uint8)
        for z in range(0, total, slices):
            for y in range(0, size[0], rows):
                band = slice(y, y + rows)
                parts = (
                    self._mean_on_grid(
                        [found[z : z + slices, k : k + some] for found in found_ZKhw],
                        size,
                        owner,
                        band,
                    )
                    for k in range(0, classes, some)
                )
                labels_ZHW[z : z + slices, band] = most_probable(first, parts)
        return labels_ZHW

    def _mean_on_grid(
        self, found_Zkhw: list[Any], size: tuple[int, int], owner: Pending, band: slice
    ) -> Any:
        """Return the sum over all networks, (Z, k, H, W); the largest stays so undivided.

        Args:
            found_Zkhw: of each group.
            size: (H, W) of the case.
            owner: the case.
            band: which of its rows.
        """
        sum_ZkHW = None
        for group, own_Zkhw, placement in zip(
            self.groups, found_Zkhw, owner.placements, strict=True
        ):
            weight = group.count if len(self.groups) > 1 else 1
            own_ZkHW = group.on_grid(own_Zkhw, size, placement, weight, band)
            sum_ZkHW = own_ZkHW if sum_ZkHW is None else self.groups[0].add(sum_ZkHW, own_ZkHW)
        return sum_ZkHW

    def _probe(self, count: int) -> None:
        """Send slices of nothing through every network, to measure the memory it takes."""
        for group in self.groups:
            group.probe(count)


def most_probable(networks: Backend, parts_BkHW: Iterable[Any]) -> NDArray[np.uint8]:
    """Return the classes (B, H, W) with the largest values, the first of equals.

    Args:
        networks: of whose outputs the values are.
        parts_BkHW: those of the first classes, of the next ones, and so on.
    """
    count, largest_BHW, labels_BHW = 0, None, None
    for values_BkHW in parts_BkHW:
        own_BHW, index_BHW = networks.largest(values_BkHW)
        if count:
            exceeds_BHW = own_BHW > largest_BHW
            index_BHW = (index_BHW + count) * exceeds_BHW + labels_BHW * ~exceeds_BHW
            own_BHW = own_BHW.clip(min=largest_BHW)
        count += values_BkHW.shape[1]
        largest_BHW, labels_BHW = own_BHW, index_BHW
        del values_BkHW  # or it would stay while the next part is made
    return networks.as_array(labels_BHW)


def _first_windows(queue: list[Slice], batch: int) -> list[Slice]:
    """Return the first slices of a queue that take at most `batch` windows, at least one."""
    count = windows = 0
    for entry in queue:
        windows += entry.owner.windows
        if count and windows > batch:
            break
        count += 1
    return queue[:count]


def _same_owner(entries: list[Slice]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the runs of slices that belong to the same case."""
    start = 0
    for end in range(1, len(entries) + 1):
        if end == len(entries) or entries[end].owner is not entries[start].owner:
            yield start, end
            start = end


def count_windows(size: tuple[int, int], window: tuple[int, int], overlap: float) -> int:
    """Return how many windows MONAI lays over an image of (rows, columns)."""
    count = 1
    for length, side in zip(size, window, strict=True):
        step = max(1, int(side * (1 - overlap)))
        count *= 1 + max(0, -(-(length - side) // step))
    return count
