"""Synthetic cardiac cine-MRI in short-axis slices: both ventricles at rest and contracted.

Positions are millimetres from the left ventricle's long axis: x to the patient's left, y to the
back, z from the apex (0) to the base.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from msa2net.data.case import Case
from msa2net.data.geometry import Geometry
from msa2net.data.phantom.shapes import Floats, check_phantom, ellipsoid

HEART_LABELS = ("background", "right ventricle", "myocardium", "left ventricle")
"""Classes of `heart`, in ACDC's order."""

RIGHT, MUSCLE, LEFT = 1, 2, 3
DEPTH_MM, VIEW_MM = 90.0, 350.0  # from the first slice to the last, longer side of the picture

_HEART = 3  # keeps this phantom's random stream apart from the others'
_LEAST = (4, 48, 48)
_LONG = 1e4  # half axis of what runs through the whole volume


def heart(
    index: int, *, systole: bool = False, seed: int = 0, shape: tuple[int, int, int] = (8, 96, 96)
) -> Case:
    """Draw one phase of a patient's heart.

    Args:
        index: which patient, from 0; `patient001` is the first.
        systole: contracted rather than filled.
        seed: which series of patients, from 0.
        shape: (Z, H, W), at least (4, 48, 48); the slices cover 90 mm, from the apex to or beyond
            the base, and the picture's longer side 350 mm.

    Returns:
        Case with image (1, Z, H, W) int16 in arbitrary units and label (Z, H, W) uint8 indexing
        `HEART_LABELS`; its id is `patient001_frame01`, or `…_frame09` in systole.

    Raises:
        DataError: `shape` is too small, or `index` or `seed` is negative.
    """
    check_phantom(index, seed, shape, _LEAST)
    rng = np.random.default_rng([seed, index, _HEART])
    spacing_mm = (DEPTH_MM / shape[0], VIEW_MM / max(shape[1:]), VIEW_MM / max(shape[1:]))
    xyz = _positions(rng, shape, spacing_mm)
    image, label = np.full(shape, 4.0), np.zeros(shape, np.uint8)
    for tone, solid, class_index in _anatomy(rng, xyz, systole):
        image[solid < 0] = tone
        label[solid < 0] = class_index
    noise = np.random.default_rng([seed, index, _HEART, int(systole)])
    values = _scan(image, noise, spacing_mm[1])
    name = f"patient{index + 1:03d}_frame{9 if systole else 1:02d}"
    return Case(name, values[None], label, Geometry.from_spacing(spacing_mm))


def _positions(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> Floats:
    """Return where the voxels lie (3, Z, H, W); each slice is taken in its own breath-hold."""
    z, y, x = (
        ((np.arange(n) - (n - 1) / 2) * step).astype(np.float32)
        for n, step in zip(shape, spacing_mm, strict=True)
    )
    xyz = np.stack(np.meshgrid(z + np.float32(DEPTH_MM / 2), y, x, indexing="ij")[::-1])
    xyz[:2] -= rng.uniform(-12, 12, (2, 1, 1, 1)) + rng.normal(0, 1.5, (2, shape[0], 1, 1))
    return xyz


def _anatomy(
    rng: np.random.Generator, xyz: Floats, systole: bool
) -> list[tuple[float, Floats, int]]:
    """Return brightness, solid and class of each part; later parts cover earlier ones.

    In systole the heart is smaller and its wall thicker. The ventricles are ellipsoids, widest at
    the base, where they end; the right one is hidden behind the septum.
    """
    strength = rng.uniform(0.25, 0.4) * systole
    length = rng.uniform(72, 88) * (0.9 if systole else 1)
    inner = rng.uniform(21, 28) * (1 - strength)
    outer = inner + rng.uniform(8, 12) * (1 + strength)
    reach = rng.uniform(26, 36) * (1 - 0.7 * strength)
    turn, width, depth = rng.uniform((0.1, 145, 100), (0.7, 165, 120))
    aside, right = 0.55 * (outer + reach), 0.75 * outer + 0.3 * reach - 4
    lung, muscle, right_blood, left_blood, fat = (
        np.array([30, 95, 270, 270, 120]) * rng.normal(1, 0.06, 5)
    ).tolist()

    def ventricle(x: float, y: float, radius: float) -> Floats:
        solid = ellipsoid(xyz, (x, y, length), (radius, radius, length))
        return np.maximum(solid, xyz[2] - length)

    def column(x: float, y: float, half_x: float, half_y: float) -> Floats:
        return ellipsoid(xyz, (x, y, 0), (half_x, half_y, _LONG))

    return [
        (2 * fat, column(0, 0, width, depth), 0),
        (muscle, column(0, 0, 0.9 * width, 0.9 * depth), 0),
        (lung, column(0, 0, 0.82 * width, 0.82 * depth), 0),
        (fat, column(-12, 0, 72, 60), 0),
        (muscle, column(-50, 56, 34, 27), 0),  # the liver
        (right_blood, ventricle(-aside * np.cos(turn), -aside * np.sin(turn), right), RIGHT),
        (muscle, ventricle(0, 0, outer), MUSCLE),
        (left_blood, ventricle(0, 0, inner), LEFT),
    ]


def _scan(
    image: NDArray[np.float64], rng: np.random.Generator, pixel_mm: float
) -> NDArray[np.int16]:
    """Blur, shade as a surface coil does, and add noise; magnitudes are never negative."""
    image = gaussian_filter(image, (0, 0.9 / pixel_mm, 0.9 / pixel_mm), truncate=3)
    down, across = (np.linspace(-1, 1, n) for n in image.shape[1:])
    tilt = rng.uniform(-0.25, 0.25, 2)
    shaded = image * (1 + tilt[0] * down[:, None] + tilt[1] * across)
    real, imaginary = rng.normal(0, 9, (2, *image.shape))
    return np.rint(np.hypot(shaded + real, imaginary)).astype(np.int16)
