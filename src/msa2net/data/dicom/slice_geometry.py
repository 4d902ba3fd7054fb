"""The grid of a DICOM series, from where each slice says it lies in the patient.

Neither file names nor instance numbers say how slices follow each other; positions do. Slices
that do not make up a regular, upright grid are refused with the slice that breaks it, because a
mask on a guessed grid looks right and is not.

DICOM counts millimetres to the left, posterior and superior (LPS), NIfTI and `Geometry` to the
right, anterior and superior (RAS).
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msa2net.data.geometry import FileLayout, Geometry, canonical_orientation
from msa2net.errors import DataError

UNEVENNESS = 0.2
"""How far along the stack a slice may lie from the regular grid, in slice distances. Positions
rounded to 0.1 mm lie a tenth off where slices are 0.5 mm apart; a missing slice moves its
neighbours by more than a fifth in any stack, and a voxel is read wrongly from a half on."""

SIDEWAYS = 0.5
"""How far sideways a voxel may lie from where its file says, in pixels; `require_same_grid`
forgives as much between files."""

_SAME_PLACE_MM = 0.01
_MM_RANGE = 1e-6, 1e6  # of pixel sizes; beyond lie damaged headers only
_GAP = 1.5  # slice distances
_DIRECTION_ERROR = (
    1e-3  # of unit length and right angle; positions are written with 4 digits or more
)
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Slice:
    """One image of a series and where it lies.

    Attributes:
        path: its file.
        frame: which of the file's images, from 0; None if there is but one.
        position_mm: (3,) LPS position of the centre of the first pixel.
        directions: (2, 3) LPS unit vectors, along a row and down a column.
        pixel_mm: distance of rows and of columns.
        shape: rows and columns.
        thickness_mm: None if not said.
        slope, intercept: value = stored × slope + intercept.
        localiser: it says that it is an overview image.
        reference: UID of the coordinate system; empty if not said.
        study: UID; empty if not said.
        patient: a hash of whose it is, for comparing only.
    """

    path: Path
    frame: int | None
    position_mm: NDArray[np.float64]
    directions: NDArray[np.float64]
    pixel_mm: tuple[float, float]
    shape: tuple[int, int]
    thickness_mm: float | None = None
    slope: float = 1.0
    intercept: float = 0.0
    localiser: bool = False
    reference: str = ""
    study: str = ""
    patient: str = ""

    def __str__(self) -> str:
        x, y, z = self.position_mm
        frame = "" if self.frame is None else f", frame {self.frame + 1},"
        kind = " (a localiser)" if self.localiser else ""
        return f"{self.path}{frame}{kind} at ({x:g}, {y:g}, {z:g}) mm"


def stack(slices: Sequence[Slice]) -> tuple[list[Slice], Geometry]:
    """Sort slices along the stack and check that they make up a grid.

    A single slice is as thick as its SliceThickness says.

    Returns:
        The slices in order, and their geometry; its layout is the series' own grid of columns,
        rows and slices.

    Raises:
        DataError: mixed sizes or directions, two slices at one place, a missing one, unequal
            distances or a gantry tilt; it names the slice.
    """
    for slice_ in slices:
        _check_alone(slice_)
    _check_alike(slices)
    normal = np.cross(*slices[0].directions)
    ordered = sorted(slices, key=lambda slice_: float(slice_.position_mm @ normal))
    positions_mm = np.array([slice_.position_mm for slice_ in ordered])
    if len(ordered) == 1:
        origin, step = positions_mm[0], normal * _thickness(ordered[0])
    else:
        _check_distances(ordered, positions_mm @ normal)
        origin, step = _line(positions_mm)
        _check_even(ordered, (positions_mm - origin) @ normal, float(step @ normal))
        _check_upright(ordered, positions_mm, normal)
    return ordered, Geometry.from_layout(_layout(ordered, origin, step))


def _layout(
    ordered: Sequence[Slice], origin: NDArray[np.float64], step: NDArray[np.float64]
) -> FileLayout:
    first = ordered[0]
    (rows, columns), (row_mm, column_mm) = first.shape, first.pixel_mm
    affine = np.eye(4)
    affine[:3, 0] = first.directions[0] * column_mm
    affine[:3, 1] = first.directions[1] * row_mm
    affine[:3, 2] = step
    affine[:3, 3] = origin
    # Nanometres are below what files state; without them sums of decimal numbers stay decimal.
    affine = np.round(_LPS_TO_RAS @ affine, 9) + 0.0
    return FileLayout(
        shape=(columns, rows, len(ordered)),
        affine=affine,
        orientation=canonical_orientation(affine),
        sform_code=1,  # coordinates of the scanner
        qform_code=1,
        units="mm",
    )


def _line(positions_mm: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit the first position and the step by least squares, so that rounding averages out."""
    index = np.arange(len(positions_mm)) - (len(positions_mm) - 1) / 2
    step = index @ positions_mm / (index @ index)
    return positions_mm.mean(axis=0) + index[0] * step, step


