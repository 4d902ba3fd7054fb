"""Which way a grid's axes run in the patient, and looking at one grid along another's axes.

A code such as LPS names the directions in which columns, rows and slices of an array run: columns
to the patient's left, rows to the posterior, slices to the superior. Between two codes lie
permutation and flips only, so looking along other axes is a view of the same numbers, and what is
written through a view lies where it belongs.

Axes: Z slices, H rows, W columns; an affine counts voxels as (column, row, slice).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import nibabel
import numpy as np
from numpy.typing import NDArray

from msa2net.data.geometry import Geometry
from msa2net.errors import DataError

Scalar = TypeVar("Scalar", bound=np.generic)

_AXIS_OF_LETTER = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}
_BETWEEN = {0: "left and right", 1: "front and back", 2: "feet and head"}

THICKER = 1.25
"""How many times coarser than the others an axis is if slices were surely taken along it."""


class CommonOrientation(NamedTuple):
    """The code that grids have in common, or why there is none.

    Attributes:
        code: such as LPS; None if they have none in common.
        reason: one sentence; "" where there is a code.
    """

    code: str | None
    reason: str


@dataclass(frozen=True)
class View:
    """How to look at arrays of one grid along the axes of another orientation.

    Attributes:
        axes: for Z, H and W of the view, the array's own axis it runs along (0 Z, 1 H, 2 W).
        steps: for Z, H and W of the array, −1 if the view runs against it, else 1.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    steps: tuple[int, int, int] = (1, 1, 1)

    def of(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return (…, Z, H, W) along the view's axes; no voxel is copied, writing goes through."""
        flips: tuple[Any, ...] = (..., *(slice(None, None, step) for step in self.steps))
        leading = array.ndim - 3
        return array[flips].transpose(*range(leading), *(leading + axis for axis in self.axes))

    def spacing_mm(self, geometry: Geometry) -> tuple[float, float, float] | None:
        """Return the distance between voxel centres along the view's (Z, H, W); None if unknown."""
        own_mm = geometry.spacing_mm
        if own_mm is None and geometry.affine is not None:
            width, height, depth = np.linalg.norm(geometry.affine[:3, :3], axis=0).tolist()
            own_mm = depth, height, width
        if own_mm is None:
            return None
        return own_mm[self.axes[0]], own_mm[self.axes[1]], own_mm[self.axes[2]]


def view_along(geometry: Geometry, code: str | None) -> View:
    """Return how to look at a grid so that its axes run as nearly as they can along `code`.

    A grid without an affine, or no code, is looked at as it lies. An oblique axis counts as the
    patient's axis it is nearest to.

    Raises:
        DataError: the affine has axes that span no volume.
    """
    if geometry.affine is None or code is None:
        return View()
    target = nibabel.orientations.axcodes2ornt(code)
    turn_WHZ = nibabel.orientations.ornt_transform(_orientation(geometry.affine), target)
    axes, steps = [0, 0, 0], [1, 1, 1]
    for own, (wanted, step) in enumerate(turn_WHZ.astype(int).tolist()):
        axes[2 - wanted] = 2 - own  # the affine counts W, H, Z and arrays Z, H, W
        steps[2 - own] = step
    return View((axes[0], axes[1], axes[2]), (steps[0], steps[1], steps[2]))


def orientation_code(affine: NDArray[np.float64]) -> str:
    """Return the code of a grid whose voxels (column, row, slice) lie at `affine` (RAS).

    Raises:
        DataError: its axes span no volume.
    """
    return "".join(nibabel.orientations.ornt2axcodes(_orientation(affine)))


def common_orientation(geometries: Iterable[Geometry]) -> CommonOrientation:
    """Return the code that all grids have in common, so that others can be turned to it.

    Raises:
        DataError: an affine whose axes span no volume.
    """
    codes = Counter(
        None if geometry.affine is None else orientation_code(geometry.affine)
        for geometry in geometries
    )
    unknown = codes.pop(None, 0)
    if not codes:
        return CommonOrientation(None, "no case says where it lies in the patient")
    if unknown:
        total = unknown + codes.total()
        return CommonOrientation(
            None, f"{unknown} of {total} cases do not say where they lie in the patient"
        )
    if len(codes) > 1:
        shown = ", ".join(f"{count} of {code}" for code, count in codes.most_common())
        return CommonOrientation(None, f"the cases lie in different orientations: {shown}")
    return CommonOrientation(next(iter(codes)), "")


def slice_axis(geometry: Geometry) -> int:
    """Return the axis of a scan's array (0 Z, 1 H, 2 W) along which its own slices follow.

    Readers turn every scan to one orientation, so it need not be Z. Slices are thicker than their
    pixels are wide; where no axis is clearly the coarsest, it is the last of the file's own axes,
    along which files and series stack slices. An array without a file is taken as it lies.
    """
    if geometry.layout is None:
        return 0
    if geometry.spacing_mm is not None:
        finer, coarsest = sorted(geometry.spacing_mm)[1:]
        if coarsest >= THICKER * finer:
            return geometry.spacing_mm.index(coarsest)
    return 2 - int(geometry.layout.orientation[2, 0])


def note_on_slices(geometry: Geometry, code: str | None) -> str | None:
    """Say so if slices are cut across a scan's own, with the size of the pixels that gives.

    Args:
        geometry: of the scan.
        code: of the slices that the network was trained on; None takes the array's as they lie.

    Returns:
        One sentence; None if the scan's own slices are used.
    """
    view, own_axis = view_along(geometry, code), slice_axis(geometry)
    if geometry.affine is None or view.axes[0] == own_axis:
        return None
    letters = orientation_code(geometry.affine)[::-1]  # of Z, H and W
    spacing_mm = view.spacing_mm(geometry)
    pixels = "" if spacing_mm is None else f", of {spacing_mm[1]:.3g}×{spacing_mm[2]:.3g} mm pixels"
    own, cut = (_BETWEEN[_AXIS_OF_LETTER[letters[axis]]] for axis in (own_axis, view.axes[0]))
    trained = "those the network was trained on between" if code else "it is taken for one between"
    return (
        f"the scan's slices follow one another between {own}, and {trained} {cut}: it is cut into "
        f"slices of that kind{pixels}"
    )


def describe_recut(geometry: Geometry) -> tuple[str, str] | None:
    """Tell whether training cuts a file's scan across its own slices, axially, as the array lies.

    Returns:
        "sagittal" or "coronal", and the size of the pixels that axial slices have, such as
        "0.5×3 mm"; None if the scan's own slices are used.
    """
    axis = slice_axis(geometry)
    if axis == 0 or geometry.spacing_mm is None:
        return None
    _, height_mm, width_mm = geometry.spacing_mm
    return ("", "coronal", "sagittal")[axis], f"{height_mm:.3g}×{width_mm:.3g} mm"


def is_isotropic(geometry: Geometry) -> bool:
    """Tell whether voxels are nearly cubes, so that slices in any direction are equally fine."""
    spacing_mm = geometry.spacing_mm
    return spacing_mm is not None and max(spacing_mm) < THICKER * min(spacing_mm)


def _orientation(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return nibabel's (3, 2) orientation of an affine."""
    usable = affine.shape == (4, 4) and np.isfinite(affine).all()
    if not usable or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise DataError(
            f"the affine {affine.tolist()} does not place voxels in space; it must be 4×4, "
            "finite, with three independent axes"
        )
    return np.asarray(nibabel.orientations.io_orientation(affine))
