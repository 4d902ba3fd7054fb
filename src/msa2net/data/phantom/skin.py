"""The dermoscopy phantom: a pigmented lesion on skin, photographed through a dermatoscope.

Positions are in half sides of the picture's shorter side: u to the right, v downwards, 0 in the
middle. Fields are (H, W), colours (3, H, W) RGB on the 0–255 scale.
"""

import math

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from msa2net.data.case import Case
from msa2net.data.labels import BACKGROUND
from msa2net.data.phantom.shapes import Floats, check_phantom, smooth_noise

SKIN_LABELS = (BACKGROUND, "lesion")
"""Classes of `skin_lesion`."""

_SKIN = 2  # keeps this phantom's random stream apart from the others'

# Fair, tanned and dark skin.
_SKIN_RGB = np.array([[236, 200, 184], [218, 164, 136], [158, 112, 84]], np.float32)
# How strongly melanin takes red, green and blue out of the light.
_MELANIN = np.array([0.62, 1.0, 1.18], np.float32)


class _Picture:
    """The grid of an image and its source of randomness.

    Attributes:
        rng: source of everything that varies.
        unit: pixels in one unit of length.
        u, v: positions of the columns (W,) and of the rows (H, 1).
    """

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int]) -> None:
        self.rng = rng
        self.unit = min(shape) / 2
        v, u = (((np.arange(n) - (n - 1) / 2) / self.unit).astype(np.float32) for n in shape)
        self.u, self.v = u, v[:, None]

    def noise(self, cell: float) -> Floats:
        """Return a smooth random field (H, W), standard deviation about 1."""
        axes = (self.v[:, 0], self.u)
        return smooth_noise(self.rng, axes, [axis.size / 2 / self.unit for axis in axes], cell)


def skin_lesion(index: int, *, seed: int = 0, shape: tuple[int, int] = (256, 256)) -> Case:
    """Draw a dermoscopy image with one lesion.

    Args:
        index: which case, from 0; also its id, `lesion_0003`.
        seed: which series of cases, from 0.
        shape: (H, W), at least (64, 64).

    Returns:
        Case with image (3, 1, H, W) uint8 RGB and label (1, H, W) uint8 indexing `SKIN_LABELS`.

    Raises:
        DataError: `shape` is too small or not two numbers, or `index` or `seed` is negative.
    """
    check_phantom(index, seed, shape, (64, 64))
    rng = np.random.default_rng([seed, index, _SKIN])
    picture = _Picture(rng, shape)
    solid = _outline(picture)
    rgb = _pigment(picture, solid, _skin(picture))
    if rng.random() < 0.6:
        _hairs(picture, rgb)
    rgb *= _light(picture)
    rgb = gaussian_filter(rgb, (0, 0.6, 0.6), truncate=3)
    rgb += rng.uniform(1.5, 4) * rng.standard_normal(rgb.shape, dtype=np.float32)
    image = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return Case(f"lesion_{index:04d}", image[:, None], (solid < 0).astype(np.uint8)[None])


def _outline(picture: _Picture) -> Floats:
    """Return the lesion as signed distances, negative inside: a turned, dented ellipse."""
    rng = picture.rng
    radius = math.exp(rng.uniform(math.log(0.3), math.log(0.74)))
    aside, down = rng.uniform(-0.14, 0.14, 2)
    angle, aspect = rng.uniform((0, 0.72), (math.pi, 1))
    turned = np.exp(-1j * angle) * ((picture.u - aside) + 1j * (picture.v - down))
    dents = rng.uniform(0.06, 0.17) * picture.noise(0.42) + 0.04 * picture.noise(0.14)
    solid = np.hypot(turned.real, turned.imag / aspect) - radius * (1 + dents)
    return solid.astype(np.float32)


def _skin(picture: _Picture) -> Floats:
    rng = picture.rng
    tone = 2 * rng.beta(1.3, 2.4)
    rgb = [np.interp(tone, (0, 1, 2), channel) for channel in _SKIN_RGB.T] + rng.normal(0, 5, 3)
    shade = 1 + 0.035 * picture.noise(0.5) + 0.025 * picture.noise(0.06)
    flush = np.array([2.5, -3.5, -2.5])[:, None, None] * picture.noise(0.3)
    return (rgb[:, None, None] * shade + flush).astype(np.float32)


def _pigment(picture: _Picture, solid: Floats, skin: Floats) -> Floats:
    """Lay melanin over the skin: soft border, uneven density, a network, at times a blue veil."""
    rng = picture.rng
    cover = expit(-solid / rng.uniform(0.012, 0.045))
    patches = expit(4 * (picture.noise(0.33) - rng.uniform(-0.3, 1)))
    density = rng.uniform(0.3, 1.0) * (1 + 0.16 * picture.noise(0.2))
    density = density + rng.uniform(0, 0.9) * patches
    density = density * (1 + rng.uniform(-0.35, 0.35) * _network(picture))
    rgb = skin * np.exp(-_MELANIN[:, None, None] * np.maximum(density, 0.22) * cover)
    red = rng.uniform(0, 0.14) * np.exp(-np.square((solid - 0.03) / 0.12))
    rgb *= 1 - red * np.array([0.2, 1, 0.8])[:, None, None]
    if rng.random() < 0.3:
        veil = 0.4 * cover * np.clip(picture.noise(0.3), 0, 1)
        rgb += veil * (np.array([128, 134, 158])[:, None, None] - rgb)
    return rgb.astype(np.float32)


def _network(picture: _Picture) -> Floats:
    """Return a bent honeycomb, −0.5 on its walls and 1 in the cells, fading in and out."""
    wave = 2 * math.pi / picture.rng.uniform(0.055, 0.09)
    u = picture.u + 0.035 * picture.noise(0.2)
    v = picture.v + 0.035 * picture.noise(0.2)
    angles = (0, math.pi / 3, 2 * math.pi / 3)
    waves = [np.cos(wave * (math.cos(angle) * u + math.sin(angle) * v)) for angle in angles]
    network: Floats = np.mean(waves, axis=0) * np.clip(0.5 + picture.noise(0.35), 0, 1)
    return network


def _hairs(picture: _Picture, rgb: Floats) -> None:
    """Draw dark, gently bent hairs that run roughly one way, over skin and lesion alike."""
    rng, (height, width) = picture.rng, rgb.shape[1:]
    count = int(rng.integers(2, 22))
    way = np.exp(1j * (rng.uniform(0, 2 * math.pi) + rng.normal(0, 0.45, count)))
    start = rng.uniform(-1.1, 1.1, count) + 1j * rng.uniform(-1.1, 1.1, count)
    t = np.linspace(0, 1, int(6 * picture.unit))[:, None]
    bend = 1j * rng.normal(0, 0.22, count) * t * (1 - t)
    hair = start + ((t - 0.5) * rng.uniform(0.5, 1.7, count) + bend) * way
    column = np.rint(hair.real * picture.unit + (width - 1) / 2).astype(int)
    row = np.rint(hair.imag * picture.unit + (height - 1) / 2).astype(int)
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
        light = light * expit((rng.uniform(1.02, 1.3) - np.sqrt(squares)) / 0.012)
    return light.astype(np.float32)