def _thickness(slice_: Slice) -> float:
    if slice_.thickness_mm is None or not 0 < slice_.thickness_mm < np.inf:
        raise DataError(
            f"{slice_} is a single slice without SliceThickness, so the size of its voxels is "
            "unknown; export the whole series, or save the slice as an image"
        )
    return slice_.thickness_mm


def _check_alone(slice_: Slice) -> None:
    if not np.isfinite(slice_.position_mm).all():
        raise DataError(f"{slice_} has no usable ImagePositionPatient; its header is damaged")
    if not all(_MM_RANGE[0] < size < _MM_RANGE[1] for size in slice_.pixel_mm):
        height, width = slice_.pixel_mm
        raise DataError(f"{slice_} has PixelSpacing {height:g}×{width:g} mm; its header is damaged")
    # One comparison for lengths and angle; it is also false for what is not a number.
    if not np.abs(slice_.directions @ slice_.directions.T - np.eye(2)).max() <= _DIRECTION_ERROR:
        raise DataError(
            f"{slice_} has an ImageOrientationPatient that is no pair of perpendicular unit "
            "vectors; its header is damaged"
        )


def _check_alike(slices: Sequence[Slice]) -> None:
    """Check that slices are alike, and name the one that differs from most of the series."""
    for what in ("patient", "study"):
        for slice_, usual in _different(slices, attrgetter(what)):
            raise DataError(
                f"{slice_} is of another {what} than {usual}, though both say that they are of one "
                "series; part them into folders, and look how they were made anonymous"
            )
    for slice_, usual in _different(slices, attrgetter("shape")):
        raise _differs("rows × columns", slice_, slice_.shape, usual, usual.shape)
    for slice_, usual in _different(slices, attrgetter("reference")):
        raise DataError(
            f"{slice_} has another coordinate system (FrameOfReferenceUID) than {usual}, which "
            "is as most slices of the series are; move what differs to a folder of its own"
        )
    # In units of what half a pixel at the far edge is: digits at the end make no difference.
    edge = max(slices[0].shape) / SIDEWAYS
    for slice_, usual in _apart(slices, lambda slice_: slice_.directions.ravel() * edge):
        raise DataError(
            f"{slice_} lies in another direction than {usual}, which is as most slices of the "
            "series are; move it, and others such as localisers, to a folder of their own"
        )
    for slice_, usual in _apart(slices, lambda slice_: np.log(slice_.pixel_mm) * edge):
        raise _differs("pixel spacing", slice_, slice_.pixel_mm, usual, usual.pixel_mm)


def _different(
    slices: Sequence[Slice], of: Callable[[Slice], Hashable]
) -> Iterator[tuple[Slice, Slice]]:
    """Yield slices that are not as most are, and the first one that is."""
    usual = _most_frequent(slices, of)
    return ((slice_, usual) for slice_ in slices if of(slice_) != of(usual))


def _apart(
    slices: Sequence[Slice], of: Callable[[Slice], NDArray[np.float64]]
) -> Iterator[tuple[Slice, Slice]]:
    """Yield slices that lie further than 1 from where most are, and the first one that does."""
    usual = _most_frequent(slices, lambda slice_: tuple(np.round(of(slice_))))
    return ((slice_, usual) for slice_ in slices if np.abs(of(slice_) - of(usual)).max() > 1)


