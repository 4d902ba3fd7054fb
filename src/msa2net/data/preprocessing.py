"""From a case's own grid and units to the network's input, and exactly back.

Resampling is linear and separable, so it is written as one matrix per axis: `rows @ x @ columnsᵀ`.
The same matrices serve numpy arrays and torch tensors on any device, forward and back.

Axes: C channels, Z slices, H rows, W columns, K classes; h, w are the network's rows and columns.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import ndimage
from scipy.sparse import csr_array

from msa2net.errors import DataError

Float = NDArray[np.float32]


class Preprocessing(BaseModel):
    """How images become inputs; saved with the weights, so nobody has to remember it.

    Attributes:
        channels: of the input; a grey image given to a 3-channel network is repeated.
        image_size: (h, w) of the input.
        fit: `stretch` fills the input; `pad` keeps the aspect ratio and centres the image.
        resampling: `linear` averages when reducing; `spline` is SciPy's cubic zoom, the
            published protocol's.
        intensity: `fixed` maps [low, high] in the file's units to [0, 1] and clips; `percentile`
            does so with each volume's own percentiles, low and high in percent.
        mean, std: subtracted from and divided into the image in [0, 1].
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int
    image_size: tuple[int, int]
    fit: Literal["stretch", "pad"] = "pad"
    resampling: Literal["linear", "spline"] = "linear"
    intensity: Literal["fixed", "percentile"] = "fixed"
    low: float = 0.0
    high: float = 255.0
    mean: float = 0.5
    std: float = 0.5

    def check_channels(self, channels: int) -> None:
        """Refuse a number of channels that the network cannot take; one is repeated.

        Raises:
            DataError: naming both numbers.
        """
        if channels not in (1, self.channels):
            raise DataError(
                f"the image has {channels} channels and the network takes {self.channels}"
            )

    def intensity_range(self, image_CZHW: NDArray[Any]) -> tuple[float, float]:
        """Return the values that become 0 and 1, in the file's units, for one whole case.

        Raises:
            DataError: the image holds values that are not finite; a network would answer them
                with a mask of nothing.
        """
        for channel_ZHW in image_CZHW if image_CZHW.dtype.kind == "f" else ():
            broken = sum(int((~np.isfinite(slice_HW)).sum()) for slice_HW in channel_ZHW)
            if broken:
                raise DataError(f"the image holds {broken} values that are NaN or infinite")
        if self.intensity == "fixed":
            return self.low, self.high
        low, high = np.percentile(image_CZHW, [self.low, self.high])
        return float(low), float(high) if high > low else float(low) + 1.0

    def unit_slices(self, image_CZHW: NDArray[Any], value_range: tuple[float, float]) -> Float:
        """Return (Z, channels, h, w) float32 in [0, 1]: scaled, clipped, resampled; padding is 0.

        Raises:
            DataError: the image has channels that the network cannot take.
        """
        low, high = value_range
        channels = image_CZHW.shape[0]
        self.check_channels(channels)
        unit_ZCHW = np.swapaxes(image_CZHW, 0, 1).astype(np.float32)
        unit_ZCHW -= np.float32(low)
        unit_ZCHW /= np.float32(high - low)
        np.clip(unit_ZCHW, 0.0, 1.0, out=unit_ZCHW)
        unit_ZChw = self._resample(unit_ZCHW)
        np.clip(unit_ZChw, 0.0, 1.0, out=unit_ZChw)  # splines overshoot, and sums round
        return np.repeat(unit_ZChw, self.channels // channels, axis=1)

    def standardise(self, unit: Any) -> Any:
        """Return (unit − mean) / std, for arrays and tensors."""
        return (unit - self.mean) / self.std

    def label_slices(self, label_ZHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (Z, h, w): the label at the input's size, by nearest neighbour; padding is 0."""
        height, width = label_ZHW.shape[1:]
        (h, top, inner_h), (w, left, inner_w) = self._placement(height, width)
        rows, columns = nearest_index(height, inner_h), nearest_index(width, inner_w)
        placed_Zhw = np.zeros((label_ZHW.shape[0], h, w), dtype=np.uint8)
        placed_Zhw[:, top : top + inner_h, left : left + inner_w] = label_ZHW[:, rows][..., columns]
        return placed_Zhw

    def invert(
        self,
        values_ZKhw: Any,
        size: tuple[int, int],
        convert: Callable[[Float], Any] = lambda matrix: matrix,
    ) -> Any:
        """Resample values (Z, K, h, w), such as probabilities, to the original `size` (H, W).

        Args:
            values_ZKhw: a numpy array or a torch tensor.
            size: (H, W) of the case.
            convert: makes a matrix usable beside the values (for tensors, to their device).
        """
        (h, top, inner_h), (w, left, inner_w) = self._placement(*size)
        rows = _embedded(size[0], inner_h, h, top, "linear", inverse=True)
        columns = _embedded(size[1], inner_w, w, left, "linear", inverse=True)
        return apply_matrices(values_ZKhw, convert(rows), convert(columns))

    def _resample(self, values_ZCHW: Float) -> Float:
        """Bring (Z, C, H, W) to the input's size; what lies outside the image is 0."""
        height, width = values_ZCHW.shape[2:]
        (h, top, inner_h), (w, left, inner_w) = self._placement(height, width)
        rows = _embedded(height, inner_h, h, top, self.resampling)
        columns = _embedded(width, inner_w, w, left, self.resampling)
        if self.resampling == "spline":
            return np.ascontiguousarray(apply_matrices(values_ZCHW, rows, columns))
        # The linear matrices are banded: a few entries a row, whatever the size. As sparse
        # products they cost next to nothing, and stay off the BLAS threads that training uses.
        return _contract(
            _contract(values_ZCHW, csr_array(rows), axis=2), csr_array(columns), axis=3
        )

    def _placement(self, height: int, width: int) -> tuple[tuple[int, int, int], ...]:
        """Return, per axis, the input's length, where the image starts in it, and its length."""
        h, w = self.image_size
        if self.fit == "stretch":
            return (h, 0, h), (w, 0, w)
        factor = min(h / height, w / width)
        inner_h = min(h, max(1, round(height * factor)))
        inner_w = min(w, max(1, round(width * factor)))
        return (h, (h - inner_h) // 2, inner_h), (w, (w - inner_w) // 2, inner_w)


def apply_matrices(values: Any, rows: Any, columns: Any) -> Any:
    """Return rows @ values @ columnsᵀ over the last two axes, the cheaper product first."""
    if rows.shape[0] * values.shape[-1] <= values.shape[-2] * columns.shape[0]:
        return (rows @ values) @ columns.T
    return rows @ (values @ columns.T)


def _contract(values: Float, matrix: csr_array, axis: int) -> Float:
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
        return np.ascontiguousarray(zoomed, dtype=np.float32)
    scale = length / new_length
    centres = (np.arange(new_length) + 0.5) * scale - 0.5
    distance = np.abs(np.arange(length) - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=32)
def _embedded(
    length: int, inner: int, outer: int, start: int, kind: str, inverse: bool = False
) -> Float:
    """Return the matrix of resampling to `inner` and placing it in `outer` (or its way back)."""
    if inverse:
        matrix = np.zeros((length, outer), dtype=np.float32)
        matrix[:, start : start + inner] = resampling_matrix(inner, length, kind)
    else:
        matrix = np.zeros((outer, length), dtype=np.float32)
        matrix[start : start + inner] = resampling_matrix(length, inner, kind)
    matrix.flags.writeable = False  # shared by all callers through the cache
    return matrix


def nearest_index(length: int, new_length: int) -> NDArray[np.int64]:
    """Return, for each of new_length pixels, the index of the nearest of `length` pixels."""
    centres = (np.arange(new_length) + 0.5) * (length / new_length)
    return np.minimum(centres.astype(np.int64), length - 1)
