"""Whether files lie on one grid: image and label, or the channels of an image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msa2net.data.geometry import Geometry
from msa2net.errors import DataError

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
            f"(slices × rows × columns); they must be the same grid{_turned(one, other)}"
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


def _turned(one: Grid, other: Grid) -> str:
    """Return a hint for pictures of which one lies on its side."""
    swapped = one[1][-2:] == other[1][:-3:-1]
    if not swapped or one[2].affine is not None or other[2].affine is not None:
        return ""
    return (
        "; if a camera turned the photograph (EXIF orientation), one of the two is drawn on the "
        "pixels as they are stored, turn it"
    )


def _place(geometry: Geometry) -> str:
    """Describe a grid for an error: where its first voxel is and how far apart voxels are."""
    assert geometry.affine is not None
    origin = ", ".join(f"{value:.5g}" for value in geometry.affine[:3, 3])
    spacing = "?" if geometry.spacing_mm is None else _size(geometry.spacing_mm)
    return f"({origin}) mm with spacing {spacing} mm"


def _size(numbers: Sequence[float]) -> str:
    return "×".join(f"{number:g}" for number in numbers)
