"""From a case's own grid and units to the network's input, and exactly back.

Resampling is one matrix per axis, `rows @ x @ columnsᵀ`, for arrays and tensors, forward and back.
Axes: C channels, Z slices, H rows, W columns, K classes; h, w are the network's rows and columns.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from scipy.sparse import csr_array

from msa2net.config.types import MAX_CHANNELS, MAX_SIDE
from msa2net.data.case import Case
from msa2net.data.geometry import to_canonical, to_file
from msa2net.data.resampling import (
    AxisResizePad,
    Float,
    ResizePad,
    apply_matrices,
    contract,
    nearest_index,
    placing_matrix,
    zoom_index,
)
from msa2net.errors import DataError
from msa2net.text import count_noun

_LARGE = 2**26  # values; more are brought to the input's size in bands, to save memory

ValueRange = tuple[ArrayLike, ArrayLike]
"""The low and the high end of each channel, (C,) each; or one number for all."""

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Millimetres = Annotated[float, Field(gt=1e-6, lt=1e6)]


class Preprocessing(BaseModel):
    """How images become inputs; saved with the weights, so nobody has to remember it.

    Attributes:
        channels: of the input; a grey image given to a 3-channel network is repeated.
        image_size: (h, w) of the input.
        fit: `stretch` fills the input; `pad` keeps the aspect ratio and centres the image.
        crop: the central share of the image that the input shows, 1 is all of it; with `pad` a
            share of the longer side. What lies outside is answered with background.
        resampling: `linear` averages when reducing; `spline` is SciPy's cubic zoom, the
            published protocol's.
        clip: bring what splines overshoot at edges back to [0, 1]; the published networks were
            trained on what they leave.
        intensity: `fixed` maps [low, high] in the file's units to [0, 1] and clips; `percentile`
            does so with each case's and channel's own percentiles, low and high in percent.
        mean, std: subtracted from and divided into the image in [0, 1].
        orientation: which way columns, rows and slices of the training arrays run in the patient,
            such as LPS, see `geometry`; a case that lies otherwise is turned. None: every
            array is taken as it lies.
        pixel_mm: (rows, columns), how far apart the pixels of the input were in training, on
            average over the cases; None if unknown. Sliding windows are cut at this scale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    channels: int = Field(ge=1, le=MAX_CHANNELS)
    image_size: tuple[Side, Side]
    fit: Literal["stretch", "pad"] = "pad"
    crop: float = Field(1.0, ge=0.01, le=1)
    resampling: Literal["linear", "spline"] = "linear"
    clip: bool = True
    intensity: Literal["fixed", "percentile"] = "fixed"
    low: float = Field(0.0, gt=-1e12, lt=1e12)
    high: float = Field(255.0, gt=-1e12, lt=1e12)
    mean: float = Field(0.5, gt=-1e6, lt=1e6)
    std: float = Field(0.5, gt=1e-6, lt=1e6)
    orientation: str | None = None
    pixel_mm: tuple[Millimetres, Millimetres] | None = None

    @field_validator("orientation")
    @classmethod
    def _three_directions(cls, code: str | None) -> str | None:
        pairs = ("LR", "PA", "SI")
        if code is not None and [sum(map(code.count, pair)) for pair in pairs] != [1, 1, 1]:
            raise ValueError("three letters are needed, one of LR, one of PA and one of SI")
        return code

    @model_validator(mode="after")
    def _low_below_high(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low, {self.low:g}, must lie below high, {self.high:g}")
        if self.intensity == "percentile" and not 0 <= self.low < self.high <= 100:
            raise ValueError(f"{self.low:g} and {self.high:g} are no percentiles")
        return self

    def to_plane(self, case: Case) -> Case:
        """Return the case along the training's slices, rows and columns; no voxel is copied.

        What readers give lies along LPS already, and stays as it is for networks trained on it.

        Raises:
            DataError: the affine has axes that span no volume.
        """
        turn = case.geometry.turn_to(self.orientation)
        return replace(
            case,
            image=to_canonical(case.image.swapaxes(1, 3), turn),
            label=case.label if case.label is None else to_canonical(case.label.T, turn),
            geometry=case.geometry.turned(turn, case.image.shape[1:]),
        )

    def from_plane(self, labels_ZHW: NDArray[np.uint8], case: Case) -> NDArray[np.uint8]:
        """Return labels of what `to_plane` made of a case, laid out as the case itself."""
        own_WHZ = to_file(labels_ZHW, case.geometry.turn_to(self.orientation))
        return np.ascontiguousarray(own_WHZ.transpose(2, 1, 0))

    def check_channels(self, channels: int) -> None:
        """Check that the network can take a number of channels; grey is repeated for colour.

        Raises:
            DataError: naming both numbers.
        """
        grey_for_colour = channels == 1 and self.channels == 3 and self.intensity == "fixed"
        if channels == self.channels or grey_for_colour:
            return
        what = "give images in colour or grey"
        if self.channels == 1:
            what = "give a grey one: no colour image, no series of several volumes"
        elif self.intensity != "fixed":
            what = f"give one file a channel, NAME_0000 to NAME_{self.channels - 1:04d}"
        raise DataError(
            f"the image has {count_noun(channels, 'channel')} and the network takes "
            f"{self.channels}; {what}"
        )

    def check_values(self, image: NDArray[Any]) -> None:
        """Check that values can be in the unit that the network was trained on.

        Raises:
            DataError: a picture for a network of Hounsfield units, 16 bits for one of 8.
        """
        problem = foreign_values(image, self.low, self.high) if self.intensity == "fixed" else None
        if problem is not None:
            raise DataError(problem)

    def intensity_range(self, image_CZHW: NDArray[Any]) -> ValueRange:
        """Return the values that become 0 and 1 in one whole case, in the file's units.

        Returns:
            Two arrays (C,), the low and the high ends: the channels of an MRI are sequences, each
            with a scale of its own.

        Raises:
            DataError: the image holds values that are not finite; a network would answer them
                with a mask of nothing.
        """
        for channel_ZHW in image_CZHW if image_CZHW.dtype.kind == "f" else ():
            broken = sum(int((~np.isfinite(slice_HW)).sum()) for slice_HW in channel_ZHW)
            if broken:
                raise DataError(f"the image holds {broken} values that are NaN or infinite")
        channels = len(image_CZHW)
        if self.intensity == "fixed":
            return np.full(channels, self.low), np.full(channels, self.high)
        ends_C2 = np.array([np.percentile(c, [self.low, self.high]) for c in image_CZHW])
        low_C, high_C = ends_C2.T
        return low_C, np.where(high_C > low_C, high_C, low_C + 1.0)

    def unit_slices(
        self,
        image_CZHW: NDArray[Any],
        value_range: ValueRange,
        placement: ResizePad | None = None,
    ) -> Float:
        """Return (Z, channels, h, w) float32 in [0, 1]: scaled, clipped, resampled; padding is 0.

        Without `clip`, splines leave values outside [0, 1].

        Args:
            image_CZHW: (C, Z, H, W) in the file's units.
            value_range: what `intensity_range` found for the whole case.
            placement: where the image's pixels go; None is into the network's input.

        Raises:
            DataError: the image has channels that the network cannot take.
        """
        self.check_channels(image_CZHW.shape[0])
        if image_CZHW.size <= _LARGE:
            return self._repeated(self.resize_slices(_scaled(image_CZHW, value_range), placement))
        # A whole slice in float32 would take too much memory: its columns come in bands.
        width = image_CZHW.shape[3]
        down, across = placement or self.placement((image_CZHW.shape[2], width))
        band = max(1, _LARGE * width // (4 * image_CZHW.size))
        parts = (image_CZHW[..., x : x + band] for x in range(0, width, band))
        rows = csr_array(placing_matrix(image_CZHW.shape[2], down, self.resampling))
        reduced = [contract(_scaled(part, value_range), rows, axis=2) for part in parts]
        columns = csr_array(placing_matrix(width, across, self.resampling))
        unit_ZChw = contract(np.concatenate(reduced, axis=3), columns, axis=3)
        return self._repeated(unit_ZChw.clip(0.0, 1.0) if self.clip else unit_ZChw)

    def native_slices(self, image_CZHW: NDArray[Any], value_range: ValueRange) -> Float:
        """Return (Z, channels, H, W) float32 in [0, 1] at the image's own size."""
        self.check_channels(image_CZHW.shape[0])
        return self._repeated(_scaled(image_CZHW, value_range))

    def resize_slices(self, unit_ZCHW: Float, placement: ResizePad | None = None) -> Float:
        """Bring slices (Z, C, H, W) to the input's size; see `unit_slices`."""
        unit_ZChw = self._resample(unit_ZCHW, placement)
        if self.clip:
            np.clip(unit_ZChw, 0.0, 1.0, out=unit_ZChw)  # splines overshoot, and sums round
        return unit_ZChw

    def _repeated(self, unit_ZCHW: Float) -> Float:
        return np.repeat(unit_ZCHW, self.channels // unit_ZCHW.shape[1], axis=1)

    def standardise(self, unit: Any) -> Any:
        """Return (unit − mean) / std, for arrays and tensors."""
        return (unit - self.mean) / self.std

    def label_slices(self, label_ZHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (Z, h, w): the label at the input's size, by nearest neighbour; padding is 0."""
        height, width = label_ZHW.shape[1:]
        down, across = self.placement((height, width))
        rows = nearest_index(height, down.resized)[down.visible]
        columns = nearest_index(width, across.resized)[across.visible]
        placed_Zhw = np.zeros((label_ZHW.shape[0], *self.image_size), dtype=np.uint8)
        placed_Zhw[:, down.paste, across.paste] = label_ZHW[:, rows][..., columns]
        return placed_Zhw

    def published_labels(self, label_ZHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (Z, h, w): as `scipy.ndimage.zoom` with order 0 takes it, if images are stretched.

        The first and last pixels of both grids coincide there.
        """
        if self.fit != "stretch" or self.crop != 1:
            return self.label_slices(label_ZHW)
        rows, columns = map(zoom_index, label_ZHW.shape[1:], self.image_size)
        return label_ZHW[:, rows][..., columns]

    def invert(
        self,
        values_ZKhw: Any,
        size: tuple[int, int],
        convert: Callable[[Float], Any] = lambda matrix: matrix,
        placement: ResizePad | None = None,
        band: slice = slice(None),
    ) -> Any:
        """Resample values (Z, K, h, w), such as probabilities, to the original `size` (H, W).

        Args:
            values_ZKhw: a numpy array or a torch tensor.
            size: (H, W) of the case.
            convert: makes a matrix usable beside the values (for tensors, to their device).
            placement: the one that `unit_slices` was given.
            band: which rows of the case are wanted.
        """
        down, across = placement or self.placement(size)
        if down.keeps(size[0]) and across.keeps(size[1]):
            return values_ZKhw[:, :, band]
        rows = placing_matrix(size[0], down, "linear", inverse=True)[band]
        columns = placing_matrix(size[1], across, "linear", inverse=True)
        return apply_matrices(values_ZKhw, convert(rows), convert(columns))

    def invert_labels(
        self,
        labels_Zhw: NDArray[np.uint8],
        size: tuple[int, int],
        placement: ResizePad | None = None,
    ) -> NDArray[np.uint8]:
        """Bring labels (Z, h, w) to the original `size` (H, W) as the published protocol does.

        Nearest neighbour as `scipy.ndimage.zoom` with order 0 takes it: the first and last pixels
        of both grids coincide. For scores only: whoever wants a good mask resamples probabilities
        (`invert`). What the input did not show becomes background.
        """
        placed_ZHW = labels_Zhw
        places = placement or self.placement(size)
        for axis, (length, place) in enumerate(zip(size, places, strict=True), 1):
            known = np.zeros(place.resized, dtype=np.intp)
            known[place.visible] = np.arange(place.paste.start, place.paste.stop)
            shown = np.zeros(place.resized, dtype=bool)
            shown[place.visible] = True
            index = zoom_index(place.resized, length)
            placed_ZHW = placed_ZHW.take(known[index], axis=axis)
            outside = ~shown[index]
            if outside.any():
                np.moveaxis(placed_ZHW, axis, 0)[outside] = 0
        return placed_ZHW

    def _resample(self, values_ZCHW: Float, placement: ResizePad | None) -> Float:
        """Bring (Z, C, H, W) to the input's size; what lies outside the image is 0."""
        height, width = values_ZCHW.shape[2:]
        down, across = placement or self.placement((height, width))
        if down.keeps(height) and across.keeps(width):
            return values_ZCHW
        rows = placing_matrix(height, down, self.resampling)
        columns = placing_matrix(width, across, self.resampling)
        # The matrices are banded: a few entries a row, whatever the size. As sparse products they
        # cost next to nothing, and stay off the BLAS threads, which would get in the way of
        # torch's for some time after.
        return contract(contract(values_ZCHW, csr_array(rows), axis=2), csr_array(columns), axis=3)

    def placement(self, size: tuple[int, int]) -> ResizePad:
        """Return where an image's rows and columns (H, W) lie in the network's input."""
        (height, width), (h, w) = size, self.image_size
        if self.fit == "stretch":
            inner_h, inner_w = round(h / self.crop), round(w / self.crop)
        else:
            factor = min(h / height, w / width) / self.crop
            inner_h, inner_w = max(1, round(height * factor)), max(1, round(width * factor))
        return ResizePad(AxisResizePad(h, inner_h), AxisResizePad(w, inner_w))

    def window_placement(
        self, size: tuple[int, int], spacing_mm: tuple[float, float] | None
    ) -> ResizePad:
        """Return where an image's rows and columns lie in what windows of the input slide over.

        That is the share of the image that the input would show (`crop`), not at the input's size
        but at its scale: at `pixel_mm`, or pixel by pixel where that is unknown.

        Args:
            size: (H, W) of the image.
            spacing_mm: between its rows and its columns; None if unknown.

        Raises:
            DataError: the training's pixel size is known and the image's is not.
        """
        scale = (1.0, 1.0)
        if self.pixel_mm is not None:
            if spacing_mm is None:
                raise DataError(
                    f"the image has no spacing, and windows slide over pixels of "
                    f"{self.pixel_mm[0]:.3g}×{self.pixel_mm[1]:.3g} mm as in training; give its "
                    "spacing, or let it be resized"
                )
            scale = spacing_mm[0] / self.pixel_mm[0], spacing_mm[1] / self.pixel_mm[1]
        places = []
        for length, factor, place in zip(size, scale, self.placement(size), strict=True):
            shown = (place.visible.stop - place.visible.start) / place.resized
            inner = max(1, round(length * factor))
            places.append(AxisResizePad(max(1, round(inner * shown)), inner))
        return ResizePad(*places)

    def training_pixel_mm(
        self, slices: Iterable[tuple[tuple[int, int], tuple[float, float] | None]]
    ) -> tuple[float, float] | None:
        """Return what `pixel_mm` is for training slices of these sizes (H, W) and spacings.

        The geometric mean over the slices' kinds, since scales are ratios; None if a spacing is
        unknown.
        """
        logarithms: list[tuple[float, float]] = []
        for size, spacing_mm in slices:
            if spacing_mm is None:
                return None
            ways = zip(size, spacing_mm, self.placement(size), strict=True)
            down, across = (math.log(mm * length / place.resized) for length, mm, place in ways)
            logarithms.append((down, across))
        if not logarithms:
            return None
        down, across = np.exp(np.mean(logarithms, axis=0)).tolist()
        return down, across


def _scaled(image_CZHW: NDArray[Any], value_range: ValueRange) -> Float:
    low_C11, high_C11 = (
        np.asarray(ends, dtype=np.float32).reshape(-1, 1, 1) for ends in value_range
    )
    unit_ZCHW = np.swapaxes(image_CZHW, 0, 1).astype(np.float32)
    unit_ZCHW -= low_C11
    unit_ZCHW /= high_C11 - low_C11
    return np.clip(unit_ZCHW, 0.0, 1.0, out=unit_ZCHW)


def foreign_values(image: NDArray[Any], low: float, high: float) -> str | None:
    """Return why values cannot be in the unit of a window from low to high; None if they may be.

    There are two units: Hounsfield units, of which a window reaches below zero, and a 2-D image's
    8-bit values. Values that are not finite are left to those who refuse them.
    """
    takes = "Hounsfield units" if low < 0 else "8-bit images"
    if low < 0 and image.dtype == np.uint8:
        return (
            f"the image holds 8-bit values and the network takes {takes}; "
            "give the scan itself (NIfTI or DICOM), not a picture of it"
        )
    if image.dtype == np.uint8 or (low >= 0 and (low, high) != (0, 255)):
        return None
    if image.dtype.kind == "f" and image.min() >= 0 and 0 < image.max() <= 1:
        advice = "give the scan itself" if low < 0 else "multiply it by 255"
        return f"the image is scaled to 0…1 and the network takes {takes}; {advice}"
    if low < 0:
        return None
    least, most = float(image.min()), float(image.max())
    if math.isfinite(most - least) and (least < low or most > high):
        return (
            f"the image holds values from {least:g} to {most:g} and the network takes {takes}, "
            "0 to 255; save it with 8 bits, scaled as the training's were"
        )
    return None
