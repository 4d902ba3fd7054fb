"""TransUNet's preprocessed Synapse data, which most 2-D networks on this benchmark train on.

    train_npz/case0005_slice000.npz      image, label: (rows, columns)
    test_vol_h5/case0001.npy.h5          image, label: (slices, rows, columns)

Images hold HU clipped to −125…275 and scaled to 0…1, and are brought back to HU. The lists of the
TransUNet repository are built in and need not be there. Source:
https://github.com/Beckschen/TransUNet.
"""

import re
from functools import partial
from pathlib import Path

from msa2net.config import DataConfig
from msa2net.data.case import Case
from msa2net.data.formats.btcv import TRAINING_SLICES, split_training_cases
from msa2net.data.formats.listing import raw_folder, strip_ending
from msa2net.data.formats.source import HU_WINDOW, Source, source_cases, split_patients
from msa2net.data.formats.synapse_files import (
    TEST_ENDING,
    TEST_FOLDER,
    TRAIN_ENDING,
    TRAIN_FOLDER,
    read_test_volume,
    read_training_slices,
)
from msa2net.data.io.readers import list_files
from msa2net.data.labels import convert, label_names
from msa2net.data.prepared.splits import splits_of_cases
from msa2net.errors import DataError
from msa2net.text import listed

_SLICE = re.compile(r"(case\d+)_slice(\d+)")
_VOLUME = re.compile(r"case\d+")

DEFAULT_ENCODING = "transunet"


def open_synapse(data: DataConfig) -> Source:
    """Open the data set; the slices of a training case become one volume again.

    `data.labels` says which encoding the files use; nothing in them does. It is not changed: the
    classes are in the order of that encoding.

    `test_vol_h5` is test. The 18 published training cases are train but for every 6th, which
    validates; other collections are drawn once and for all, 7 to 1, or 70, 10 and 20 % when
    there is no `test_vol_h5`. Lists in `splits/{train,val,test}.txt` go before all this.

    Raises:
        ConfigError: no folder given.
        DataError: neither folder is there, slices are missing, a case stands in both folders.
    """
    root = raw_folder(data.root, f"{TRAIN_FOLDER}/ and {TEST_FOLDER}/")
    training = _training(root / TRAIN_FOLDER)
    testing = _testing(root / TEST_FOLDER)
    both = sorted(training.keys() & testing.keys())
    if both:
        raise DataError(
            f"{root}: {both[0]} is in {TRAIN_FOLDER}/ and in {TEST_FOLDER}/; no case may be both"
        )
    if not training and not testing:
        raise DataError(
            f"{root} is not in TransUNet's layout: it needs {TRAIN_FOLDER}/case0005_slice000"
            f"{TRAIN_ENDING} and so on, and {TEST_FOLDER}/case0001{TEST_ENDING}"
        )
    encoding = data.labels or DEFAULT_ENCODING
    files = training | {case_id: (path,) for case_id, path in testing.items()}
    splits = splits_of_cases(
        root, {case_id: case_id for case_id in files}, _splits(set(training), set(testing))
    )
    return Source(
        kind="volume",
        label_names=label_names(encoding),
        scaling=HU_WINDOW,
        cases=source_cases(files, splits, partial(_read, encoding=encoding)),
        encoding=encoding,
    )


def _training(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Map case id → its slices' files, in order."""
    slices: dict[str, dict[int, Path]] = {}
    for path in list_files(folder, (TRAIN_ENDING,)) if folder.is_dir() else ():
        match = _SLICE.fullmatch(strip_ending(path, (TRAIN_ENDING,)))
        if match is None:
            raise DataError(f"{path} is not named like case0005_slice000{TRAIN_ENDING}")
        other = slices.setdefault(match[1], {}).setdefault(int(match[2]), path)
        if other is not path:
            raise DataError(f"{other} and {path} are the same slice; remove one")
    for case_id, found in slices.items():
        missing = sorted(set(range(max(found) + 1)) - found.keys())
        if missing:
            numbers = listed(f"{number:03d}" for number in missing)
            raise DataError(
                f"{folder}: {case_id} has slices up to {max(found):03d} but lacks {numbers}; "
                "add them, every slice counts"
            )
    return {
        case_id: tuple(found[number] for number in sorted(found))
        for case_id, found in slices.items()
    }


def _testing(folder: Path) -> dict[str, Path]:
    """Map case id → its volume's file."""
    volumes: dict[str, Path] = {}
    for path in list_files(folder, (TEST_ENDING,)) if folder.is_dir() else ():
        case_id = strip_ending(path, (TEST_ENDING,))
        if _VOLUME.fullmatch(case_id) is None:
            raise DataError(f"{path} is not named like case0001{TEST_ENDING}")
        volumes[case_id] = path
    return volumes


def _splits(training: set[str], testing: set[str]) -> dict[str, str]:
    if testing or training == set(TRAINING_SLICES):
        return split_training_cases(training) | dict.fromkeys(testing, "test")
    return split_patients(training)


def _read(case_id: str, files: tuple[Path, ...], encoding: str) -> Case:
    training = files[0].name.lower().endswith(TRAIN_ENDING)
    image_ZHW, values_ZHW, geometry = (
        read_training_slices(files) if training else read_test_volume(files[0])
    )
    # Into the same encoding: this only refuses values that it does not have.
    label_ZHW = convert(values_ZHW, encoding, encoding, origin=f"{case_id} in {files[0].parent}")
    return Case(case_id, image_ZHW[None], label_ZHW, geometry, source=files[0])