def _most_frequent(slices: Sequence[Slice], of: Callable[[Slice], Hashable]) -> Slice:
    value, _ = Counter(map(of, slices)).most_common(1)[0]
    return next(slice_ for slice_ in slices if of(slice_) == value)


def _differs(
    what: str, slice_: Slice, its: Sequence[float], usual: Slice, most: Sequence[float]
) -> DataError:
    own, others = ("×".join(f"{number:g}" for number in numbers) for numbers in (its, most))
    return DataError(
        f"{slice_} has {what} {own} and {usual} has {others}, as most slices of the series; move "
        "what differs to a folder of its own"
    )


def _check_distances(ordered: Sequence[Slice], along_mm: NDArray[np.float64]) -> None:
    """Check that no two slices lie at one place, and none is missing."""
    steps = np.diff(along_mm)
    if (steps < _SAME_PLACE_MM).any():
        raise _repeated(ordered, steps)
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    widest = int(steps.argmax())
    if steps[widest] > _GAP * usual:
        missing = max(1, round(steps[widest] / usual) - 1)
        raise DataError(
            f"between {ordered[widest]} and {ordered[widest + 1]} lie {steps[widest]:.4g} mm where "
            f"{usual:.4g} mm is usual in the series: {missing} "
            f"{'slice is' if missing == 1 else 'slices are'} missing; export the series again"
        )


def _repeated(ordered: Sequence[Slice], steps: NDArray[np.float64]) -> DataError:
    same = steps < _SAME_PLACE_MM
    first = int(same.argmax())
    places = len(ordered) - int(same.sum())
    counts = np.diff(np.flatnonzero(np.concatenate([[True], ~same, [True]])))
    if places > 1 and (counts == counts[0]).all():
        advice = (
            f"each of the {places} places has {counts[0]} images, such as time points, echoes or "
            "reconstructions; put one set of them in a folder of its own"
        )
    else:
        advice = "keep the right one of the two"
    return DataError(f"{ordered[first]} and {ordered[first + 1]} lie at the same place; {advice}")


def _check_even(ordered: Sequence[Slice], along_mm: NDArray[np.float64], step_mm: float) -> None:
    off_mm = np.abs(along_mm - step_mm * np.arange(len(ordered)))
    worst = int(off_mm.argmax())
    if off_mm[worst] > UNEVENNESS * step_mm:
        steps = np.diff(along_mm)
        raise DataError(
            f"{ordered[worst]} lies {off_mm[worst]:.3g} mm from its place in a stack with one "
            f"distance: slices of the series are {steps.min():.4g} to {steps.max():.4g} mm apart; "
            "resample it to equal distances, or export a reconstruction that has them"
        )


def _check_upright(
    ordered: Sequence[Slice], positions_mm: NDArray[np.float64], normal: NDArray[np.float64]
) -> None:
    """Check that slices lie straight above each other."""
    moved = positions_mm - positions_mm[0]
    sideways = moved - np.outer(moved @ normal, normal)
    far_mm = np.linalg.norm(sideways, axis=1)
    worst = int(far_mm.argmax())
    limit_mm = SIDEWAYS * min(ordered[0].pixel_mm)
    if far_mm[worst] <= limit_mm:
        return
    origin, step = _line(sideways)
    straight = origin + np.outer(np.arange(len(ordered)), step)
    if np.linalg.norm(sideways - straight, axis=1).max() <= limit_mm:
        tilt = np.degrees(np.arctan2(np.linalg.norm(step), moved[-1] @ normal / (len(ordered) - 1)))
        raise DataError(
            f"{ordered[worst]} lies {far_mm[worst]:.3g} mm beside the first slice: the stack leans "
            f"by {tilt:.2g}° (gantry tilt); correct the tilt with a converter, such as dcm2niix, "
            "and give its NIfTI file"
        )
    raise DataError(
        f"{ordered[worst]} lies {far_mm[worst]:.3g} mm beside the first slice of the series; "
        "slices must lie straight above each other, so resample the series or leave out what moved"
    )
