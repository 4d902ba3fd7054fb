"""Phantom data in the layouts of real data sets, to try every command without a download."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Case
from msa2net.data.formats import isic2018
from msa2net.data.formats.btcv import TEST_CASES, TRAINING_SLICES
from msa2net.data.formats.synapse_files import write_test_volume, write_training_slices
from msa2net.data.geometry import Geometry
from msa2net.data.io.writers import write_jpeg, write_png
from msa2net.data.labels import convert
from msa2net.data.phantom import ABDOMEN_LABELS, abdomen, skin_lesion
from msa2net.data.phantom.heart import heart
from msa2net.errors import ConfigError
from msa2net.files import atomic_path, clean_temporaries, contents, write_json, write_text

FORMATS_2D = ("images", "isic2018")

ABDOMEN_SHAPE = (24, 96, 96)

_PIXELS = (512, 512)  # of the real abdomens
# The published lists count the slices of the training cases only; the others get their mean.
_TEST_SLICES = round(sum(TRAINING_SLICES.values()) / len(TRAINING_SLICES))


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


Progress = Callable[[Iterable[Planned], int], Iterable[Planned]]


def plan_lesions(cases: int | None, full_size: bool) -> list[Planned]:
    """Plan 2-D images: 60 of 256×256, or as many as ISIC 2018 has, of 767×1022."""
    count = cases or (isic2018.PUBLISHED_TOTAL if full_size else 60)
    shape = (1, 767, 1022) if full_size else (1, 256, 256)  # of the archive's sizes a usual one
    return [Planned(index, f"ISIC_{index:07d}", "train", shape) for index in range(count)]


def plan_abdomens(cases: int | None, full_size: bool) -> list[Planned]:
    """Plan CT volumes: 8 of 24×96×96, or 30 of 512×512 under the names of the published lists.

    Two of five are for testing, as in the published lists. Beyond 30 cases the names count on
    from `case0101`.
    """
    published = len(TRAINING_SLICES) + len(TEST_CASES)
    count = cases or (published if full_size else 8)
    test = round(count * len(TEST_CASES) / published)
    extra = [f"case{number:04d}" for number in range(101, 101 + count)]
    train_names = [*TRAINING_SLICES, *extra[::2]][: count - test]
    test_names = [*TEST_CASES, *extra[1::2]][:test]

    def shape(name: str) -> tuple[int, int, int]:
        depth = TRAINING_SLICES.get(name, _TEST_SLICES)
        return (depth, *_PIXELS) if full_size else ABDOMEN_SHAPE

    parts = [(name, "train") for name in train_names] + [(name, "test") for name in test_names]
    return [Planned(index, *case, shape(case[0])) for index, case in enumerate(parts)]


def plan_hearts(cases: int | None, full_size: bool) -> list[Planned]:
    """Plan patients: 9 of 8×96×96, or 150 of 10×256×216; a third are for testing."""
    count = cases or (150 if full_size else 9)
    shape = (10, 256, 216) if full_size else (8, 96, 96)
    test = round(count / 3)
    parts = ["train"] * (count - test) + ["test"] * test
    return [
        Planned(index, f"patient{index + 1:03d}", part, shape) for index, part in enumerate(parts)
    ]


def write_lesion(image: str, mask: str, out: Path, planned: Planned, seed: int) -> None:
    """Write a picture and its mask to paths in which {name} or {id} stands for the case."""
    case = skin_lesion(planned.index, seed=seed, shape=planned.shape[1:])
    _, label_ZHW = _arrays(case)
    words = {"name": planned.name, "id": case.id}
    write_jpeg(np.moveaxis(case.image[:, 0], 0, -1), out / image.format(**words))
    write_png(label_ZHW[0] * np.uint8(255), out / mask.format(**words))


def write_synapse(out: Path, planned: Planned, seed: int) -> None:
    """Write a CT volume as training slices or test volume of TransUNet's layout."""
    write = write_training_slices if planned.part == "train" else write_test_volume
    write(out, replace(_abdomen(planned, seed), id=planned.name))


def write_btcv(out: Path, planned: Planned, seed: int) -> None:
    """Write a CT volume and its label, in BTCV's ids, as the challenge names them."""
    case = _abdomen(planned, seed)
    image_ZHW, label_ZHW = _arrays(case)
    converted_ZHW = convert(label_ZHW, "transunet", "btcv")
    for kind, array_ZHW in (("img", image_ZHW), ("label", converted_ZHW)):
        name = f"{kind}{planned.name.removeprefix('case')}.nii.gz"
        _write_nifti(out / kind / name, array_ZHW, case.geometry)


