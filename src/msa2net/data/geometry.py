"""Where a voxel grid lies in the patient, and how its source file lays the same grid out.

Readers bring every scan to one *canonical orientation*: columns (W) run to the patient's left,
rows (H) to the posterior, slices (Z) to the superior, as viewers show an axial scan. A file's own
axes are (X, Y, Z) in any order and direction; between the two lie permutation and flips only, so
the way there and back loses nothing.

A code such as LPS names the directions in which columns, rows and slices run: to the patient's
left, posterior and superior.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import nibabel
import numpy as np
from numpy.typing import NDArray

from msa2net.errors import DataError

Scalar = TypeVar("Scalar", bound=np.generic)

MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
"""NIfTI's units of length; files that do not name theirs mean millimetres."""

CANONICAL = "LPS"
"""The code that readers bring scans to."""

THICKER = 1.25
"""How many times coarser than the others an axis is if slices were surely taken along it."""

_AXIS_OF_LETTER = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}
_BETWEEN = {0: "left and right", 1: "front and back", 2: "feet and head"}


@dataclass(frozen=True, eq=False)
class FileLayout:
    """How the source file lays the same grid out, so that a mask can be written back into it.

    Attributes:
        shape: the file's own (X, Y, Z).
        affine: 4×4, the file's own voxel index → RAS position in `units`.
        orientation: (3, 2), one row per file axis: the canonical axis it becomes (0 column W,
            1 row H, 2 slice Z), and 1 if it runs the same way or −1 if against it.
        sform_code, qform_code: what the file says its coordinates mean.
        units: meter, mm, micron or unknown.
        qform: the header's second statement of position, as stored: pixdim 0–3, quatern b c d,
            qoffset x y z. Programs differ in whom they believe, so it is kept even where it
            contradicts `affine`. None if it says nothing; it then follows `affine`.
        version: 1 or 2, of the NIfTI format.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    orientation: NDArray[np.int8]
    sform_code: int
    qform_code: int
    units: str
    qform: tuple[float, ...] | None = None
    version: int = 1


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where a voxel grid lies in the patient; all fields are None for a 2-D image.

    Attributes:
        spacing_mm: distance between voxel centres along (Z, H, W), in millimetres.
        affine: 4×4, voxel index (column, row, slice) → RAS position in millimetres.
        layout: the source file's own layout; None if the grid came from no volume file.
    """

    spacing_mm: tuple[float, float, float] | None = None
    affine: NDArray[np.float64] | None = None
    layout: FileLayout | None = None

    @classmethod
    def from_spacing(cls, spacing_mm: tuple[float, float, float]) -> "Geometry":
        """Make the geometry of an axis-aligned grid at the origin.

        Columns run to the patient's left, rows to the back, slices to the head: an axial scan
        as viewers show it.
        """
        depth, height, width = spacing_mm
        return cls(spacing_mm, np.diag([-width, -height, depth, 1.0]))

    @classmethod
    def from_layout(cls, layout: FileLayout) -> "Geometry":
        """Make the canonical geometry of a file's grid."""
        affine = np.eye(4)
        affine[:3, 3] = layout.affine[:3, 3]
        for axis, (target, sign) in enumerate(layout.orientation):
            affine[:3, target] = sign * layout.affine[:3, axis]
            if sign < 0:  # counting starts at the other end
                affine[:3, 3] += (layout.shape[axis] - 1) * layout.affine[:3, axis]
        affine[:3] *= MM_PER_UNIT[layout.units]
        affine += 0.0  # no negative zeros
        width, height, depth = np.linalg.norm(affine[:3, :3], axis=0).tolist()
        return cls((depth, height, width), affine, layout)

    @property
    def voxel_mm(self) -> tuple[float, float, float] | None:
        """Return `spacing_mm`, or what the affine says where that is not given."""
        if self.spacing_mm is not None or self.affine is None:
            return self.spacing_mm
        width, height, depth = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return depth, height, width

    @property
    def slice_axis(self) -> int:
        """Return the axis of the array (0 Z, 1 H, 2 W) along which the file's own slices follow.

        Readers turn every scan to one orientation, so it need not be Z. Slices are thicker than
        their pixels are wide; where no axis is clearly the coarsest, it is the last of the file's
        own axes, along which files and series stack slices. An array without a file is taken as it
        lies.
        """
        if self.layout is None:
            return 0
        if self.spacing_mm is not None:
            finer, coarsest = sorted(self.spacing_mm)[1:]
            if coarsest >= THICKER * finer:
                return self.spacing_mm.index(coarsest)
        return 2 - int(self.layout.orientation[2, 0])

    @property
    def is_isotropic(self) -> bool:
        """Return whether voxels are nearly cubes: slices in any direction are equally fine."""
        mm = self.spacing_mm
        return mm is not None and max(mm) < THICKER * min(mm)

    def turn_to(self, code: str | None) -> NDArray[np.int8]:
        """Return the `FileLayout.orientation` by which the array runs along `code`.

        The identity where there is no code or no affine, and for every scan of a reader and LPS.

        Raises:
            DataError: the affine has axes that span no volume.
        """
        if code is None or self.affine is None:
            return np.array([[0, 1], [1, 1], [2, 1]], np.int8)
        return canonical_orientation(self.affine, code)

    def turned(self, turn: NDArray[np.int8], shape_ZHW: tuple[int, ...]) -> "Geometry":
        """Return the geometry of the grid, of a shape, after `turn`; see `turn_to`."""
        voxel_mm, affine = self.voxel_mm, self.affine
        if affine is not None:
            width, height, depth = shape_ZHW[::-1]
            own = FileLayout((width, height, depth), affine, turn, 1, 1, "mm")
            affine = Geometry.from_layout(own).affine
        if voxel_mm is not None:
            width, height, depth = (2 - int(axis) for axis in np.argsort(turn[:, 0]))
            voxel_mm = voxel_mm[depth], voxel_mm[height], voxel_mm[width]
        return replace(self, spacing_mm=voxel_mm, affine=affine)

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values; `from_json` gives the same geometry, bit for bit."""
        content: dict[str, Any] = {
            "spacing_mm": None if self.spacing_mm is None else list(self.spacing_mm),
            "affine": None if self.affine is None else self.affine.tolist(),
            "layout": None,
        }
        if self.layout is not None:
            qform = self.layout.qform
            content["layout"] = {
                **vars(self.layout),
                "shape": list(self.layout.shape),
                "affine": self.layout.affine.tolist(),
                "orientation": self.layout.orientation.tolist(),
                "qform": None if qform is None else list(qform),
            }
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Geometry":
        """Make a geometry of what `to_json` returned."""
        spacing, affine, layout = content["spacing_mm"], content["affine"], content["layout"]
        if layout is not None:
            layout = FileLayout(
                **layout
                | {
                    "shape": tuple(layout["shape"]),
                    "affine": np.array(layout["affine"]),
                    "orientation": np.array(layout["orientation"], np.int8),
                    "qform": None if layout["qform"] is None else tuple(layout["qform"]),
                }
            )
        return cls(
            spacing_mm=None if spacing is None else tuple(spacing),
            affine=None if affine is None else np.array(affine),
            layout=layout,
        )


def canonical_orientation(affine: NDArray[np.float64], code: str = CANONICAL) -> NDArray[np.int8]:
    """Return the `FileLayout.orientation` of a file whose voxels lie by `affine` (RAS).

    An oblique axis counts as the patient's axis it is nearest to.

    Raises:
        DataError: its axes span no volume.
    """
    wanted = nibabel.orientations.axcodes2ornt(code)
    turn = nibabel.orientations.ornt_transform(_orientation(affine), wanted)
    return np.asarray(turn).astype(np.int8)


def to_canonical(file_XYZ: NDArray[Scalar], orientation: NDArray[np.int8]) -> NDArray[Scalar]:
    """Return a view (…, Z, H, W) in canonical orientation of (…, X, Y, Z) in a file's own."""
    flips: tuple[Any, ...] = (..., *_flips(orientation))
    column, row, slice_ = (int(axis) - 3 for axis in np.argsort(orientation[:, 0]))
    leading = range(file_XYZ.ndim - 3)
    axes = [axis + file_XYZ.ndim for axis in (slice_, row, column)]
    return file_XYZ[flips].transpose(*leading, *axes)


