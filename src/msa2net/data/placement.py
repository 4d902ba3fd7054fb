"""Where an image lies in what a network looks at: resized, then padded or cropped about its centre.

Axes: H rows, W columns of the image; h, w of the network's input.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msa2net.data.resampling import resampling_matrix


class AxisResizePad(NamedTuple):
    """One axis of an image, resampled to `resized` pixels, and centred on a `canvas`, the input."""

    canvas: int
    resized: int

    @property
    def _start(self) -> int:
        return (self.canvas - self.resized) // 2

    @property
    def paste(self) -> slice:
        """Return the pixels of the input that hold image."""
        return slice(max(0, self._start), min(self.canvas, self._start + self.resized))

    @property
    def visible(self) -> slice:
        """Return the pixels of the resampled image that the input holds."""
        return slice(self.paste.start - self._start, self.paste.stop - self._start)

    def keeps(self, length: int) -> bool:
        """Return whether an axis of `length` pixels stays as it is."""
        return length == self.resized == self.canvas


class ResizePad(NamedTuple):
    """Where both axes of an image lie in what a network looks at: rows, then columns."""

    rows: AxisResizePad
    columns: AxisResizePad

    @property
    def size(self) -> tuple[int, int]:
        """Return rows and columns of what it looks at."""
        return self.rows.canvas, self.columns.canvas


@lru_cache(maxsize=32)
def placing_matrix(
    length: int, place: AxisResizePad, kind: str, inverse: bool = False
) -> NDArray[np.float32]:
    """Return the matrix of resampling an axis and placing it in the input (or its way back)."""
    if inverse:
        matrix = np.zeros((length, place.canvas), dtype=np.float32)
        matrix[:, place.paste] = resampling_matrix(place.resized, length, kind)[:, place.visible]
    else:
        matrix = np.zeros((place.canvas, length), dtype=np.float32)
        matrix[place.paste] = resampling_matrix(length, place.resized, kind)[place.visible]
    matrix.flags.writeable = False  # shared by all callers through the cache
    return matrix
