"""Training samples at the images' own size, augmented there and then brought to the network's.

The paper's way, and slow by nature: nothing can be resized beforehand.

Axes: C channels, H rows and W columns of the image; h, w of the network's input.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from msa2net.data.loading.paper_augment import PaperAugmentation
from msa2net.data.loading.sampler import Position, sample_key
from msa2net.data.prepared.slice_files import error_context
from msa2net.data.prepared.store import Store, image_path
from msa2net.data.preprocessing import Preprocessing, ValueRange


class FullResolutionDataset(Dataset[dict[str, Any]]):
    """Slices of splits, indexed and drawn as those of `SliceDataset`."""

    def __init__(
        self,
        store: Store,
        preprocessing: Preprocessing,
        augmentation: PaperAugmentation,
        seed: int,
        splits: Sequence[str],
    ) -> None:
        self.store = store
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.seed = seed
        ids = {case_id for split in splits for case_id in store.ids(split)}
        self.origin = [
            (row.id, index) for row in store.cases if row.id in ids for index in range(row.shape[1])
        ]
        self._ranges: dict[str, ValueRange] = {}

    def __len__(self) -> int:
        return len(self.origin)

    def labels(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the label (H, W) of each slice."""
        for case_id, index in self.origin:
            label = self.store.case(case_id, strict=index == 0).label
            assert label is not None
            yield np.asarray(label[index])

    def __getitem__(self, position: Position) -> dict[str, Any]:
        """Return `image` (C, h, w) float32, `label` (h, w) uint8, `case` and `slice`.

        Raises:
            SampleError: naming case and file.
        """
        case_id, index = self.origin[position[1]]
        with error_context(f"{case_id}, slice {index}", image_path(self.store.root, case_id)):
            case = self.store.case(case_id, strict=case_id not in self._ranges)
            assert case.label is not None
            if case_id not in self._ranges:
                self._ranges[case_id] = self.preprocessing.intensity_range(case.image)
            unit_1CHW = self.preprocessing.native_slices(
                case.image[:, index : index + 1], self._ranges[case_id]
            )
            unit_CHW, label_HW = self.augmentation(
                torch.from_numpy(unit_1CHW[0]),
                torch.from_numpy(np.array(case.label[index])),
                sample_key(self.seed, position),
            )
            unit_1Chw = self.preprocessing.resize_slices(unit_CHW[None].numpy())
            image_Chw = torch.from_numpy(self.preprocessing.standardise(unit_1Chw[0]))
            label_hw = self.preprocessing.published_labels(label_HW[None].numpy())[0]
        return {
            "image": image_Chw,
            "label": torch.from_numpy(label_hw),
            "case": case_id,
            "slice": index,
        }