def to_file(canonical_ZHW: NDArray[Scalar], orientation: NDArray[np.int8]) -> NDArray[Scalar]:
    """Return a view (X, Y, Z) in the file's own layout of (Z, H, W) in canonical orientation."""
    canonical_WHZ = canonical_ZHW.transpose(2, 1, 0)
    return canonical_WHZ.transpose(*(int(axis) for axis in orientation[:, 0]))[_flips(orientation)]


def orientation_code(affine: NDArray[np.float64]) -> str:
    """Return the code of a grid whose voxels (column, row, slice) lie at `affine` (RAS).

    Raises:
        DataError: its axes span no volume.
    """
    return "".join(nibabel.orientations.ornt2axcodes(_orientation(affine)))


def common_orientation(geometries: Iterable[Geometry]) -> str | None:
    """Return the code that all grids have in common, so that others can be turned to it.

    None if they differ, or if one of them says nothing of where it lies in the patient.

    Raises:
        DataError: an affine whose axes span no volume.
    """
    codes = {
        None if geometry.affine is None else orientation_code(geometry.affine)
        for geometry in geometries
    }
    return codes.pop() if len(codes) == 1 else None


def note_on_slices(geometry: Geometry, code: str | None) -> str | None:
    """Return a sentence if slices are cut across a scan's own, with their pixels' size.

    Args:
        geometry: of the scan.
        code: of the slices that the network was trained on; None takes the array's as they lie.

    Returns:
        One sentence; None if the scan's own slices are used.
    """
    turn, own_axis = geometry.turn_to(code), geometry.slice_axis
    cut_axis = 2 - int(turn[:, 0].tolist().index(2))
    if geometry.affine is None or cut_axis == own_axis:
        return None
    letters = orientation_code(geometry.affine)[::-1]  # of Z, H and W
    voxel_mm = geometry.turned(turn, (1, 1, 1)).spacing_mm
    pixels = "" if voxel_mm is None else f", of {voxel_mm[1]:.3g}×{voxel_mm[2]:.3g} mm pixels"
    own, cut = (_BETWEEN[_AXIS_OF_LETTER[letters[axis]]] for axis in (own_axis, cut_axis))
    trained = "those the network was trained on between" if code else "it is taken for one between"
    return (
        f"the scan's slices follow one another between {own}, and {trained} {cut}: it is cut into "
        f"slices of that kind{pixels}"
    )


