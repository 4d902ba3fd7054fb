"""Training samples: slices at the network's size, read at random and augmented.

Axes: C channels, h rows and w columns of the network's input.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from msa2net.data.loading.augment import Augmentation
from msa2net.data.loading.sampler import Position, sample_key
from msa2net.data.prepared.slice_files import SliceArrays, error_context
from msa2net.data.preprocessing import Preprocessing


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
        return (self.arrays.label(index) for index in range(len(self)))

    def __getitem__(self, position: Position) -> dict[str, Any]:
        """Return `image` (C, h, w) float32, `label` (h, w) uint8, `case` and `slice`.

        Raises:
            SampleError: naming case and file.
        """
        case_id, slice_index = self.arrays.origin[index := position[1]]
        with error_context(f"{case_id}, slice {slice_index}", self.arrays.path(index)):
            half_Chw, read_hw = self.arrays[index]
            unit_Chw = torch.from_numpy(half_Chw.astype(np.float32))
            unit_Chw, label_hw = self.augmentation(
                unit_Chw, torch.from_numpy(read_hw), sample_key(self.seed, position)
            )
            image_Chw: Tensor = self.preprocessing.standardise(unit_Chw)
        return {"image": image_Chw, "label": label_hw, "case": case_id, "slice": slice_index}
