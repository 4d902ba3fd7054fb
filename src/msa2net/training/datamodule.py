"""Loaders: augmented slices for training, whole cases for validation."""

import multiprocessing
import os
import signal
from collections.abc import MutableSequence, Sequence
from functools import partial
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from msa2net.config import Config
from msa2net.data.case import Case
from msa2net.data.loading.augment import Augmentation
from msa2net.data.loading.native_resolution import FullResolutionDataset
from msa2net.data.loading.paper_augment import PaperAugmentation
from msa2net.data.loading.sampler import EpochSampler, slices_by_class
from msa2net.data.loading.slices import SliceDataset
from msa2net.data.prepared.slice_files import build_slices, error_context
from msa2net.data.prepared.store import Store, image_path
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError
from msa2net.training.distributed import share_to_score


class CaseDataset(Dataset[Case]):
    """Whole cases of one split, memory-mapped."""

    def __init__(self, store: Store, split: str) -> None:
        self.store = store
        self.ids = store.ids(split)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Case:
        case_id = self.ids[index]
        with error_context(case_id, image_path(self.store.root, case_id)):
            return self.store.case(case_id)


class SegmentationData(L.LightningDataModule):
    """The training and validation loaders of a run; builds its slices if that was not done yet.

    Attributes:
        batch_size: of all processes together, never more than there are slices.
        part_size: slices that a process computes at once.
        steps_per_epoch: batches; an incomplete last one is left out.
        start: (epoch, batches) that are done; the first epoch's loader holds the rest.
        holders: with `train.oversample_foreground`, the slices that hold each class, the
            background left out.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        preprocessing: Preprocessing,
        training_splits: tuple[str, ...] = ("train",),
        processes: int = 1,
    ) -> None:
        super().__init__()
        self.config = config
        self.store = store
        self.dataset = create_dataset(config, store, preprocessing, training_splits)
        parts = processes * config.train.accumulate
        self.batch_size = whole_parts(config.train.batch_size, len(self.dataset), parts)
        self.part_size = self.batch_size // parts
        self.steps_per_epoch = len(self.dataset) // self.batch_size
        self.start = (0, 0)
        self._worker_ids: list[MutableSequence[int]] = []
        self._repeats = "streams" in config.augment.paper_defects
        self.holders = []
        if config.train.oversample_foreground:
            self.holders = slices_by_class(self.dataset.labels(), len(store.label_names))

    def count_slices_by_class(self) -> dict[str, int]:
        """Return how many slices hold each class that `train.oversample_foreground` draws for."""
        names = self.store.label_names[1:]
        return {name: len(held) for name, held in zip(names, self.holders, strict=True)}

    def balance_notes(self) -> list[str]:
        """Say what `train.oversample_foreground` does to this data."""
        if not self.holders:
            return []
        counts = ", ".join(
            f"{name} in {count}" for name, count in self.count_slices_by_class().items()
        )
        share = self.config.train.oversample_foreground
        return [
            f"train.oversample_foreground: {share:.0%} of the samples are drawn for a class, each "
            f"class as often as every other; of {len(self.dataset)} slices {counts}"
        ]

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Load the running epoch's augmented slices from `start` on."""
        train = self.config.train
        rank, world, epoch, on_gpu = 0, 1, self.start[0], False
        if self.trainer is not None:
            on_gpu = self.trainer.strategy.root_device.type == "cuda"
            rank, world = self.trainer.global_rank, self.trainer.world_size
            epoch = self.trainer.current_epoch
        done = self.start[1] if epoch == self.start[0] else 0
        sampler = EpochSampler(
            len(self.dataset),
            train.seed,
            rank=rank,
            world=world,
            start=(epoch, done * self.batch_size // world),
            streams=(self.part_size, max(1, train.workers)) if self._repeats else None,
            used=self.steps_per_epoch * self.batch_size,
            balance=train.oversample_foreground,
            holders=self.holders,
        )
        worker_ids = torch.multiprocessing.Array("q", train.workers, lock=False)
        self._worker_ids.append(worker_ids)
        return DataLoader(
            self.dataset,
            batch_size=self.part_size,
            sampler=sampler,
            num_workers=train.workers,
            persistent_workers=train.workers > 0,
            worker_init_fn=partial(_begin_worker, worker_ids),
            drop_last=True,
            pin_memory=on_gpu,  # so that Lightning's transfer does not wait for its end
        )

    def val_dataloader(self) -> DataLoader[Case]:
        """Load the monitored split's cases in groups that fill the network's batches."""
        cases = CaseDataset(self.store, self.config.train.monitor)
        if self.trainer is not None:  # each process scores its share, see `gather_rows`
            rank, world = self.trainer.global_rank, self.trainer.world_size
            cases.ids = share_to_score(cases.ids, rank, world)
        group = self.config.batch_slices if self.store.kind == "photograph" else 1
        return DataLoader(cases, batch_size=group, collate_fn=list)

    def end_workers(self) -> None:
        """End loading processes that outlived the training, which as a rule has ended them.

        One that hangs ignores the polite request as it ignores signals, and Python would wait
        for it at exit, for ever.
        """
        ids = {process_id for worker_ids in self._worker_ids for process_id in worker_ids}
        for process in multiprocessing.active_children():
            if process.pid in ids:
                process.kill()
                process.join()

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move training batches; cases stay memory-mapped, the predictor moves their slices."""
        if isinstance(batch, list):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)


def create_dataset(
    config: Config, store: Store, preprocessing: Preprocessing, splits: Sequence[str]
) -> SliceDataset | FullResolutionDataset:
    """Choose where samples are augmented: at the network's size, or at the image's own."""
    augment, seed = config.augment, config.train.seed
    if augment.recipe == "paper":
        changes = PaperAugmentation(augment.paper_defects)
        return FullResolutionDataset(store, preprocessing, changes, seed, splits)
    arrays = build_slices(store, preprocessing, splits)
    return SliceDataset(arrays, preprocessing, Augmentation(augment), seed)


def whole_parts(batch_size: int, samples: int, parts: int) -> int:
    """Return the batch size, or the largest for few samples, that consists of equal parts.

    Raises:
        ConfigError: there is none.
    """
    if batch_size % parts:
        lower = batch_size // parts * parts
        near = f"{lower} or {lower + parts}" if lower else str(parts)
        raise ConfigError(
            f"train.batch_size is {batch_size} and has to be dealt out to {parts} equal parts "
            f"(processes × train.accumulate); use {near}"
        )
    fits = min(batch_size, samples // parts * parts)
    if not fits:
        raise ConfigError(
            f"there are {samples} slices to train on, fewer than {parts} parts of a batch "
            "(processes × train.accumulate)"
        )
    return fits


def _begin_worker(worker_ids: MutableSequence[int], index: int) -> None:
    """Ignore what is sent to the whole process group: the running batch is to be finished.

    A worker whose trainer is gone leaves by itself.
    """
    worker_ids[index] = os.getpid()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
