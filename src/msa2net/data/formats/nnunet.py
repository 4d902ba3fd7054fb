"""nnU-Net's raw data layout, which also fits the Medical Segmentation Decathlon.

    dataset.json
    imagesTr/NAME_0000.nii.gz, NAME_0001.nii.gz, …     one file a channel
    labelsTr/NAME.nii.gz
    imagesTs/, labelsTs/                               optional
    splits_final.json                                  optional, as nnU-Net writes it

Version 2 (`channel_names`, `labels` as name → id, `file_ending`) and version 1 (`modality`,
`labels` as id → name) are read. The Decathlon keeps all channels in one `imagesTr/NAME.nii.gz`.

Source: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.config import DataConfig
from msa2net.data.case import Case
from msa2net.data.formats.listing import (
    by_name,
    raw_folder,
    strip_ending,
    subfolder,
    warn_of_unread,
)
from msa2net.data.formats.source import (
    HU_WINDOW,
    NIFTI_ENDINGS,
    PERCENTILES,
    MeaningOf255,
    Source,
    read_nifti_case,
    source_cases,
    split_patients,
)
from msa2net.data.io.nifti import read_nifti_label
from msa2net.data.io.readers import list_files
from msa2net.data.labels import IGNORE, apply_label_table, class_table
from msa2net.data.prepared.splits import (
    check_splits,
    patient_of,
    refuse_parted_patients,
    splits_of_cases,
)
from msa2net.errors import DataError
from msa2net.files import read_json
from msa2net.text import listed

LAYOUT = "dataset.json, imagesTr/ and labelsTr/"
IGNORE_NAME = "ignore"  # nnU-Net's reserved class name
Files = tuple[Path, ...]  # the channels, then the label

_FOLD = ("train", "val")


@dataclass(frozen=True)
class Description:
    """What dataset.json says.

    Attributes:
        channels: their names, in the order of the files.
        label_names: one name per class, background first.
        ignored: the label value that counts nowhere; None if there is none.
        ending: of all image and label files.
    """

    channels: tuple[str, ...]
    label_names: tuple[str, ...]
    ignored: int | None
    ending: str


def open_nnunet(data: DataConfig) -> Source:
    """Open the data set.

    Intensities: when the only channel is called CT, HU from −125 to 275 are kept, the soft-tissue
    window of the abdominal data sets; everything else is scaled by each volume's 0.5–99.5
    percentiles, each channel by its own.

    Splits: fold 0 of `splits_final.json` gives train and val, if there is such a file, else they
    are drawn once and for all; `imagesTs` is test when `labelsTs` has its labels, else test is
    drawn too, unless there is a `splits_final.json`. Lists in `splits/{train,val,test}.txt` go
    before all this. Names that differ only in a last `_frame01` or `_slice001` are taken for one
    patient and never part. Label 255 is ignored, except for two classes, see `MeaningOf255`.

    Raises:
        ConfigError: no folder given.
        DataError: dataset.json or files are missing or wrong; regions (classes that overlap).
    """
    root = raw_folder(data.root, LAYOUT)
    description = read_description(root / "dataset.json")
    training = _cases(root, "Tr", description)
    testing = _cases(root, "Ts", description) if (root / "labelsTs").is_dir() else {}
    twice = sorted(training.keys() & testing.keys())
    if twice:
        raise DataError(
            f"{root}: {twice[0]} is in labelsTr/ and in labelsTs/; remove one of the two"
        )
    splits = _splits(root, sorted(training), sorted(testing))
    is_ct = [name.upper() for name in description.channels] == ["CT"]
    files = training | testing
    meaning_255 = None
    if len(description.label_names) == 2 and description.ignored is None:
        meaning_255 = MeaningOf255(
            (paths[-1] for paths in files.values()), lambda p: read_nifti_label(p)[0]
        )
    return Source(
        kind="volume",
        label_names=description.label_names,
        scaling=HU_WINDOW if is_ct else PERCENTILES,
        cases=source_cases(
            files,
            splits,
            partial(_read, description=description, meaning_255=meaning_255),
            {case_id: patient_of(case_id) for case_id in files},
        ),
        meaning_255=meaning_255,
    )


def read_description(path: Path) -> Description:
    """Read a dataset.json of either version.

    Raises:
        DataError: not one; regions; label ids with gaps; a file format that is not read.
    """
    if not path.is_file():
        raise DataError(f"{path.parent} holds no {path.name}; nnU-Net's layout is {LAYOUT}")
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise DataError(f"{path} has no 'labels'; is it nnU-Net's description of a data set?")
    channels = content.get("channel_names", content.get("modality"))
    if not isinstance(channels, dict) or not channels:
        raise DataError(f"{path} has neither 'channel_names' nor 'modality'; name the channels")
    numbers = {str(number) for number in range(len(channels))}
    if set(channels) != numbers:
        raise DataError(f"{path} numbers the channels {listed(channels)}; they count from 0")
    ending = str(content.get("file_ending", ".nii.gz"))
    if ending.lower() not in NIFTI_ENDINGS:
        raise DataError(
            f"{path}: files ending in '{ending}' are not read in this layout; convert them to "
            "NIfTI (.nii.gz), or use the format 'images' for 2-D images"
        )
    names = _names_by_id(content["labels"], path)
    ignored = next((value for value, name in names.items() if name == IGNORE_NAME), None)
    if ignored is not None:
        del names[ignored]
    return Description(
        channels=tuple(str(channels[number]) for number in sorted(numbers, key=int)),
        label_names=_label_names(names, path),
        ignored=ignored,
        ending=ending.lower(),
    )


def _names_by_id(labels: dict[str, Any], path: Path) -> dict[int, str]:
    """Return id → name from either version's table."""
    names: dict[int, str] = {}
    for key, value in labels.items():
        if isinstance(value, list):
            raise DataError(
                f"{path} declares the region '{key}' = {value}; classes that overlap are not "
                "supported, give every voxel one class"
            )
        version_1 = isinstance(value, str) and key.isdecimal()
        number, name = (key, value) if version_1 else (value, key)
        if isinstance(number, bool) or not str(number).isdecimal():
            raise DataError(f"{path}: the label '{name}' has the id {number!r}, not a whole number")
        if int(number) in names:
            raise DataError(
                f"{path}: '{names[int(number)]}' and '{name}' are both label {number}; classes "
                "that overlap are not supported"
            )
        names[int(number)] = str(name)
    return names


