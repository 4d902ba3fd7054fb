"""Resampling: matrices for images, indices for labels, and where an image comes to lie."""

from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.sparse import csr_array

from msa2net.data.case import Case

Float = NDArray[np.float32]

_NEGLIGIBLE = 1e-9
"""A spline reaches over the whole axis, and falls to a quarter from pixel to pixel: after 16 of
them its weights are lost in float32, and a row of a matrix keeps 30 entries."""


def apply_matrices(values: Any, rows: Any, columns: Any) -> Any:
    """Return rows @ values @ columnsᵀ over the last two axes, the cheaper product first."""
    if rows.shape[0] * values.shape[-1] <= values.shape[-2] * columns.shape[0]:
        return (rows @ values) @ columns.T
    return rows @ (values @ columns.T)


def contract(values: Float, matrix: csr_array, axis: int) -> Float:
    """Multiply a sparse matrix into one axis."""
    moved = np.moveaxis(values, axis, 0)
    product = matrix @ moved.reshape(moved.shape[0], -1)
    return np.moveaxis(product.reshape(-1, *moved.shape[1:]), 0, axis)


def resampling_matrix(length: int, new_length: int, kind: str = "linear") -> Float:
    """Return the (new_length, length) matrix that resamples one axis.

    `linear`: pixel centres at half-integers, and a triangle as wide as the reduction, so that no
    pixel is skipped (as Pillow and torch's antialiased bilinear do). `spline`: what
    `scipy.ndimage.zoom` with order 3 does along an axis, read off from unit vectors.
    """
    if length == new_length:
        return np.eye(length, dtype=np.float32)
    if kind == "spline":
        zoomed = ndimage.zoom(np.eye(length), (new_length / length, 1), order=3)
        zoomed[np.abs(zoomed) < _NEGLIGIBLE] = 0.0
        return np.ascontiguousarray(zoomed, dtype=np.float32)
    scale = length / new_length
    centres = (np.arange(new_length) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(length) - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=32)
def zoom_index(length: int, new_length: int) -> NDArray[np.intp]:
    """Return, for each of new_length pixels, the one of `length` that SciPy's order 0 takes."""
    zoomed = ndimage.zoom(np.arange(length, dtype=np.float64), new_length / length, order=0)
    index = zoomed.astype(np.intp)
    index.flags.writeable = False
    return index


def nearest_index(length: int, new_length: int) -> NDArray[np.int64]:
    """Return, for each of new_length pixels, the index of the nearest of `length` pixels."""
    centres = (np.arange(new_length) + 0.5) * (length / new_length)
    return np.minimum(centres.astype(np.int64), length - 1)


def reduce_image(case: Case, max_side: int) -> Case:
    """Return an image whose longer side is above `max_side` reduced, and its label with it."""
    _, _, height, width = case.image.shape
    factor = max_side / max(height, width)
    if factor >= 1:
        return case
    size = max(1, round(height * factor)), max(1, round(width * factor))
    image_CHW = np.stack([_reduce(channel, size) for channel in case.image[:, 0]])
    label = case.label
    if label is not None:
        label = label[:, nearest_index(height, size[0])][:, :, nearest_index(width, size[1])]
    return replace(case, image=image_CHW[:, None], label=label)


def _reduce(channel_HW: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    picture = Image.fromarray(channel_HW)
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BOX, reducing_gap=None))


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
