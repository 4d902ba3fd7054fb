"""What the volume formats share: reading an image with its label, and splitting by patient."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Case
from msa2net.data.geometry import require_same_grid
from msa2net.data.io.nifti import read_nifti_label
from msa2net.data.io.readers import read_channels
from msa2net.data.prepared.splits import SPLITS, split_by_ratio

SEED = 0  # of every split that is drawn rather than given
NIFTI_ENDINGS = (".nii.gz", ".nii")

ToClasses = Callable[[NDArray[Any], str], NDArray[np.uint8]]
"""Turns a label file's values into class indices; the string names the file for errors."""


def read_nifti_case(case_id: str, files: Sequence[Path], to_classes: ToClasses) -> Case:
    """Read one file a channel (or one file of several channels), then the label, as one Case.

    Raises:
        DataError: a file cannot be read, or they do not lie on the same grid.
    """
    *images, label = files
    case = read_channels(images, case_id)
    values_ZHW, label_geometry = read_nifti_label(label)
    require_same_grid(
        case_id,
        (images[0], case.image.shape[1:], case.geometry),
        (label, values_ZHW.shape, label_geometry),
    )
    return replace(case, label=to_classes(values_ZHW, str(label)))


def split_patients(patients: Iterable[str], splits: Sequence[str] = SPLITS) -> dict[str, str]:
    """Draw a split for each patient, always the same one.

    Three splits get 70, 10 and 20 % of the patients; two (train and val) get 7 to 1. With fewer
    patients than splits all are in train, so that a single example can still be prepared.
    """
    ids = sorted(set(patients))
    if len(ids) < len(splits):
        return dict.fromkeys(ids, "train")
    if len(splits) == len(SPLITS):
        return split_by_ratio(ids, seed=SEED)
    shuffled = np.random.default_rng(SEED).permutation(ids).tolist()
    val = max(1, round(len(ids) / 8))
    return dict(zip(shuffled, ["val"] * val + ["train"] * (len(ids) - val), strict=True))
