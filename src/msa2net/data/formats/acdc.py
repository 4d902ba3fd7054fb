"""ACDC, cardiac cine-MRI at end diastole and end systole, in either of two layouts.

NIfTI, as the challenge hands it out; `testing/` and `Info.cfg` may be missing:

    training/patient001/{patient001_frame01.nii.gz, patient001_frame01_gt.nii.gz, …, Info.cfg}
    testing/patient101/…

HDF5, split by folder, one file a phase; its arrays (slices, rows, columns) are taken as they stand
and have no spacing:

    train|val|test/patient001_frame01.h5      image, label

Source: Bernard et al., IEEE TMI 2018, https://www.creatis.insa-lyon.fr/Challenge/acdc/.
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.config import DataConfig
from msa2net.data.case import Case
from msa2net.data.formats.listing import by_name, raw_folder, strip_ending
from msa2net.data.formats.source import (
    NIFTI_ENDINGS,
    PERCENTILES,
    Source,
    SourceCase,
    read_nifti_case,
    source_cases,
    split_patients,
)
from msa2net.data.io.hdf5_npz import read_hdf5
from msa2net.data.io.readers import list_files
from msa2net.data.io.validation import as_integer_labels
from msa2net.data.labels import apply_label_table, class_table
from msa2net.data.prepared.splits import SPLITS, refuse_parted_patients, splits_of_cases
from msa2net.errors import DataError

LABEL_NAMES = ("background", "right ventricle", "myocardium", "left ventricle")
HDF5_ENDINGS = (".h5", ".hdf5")
MASK_ENDING = "_gt"
# The 100 training patients come in five groups of 20, one pathology each: cutting every group
# at the same places keeps the pathologies balanced.
TRAINING_PATIENTS, GROUP, GROUP_TRAIN, GROUP_VAL = 100, 20, 14, 2
PHASES = {"ED": "end diastole", "ES": "end systole"}

_NAME = re.compile(r"(patient\d+)_frame\d+")
_PHASE = re.compile(r"^\s*(ED|ES)\s*:\s*(\d+)\s*$", re.MULTILINE)


def open_acdc(data: DataConfig) -> Source:
    """Open the data set; intensities are scaled by each volume's 0.5–99.5 percentiles.

    Splits are by patient. HDF5: the folders say. NIfTI: of every 20 of the 100 training patients
    the first 14 train, the next 2 validate, the last 4 test; any other number of patients is drawn
    once and for all, 70, 10 and 20 %, or 7 to 1 beside a `testing/`, which is always test. Lists
    in `splits/{train,val,test}.txt` go before either.

    Raises:
        ConfigError: no folder given.
        DataError: neither layout, files that do not belong together, a patient in two splits.
    """
    root = raw_folder(data.root, "training/ or train/, val/, test/")
    if any((root / split).is_dir() for split in SPLITS):
        cases = _hdf5_cases(root)
    elif (root / "training").is_dir() or (root / "testing").is_dir():
        cases = _nifti_cases(root)
    else:
        raise DataError(
            f"{root} is not ACDC: it needs the folders training/ and perhaps testing/ of the "
            "challenge, or train/, val/ and test/ with one .h5 file a phase"
        )
    return Source(
        kind="volume",
        label_names=LABEL_NAMES,
        scaling=PERCENTILES,
        cases=cases,
    )


def _hdf5_cases(root: Path) -> tuple[SourceCase, ...]:
    present = [root / split for split in SPLITS if (root / split).is_dir()]
    paths = [path for folder in present for path in list_files(folder, HDF5_ENDINGS)]
    if not paths:
        raise DataError(f"{root} holds no .h5 file in train/, val/ or test/")
    files = by_name(paths, (strip_ending(path, HDF5_ENDINGS) for path in paths))
    folders = {case_id: path.parent.name for case_id, path in files.items()}
    patients = _patients(files.values(), HDF5_ENDINGS)
    refuse_parted_patients(folders, patients, origin=str(root))
    by_patient = {patients[case_id]: split for case_id, split in folders.items()}
    splits = splits_of_cases(root, patients, by_patient)
    phases = _phases_by_order(patients)
    single = {case_id: (path,) for case_id, path in files.items()}
    return source_cases(single, splits, _read_hdf5, patients, phases)


def _read_hdf5(case_id: str, files: tuple[Path, ...]) -> Case:
    (path,) = files
    arrays = read_hdf5(path, ("image", "label"))
    for name, array in arrays.items():
        if array.ndim != 3:
            raise DataError(
                f"{path}: '{name}' has {array.ndim} axes, expected 3 (slices, rows, columns)"
            )
    label_ZHW = _to_classes(as_integer_labels(path, arrays["label"]), str(path))
    return Case(case_id, arrays["image"][None], label_ZHW, source=path)


def _nifti_cases(root: Path) -> tuple[SourceCase, ...]:
    pairs: dict[str, tuple[Path, Path]] = {}
    where: dict[str, str] = {}
    named: dict[str, str] = {}
    for folder in sorted((*root.glob("training/patient*"), *root.glob("testing/patient*"))):
        if not folder.is_dir():
            continue
        if folder.name in where:
            raise DataError(
                f"{root}: {folder.name} is in {where[folder.name]}/ and again in "
                f"{folder.parent.name}/; remove one of the two"
            )
        info = _named_phases(folder)
        found = _phases(folder, info)
        if found:
            where[folder.name] = folder.parent.name
        pairs |= found
        named |= {case_id: PHASES[phase] for case_id, phase in info.items() if case_id in found}
    if not pairs:
        raise DataError(
            f"{root} holds no patientNNN/patientNNN_frameNN_gt.nii.gz in training/ or testing/"
        )
    patients = _patients((image for image, _ in pairs.values()), NIFTI_ENDINGS)
    training = sorted(patient for patient, folder in where.items() if folder == "training")
    testing = {patient: "test" for patient, folder in where.items() if folder == "testing"}
    default = _split_training(training, has_test=bool(testing)) | testing
    splits = splits_of_cases(root, patients, default)
    phases = _phases_by_order(patients) | named
    read = partial(read_nifti_case, to_classes=_to_classes)
    return source_cases(pairs, splits, read, patients, phases)


def _phases(folder: Path, info: Mapping[str, str]) -> dict[str, tuple[Path, Path]]:
    """Find a patient's labelled frames; other frames and the whole film (`_4d`) are not used.

    They are compared with those that Info.cfg names, so that half a download is noticed.
    """
    files = {strip_ending(path, NIFTI_ENDINGS): path for path in list_files(folder, NIFTI_ENDINGS)}
    pairs: dict[str, tuple[Path, Path]] = {}
    for name, mask in files.items():
        if not name.endswith(MASK_ENDING):
            continue
        case_id = name.removesuffix(MASK_ENDING)
        if case_id not in files:
            raise DataError(f"{mask} has no image {case_id}.nii.gz beside it; add it")
        if not case_id.startswith(f"{folder.name}_"):
            raise DataError(f"{mask} does not belong in {folder.name}/; move it to its patient")
        pairs[case_id] = files[case_id], mask
    for case_id, phase in info.items() if pairs else ():
        if case_id not in pairs:
            raise DataError(
                f"{folder}: Info.cfg names {case_id} as {phase}, but {case_id}.nii.gz or its _gt "
                "is missing; download the patient again"
            )
    return pairs


def _named_phases(folder: Path) -> dict[str, str]:
    """Map case id → ED or ES, as far as the patient's Info.cfg says."""
    if not (folder / "Info.cfg").is_file():
        return {}
    text = (folder / "Info.cfg").read_text(encoding="utf-8-sig", errors="replace")
    return {f"{folder.name}_frame{int(frame):02d}": phase for phase, frame in _PHASE.findall(text)}


