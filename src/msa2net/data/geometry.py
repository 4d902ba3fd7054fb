"""Where a voxel grid lies in the patient, and how its source file lays the same grid out.

Arrays live in the *training orientation*: columns (W) run to the patient's left, rows (H) to the
posterior, slices (Z) to the superior, as viewers show an axial scan. A file's own axes are
(X, Y, Z) in any order and direction; between the two lie permutation and flips only, so the way
there and back loses nothing.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import nibabel
import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
"""NIfTI's units of length; files that do not name theirs mean millimetres."""


@dataclass(frozen=True, eq=False)
class FileLayout:
    """How the source file lays the same grid out, so that a mask can be written back into it.

    Attributes:
        shape: the file's own (X, Y, Z).
        affine: 4×4, the file's own voxel index → RAS position in `units`.
        orientation: (3, 2), one row per file axis: the training axis it becomes (0 column W,
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
    """Where a voxel grid lies in the patient; all fields are None for a photograph.

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
        """Make the training-orientation geometry of a file's grid."""
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


def training_orientation(affine: NDArray[np.float64]) -> NDArray[np.int8]:
    """Return the `FileLayout.orientation` of a file whose voxels lie by `affine` (RAS).

    An oblique axis counts as the patient's axis it is nearest to.
    """
    orientations = nibabel.orientations
    to_ras = orientations.io_orientation(affine)
    lps = orientations.axcodes2ornt("LPS")
    return np.asarray(orientations.ornt_transform(to_ras, lps)).astype(np.int8)


def to_training(file_XYZ: NDArray[Scalar], orientation: NDArray[np.int8]) -> NDArray[Scalar]:
    """Return a view (…, Z, H, W) in the training orientation of (…, X, Y, Z) in a file's own."""
    flips: tuple[Any, ...] = (..., *_flips(orientation))
    column, row, slice_ = (int(axis) - 3 for axis in np.argsort(orientation[:, 0]))
    leading = range(file_XYZ.ndim - 3)
    axes = [axis + file_XYZ.ndim for axis in (slice_, row, column)]
    return file_XYZ[flips].transpose(*leading, *axes)


def to_file(training_ZHW: NDArray[Scalar], orientation: NDArray[np.int8]) -> NDArray[Scalar]:
    """Return a view (X, Y, Z) in the file's own layout of (Z, H, W) in the training orientation."""
    training_WHZ = training_ZHW.transpose(2, 1, 0)
    return training_WHZ.transpose(*(int(axis) for axis in orientation[:, 0]))[_flips(orientation)]


def _flips(orientation: NDArray[np.int8]) -> tuple[slice, ...]:
    return tuple(slice(None, None, int(sign)) for sign in orientation[:, 1])
