"""Loaders: augmented slices for training, whole cases for validation."""

from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from msa2net.config import Config
from msa2net.data.augment import Augmentation
from msa2net.data.case import Case
from msa2net.data.preprocessing import Preprocessing
from msa2net.data.slices import EpochSampler, SliceDataset, build_slices
from msa2net.data.store import Store


class CaseDataset(Dataset[Case]):
    """Whole cases of one split, memory-mapped."""

    def __init__(self, store: Store, split: str) -> None:
        self.store = store
        self.ids = store.ids(split)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Case:
        return self.store.case(self.ids[index])


class SegmentationData(L.LightningDataModule):
    """The training and validation loaders of a run."""

    def __init__(
        self,
        config: Config,
        store: Store,
        preprocessing: Preprocessing,
        training_splits: tuple[str, ...] = ("train",),
    ) -> None:
        super().__init__()
        self.training_splits = training_splits
        self.config = config
        self.store = store
        self.preprocessing = preprocessing

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Load augmented slices; an incomplete last batch is left out."""
        train = self.config.train
        dataset = SliceDataset(
            build_slices(self.store, self.preprocessing, self.training_splits),
            self.preprocessing,
            Augmentation(self.config.augment),
            train.seed,
        )
        return DataLoader(
            dataset,
            batch_size=min(train.batch_size, len(dataset)),
            sampler=EpochSampler(len(dataset), train.seed),
            num_workers=train.workers,
            persistent_workers=train.workers > 0,
            drop_last=True,
        )

    def val_dataloader(self) -> DataLoader[Case]:
        """Load the monitored split's cases in groups that fill the network's batches."""
        split = self.config.train.monitor
        group = self.config.batch_slices if self.store.kind == "photograph" else 1
        return DataLoader(CaseDataset(self.store, split), batch_size=group, collate_fn=list)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move training batches; cases stay memory-mapped, the predictor moves their slices."""
        if isinstance(batch, list):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)
