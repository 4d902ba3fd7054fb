"""The dermoscopy phantom: a pigmented lesion on skin, photographed through a dermatoscope.

Positions are in half sides of the picture's shorter side: u to the right, v downwards, 0 in the
middle. Fields are (H, W), colours (3, H, W) RGB on the 0–255 scale.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from msa2net.data.phantom.shapes import Floats, Mask, smooth_noise

# Fair, tanned and dark skin.
_SKIN_RGB = np.array([[236, 200, 184], [218, 164, 136], [158, 112, 84]], np.float32)
# How strongly melanin takes red, green and blue out of the light.
_MELANIN = np.array([0.62, 1.0, 1.18], np.float32)


@dataclass(frozen=True, eq=False)
class _Picture:
    """The grid of an image and its source of randomness.

    Attributes:
        rng: source of everything that varies.
        u: column positions, (W,).
        v: row positions, (H, 1).
        unit: pixels in one unit of length.
    """

    rng: np.random.Generator
    u: Floats
    v: Floats
    unit: float

    @classmethod
    def of(cls, rng: np.random.Generator, shape: tuple[int, int]) -> "_Picture":
        unit = min(shape) / 2
        v, u = (((np.arange(n) - (n - 1) / 2) / unit).astype(np.float32) for n in shape)
        return cls(rng, u, v[:, None], unit)

    def noise(self, cell: float) -> Floats:
        """Return a smooth random field (H, W), standard deviation about 1."""
        axes = (self.v[:, 0], self.u)
        extents = [axis.size / 2 / self.unit for axis in axes]
        return smooth_noise(self.rng, axes, extents, cell)


def draw_lesion(
    rng: np.random.Generator, shape: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one dermoscopy image.

    Args:
        rng: source of everything that varies.
        shape: (H, W).

    Returns:
        RGB picture (3, H, W) and mask (H, W), 1 inside the lesion.
    """
    picture = _Picture.of(rng, shape)
    solid = _outline(picture)
    rgb = _pigment(picture, solid, _skin(picture))
    if rng.random() < 0.2:
        _bubbles(picture, rgb)
    if rng.random() < 0.2:
        _ruler(picture, rgb)
    if rng.random() < 0.6:
        _hairs(picture, rgb)
    rgb *= _light(picture)
    rgb = gaussian_filter(rgb, (0, 0.6, 0.6), truncate=3)
    rgb += rng.uniform(1.5, 4) * rng.standard_normal(rgb.shape, dtype=np.float32)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8), (solid < 0).astype(np.uint8)


def _outline(picture: _Picture) -> Floats:
    """Return the lesion as signed distances, negative inside: a turned, dented ellipse."""
    rng = picture.rng
    radius = math.exp(rng.uniform(math.log(0.3), math.log(0.74)))
    u = picture.u - np.float32(rng.uniform(-0.14, 0.14))
    v = picture.v - np.float32(rng.uniform(-0.14, 0.14))
    angle, aspect = rng.uniform(0, math.pi), rng.uniform(0.72, 1)
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    distance = np.hypot((cos * u + sin * v), (cos * v - sin * u) / np.float32(aspect))
    dents = rng.uniform(0.06, 0.17) * picture.noise(0.42) + 0.04 * picture.noise(0.14)
    return (distance - np.float32(radius) * (1 + dents)).astype(np.float32)


def _skin(picture: _Picture) -> Floats:
    rng = picture.rng
    tone = 2 * rng.beta(1.3, 2.4)
    rgb = np.array([np.interp(tone, (0, 1, 2), channel) for channel in _SKIN_RGB.T])
    rgb += rng.normal(0, 5, 3)
    shade = 1 + 0.035 * picture.noise(0.5) + 0.018 * picture.noise(0.09)
    shade += 0.018 * picture.noise(0.03)
    flush = np.array([2.5, -3.5, -2.5])[:, None, None] * picture.noise(0.3)
    return (rgb[:, None, None] * shade + flush).astype(np.float32)


def _pigment(picture: _Picture, solid: Floats, skin: Floats) -> Floats:
    """Lay melanin over the skin: soft border, uneven density, a network or globules, a veil."""
    rng = picture.rng
    softness = rng.uniform(0.012, 0.045)
    cover = 1 / (1 + np.exp(np.clip(solid / softness, -30, 30)))
    patches = 1 / (1 + np.exp(-4 * (picture.noise(0.33) - rng.uniform(-0.3, 1))))
    density = rng.uniform(0.3, 1.0) * (1 + 0.16 * picture.noise(0.2))
    density = density + rng.uniform(0, 0.9) * patches
    density = density * (1 + rng.uniform(-0.35, 0.35) * _lattice(picture))
    darkness = np.maximum(density, 0.22) * cover
    rgb: Floats = skin * np.exp(-_MELANIN[:, None, None] * darkness).astype(np.float32)
    red = rng.uniform(0, 0.14) * np.exp(-np.square((solid - 0.03) / 0.12))
    rgb *= 1 - red * np.array([0.2, 1, 0.8])[:, None, None]
    if rng.random() < 0.3:
        veil = 0.4 * cover * np.clip(picture.noise(0.3), 0, 1)
        rgb += veil * (np.array([128, 134, 158])[:, None, None] - rgb)
    return rgb


