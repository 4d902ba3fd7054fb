"""Smooth random fields and solid shapes: the geometry from which the phantoms are built.

A solid is the array of its signed distances, in millimetres and negative inside: `np.minimum`
unites two solids, `np.maximum(a, -b)` takes b out of a, and `solid < 2` is the solid grown by 2 mm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Point = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Region:
    """A box of a voxel grid and where its voxels lie, in millimetres.

    Attributes:
        x: position from the patient's right to the left, (Z, H, W).
        y: position from the front to the back, (Z, H, W).
        z: position from the feet to the head, (Z, H, W).
        rough: a smooth random field in millimetres, (Z, H, W); it makes surfaces irregular.
        box: which voxels of the whole grid these are.
    """

    x: Floats
    y: Floats
    z: Floats
    rough: Floats
    box: tuple[slice, slice, slice]


class Space:
    """A whole voxel grid, from which regions are cut."""

    def __init__(self, x: Floats, y: Floats, z: Floats, rough: Floats) -> None:
        everything = (slice(None), slice(None), slice(None))
        self.whole = Region(x, y, z, rough, everything)
        # Smallest and largest position met at each index, as the axes are turned and warped.
        self._bounds = [
            (position.min(axis=others), position.max(axis=others))
            for position, others in ((z, (1, 2)), (y, (0, 2)), (x, (0, 1)))
        ]

    def crop(self, low: Point, high: Point) -> Region:
        """Return the smallest box that holds all voxels of low ≤ (x, y, z) ≤ high.

        An axis on which no voxel qualifies keeps one.
        """
        spans = []
        for (least, most), start, stop in zip(self._bounds, low[::-1], high[::-1], strict=True):
            where = np.flatnonzero((most >= start) & (least <= stop))
            spans.append(slice(int(where[0]), int(where[-1]) + 1) if where.size else slice(0, 1))
        box = (spans[0], spans[1], spans[2])
        part = self.whole
        return Region(part.x[box], part.y[box], part.z[box], part.rough[box], box)

    def around(self, path: Sequence[Point], margin_mm: float) -> Region:
        """Return the box that holds every point within `margin_mm` of the given ones."""
        points = np.asarray(path, dtype=float)
        low, high = points.min(axis=0) - margin_mm, points.max(axis=0) + margin_mm
        return self.crop(tuple(low.tolist()), tuple(high.tolist()))


def ellipsoid(region: Region, centre: Point, half: Point, tilt_deg: Point = (0, 0, 0)) -> Floats:
    """Return an ellipsoid with half axes `half` mm, turned about its own x, y and z axis."""
    offsets = (region.x - centre[0], region.y - centre[1], region.z - centre[2])
    turn = Rotation.from_euler("xyz", tilt_deg, degrees=True).as_matrix().astype(np.float32)
    squares = np.zeros_like(region.x)
    for axis in range(3):
        along = sum(turn[k, axis] * offsets[k] for k in range(3))
        squares += np.square(along / np.float32(half[axis]))
    return (np.sqrt(squares) - 1) * np.float32(np.mean(half))


def tube(region: Region, path: Sequence[Point], radii: Sequence[float]) -> Floats:
    """Return a round tube along a smooth curve through `path`; one radius in mm for each point.

    Built of balls a third of a radius apart, so the wall is smooth to 2 % of the radius.
    """
    points = np.asarray(path, dtype=float)
    knots = np.concatenate([[0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    count = math.ceil(3 * knots[-1] / min(radii)) + 1
    curve = CubicSpline(knots, np.column_stack([points, radii]))(np.linspace(0, knots[-1], count))
    solid = np.full_like(region.x, np.inf)
    for x, y, z, radius in curve.astype(np.float32):
        squares = np.square(region.x - x) + np.square(region.y - y) + np.square(region.z - z)
        np.minimum(solid, np.sqrt(squares) - radius, out=solid)
    return solid


def join(first: Floats, second: Floats, blend_mm: float) -> Floats:
    """Unite two solids and round off the groove between them over `blend_mm`."""
    overlap = np.maximum(blend_mm - np.abs(first - second), 0) / blend_mm
    joined: Floats = np.minimum(first, second) - overlap**2 * np.float32(blend_mm / 4)
    return joined


def smooth_noise(
    rng: np.random.Generator,
    positions: Sequence[NDArray[np.floating]],
    extents: Sequence[float],
    cell: float,
) -> Floats:
    """Return a smooth random field with mean 0, variance near 1 and features about `cell` wide.

    Cubic B-splines over random control points: cheap at any size, and the same field whatever
    the number of positions at which it is read.

    Args:
        rng: source of the control points.
        positions: the coordinates along each axis, in the unit of `cell`.
        extents: the field of an axis reaches from −extent to +extent; beyond, it is constant.
        cell: distance between control points.

    Returns:
        Array with one axis for each entry of `positions`.
    """
    counts = [2 * (math.ceil(extent / cell) + 1) + 1 for extent in extents]
    field = rng.standard_normal(counts, dtype=np.float32)
    for where, extent, count in zip(positions, extents, counts, strict=True):
        steps = np.clip(where, -extent, extent)[:, None] / cell
        distance = np.abs(steps - (np.arange(count) - count // 2))
        near = 2 / 3 - distance**2 + distance**3 / 2
        far = np.maximum(2 - distance, 0) ** 3 / 6
        weights = np.where(distance < 1, near, far).astype(np.float32)
        # Contracting the first axis appends the new one: after all axes the order is as before.
        field = np.tensordot(field, weights, axes=(0, 1))
    # 151/315 is the mean over positions of the squared weights of a cubic B-spline.
    return field * np.float32((315 / 151) ** (len(counts) / 2))
