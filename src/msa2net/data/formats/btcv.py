"""BTCV ("Synapse") abdominal CT as the challenge hands it out.

    img/img0001.nii.gz   label/label0001.nii.gz      in the folder itself or in its Training/

Source: https://www.synapse.org/#!Synapse:syn3193805. The lists are those of TransUNet, which most
papers on this data set follow.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.config import DataConfig
from msa2net.data.formats.listing import (
    by_name,
    raw_folder,
    subfolder,
    warn_of_unread,
)
from msa2net.data.formats.source import (
    HU_WINDOW,
    NIFTI_ENDINGS,
    Source,
    pair_by_id,
    read_nifti_case,
    source_cases,
    split_patients,
)
from msa2net.data.io.readers import list_files
from msa2net.data.labels import convert, label_names
from msa2net.data.prepared.splits import splits_of_cases
from msa2net.errors import DataError

TRAINING_SLICES: dict[str, int] = {
    "case0005": 117, "case0006": 131, "case0007": 163, "case0009": 149, "case0010": 148,
    "case0021": 143, "case0023": 96, "case0024": 124, "case0026": 131, "case0027": 88,
    "case0028": 89, "case0030": 153, "case0031": 93, "case0033": 104, "case0034": 98,
    "case0037": 99, "case0039": 90, "case0040": 195,
}  # fmt: skip
"""The 18 published training cases and their numbers of slices, 2,211 together."""

TEST_CASES: tuple[str, ...] = (
    "case0001", "case0002", "case0003", "case0004", "case0008", "case0022",
    "case0025", "case0029", "case0032", "case0035", "case0036", "case0038",
)  # fmt: skip
"""The 12 published test cases."""

VALIDATE_EVERY = 6
LAYOUT = "img/img0001.nii.gz and label/label0001.nii.gz, perhaps inside Training/"


def open_btcv(data: DataConfig) -> Source:
    """Open the data set; values are HU, of which −125…275 are kept.

    `data.labels` chooses the classes: `btcv` (the default) keeps all thirteen organs, the others
    keep eight in the named order. The 30 published cases are split by the published lists, with
    every 6th training case held out to validate; any other collection is split 70, 10, 20 %, drawn
    once and for all; fewer than three cases all go to train. Lists in
    `splits/{train,val,test}.txt` go before either. Cases are called `case0001`, as in the
    published lists.

    Raises:
        ConfigError: no folder given.
        DataError: folders, images or labels are missing.
    """
    root = raw_folder(data.root, LAYOUT)
    base = root / "Training" if (root / "Training").is_dir() else root
    images, labels = (_numbered(subfolder(base, name, LAYOUT)) for name in ("img", "label"))
    pairs = pair_by_id(
        images,
        labels,
        lambda case_id: str(base / "img" / f"img{case_id.removeprefix('case')}.nii.gz"),
        lambda case_id: str(base / "label" / f"label{case_id.removeprefix('case')}.nii.gz"),
    )
    splits = splits_of_cases(root, {case_id: case_id for case_id in pairs}, _splits(set(pairs)))
    encoding = data.labels or "btcv"
    return Source(
        kind="volume",
        label_names=label_names(encoding),
        scaling=HU_WINDOW,
        cases=source_cases(
            pairs, splits, partial(read_nifti_case, to_classes=partial(_to_classes, encoding))
        ),
        encoding=encoding,
    )


def split_training_cases(cases: set[str]) -> dict[str, str]:
    """Split cases that are not for testing into train and val.

    The paper has no validation set. Of its 18 training cases every 6th in order of number is taken
    to validate (0021, 0030, 0040), so 15 are left to train on; other collections are drawn 7 to 1.
    """
    if cases != set(TRAINING_SLICES):
        return split_patients(cases, ("train", "val"))
    return {
        case_id: "train" if position % VALIDATE_EVERY else "val"
        for position, case_id in enumerate(sorted(cases), start=1)
    }


def _splits(cases: set[str]) -> dict[str, str]:
    if cases != {*TRAINING_SLICES, *TEST_CASES}:
        return split_patients(cases)
    return split_training_cases(set(TRAINING_SLICES)) | dict.fromkeys(TEST_CASES, "test")


def _numbered(folder: Path) -> dict[str, Path]:
    """Map case id → file for `img0001.nii.gz` or `label0001.nii.gz` in the folder of that name."""
    pattern = re.compile(rf"{folder.name}(\d+)(?i:\.nii(\.gz)?)")
    files = list_files(folder, NIFTI_ENDINGS)
    warn_of_unread(folder, files)
    case_ids = []
    for path in files:
        match = pattern.fullmatch(path.name)
        if match is None:
            raise DataError(f"{path} is not named like {folder.name}0001.nii.gz")
        case_ids.append(f"case{int(match[1]):04d}")
    if not files:
        raise DataError(f"{folder} holds no {folder.name}0001.nii.gz or the like")
    return by_name(files, case_ids)


def _to_classes(encoding: str, values: NDArray[Any], origin: str) -> NDArray[np.uint8]:
    return convert(values, "btcv", encoding, origin=origin)