def describe_recut(geometry: Geometry) -> tuple[str, str] | None:
    """Return whether training cuts a file's scan across its own slices, axially, as the array lies.

    Returns:
        "sagittal" or "coronal", and the size of the pixels that axial slices have, such as
        "0.5×3 mm"; None if the scan's own slices are used.
    """
    axis = geometry.slice_axis
    if axis == 0 or geometry.spacing_mm is None:
        return None
    _, height_mm, width_mm = geometry.spacing_mm
    return ("", "coronal", "sagittal")[axis], f"{height_mm:.3g}×{width_mm:.3g} mm"


Grid = tuple[Path, tuple[int, ...], Geometry]


def require_same_grid(case_id: str, one: Grid, other: Grid) -> None:
    """Check that two files' voxels lie at the same places.

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
    """Return a hint for 2-D images of which one lies on its side."""
    swapped = one[1][-2:] == other[1][:-3:-1]
    if not swapped or one[2].affine is not None or other[2].affine is not None:
        return ""
    return (
        "; if a camera turned the photograph (EXIF orientation), one of the two is drawn on the "
        "pixels as they are stored, turn it"
    )


def _place(geometry: Geometry) -> str:
    """Return where a grid's first voxel is and how far apart voxels are, for an error."""
    assert geometry.affine is not None
    origin = ", ".join(f"{value:.5g}" for value in geometry.affine[:3, 3])
    spacing = "?" if geometry.spacing_mm is None else _size(geometry.spacing_mm)
    return f"({origin}) mm with spacing {spacing} mm"


def _size(numbers: Sequence[float]) -> str:
    return "×".join(f"{number:g}" for number in numbers)


def _orientation(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return nibabel's (3, 2) orientation of an affine."""
    usable = affine.shape == (4, 4) and np.isfinite(affine).all()
    if not usable or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise DataError(
            f"the affine {affine.tolist()} does not place voxels in space; it must be 4×4, "
            "finite, with three independent axes"
        )
    return np.asarray(nibabel.orientations.io_orientation(affine))


def _flips(orientation: NDArray[np.int8]) -> tuple[slice, ...]:
    return tuple(slice(None, None, int(sign)) for sign in orientation[:, 1])
