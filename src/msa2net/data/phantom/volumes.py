"""Phantom volumes as the files of Synapse, BTCV, nnU-Net and ACDC."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
from numpy.typing import NDArray

from msa2net.data.case import Case
from msa2net.data.formats.btcv import TEST_CASES, TRAINING_SLICES
from msa2net.data.formats.synapse_files import write_test_volume, write_training_slices
from msa2net.data.geometry import Geometry
from msa2net.data.labels import convert
from msa2net.data.phantom import ABDOMEN_LABELS, abdomen
from msa2net.data.phantom.heart import heart
from msa2net.files import atomic_path, write_json, write_text

ABDOMENS, ABDOMEN_SHAPE = 8, (24, 96, 96)
HEARTS, HEART_SHAPE = 9, (8, 96, 96)

FULL_PIXELS = (512, 512)
# The published lists count the slices of the training cases only; the others get their mean.
FULL_TEST_SLICES = round(sum(TRAINING_SLICES.values()) / len(TRAINING_SLICES))
FULL_HEARTS, FULL_HEART_SHAPE = 150, (10, 256, 216)

_ABDOMEN_TEST_SHARE = len(TEST_CASES) / (len(TEST_CASES) + len(TRAINING_SLICES))
_HEART_TEST_SHARE = 50 / FULL_HEARTS  # of the challenge's patients


@dataclass(frozen=True)
class Planned:
    """One phantom case to draw.

    Attributes:
        index: which phantom.
        name: of the case, in the files.
        part: train or test, where a layout keeps them apart.
        shape: (Z, H, W).
    """

    index: int
    name: str
    part: str
    shape: tuple[int, int, int]


def plan_abdomens(cases: int | None, full_size: bool) -> list[Planned]:
    """Plan CT volumes: 8 of 24×96×96, or 30 of 512×512 under the names of the published lists.

    Two of five are for testing, as in the published lists. Beyond 30 cases the names count on
    from `case0101`.
    """
    count = cases or (len(TRAINING_SLICES) + len(TEST_CASES) if full_size else ABDOMENS)
    test = round(count * _ABDOMEN_TEST_SHARE)
    extra = [f"case{number:04d}" for number in range(101, 101 + count)]
    train_names = [*TRAINING_SLICES, *extra[::2]][: count - test]
    test_names = [*TEST_CASES, *extra[1::2]][:test]
    return [
        Planned(index, name, "test" if name in test_names else "train", _shape(name, full_size))
        for index, name in enumerate([*train_names, *test_names])
    ]


def _shape(name: str, full_size: bool) -> tuple[int, int, int]:
    if not full_size:
        return ABDOMEN_SHAPE
    return (TRAINING_SLICES.get(name, FULL_TEST_SLICES), *FULL_PIXELS)


def plan_hearts(cases: int | None, full_size: bool) -> list[Planned]:
    """Plan patients: 9 of 8×96×96, or 150 of 10×256×216; a third are for testing."""
    count = cases or (FULL_HEARTS if full_size else HEARTS)
    shape = FULL_HEART_SHAPE if full_size else HEART_SHAPE
    train = count - round(count * _HEART_TEST_SHARE)
    return [
        Planned(index, f"patient{index + 1:03d}", "train" if index < train else "test", shape)
        for index in range(count)
    ]


def write_synapse(out: Path, planned: Planned, seed: int) -> None:
    """Write a CT volume as training slices or test volume of TransUNet's layout."""
    case = _abdomen(planned, seed)
    write = write_training_slices if planned.part == "train" else write_test_volume
    write(out, case)


def write_btcv(out: Path, planned: Planned, seed: int) -> None:
    """Write a CT volume and its label, in BTCV's ids, as the challenge names them."""
    case = _abdomen(planned, seed)
    assert case.label is not None
    number = planned.name.removeprefix("case")
    _write_nifti(out / "img" / f"img{number}.nii.gz", case.image[0], case.geometry)
    label_ZHW = convert(case.label, "transunet", "btcv")
    _write_nifti(out / "label" / f"label{number}.nii.gz", label_ZHW, case.geometry)


def write_nnunet(out: Path, planned: Planned, seed: int) -> None:
    """Write a CT volume and its label as nnU-Net names them."""
    case = _abdomen(planned, seed)
    assert case.label is not None
    part = "Tr" if planned.part == "train" else "Ts"
    image_path = out / f"images{part}" / f"{case.id}_0000.nii.gz"
    _write_nifti(image_path, case.image[0], case.geometry)
    _write_nifti(out / f"labels{part}" / f"{case.id}.nii.gz", case.label, case.geometry)


def describe_nnunet(out: Path, plan: Sequence[Planned]) -> None:
    """Write dataset.json."""
    content = {
        "channel_names": {"0": "CT"},
        "labels": {name: value for value, name in enumerate(ABDOMEN_LABELS)},
        "numTraining": sum(planned.part == "train" for planned in plan),
        "file_ending": ".nii.gz",
    }
    write_json(out / "dataset.json", content)


def write_acdc(out: Path, planned: Planned, seed: int) -> None:
    """Write both phases of a patient's heart as the challenge hands them out."""
    folder = out / ("training" if planned.part == "train" else "testing") / planned.name
    frames = []
    for systole in (False, True):
        case = heart(planned.index, systole=systole, seed=seed, shape=planned.shape)
        assert case.label is not None
        _write_nifti(folder / f"{case.id}.nii.gz", case.image[0], case.geometry)
        _write_nifti(folder / f"{case.id}_gt.nii.gz", case.label, case.geometry)
        frames.append(int(case.id[-2:]))
    write_text(folder / "Info.cfg", f"ED: {frames[0]}\nES: {frames[1]}\nGroup: PHANTOM\n")


def _abdomen(planned: Planned, seed: int) -> Case:
    case = abdomen(planned.index, seed=seed, shape=planned.shape)
    return replace(case, id=planned.name)


def _write_nifti(path: Path, array_ZHW: NDArray[Any], geometry: Geometry) -> None:
    """Write a volume with the file's axes to the right, front and head, as many scanners' files."""
    image = nibabel.Nifti1Image(array_ZHW.transpose(2, 1, 0), geometry.affine)
    image.header.set_xyzt_units("mm")
    orientations = nibabel.orientations
    turn = orientations.ornt_transform(
        orientations.axcodes2ornt("LPS"), orientations.axcodes2ornt("RAS")
    )
    with atomic_path(path) as temporary:
        nibabel.save(image.as_reoriented(turn), temporary)
