"""Smooth random fields and solid shapes: the geometry from which the phantoms are built.

A solid is the array of its signed distances, in millimetres and negative inside: `np.minimum`
unites two solids, `np.maximum(a, -b)` takes b out of a, and `solid < 2` is the solid grown by 2 mm.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from msa2net.errors import DataError

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Point = tuple[float, float, float]


def check_phantom(index: int, seed: int, shape: Sequence[int], least: Sequence[int]) -> None:
    """Check what a phantom is asked to be.

    Raises:
        DataError: `index` or `seed` is negative, or `shape` has fewer axes or pixels than `least`.
    """
    if index < 0 or seed < 0:
        raise DataError(f"phantom index {index}, seed {seed}: both must be 0 or more")
    if len(shape) != len(least) or any(n < m for n, m in zip(shape, least, strict=True)):
        raise DataError(f"a phantom of shape {shape} cannot be drawn; use at least {least}")


def ellipsoid(xyz: Floats, centre: Point, half: Point, tilt_deg: Point = (0, 0, 0)) -> Floats:
    """Return an ellipsoid with half axes `half` mm, turned about its own x, y and z axis.

    Its distances are exact on the surface and to first order beside it.
    """
    turn = Rotation.from_euler("xyz", tilt_deg, degrees=True).as_matrix()
    axes = (turn / np.array(half)).T.astype(np.float32)  # rows: an axis over its half length
    offsets = xyz - np.array(centre, np.float32)[:, None, None, None]
    scaled = np.tensordot(axes, offsets, axes=1)
    radius = np.sqrt(np.square(scaled).sum(axis=0))
    halves = np.array(half, np.float32)[:, None, None, None]
    slope = np.sqrt(np.square(scaled / halves).sum(axis=0))
    solid: Floats = (radius - 1) * np.maximum(radius, 1e-6) / np.maximum(slope, 1e-6)
    return solid


def tube(xyz: Floats, path: Sequence[Point], radii: Sequence[float]) -> Floats:
    """Return a round tube along the straight lines from point to point, rounded at each of them.

    Args:
        xyz: positions (3, Z, H, W).
        path: its points.
        radii: one in mm for each point; between two points it changes evenly.
    """
    solid = np.full(xyz.shape[1:], np.inf, np.float32)
    points = np.array(path, np.float32)[..., None, None, None]
    for start, end, first, last in zip(points, points[1:], radii, radii[1:], strict=False):
        way, offsets = end - start, xyz - start
        part = np.clip((offsets * way).sum(axis=0) / np.square(way).sum(), 0, 1)
        distance = np.sqrt(np.square(offsets - part * way).sum(axis=0))
        np.minimum(solid, distance - first - part * (last - first), out=solid)
    return solid


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
