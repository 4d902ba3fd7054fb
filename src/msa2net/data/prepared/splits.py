"""Who is trained on, who is validated on, who is tested on."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from msa2net.config import DataConfig
from msa2net.errors import DataError
from msa2net.files import read_lines

SPLITS = ("train", "val", "test")

_log = logging.getLogger(__name__)

_PART_OF_PATIENT = re.compile(r"(.+)_(?:frame|slice)\d+")


def split_by_ratio(
    ids: Sequence[str], ratios: tuple[float, float, float] = (0.7, 0.1, 0.2), seed: int = 0
) -> dict[str, str]:
    """Assign each id to train, val or test, shuffled by `seed`; every split gets at least one.

    Raises:
        DataError: fewer than three ids.
    """
    if len(ids) < 3:
        raise DataError(
            f"{len(ids)} cases cannot be split into train, val and test; at least 3 are needed"
        )
    shuffled = np.random.default_rng(seed).permutation(sorted(ids)).tolist()
    test = min(max(1, round(ratios[2] * len(ids))), len(ids) - 2)
    val = min(max(1, round(ratios[1] * len(ids))), len(ids) - 1 - test)
    names = ["val"] * val + ["test"] * test + ["train"] * (len(ids) - val - test)
    return dict(zip(shuffled, names, strict=True))


def patient_of(case_id: str) -> str:
    """Return a case's name without a last `_frame01` or `_slice001`: what is left is the patient.

    For layouts that say nothing of patients; names that end otherwise are taken for one each.
    """
    match = _PART_OF_PATIENT.fullmatch(case_id)
    return match[1] if match else case_id


def resplit(
    splits: Mapping[str, str], patients: Mapping[str, str], data: DataConfig
) -> dict[str, str]:
    """Draw the splits that the settings ask for; without such settings they stay as they are.

    `data.split_ratios` draws all patients anew. `data.folds` draws the patients of train and val
    into folds of equal size, of which `data.fold` validates; test stays what it is. Both are
    seeded by `data.split_seed`, and cases of one patient never part.

    Args:
        splits: case id → split.
        patients: case id → patient; "" where that is not known.
        data: the settings.

    Raises:
        DataError: fewer patients than folds, or than splits; patients are not known.
    """
    if data.split_ratios is None and data.folds is None:
        return dict(splits)
    if not all(patients.values()):
        raise DataError(
            f"{data.prepared} was prepared by an older version, which did not note whose images "
            "are whose; prepare the data again to draw splits by patient"
        )
    if data.split_ratios is not None:
        drawn = split_by_ratio(sorted(set(patients.values())), data.split_ratios, data.split_seed)
        splits = {case_id: drawn[patient] for case_id, patient in patients.items()}
    if data.folds is None:
        return dict(splits)
    fold_of = _draw_folds(
        {patients[case_id] for case_id, split in splits.items() if split != "test"},
        data.folds,
        data.split_seed,
    )
    return {
        case_id: split
        if split == "test"
        else ("val" if fold_of[patients[case_id]] == data.fold else "train")
        for case_id, split in splits.items()
    }


def _draw_folds(patients: set[str], folds: int, seed: int) -> dict[str, int]:
    if len(patients) < folds:
        raise DataError(f"{len(patients)} patients cannot be drawn into {folds} folds; lower folds")
    shuffled = np.random.default_rng(seed).permutation(sorted(patients)).tolist()
    return {patient: index % folds for index, patient in enumerate(shuffled)}


def split_by_count(sorted_ids: Sequence[str], train: int, val: int) -> dict[str, str]:
    """Assign the first `train` ids, the next `val`, and the rest to test."""
    names = ["train"] * train + ["val"] * val + ["test"] * (len(sorted_ids) - train - val)
    return dict(zip(sorted_ids, names, strict=True))


def read_split_lists(folder: Path, ids: Sequence[str]) -> dict[str, str] | None:
    """Read `train.txt`, `val.txt`, `test.txt` (one id a line) from `folder`, if it exists.

    Ids in none of the lists are left out, which is logged as a warning.

    Returns:
        id → split for the listed ids, or None when there is no such folder.

    Raises:
        DataError: a list is missing, names an id that is not there, or an id stands twice.
    """
    if not folder.is_dir():
        return None
    missing = [f"{split}.txt" for split in SPLITS if not (folder / f"{split}.txt").is_file()]
    if missing:
        raise DataError(
            f"{folder} lacks {', '.join(missing)}; all of train.txt, val.txt and test.txt are "
            "needed, an empty one for a split of nobody"
        )
    lists = {split: read_lines(folder / f"{split}.txt") for split in SPLITS}
    splits = check_splits(lists, ids, origin=str(folder))
    unlisted = [case_id for case_id in ids if case_id not in splits]
    if unlisted:
        _log.warning(
            "%s: %d of %d cases are in none of the lists and left out, first '%s'",
            folder,
            len(unlisted),
            len(ids),
            unlisted[0],
        )
    return splits


def splits_of_cases(
    root: Path, patients: Mapping[str, str], default: Mapping[str, str]
) -> dict[str, str]:
    """Give each case its split; `splits/{train,val,test}.txt` in `root` go before the default.

    Args:
        root: the raw data's folder.
        patients: case id → patient.
        default: patient → split.

    Returns:
        case id → split; cases that lists leave out are left out.

    Raises:
        DataError: the lists are wrong, or part a patient's cases.
    """
    listed = read_split_lists(root / "splits", sorted(patients))
    if listed is None:
        return {case_id: default[patient] for case_id, patient in patients.items()}
    refuse_parted_patients(listed, patients, origin=str(root / "splits"))
    return listed


def refuse_parted_patients(
    splits: Mapping[str, str], patients: Mapping[str, str], *, origin: str
) -> None:
    """Raise where splits (case id → split) put cases of one patient into two of them.

    Raises:
        DataError: naming the first such patient and both splits.
    """
    first: dict[str, str] = {}
    for case_id, split in sorted(splits.items()):
        other = first.setdefault(patients[case_id], split)
        if other != split:
            raise DataError(
                f"{origin}: {patients[case_id]} is in {other} and again in {split}; all cases of a "
                "patient must be in one split, or scores mean nothing"
            )


def check_splits(
    lists: Mapping[str, Sequence[str]], ids: Sequence[str], *, origin: str
) -> dict[str, str]:
    """Turn lists into id → split, refusing unknown ids and ids in two lists."""
    known = set(ids)
    assigned: dict[str, str] = {}
    for split, listed in lists.items():
        for case_id in listed:
            if case_id not in known:
                raise DataError(
                    f"{origin}: {split} names '{case_id}', which has no image; ids are file names "
                    "without their ending"
                )
            if case_id in assigned:
                raise DataError(
                    f"{origin}: '{case_id}' is in {assigned[case_id]} and again in {split}"
                )
            assigned[case_id] = split
    return assigned