def _lattice(picture: _Picture) -> Floats:
    """Return a bent honeycomb, −0.5 on its walls and 1 in the cells, fading in and out."""
    wave = 2 * math.pi / picture.rng.uniform(0.055, 0.09)
    u = picture.u + 0.035 * picture.noise(0.2)
    v = picture.v + 0.035 * picture.noise(0.2)
    waves = [
        np.cos(wave * (math.cos(angle) * u + math.sin(angle) * v))
        for angle in (0, math.pi / 3, 2 * math.pi / 3)
    ]
    presence = np.clip(0.5 + picture.noise(0.35), 0, 1)
    lattice: Floats = np.mean(waves, axis=0) * presence
    return lattice


def _bubbles(picture: _Picture, rgb: Floats) -> None:
    """Air in the contact gel: bright rims with a glint."""
    rng = picture.rng
    for _ in range(rng.integers(2, 9)):
        u, v = rng.uniform(-0.95, 0.95, 2)
        radius = rng.uniform(0.02, 0.075)
        distance = np.hypot(picture.u - u, picture.v - v)
        rim = np.exp(-np.square((distance - radius) / 0.008))
        glint = np.hypot(picture.u - u + radius / 2, picture.v - v + radius / 2) < radius / 5
        rgb += 38 * rim + 7 * (distance < radius) + 70 * glint


def _ruler(picture: _Picture, rgb: Floats) -> None:
    """Millimetre marks along one edge, every fifth longer."""
    rng = picture.rng
    along, across = (picture.u, picture.v) if rng.random() < 0.5 else (picture.v, picture.u)
    depth = (across - across.min()) if rng.random() < 0.5 else (across.max() - across)
    step = rng.uniform(0.07, 0.11)
    number = np.rint(along / step)
    mark = np.abs(along - number * step) < 0.008
    length = np.where(number % 5 == 0, 0.16, 0.09)
    ink: Mask = (mark & (depth < length)) & (depth > 0.02)
    rgb[:, ink] *= np.float32(0.3)


def _hairs(picture: _Picture, rgb: Floats) -> None:
    """Dark, gently bent hairs that run roughly one way, over skin and lesion alike."""
    rng = picture.rng
    height, width = rgb.shape[1:]
    count = int(rng.integers(2, 22))
    way = rng.uniform(0, 2 * math.pi)
    t = np.linspace(0, 1, int(6 * picture.unit))[:, None]
    angle = way + rng.normal(0, 0.45, count)
    start = rng.uniform(-1.1, 1.1, (2, count))
    reach = rng.uniform(0.5, 1.7, count)
    bend = rng.normal(0, 0.22, count) * t * (1 - t)
    u = start[0] + (t - 0.5) * reach * np.cos(angle) - bend * np.sin(angle)
    v = start[1] + (t - 0.5) * reach * np.sin(angle) + bend * np.cos(angle)
    column = np.rint(u * picture.unit + (width - 1) / 2).astype(int)
    row = np.rint(v * picture.unit + (height - 1) / 2).astype(int)
    seen = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    line = np.zeros((height, width), np.float32)
    line[row[seen], column[seen]] = 1
    thickness = max(0.6, rng.uniform(0.003, 0.007) * picture.unit)
    # A line one pixel wide keeps 1 / (sigma √(2π)) of its height in the blur.
    shade = gaussian_filter(line, thickness, truncate=3) * thickness * math.sqrt(2 * math.pi)
    opacity = np.minimum(shade * rng.uniform(0.7, 1), 0.92)
    rgb += opacity * (np.array([52, 38, 32], np.float32)[:, None, None] - rgb)


def _light(picture: _Picture) -> Floats:
    """Return brightness (H, W): darker corners, uneven lamp, at times the tube's black edge."""
    rng = picture.rng
    squares = np.square(picture.u) + np.square(picture.v)
    tilt = rng.uniform(-0.07, 0.07, 2)
    light = 1.03 - rng.uniform(0.03, 0.16) * squares + tilt[0] * picture.u + tilt[1] * picture.v
    if rng.random() < 0.2:
        edge = rng.uniform(1.02, 1.3)
        light = light / (1 + np.exp(np.clip((np.sqrt(squares) - edge) / 0.012, -30, 30)))
    shade: Floats = light.astype(np.float32)
    return shade
