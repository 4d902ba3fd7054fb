"""Phantom data in the layouts of real data sets, to try every command without a download."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msa2net.data.case import Case
from msa2net.data.formats import isic2018
from msa2net.data.io.writers import write_jpeg, write_png
from msa2net.data.phantom import skin_lesion, volumes
from msa2net.data.phantom.volumes import Planned
from msa2net.errors import ConfigError
from msa2net.files import clean_temporaries, contents

LESION_CASES, LESION_SHAPE = 60, (256, 256)
FULL_LESION_SHAPE = (767, 1022)  # among the archive's many sizes, a usual one

FORMATS_2D = ("images", "isic2018")

Progress = Callable[[Iterable[Planned], int], Iterable[Planned]]


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


def plan_lesions(cases: int | None, full_size: bool) -> list[Planned]:
    """Plan 2-D images: 60 of 256×256, or as many as ISIC 2018 has, of 767×1022."""
    count = cases or (isic2018.PUBLISHED_TOTAL if full_size else LESION_CASES)
    shape = (1, *(FULL_LESION_SHAPE if full_size else LESION_SHAPE))
    return [Planned(index, f"ISIC_{index:07d}", "train", shape) for index in range(count)]


def write_isic2018(out: Path, planned: Planned, seed: int) -> None:
    """Write a lesion as ISIC 2018 Task 1 names its files."""
    case = skin_lesion(planned.index, seed=seed, shape=planned.shape[1:])
    _write_image(case, out / isic2018.IMAGES / f"{planned.name}.jpg")
    _write_mask(case, out / isic2018.MASKS / f"{planned.name}_segmentation.png")


def write_images(out: Path, planned: Planned, seed: int) -> None:
    """Write a lesion into a plain folder of pictures and masks."""
    case = skin_lesion(planned.index, seed=seed, shape=planned.shape[1:])
    _write_image(case, out / "images" / f"{case.id}.jpg")
    _write_mask(case, out / "masks" / f"{case.id}.png")


LAYOUTS: dict[str, Layout] = {
    "images": Layout(plan_lesions, write_images),
    "isic2018": Layout(plan_lesions, write_isic2018),
    "acdc": Layout(volumes.plan_hearts, volumes.write_acdc, cases=2),
    "btcv": Layout(volumes.plan_abdomens, volumes.write_btcv),
    "synapse": Layout(volumes.plan_abdomens, volumes.write_synapse),
    "nnunet": Layout(volumes.plan_abdomens, volumes.write_nnunet, volumes.describe_nnunet),
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


def _write_image(case: Case, path: Path) -> None:
    write_jpeg(np.moveaxis(case.image[:, 0], 0, -1), path)


def _write_mask(case: Case, path: Path) -> None:
    assert case.label is not None
    write_png(case.label[0] * np.uint8(255), path)
