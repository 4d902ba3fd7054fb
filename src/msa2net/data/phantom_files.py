"""Phantom data in the layouts of real data sets, to try every command without a download."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from msa2net.data.case import Case
from msa2net.data.formats import isic2018
from msa2net.data.phantom import skin_lesion
from msa2net.data.writers import write_jpeg, write_png
from msa2net.errors import ConfigError


def write_phantom_isic2018(out: Path, cases: int, seed: int) -> None:
    """Write lesions as ISIC 2018 Task 1 names its files."""
    for index in range(cases):
        case = skin_lesion(index, seed=seed)
        _write_photograph(case, out / isic2018.IMAGES / f"ISIC_{index:07d}.jpg")
        mask_name = f"ISIC_{index:07d}{isic2018.MASK_ENDING}.png"
        _write_mask(case, out / isic2018.MASKS / mask_name)


def write_phantom_images(out: Path, cases: int, seed: int) -> None:
    """Write lesions as a plain folder of pictures and masks."""
    for index in range(cases):
        case = skin_lesion(index, seed=seed)
        _write_photograph(case, out / "images" / f"{case.id}.jpg")
        _write_mask(case, out / "masks" / f"{case.id}.png")


PHANTOM_WRITERS: dict[str, Callable[[Path, int, int], None]] = {
    "images": write_phantom_images,
    "isic2018": write_phantom_isic2018,
}


def write_phantom(format: str, out: Path, cases: int, seed: int = 0) -> None:
    """Write `cases` synthetic cases in the named layout into a new folder.

    Raises:
        ConfigError: there is no such layout, or the folder is not empty.
    """
    if format not in PHANTOM_WRITERS:
        raise ConfigError(
            f"phantom data are not written as '{format}'; there are {', '.join(PHANTOM_WRITERS)}"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty; name a new folder for the phantom data")
    PHANTOM_WRITERS[format](out, cases, seed)


def _write_photograph(case: Case, path: Path) -> None:
    write_jpeg(np.moveaxis(case.image[:, 0], 0, -1), path)


def _write_mask(case: Case, path: Path) -> None:
    assert case.label is not None
    write_png(case.label[0] * np.uint8(255), path)