def _phases_by_order(patients: Mapping[str, str]) -> dict[str, str]:
    """Map case id → phase: of a patient's two frames the first is end diastole.

    So it is in all 100 patients of the challenge's training set, by the volume of the left
    ventricle, which end diastole means is at its largest.
    """
    frames: dict[str, list[str]] = {}
    for case_id in sorted(patients):
        frames.setdefault(patients[case_id], []).append(case_id)
    phases: dict[str, str] = {}
    for of_patient in frames.values():
        if len(of_patient) == len(PHASES):
            phases |= zip(of_patient, PHASES.values(), strict=True)
    return phases


def _patients(paths: Iterable[Path], endings: tuple[str, ...]) -> dict[str, str]:
    """Map case id → patient."""
    patients = {}
    for path in paths:
        case_id = strip_ending(path, endings)
        match = _NAME.fullmatch(case_id)
        if match is None:
            raise DataError(f"{path} is not named as ACDC does, like patient001_frame01")
        patients[case_id] = match[1]
    return patients


def _split_training(patients: list[str], *, has_test: bool) -> dict[str, str]:
    if len(patients) != TRAINING_PATIENTS:
        return split_patients(patients, SPLITS[:2] if has_test else SPLITS)
    names = [SPLITS[0]] * GROUP_TRAIN + [SPLITS[1]] * GROUP_VAL
    names += [SPLITS[2]] * (GROUP - len(names))
    return {patient: names[index % GROUP] for index, patient in enumerate(patients)}


def _to_classes(values: NDArray[Any], origin: str) -> NDArray[np.uint8]:
    return apply_label_table(values, class_table(len(LABEL_NAMES)), origin=origin, meaning="ACDC's")
