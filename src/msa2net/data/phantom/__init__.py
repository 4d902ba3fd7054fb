"""Synthetic cases that look like the real thing, for demonstrations and tests.

They are drawn, not measured: of no medical meaning, and free of anybody's data. Each is a
function of (seed, index) alone.
"""

import numpy as np

from msa2net.data.case import Case, Geometry
from msa2net.data.labels import BACKGROUND, ENCODINGS
from msa2net.data.phantom.canvas import spacing
from msa2net.data.phantom.ct import draw_abdomen
from msa2net.data.phantom.skin import draw_lesion
from msa2net.errors import DataError

ABDOMEN_LABELS = (BACKGROUND, *ENCODINGS["transunet"].values())
"""Classes of `abdomen`: the eight Synapse organs in TransUNet's order."""

SKIN_LABELS = (BACKGROUND, "lesion")
"""Classes of `skin_lesion`."""

_ABDOMEN, _SKIN = 1, 2  # keep the two kinds' random streams apart


def abdomen(index: int, *, seed: int = 0, shape: tuple[int, int, int] = (32, 128, 128)) -> Case:
    """Draw an abdominal CT volume with eight organs, all of them present.

    The patient depends on (seed, index) only; `shape` sets how finely he is scanned. Axial slices
    as on a viewer: row 0 is the front, column 0 the patient's right, slice 0 the lowest.

    Args:
        index: which case, from 0; also its id, `phantom_0003`.
        seed: which series of cases, from 0.
        shape: (Z, H, W), at least (8, 64, 64).

    Returns:
        Case with image (1, Z, H, W) int16 in HU, label (Z, H, W) uint8 indexing `ABDOMEN_LABELS`,
        and the spacing at which the volume covers 240 mm along the body and the whole body
        across (380 mm if square).

    Raises:
        DataError: `shape` is too small or not three numbers, or `index` or `seed` is negative.
    """
    _check(index, seed, shape, (8, 64, 64))
    image, label = draw_abdomen(np.random.default_rng([seed, index, _ABDOMEN]), shape)
    return Case(f"phantom_{index:04d}", image[None], label, Geometry.from_spacing(spacing(shape)))


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
    _check(index, seed, shape, (64, 64))
    image, label = draw_lesion(np.random.default_rng([seed, index, _SKIN]), shape)
    return Case(f"lesion_{index:04d}", image[:, None], label[None])


def _check(index: int, seed: int, shape: tuple[int, ...], least: tuple[int, ...]) -> None:
    if index < 0 or seed < 0:
        raise DataError(f"phantom index {index}, seed {seed}: both must be 0 or more")
    if len(shape) != len(least) or any(n < m for n, m in zip(shape, least, strict=True)):
        raise DataError(f"a phantom of shape {shape} cannot be drawn; use at least {least}")
