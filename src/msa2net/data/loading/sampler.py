"""In which order an epoch's samples come: drawn from (seed, epoch), perhaps balanced by class."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

Position = tuple[int, ...]  # (epoch, index), and with repeated streams a place in the stream


def sample_key(seed: int, position: Position) -> tuple[int, int, int]:
    """Return what a sample's augmentation is drawn from: (seed, epoch, index).

    A third number in its position stands for both: the place in a stream that is the same in
    every epoch.
    """
    epoch, index, *place = position
    return (seed, 0, place[0]) if place else (seed, epoch, index)


def slices_by_class(
    labels: Iterable[NDArray[np.uint8]], num_classes: int
) -> list[NDArray[np.int64]]:
    """Return for each class but the background the slices that hold it."""
    held = np.array([np.bincount(label.ravel(), minlength=256) > 0 for label in labels])
    return [np.flatnonzero(held[:, index]) for index in range(1, num_classes)]


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
