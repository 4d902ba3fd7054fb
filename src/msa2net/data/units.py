"""Whether an image's values can be what a network was trained on: a mask of others looks right.

Networks whose `Preprocessing.intensity` is `fixed` know two units: Hounsfield units, of which a
window reaches below zero, and a picture's 8-bit values.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def foreign_values(image: NDArray[Any], low: float, high: float) -> str | None:
    """Say in half a sentence why values cannot be in the unit of the window; None if they may be.

    Args:
        image: of any shape. One with values that are not finite is left to those who refuse it.
        low: value that becomes 0.
        high: value that becomes 1.
    """
    fractions = image.dtype.kind == "f" and _are_fractions(image)
    if low < 0:
        if image.dtype == np.uint8:
            return (
                "the image holds 8-bit values and the network takes Hounsfield units; "
                "give the scan itself (NIfTI or DICOM), not a picture of it"
            )
        if fractions:
            return (
                "the image is scaled to 0…1 and the network takes Hounsfield units; give "
                "the scan itself"
            )
    elif (low, high) == (0, 255) and image.dtype != np.uint8:
        if fractions:
            return (
                "the image is scaled to 0…1 and the network takes 8-bit pictures; "
                "multiply it by 255"
            )
        least, most = float(image.min()), float(image.max())
        if math.isfinite(most - least) and (least < low or most > high):
            return (
                f"the image holds values from {least:g} to {most:g} and the network takes 8-bit "
                "pictures, 0 to 255; save it with 8 bits, scaled as the training's were"
            )
    return None


def _are_fractions(image: NDArray[Any]) -> bool:
    return float(image.min()) >= 0 and 0 < float(image.max()) <= 1