def write_nnunet(out: Path, planned: Planned, seed: int) -> None:
    """Write a CT volume and its label as nnU-Net names them."""
    case = _abdomen(planned, seed)
    part = "Tr" if planned.part == "train" else "Ts"
    paths = f"images{part}/{planned.name}_0000.nii.gz", f"labels{part}/{planned.name}.nii.gz"
    for path, array_ZHW in zip(paths, _arrays(case), strict=True):
        _write_nifti(out / path, array_ZHW, case.geometry)


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
        for ending, array_ZHW in zip(("", "_gt"), _arrays(case), strict=True):
            _write_nifti(folder / f"{case.id}{ending}.nii.gz", array_ZHW, case.geometry)
        frames.append(int(case.id[-2:]))
    write_text(folder / "Info.cfg", f"ED: {frames[0]}\nES: {frames[1]}\nGroup: PHANTOM\n")


@dataclass(frozen=True)
class Layout:
    """How a layout's phantom data are made.

    Attributes:
        plan: (number of cases or None, full size?) → what to draw for each case.
        write: (folder, one planned case, seed) writes that case.
        finish: (folder, all planned cases) writes what stands for all of them.
        cases: that come of what is drawn for one planned.
    """

    plan: Callable[[int | None, bool], Sequence[Planned]]
    write: Callable[[Path, Planned, int], None]
    finish: Callable[[Path, Sequence[Planned]], None] | None = None
    cases: int = 1


LAYOUTS: dict[str, Layout] = {
    "images": Layout(plan_lesions, partial(write_lesion, "images/{id}.jpg", "masks/{id}.png")),
    "isic2018": Layout(
        plan_lesions,
        partial(
            write_lesion,
            f"{isic2018.IMAGES}/{{name}}.jpg",
            f"{isic2018.MASKS}/{{name}}_segmentation.png",
        ),
    ),
    "acdc": Layout(plan_hearts, write_acdc, cases=2),
    "btcv": Layout(plan_abdomens, write_btcv),
    "synapse": Layout(plan_abdomens, write_synapse),
    "nnunet": Layout(plan_abdomens, write_nnunet, describe_nnunet),
}


def write_phantom(
    format: str,
    out: Path,
    cases: int | None = None,
    seed: int = 0,
    *,
    full_size: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Write synthetic cases in the named layout into a new folder, one case at a time.

    Args:
        format: a name from `LAYOUTS`.
        out: folder, new or empty.
        cases: how many images, volumes, or patients (`acdc`, two phases each); by default 60
            2-D images, 8 volumes or 9 patients, or with `full_size` as many as the real data set
            has.
        seed: other numbers give other cases.
        full_size: draw each case at the real data set's size. Synapse's 30 volumes, 2,211 training
            slices of 512×512 among them, take some 15 minutes, 5 GB of memory and 1 GB of disk.
        progress: wraps the planned cases and their number, to show a bar.

    Returns:
        The patient of each case; of other data than `acdc`, each is one of its own.

    Raises:
        ConfigError: there is no such layout, or the folder is not empty.
    """
    if format not in LAYOUTS:
        raise ConfigError(
            f"phantom data are not written as '{format}'; there are {', '.join(LAYOUTS)}"
        )
    if out.exists() and (not out.is_dir() or contents(out)):
        raise ConfigError(f"{out} is not empty; name a new folder for the phantom data")
    if cases is not None and cases < 1:
        raise ConfigError(f"{cases} phantom cases cannot be drawn; name 1 or more")
    clean_temporaries(out)
    layout = LAYOUTS[format]
    plan = layout.plan(cases, full_size)
    for planned in plan if progress is None else progress(plan, len(plan)):
        layout.write(out, planned, seed)
    if layout.finish is not None:
        layout.finish(out, plan)
    return [planned.name for planned in plan for _ in range(layout.cases)]


def _abdomen(planned: Planned, seed: int) -> Case:
    return abdomen(planned.index, seed=seed, shape=planned.shape)


def _arrays(case: Case) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return the first channel and the label, each (Z, H, W)."""
    assert case.label is not None
    return case.image[0], case.label


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
