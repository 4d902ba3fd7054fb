"""Synthetic cardiac cine-MRI in short-axis slices: both ventricles at rest and contracted.

Positions are millimetres from the left ventricle's long axis: x to the patient's left, y to the
back, z from the apex (0) to the base.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from msa2net.data.case import Case
from msa2net.data.geometry import Geometry
from msa2net.errors import DataError

HEART_LABELS = ("background", "right ventricle", "myocardium", "left ventricle")
"""Classes of `heart`, in ACDC's order."""

RIGHT, MUSCLE, LEFT = 1, 2, 3
DEPTH_MM, VIEW_MM = 90.0, 350.0  # from the first slice to the last, longer side of the picture

_HEART = 3  # keeps this phantom's random stream apart from the others'
_LEAST = (4, 48, 48)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Anatomy:
    """One patient's heart in one phase; lengths in mm.

    Attributes:
        length: from the apex to the base.
        inner: radius of the left ventricle at its widest.
        wall: thickness of the myocardium.
        reach: how far the right ventricle goes beyond the myocardium.
        turn: direction of the right ventricle from the left one, in radians from −x to −y.
        thorax: half width and half depth of the chest.
    """

    length: float
    inner: float
    wall: float
    reach: float
    turn: float
    thorax: tuple[float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Anatomy":
        """Draw a patient at the end of diastole."""
        return cls(
            length=rng.uniform(72, 88),
            inner=rng.uniform(21, 28),
            wall=rng.uniform(8, 12),
            reach=rng.uniform(26, 36),
            turn=rng.uniform(0.1, 0.7),
            thorax=(rng.uniform(145, 165), rng.uniform(100, 120)),
        )

    def contracted(self, strength: float) -> "Anatomy":
        """Return the same heart at the end of systole: smaller chambers, a thicker wall."""
        return Anatomy(
            length=self.length * 0.9,
            inner=self.inner * (1 - strength),
            wall=self.wall * (1 + strength),
            reach=self.reach * (1 - 0.7 * strength),
            turn=self.turn,
            thorax=self.thorax,
        )


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
    if index < 0 or seed < 0:
        raise DataError(f"phantom index {index}, seed {seed}: both must be 0 or more")
    if len(shape) != 3 or any(n < m for n, m in zip(shape, _LEAST, strict=True)):
        raise DataError(f"a heart of shape {shape} cannot be drawn; use at least {_LEAST}")
    rng = np.random.default_rng([seed, index, _HEART])
    anatomy = Anatomy.draw(rng)
    strength = rng.uniform(0.25, 0.4)
    centre = rng.uniform(-12, 12, 2)
    breath = rng.normal(0, 1.5, (shape[0], 2))  # each slice is taken in its own breath-hold
    tones = np.array([30, 95, 270, 270, 120]) * rng.normal(1, 0.06, 5)
    anatomy = anatomy.contracted(strength) if systole else anatomy
    pixel = VIEW_MM / max(shape[1:])
    label = np.zeros(shape, np.uint8)
    image = np.empty(shape, np.float64)
    for k in range(shape[0]):
        x, y = _plane(shape[1:], pixel, centre + breath[k])
        label[k] = _cut(anatomy, x, y, z=(k + 0.5) / shape[0] * DEPTH_MM)
        image[k] = _tissue(anatomy, x, y, label[k], tones)
    noise = np.random.default_rng([seed, index, _HEART, int(systole)])
    values = _scan(image, noise, pixel)
    frame = 9 if systole else 1
    return Case(
        f"patient{index + 1:03d}_frame{frame:02d}",
        values[None],
        label,
        Geometry.from_spacing((DEPTH_MM / shape[0], pixel, pixel)),
    )


def _plane(size: tuple[int, int], pixel: float, centre: Floats) -> tuple[Floats, Floats]:
    """Return x (1, W) and y (H, 1) of a slice's pixels."""
    rows, columns = ((np.arange(n) - (n - 1) / 2) * pixel for n in size)
    return (columns - centre[0])[None], (rows - centre[1])[:, None]


def _cut(anatomy: Anatomy, x: Floats, y: Floats, z: float) -> NDArray[np.uint8]:
    """Return the labels of one slice; beyond the base there are none."""
    label = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.uint8)
    height = z / anatomy.length
    if height > 1:
        return label
    taper = np.sqrt(1 - (1 - height) ** 2)  # an ellipsoid, widest at the base
    inner = anatomy.inner * taper
    outer = inner + anatomy.wall
    radius = np.hypot(x, y)
    # The right ventricle: a rounder, shifted copy of the left one, hidden behind the septum.
    shift = 0.55 * (outer + anatomy.reach * taper)
    right = np.hypot(x + shift * np.cos(anatomy.turn), (y + shift * np.sin(anatomy.turn)) / 1.15)
    label[right < 0.75 * outer + 0.3 * anatomy.reach * taper - 4] = RIGHT
    label[radius < outer] = MUSCLE
    label[radius < inner] = LEFT
    return label


def _tissue(
    anatomy: Anatomy, x: Floats, y: Floats, label: NDArray[np.uint8], tones: Floats
) -> Floats:
    """Return the brightness of one slice; `tones` are lung, muscle, both bloods and fat."""
    lung, muscle, right, left, fat = tones.tolist()
    chest = np.hypot(x / anatomy.thorax[0], y / anatomy.thorax[1])
    image = np.select([chest < 0.82, chest < 0.9, chest < 1], [lung, muscle, 2 * fat], 4.0)
    image[np.hypot((x + 12) / 72, y / 60) < 1] = fat  # around the heart
    image[(np.hypot(x + 50, (y - 62) / 0.8) < 34) & (chest < 0.9)] = muscle  # under it, the liver
    for value, tone in ((RIGHT, right), (MUSCLE, muscle), (LEFT, left)):
        image[label == value] = tone
    return image


def _scan(image: Floats, rng: np.random.Generator, pixel: float) -> NDArray[np.int16]:
    """Blur, shade as a surface coil does, and add noise; magnitudes are never negative."""
    depth, height, width = image.shape
    image = gaussian_filter(image, (0, 0.9 / pixel, 0.9 / pixel), truncate=3)
    slope = rng.uniform(-0.25, 0.25, 2)
    shade = (
        1 + slope[0] * np.linspace(-1, 1, height)[:, None] + slope[1] * np.linspace(-1, 1, width)
    )
    noisy = np.hypot(
        image * shade + rng.normal(0, 9, image.shape), rng.normal(0, 9, (depth, height, width))
    )
    return np.rint(noisy).astype(np.int16)