def _label_names(names: dict[int, str], path: Path) -> tuple[str, ...]:
    if not 2 <= len(names) <= IGNORE or sorted(names) != list(range(len(names))):
        raise DataError(
            f"{path} declares {len(names)} label ids, {listed(sorted(names))}; they must "
            f"run from 0 (background) without a gap, at least to 1 and at most to {IGNORE - 1}"
        )
    if len(set(names.values())) != len(names):
        raise DataError(f"{path} gives two labels the same name; name each differently")
    return tuple(names[value] for value in sorted(names))


def _cases(root: Path, part: str, description: Description) -> dict[str, Files]:
    """Map case id → files of one part, Tr or Ts."""
    images, labels = (subfolder(root, f"{name}{part}", LAYOUT) for name in ("images", "labels"))
    ending = description.ending
    masks, unused = _by_name(labels, ending), _by_name(images, ending)
    if not masks:
        raise DataError(f"{labels} holds no file ending in {ending}, as dataset.json says")
    cases: dict[str, Files] = {}
    for case_id, mask in masks.items():
        names = [f"{case_id}_{number:04d}" for number in range(len(description.channels))]
        if names[0] not in unused and case_id in unused:
            names = [case_id]  # the Decathlon: all channels in one file
        missing = [name for name in names if name not in unused]
        if missing:
            raise DataError(f"{mask} has no image {images / missing[0]}{ending}; add it")
        cases[case_id] = (*(unused.pop(name) for name in names), mask)
    if unused:
        raise DataError(
            f"{len(unused)} files in {images} belong to no label in {labels} and no declared "
            f"channel, first {unused[min(unused)].name}; add what is missing or move them away"
        )
    return cases


def _by_name(folder: Path, ending: str) -> dict[str, Path]:
    """Return the files by their names without the ending, and say what is not read."""
    paths = list_files(folder, (ending,))
    warn_of_unread(folder, paths)
    return by_name(paths, (strip_ending(path, (ending,)) for path in paths))


def _splits(root: Path, training: list[str], testing: list[str]) -> dict[str, str]:
    patients = {case_id: patient_of(case_id) for case_id in (*training, *testing)}
    test = dict.fromkeys(testing, "test")
    folds = root / "splits_final.json"
    if folds.is_file():
        default = check_splits(_first_fold(folds), training, origin=str(folds)) | test
        origin = str(folds)
    else:
        groups = {patients[case_id] for case_id in training}
        drawn = split_patients(groups, ("train", "val")) if testing else split_patients(groups)
        default = {case_id: drawn[patients[case_id]] for case_id in training} | test
        origin = str(root)
    if not (root / "splits").is_dir():
        refuse_parted_patients(default, patients, origin=origin)
        return default
    return splits_of_cases(root, patients, {})


def _first_fold(path: Path) -> dict[str, list[str]]:
    content = read_json(path)
    fold = content[0] if isinstance(content, list) and content else None
    lists = {split: fold.get(split) if isinstance(fold, dict) else None for split in _FOLD}
    for split, ids in lists.items():
        if not isinstance(ids, list) or not all(isinstance(case_id, str) for case_id in ids):
            raise DataError(f"{path} is no list of folds whose '{split}' is a list of case names")
    return {split: list(ids or ()) for split, ids in lists.items()}


def _read(
    case_id: str, files: Files, description: Description, meaning_255: MeaningOf255 | None
) -> Case:
    case = read_nifti_case(case_id, files, partial(_to_classes, description, meaning_255))
    if len(case.image) != len(description.channels):
        raise DataError(
            f"case {case_id}: {files[0]} has {len(case.image)} channels but dataset.json names "
            f"{len(description.channels)} ({listed(description.channels)})"
        )
    return case


def _to_classes(
    description: Description, meaning_255: MeaningOf255 | None, values: NDArray[Any], origin: str
) -> NDArray[np.uint8]:
    table = class_table(len(description.label_names))
    if description.ignored is not None:
        table[description.ignored] = IGNORE
    if meaning_255 is not None and meaning_255.is_foreground():
        table[IGNORE] = 1
    return apply_label_table(values, table, origin=origin, meaning="declared in dataset.json")
