"""Colours, overlays and inline SVG: every picture this package shows.

Axes: C channels, Z slices, H rows, W columns. A chart comes back as SVG text that leaves
colours to the page's style sheet (`c1` for class 1, `grid`, …), so that it can be light or dark.
"""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from msa2net.data.display import class_color
from msa2net.errors import ConfigError, DataError

IGNORED = 255
"""The label of pixels that count for nothing; it is never painted."""


_BAND = 2**20  # pixels painted at once: their 16-bit copies are four times as large


def overlay(
    image_HW3: NDArray[np.uint8],
    labels_HW: NDArray[np.uint8],
    *,
    num_classes: int,
    alpha: float = 0.4,
    outline: bool = True,
) -> NDArray[np.uint8]:
    """Paint labels over a picture: a tint per class and, if wanted, a solid outline.

    Args:
        image_HW3: (H, W, 3) uint8.
        labels_HW: (H, W) uint8, classes 0 (left as it is) to `num_classes` - 1, or 255 (ignored).
        num_classes: with background, 2 to 255.
        alpha: strength of the tint, 0 (none) to 1 (opaque).
        outline: draw the inner edge of every region, about 1/600 of the longer side thick.

    Returns:
        (H, W, 3) uint8, a new array.

    Raises:
        DataError: the two do not fit together, or a label is not a class.
        ConfigError: `alpha` or `num_classes` is out of its range.
    """
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is {alpha:g}; it must lie between 0 and 1")
    if not 2 <= num_classes <= IGNORED:
        raise ConfigError(f"num_classes is {num_classes}; it must lie between 2 and {IGNORED}")
    if image_HW3.shape != (*labels_HW.shape, 3):
        raise DataError(
            f"picture {image_HW3.shape} and labels {labels_HW.shape} do not fit: expected "
            "(H, W, 3) and (H, W)"
        )
    if int(np.where(labels_HW == IGNORED, 0, labels_HW).max(initial=0)) >= num_classes:
        raise DataError(f"a label lies above the last class, {num_classes - 1}")
    # Whole numbers in 1/256: several times faster than float on a large photograph.
    share = np.zeros(256, np.uint16)
    share[1:num_classes] = round(256 * alpha)
    colors = np.array([class_color(index) for index in range(256)], np.uint16)
    tint = colors * share[:, None] + 128
    painted = np.empty(image_HW3.shape, np.uint8)
    band = max(1, _BAND // labels_HW.shape[1])
    for y in range(0, len(labels_HW), band):
        labels_hW = labels_HW[y : y + band]
        kept_hW1 = (256 - share)[labels_hW][..., None]
        painted[y : y + band] = (image_HW3[y : y + band] * kept_hW1 + tint[labels_hW]) >> 8
    if outline:
        edge_HW = _edges(labels_HW) & (labels_HW > 0) & (labels_HW < num_classes)
        painted[edge_HW] = colors[labels_HW[edge_HW]]
    return painted


def _edges(labels_HW: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mark pixels with another label close by along a row or a column."""
    edge_HW = np.zeros(labels_HW.shape, bool)
    for reach in range(1, 1 + max(1, round(max(labels_HW.shape) / 600))):
        across = labels_HW[:, reach:] != labels_HW[:, :-reach]
        edge_HW[:, reach:] |= across
        edge_HW[:, :-reach] |= across
        down = labels_HW[reach:] != labels_HW[:-reach]
        edge_HW[reach:] |= down
        edge_HW[:-reach] |= down
    return edge_HW


def image_uri(picture_HW3: NDArray[np.uint8]) -> str:
    """Return a picture as a JPEG data URI; grey ones are stored in one channel."""
    from PIL import Image

    first, *others = np.moveaxis(picture_HW3, -1, 0)
    grey = all(np.array_equal(first, other) for other in others)
    picture = Image.fromarray(np.ascontiguousarray(first) if grey else picture_HW3)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def outline_path(mask_HW: NDArray[np.bool_]) -> str:
    """Trace a mask's outline as closed SVG loops, in half pixels (viewBox 0 0 2W 2H).

    The line joins the midpoints of the pixel edges between inside and outside. Holes run the
    other way round; fill with `evenodd`. An empty mask gives an empty string.
    """
    following = _directed_edges(mask_HW)
    loops = []
    # Not `next(iter(following))`: that walks over all that was deleted before, so the time of a
    # ragged mask would grow with the square of its edges.
    for start in list(following):
        while start in following:
            loops.append(_loop(following, start))
    return "".join(loops)


_Corner = tuple[int, int]


def _directed_edges(mask_HW: NDArray[np.bool_]) -> dict[_Corner, list[_Corner]]:
    """Corner → next corners, along the edges of the mask with its inside on the right."""
    padded = np.pad(mask_HW, 1)
    inside = padded[1:-1, 1:-1]
    sides = (  # neighbour beyond the side, then the side's two corners relative to the pixel
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    following: dict[_Corner, list[_Corner]] = {}
    for beyond, begin, end in sides:
        for y, x in np.argwhere(inside & ~beyond).tolist():
            corner = (x + begin[0], y + begin[1])
            following.setdefault(corner, []).append((x + end[0], y + end[1]))
    return following


def _loop(following: dict[_Corner, list[_Corner]], start: _Corner) -> str:
    """Walk one loop from `start`, taking its edges out of `following`."""
    here = start
    middles: list[_Corner] = []
    while not middles or here != start:
        ends = following[here]
        there = ends.pop()  # two where pixels touch at a corner: either encloses the same area
        if not ends:
            del following[here]
        middles.append((here[0] + there[0], here[1] + there[1]))
        here = there
    steps: list[list[int]] = []
    for (x0, y0), (x1, y1) in pairwise(middles):
        step = [x1 - x0, y1 - y0]
        if steps and _same_way(steps[-1], step):
            steps[-1] = [steps[-1][0] + step[0], steps[-1][1] + step[1]]
        else:
            steps.append(step)
    return f"M{middles[0][0]} {middles[0][1]}" + "".join(map(_command, steps)) + "z"


def _same_way(a: list[int], b: list[int]) -> bool:
    return a[0] * b[1] == a[1] * b[0] and a[0] * b[0] + a[1] * b[1] > 0


def _command(step: list[int]) -> str:
    x, y = step
    if y == 0:
        return f"h{x}"
    if x == 0:
        return f"v{y}"
    return f"l{x}{y}" if y < 0 else f"l{x} {y}"


@dataclass(frozen=True)
class Curve:
    """One line of a chart: its style-sheet classes and its points (x, y)."""

    style: str
    points: Sequence[tuple[float, float]]


def curve_chart(
    curves: Sequence[Curve], *, title: str, mark: tuple[float, float] | None = None
) -> str:
    """Draw curves over epochs as SVG text.

    Args:
        curves: at least one with a point; the last is drawn on top.
        title: read out by screen readers.
        mark: a point to put a ring on.
    """
    width, height, left, right, top, bottom = 460, 240, 44, 12, 14, 30
    points = [point for curve in curves for point in curve.points]
    first, last = min(p[0] for p in points), max(p[0] for p in points)
    y_ticks = ticks(min(p[1] for p in points), max(p[1] for p in points), 5)
    low, high = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        return (
            left + across * (width - left - right),
            top + (high - y) / (high - low) * (height - top - bottom),
        )

    svg = ElementTree.Element("svg", viewBox=f"0 0 {width} {height}", role="img")
    svg.attrib.update({"class": "chart", "aria-label": title})
    for value in y_ticks:
        y = place(first, value)[1]
        _add(svg, "path", "grid", d=f"M{left} {y:.1f}H{width - right}")
        _add(svg, "text", "y", f"{value:g}", x=left - 8, y=f"{y + 4:.1f}")
    whole = [value for value in ticks(first, last, 6) if value == int(value)]
    for value in [v for v in whole if first <= v <= last] or [first]:
        _add(svg, "text", "x", f"{value:g}", x=f"{place(value, low)[0]:.1f}", y=height - 10)
    for curve in curves:
        placed = [place(*point) for point in curve.points]
        if placed:  # a lone epoch still shows: the round cap of a line of no length is a dot
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
            lone = len(placed) == 1
            style = curve.style + (" lone" if lone else "")
            _add(svg, "path", style, d=path + ("h0" if lone else ""))
    if mark is not None:
        x, y = place(*mark)
        _add(svg, "circle", "mark", cx=f"{x:.1f}", cy=f"{y:.1f}", r=4)
    return ElementTree.tostring(svg, encoding="unicode")


def strip_chart(scored: Sequence[float], failures: Sequence[float]) -> str:
    """Draw values between 0 and 1 as dots over a box (quartiles) with a line (median).

    The drawing may be stretched to any shape: strokes and dots keep their size in pixels.

    Args:
        scored: values drawn as dots.
        failures: values drawn as rings; the box counts them like the others.
    """
    svg = ElementTree.Element("svg", viewBox="0 0 1000 40", preserveAspectRatio="none")
    svg.attrib.update({"class": "strip", "aria-hidden": "true"})
    values = np.array([*scored, *failures], np.float64)
    quarter, median, three_quarters = np.quantile(values, (0.25, 0.5, 0.75))
    for tick in range(0, 1001, 200):
        _add(svg, "path", "grid", d=f"M{tick} 0V40")
    span = max(1.0, 1000 * float(three_quarters - quarter))
    _add(svg, "rect", "box", x=f"{1000 * quarter:.0f}", y=6, width=f"{span:.0f}", height=28)
    _add(svg, "path", "dots", d=_dots(scored))
    _add(svg, "path", "ring", d=_dots(failures))
    _add(svg, "path", "hole", d=_dots(failures))
    _add(svg, "path", "median", d=f"M{1000 * median:.0f} 4V36")
    return ElementTree.tostring(svg, encoding="unicode")


def _dots(values: Sequence[float]) -> str:
    """Spread dots up and down by a low-discrepancy sequence, the same at every drawing."""
    reach = 22 if len(values) > 3 else 0
    golden = (math.sqrt(5) - 1) / 2
    return "".join(
        f"M{1000 * value:.0f} {20 + reach * ((index * golden) % 1 - 0.5):.1f}h0"
        for index, value in enumerate(sorted(values))
    )


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers, evenly spaced, that enclose [low, high]."""
    if high <= low:
        pad = abs(low) * 0.1 or 0.5
        low, high = low - pad, high + pad
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    begin, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.6g}") for index in range(begin, end + 1)]


def _add(
    parent: ElementTree.Element, tag: str, style: str, text: str = "", **values: object
) -> None:
    attributes = {"class": style, **{key: str(value) for key, value in values.items()}}
    ElementTree.SubElement(parent, tag, attributes).text = text or None
