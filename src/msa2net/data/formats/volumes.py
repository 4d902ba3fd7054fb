"""What the volume formats share: reading an image with its label, and splitting by patient."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Case
from msa2net.data.geometry import Geometry
from msa2net.data.nifti import read_nifti_image, read_nifti_label
from msa2net.data.splits import SPLITS, split_by_ratio
from msa2net.errors import ConfigError, DataError

SEED = 0  # of every split that is drawn rather than given
NIFTI_ENDINGS = (".nii.gz", ".nii")

ToClasses = Callable[[NDArray[Any], str], NDArray[np.uint8]]
"""Turns a label file's values into class indices; the string names the file for errors."""


def raw_folder(root: Path | None, what: str) -> Path:
    """Return the folder of the raw data.

    Raises:
        ConfigError: none was given.
        DataError: it is not there.
    """
    if root is None:
        raise ConfigError(f"data.root is missing: name the folder that holds {what}")
    if not root.is_dir():
        raise DataError(f"there is no folder {root}")
    return root


def list_files(folder: Path, endings: Sequence[str]) -> list[Path]:
    """List the files directly in `folder` with one of the endings, sorted; hidden ones are not."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.endswith(tuple(endings)) and not path.name.startswith(".") and path.is_file()
    )


def strip_ending(path: Path, endings: Sequence[str]) -> str:
    """Return a file's name without whichever of the endings it has."""
    ending = next(ending for ending in endings if path.name.endswith(ending))
    return path.name.removesuffix(ending)


def read_nifti_case(
    case_id: str, images: Sequence[Path], label: Path, to_classes: ToClasses
) -> Case:
    """Read one file a channel (or one file of several channels) and the label as one Case.

    Raises:
        DataError: a file cannot be read, or they do not lie on the same grid.
    """
    channels = [read_nifti_image(path) for path in images]
    image_CZHW, geometry = channels[0]
    for path, (other_CZHW, other) in zip(images[1:], channels[1:], strict=True):
        require_same_grid(
            case_id,
            (images[0], image_CZHW.shape[1:], geometry),
            (path, other_CZHW.shape[1:], other),
        )
    if len(channels) > 1:
        image_CZHW = np.concatenate([array for array, _ in channels])
    values_ZHW, label_geometry = read_nifti_label(label)
    require_same_grid(
        case_id,
        (images[0], image_CZHW.shape[1:], geometry),
        (label, values_ZHW.shape, label_geometry),
    )
    label_ZHW = to_classes(values_ZHW, str(label))
    return Case(case_id, image_CZHW, label_ZHW, geometry, source=images[0])


Grid = tuple[Path, tuple[int, ...], Geometry]


def require_same_grid(case_id: str, one: Grid, other: Grid) -> None:
    """Refuse two files whose voxels do not lie at the same places.

    Half a voxel is forgiven: headers written by different programs differ by rounding.

    Raises:
        DataError: showing both sizes, or both positions.
    """
    (path, shape, geometry), (other_path, other_shape, other_geometry) = one, other
    if shape != other_shape:
        raise DataError(
            f"case {case_id}: {path} is {_size(shape)} but {other_path} is {_size(other_shape)} "
            "(slices × rows × columns); they must be the same grid"
        )
    if geometry.affine is None or other_geometry.affine is None or geometry.spacing_mm is None:
        return
    last_WHZ = np.array(shape[::-1]) - 1
    corners = np.array([[0, 0, 0], *np.diag(last_WHZ), last_WHZ])
    apart = (geometry.affine - other_geometry.affine)[:3]
    distance_mm = float(np.linalg.norm(corners @ apart[:, :3].T + apart[:, 3], axis=1).max())
    if distance_mm > 0.5 * min(geometry.spacing_mm):
        raise DataError(
            f"case {case_id}: {path} lies at {_place(geometry)} but {other_path} at "
            f"{_place(other_geometry)}, up to {distance_mm:.3g} mm apart; correct the header "
            "that is wrong"
        )


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


def _place(geometry: Geometry) -> str:
    """Describe a grid for an error: where its first voxel is and how far apart voxels are."""
    assert geometry.affine is not None
    origin = ", ".join(f"{value:.5g}" for value in geometry.affine[:3, 3])
    spacing = "?" if geometry.spacing_mm is None else _size(geometry.spacing_mm)
    return f"({origin}) mm with spacing {spacing} mm"


def _size(numbers: Sequence[float]) -> str:
    return "×".join(f"{number:g}" for number in numbers)
