"""Checks whether masks lie on images that a camera turned.

A camera that is held upright stores its pixels lying, and says so in EXIF. Readers turn the
image as viewers do; a mask that was drawn on the stored pixels then lies beside its object.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.check.findings import Finding
from msa2net.data.labels import IGNORE
from msa2net.data.prepared.store import Store, StoredCase

_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).T,
    8: np.rot90,
}
"""EXIF orientation → what makes of stored pixels (H, W) the picture that viewers show."""

CLEARLY = 1.5
"""How many times better one way must fit than the other."""


def check_camera(store: Store, row: StoredCase) -> Iterator[Finding]:
    """Compare how well the mask of a turned image fits as it lies and turned alike."""
    if row.turned_alone == 1:
        return
    case = store.case(row.id, strict=False)
    assert case.label is not None
    grey_HW = case.image[:, 0].astype(np.float64).mean(axis=0)
    label_HW = np.asarray(case.label[0])
    turned_HW = _TURNS[row.turned_alone](label_HW)
    lying = _separation(grey_HW, label_HW)
    # Of other sizes only where preparing reduced the picture by a rounded factor.
    turned = _separation(grey_HW, turned_HW) if turned_HW.shape == grey_HW.shape else 0.0
    what = "the camera turned the photograph (EXIF orientation) and its mask says nothing of it; "
    detail = f"orientation {row.turned_alone}"
    if lying > CLEARLY * turned:
        yield Finding("note", row.id, f"{what}it fits as viewers show both", "", detail)
        return
    fits = "it fits better turned alike" if turned > CLEARLY * lying else "look which way it fits"
    advice = "turn the mask, or remove the EXIF orientation of the photograph, and prepare again"
    yield Finding("warning", row.id, what + fits, advice, detail)


def _separation(grey_HW: NDArray[np.float64], label_HW: NDArray[np.uint8]) -> float:
    """Return the share of the variance that lies between object and background (η²)."""
    counted = label_HW != IGNORE
    values, inside = grey_HW[counted], label_HW[counted] > 0
    if not inside.any() or inside.all() or values.var() == 0:
        return 0.0
    share, gap = inside.mean(), values[inside].mean() - values[~inside].mean()
    return float(share * (1 - share) * gap**2 / values.var())
