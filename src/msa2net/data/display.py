"""Turning a case's image into something to look at, and the colours of classes."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msa2net.errors import ConfigError

PALETTE: tuple[str, ...] = (
    *("#2D96F0", "#FFB400", "#F04BA5", "#699600", "#873CC3", "#00F0A5", "#964B3C", "#E1B4FF"),
    *("#E18778", "#008778", "#5AC3C3", "#5A5A96", "#6969FF"),
)
"""Colours of class 1, 2, …, found by search: the first eight stay apart (OKLab distance > 0.09)
for deuteranopes, protanopes and tritanopes, and all show on a black scan and on a white page."""


def class_color(index: int) -> tuple[int, int, int]:
    """Return the RGB colour (0–255) of a class; background is grey, and the palette repeats."""
    if index == 0:
        return (128, 128, 128)
    code = PALETTE[(index - 1) % len(PALETTE)]
    return (int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16))


def display_image(
    image_CZHW: NDArray[np.generic], low: ArrayLike | None = None, high: ArrayLike | None = None
) -> NDArray[np.uint8]:
    """Return what to show of a case's image, (Z, H, W, 3) uint8 RGB.

    Three channels are red, green and blue; of any other number the first is shown in grey.
    8-bit images stay as they are unless a window is asked for. Others are scaled from
    [low, high] to 0–255 and clipped; values that are not finite become black.

    Args:
        image_CZHW: (C, Z, H, W), any real dtype.
        low: shown black, in the image's units, a number or one a channel; by default the 0.5th
            percentile.
        high: shown white; by default the 99.5th percentile.

    Raises:
        ConfigError: `low` lies above `high`.
    """
    channels = image_CZHW if len(image_CZHW) == 3 else image_CZHW[:1]
    pictures = np.empty((*channels.shape[1:], 3), np.uint8)
    if channels.dtype == np.uint8 and low is None and high is None:
        pictures[:] = np.moveaxis(channels, 0, -1)
        return pictures
    if low is None or high is None:
        dark, bright = _percentiles(channels)
        low, high = dark if low is None else low, bright if high is None else high
    low_C11, high_C11 = (
        np.broadcast_to(end, len(image_CZHW))[: len(channels), None, None].astype(np.float32)
        for end in (low, high)
    )
    if (low_C11 > high_C11).any():
        raise ConfigError(f"the display window goes from {low} down to {high}; swap the two")
    width_C11 = high_C11 - low_C11
    scale_C11 = np.divide(255, width_C11, out=np.zeros_like(width_C11), where=width_C11 > 0)
    for z in range(channels.shape[1]):  # by slice: a whole volume in float32 may not fit in memory
        with np.errstate(over="ignore", invalid="ignore"):  # infinities are dealt with below
            shown_CHW = (channels[:, z].astype(np.float32) - low_C11) * scale_C11
        shown_CHW = np.nan_to_num(shown_CHW, nan=0.0, posinf=0.0, neginf=0.0)
        pictures[z] = np.moveaxis(np.rint(np.clip(shown_CHW, 0, 255)), 0, -1).astype(np.uint8)
    return pictures


def _percentiles(image: NDArray[np.generic]) -> tuple[float, float]:
    flat = image.reshape(-1)
    sample = flat[:: 1 + flat.size // 1_000_000].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return 0.0, 0.0
    low, high = np.percentile(finite, (0.5, 99.5))
    return float(low), float(high)
