"""Colours, overlays, outlines and charts, against values worked out by hand."""

import base64
import io
import re
import time
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from msa2net.data.display import PALETTE, class_color, display_image
from msa2net.errors import ConfigError, DataError
from msa2net.report.calibration_chart import reliability_chart
from msa2net.report.overlay import (
    Curve,
    curve_chart,
    image_uri,
    outline_path,
    overlay,
    strip_chart,
    ticks,
)


def test_palette_stays_apart_for_the_colour_blind():
    # Machado et al. 2009, full protanopia, deuteranopia and tritanopia, on linear RGB.
    views = np.array(
        [
            np.eye(3),
            [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
            [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
            [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
        ]
    )
    to_cone = np.array(
        [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
    )
    to_oklab = np.array(
        [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    )
    rgb = np.array([class_color(index) for index in range(1, 9)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    for view in views:
        lab = np.cbrt(np.clip(linear @ view.T, 0, 1) @ to_cone.T) @ to_oklab.T
        # 0.02 is just noticeable; Okabe and Ito's seven colours come down to 0.076.
        assert min(np.linalg.norm(a - b) for a, b in combinations(lab, 2)) > 0.09
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert luminance.min() > 0.1  # contrast 3 against black
    assert len(set(PALETTE)) == len(PALETTE)


def test_class_color():
    assert class_color(1) == (0x2D, 0x96, 0xF0)
    assert class_color(1 + len(PALETTE)) == class_color(1)
    assert len(set(class_color(0))) == 1


def test_overlay_by_hand(monkeypatch):
    image = np.full((4, 6, 3), 100, np.uint8)
    labels = np.zeros((4, 6), np.uint8)
    labels[:, 3:] = 1
    labels[0, 0] = 255
    painted = overlay(image, labels, num_classes=2, alpha=0.5, outline=False)
    color = np.array(class_color(1))
    np.testing.assert_array_equal(painted[:, :3], 100)
    # Half of each; fixed point may be off by the last digit.
    np.testing.assert_allclose(painted[2, 4], (100 + color) / 2, atol=1)
    lined = overlay(image, labels, num_classes=2, alpha=0.5)
    np.testing.assert_array_equal(lined[:, 3], np.tile(color, (4, 1)))  # inner edge only
    np.testing.assert_array_equal(lined[:, 4:], painted[:, 4:])  # the picture's rim is no edge
    np.testing.assert_array_equal(lined[:, :3], 100)
    assert (image == 100).all()
    monkeypatch.setattr("msa2net.report.overlay._BAND", 6)  # large pictures come in bands of rows
    np.testing.assert_array_equal(overlay(image, labels, num_classes=2, alpha=0.5), lined)


@pytest.mark.parametrize("alpha", [0, 1])
def test_overlay_limits(alpha):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 9, 3), np.uint8)
    labels = rng.integers(0, 3, (9, 9), np.uint8)
    painted = overlay(image, labels, num_classes=3, alpha=alpha, outline=False)
    full = np.array([class_color(index) for index in range(3)])[labels]
    want = np.where((labels > 0)[..., None], full, image) if alpha else image
    np.testing.assert_array_equal(painted, want)


def test_overlay_of_a_large_photograph_is_quick():
    labels = np.zeros((2000, 3000), np.uint8)
    labels[300:1700, 400:2600] = 1
    image = np.full((2000, 3000, 3), 90, np.uint8)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        painted = overlay(image, labels, num_classes=2)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0  # 0.2 s on an idle core
    assert (painted[1000, 400:405] == class_color(1)).all()  # 3000 / 600 = 5 pixels thick
    assert (painted[1000, 405] != class_color(1)).any()


def test_overlay_refuses():
    image, labels = np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 2, np.uint8)
    with pytest.raises(DataError, match="above the last class, 1"):
        overlay(image, labels, num_classes=2)
    with pytest.raises(DataError, match="do not fit"):
        overlay(image[:3], labels, num_classes=3)
    with pytest.raises(ConfigError, match="alpha is 2"):
        overlay(image, labels, num_classes=3, alpha=2)
    with pytest.raises(ConfigError, match="num_classes is 1"):
        overlay(image, labels, num_classes=1)


def test_display_image_keeps_rgb():
    image = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 5), np.uint8)
    np.testing.assert_array_equal(display_image(image), image.transpose(1, 2, 3, 0))


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_display_image_windows_the_first_channel(channels):
    image = np.full((channels, 1, 1, 6), 7.0)
    image[0, 0, 0] = [-500, -125, 75, 275, 900, np.nan]
    shown = display_image(image, -125, 275)
    np.testing.assert_array_equal(shown[0, 0, :, 0], [0, 0, 128, 255, 255, 0])
    np.testing.assert_array_equal(shown, shown[..., :1].repeat(3, -1))
    assert shown.dtype == np.uint8


def test_display_image_finds_its_own_window():
    image = np.arange(1001, dtype=np.int16).reshape(1, 1, 7, 143)
    shown = display_image(image).reshape(-1, 3)[:, 0].astype(int)
    assert (shown[:6] == 0).all()  # percentile 0.5 of 0…1000 is 5
    assert (shown[995:] == 255).all()
    assert shown[500] == pytest.approx(127.5, abs=1)
    assert (np.diff(shown) >= 0).all()


@pytest.mark.parametrize("value", [3, np.nan, np.inf])
def test_display_image_of_one_value_is_black(value):
    assert not display_image(np.full((1, 2, 3, 3), value, np.float32)).any()


def test_display_image_refuses_a_reversed_window():
    with pytest.raises(ConfigError, match="from 5 down to 1"):
        display_image(np.zeros((1, 1, 2, 2)), 5, 1)


def filled(path, shape):
    """Fill an outline by the even-odd rule at pixel centres, as a browser does."""
    height, width = shape
    crossings = np.zeros(shape, int)
    for loop in re.findall(r"M[^z]*z", path):
        x, y = map(int, re.match(r"M(\d+) (\d+)", loop).groups())
        points = [(x, y)]
        for kind, a, b in re.findall(r"([hvl])(-?\d+)(?: ?(-?\d+))?", loop):
            step = {"h": (int(a), 0), "v": (0, int(a)), "l": (int(a), int(b or 0))}[kind]
            points.append((points[-1][0] + step[0], points[-1][1] + step[1]))
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            assert x0 == x1 or y0 == y1 or abs(x0 - x1) == abs(y0 - y1)
            for row in range(height):
                level = 2 * row + 1.001  # just off the centre: no line has a corner there
                if min(y0, y1) < level < max(y0, y1):
                    at = x0 + (level - y0) * (x1 - x0) / (y1 - y0)
                    crossings[row] += 2 * np.arange(width) + 1 > at
    return crossings % 2 == 1


@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.8, 1.0])
def test_outline_encloses_exactly_the_mask(density):
    # Every pixel centre inside the mask is inside the outline and the other way round, holes,
    # corners that touch and the image border included.
    mask = np.random.default_rng(4).random((12, 15)) < density
    np.testing.assert_array_equal(filled(outline_path(mask), mask.shape), mask)


def test_outline_by_hand():
    assert outline_path(np.zeros((3, 3), bool)) == ""
    mask = np.zeros((4, 4), bool)
    mask[1, 1:3] = True
    # From the middle of the first pixel's top edge, clockwise, in half pixels.
    assert outline_path(mask) == "M3 2h2l1 1l-1 1h-2l-1-1z"


@pytest.mark.parametrize(("color", "mode"), [((90, 90, 90), "L"), ((200, 90, 60), "RGB")])
def test_image_uri_can_be_read_back(color, mode):
    picture = np.full((16, 24, 3), color, np.uint8)
    head, body = image_uri(picture).split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(body))) as image:
        assert image.mode == mode  # grey in one channel: a third of the work
        assert image.size == (24, 16)
        # JPEG rounds a flat colour by a few digits at most.
        np.testing.assert_allclose(np.asarray(image.convert("RGB")), picture, atol=3)


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.13, 0.94, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1, 700, [0, 200, 400, 600, 800]),
        (5, 5, [4.5, 4.7, 4.9, 5.1, 5.3, 5.5]),
    ],
)
def test_ticks(low, high, want):
    found = ticks(low, high, 5)
    assert found[0] <= low <= high <= found[-1]
    if low < high:
        assert found == pytest.approx(want)


def test_curves_survive_one_point_and_empty_ones():
    svg = curve_chart([Curve("a", []), Curve("b", [(1, 0.5)])], title="<t>", mark=(1, 0.5))
    assert "&lt;t&gt;" in svg
    assert svg.count("<circle") == 1
    assert "nan" not in svg


def test_strip_places_dots_and_rings():
    svg = strip_chart([0.25, 0.5, 0.75], [0.0])
    dots, ring = (re.search(rf'class="{name}" d="([^"]*)"', svg)[1] for name in ("dots", "ring"))
    assert re.findall(r"M(\d+) ", dots) == ["250", "500", "750"]
    assert re.findall(r"M(\d+) ", ring) == ["0"]
    assert 'd="M375 4V36"' in svg  # the median of all four: failures count


@pytest.mark.parametrize(("points", "lone"), [([(1, 0.5)], True), ([(1, 0.5), (2, 0.6)], False)])
def test_a_lone_epoch_is_a_dot_that_can_be_seen(points, lone):
    svg = curve_chart([Curve("line", points)], title="x")
    assert ('class="line lone"' in svg) == lone
    assert ("h0" in svg) == lone


def test_both_axes_of_the_reliability_plot_have_a_name():
    svg = reliability_chart([(0.4, 0.3, 0.5)], [(0.9, 0.8, 0.5)], title="x")
    width = float(re.search(r'viewBox="0 0 (\d+) ', svg)[1])
    across, down = (
        re.search(rf"<text [^>]*>{name}</text>", svg)[0]
        for name in ("confidence", "share that is right")
    )
    assert "rotate" not in across
    assert "rotate(-90 14 152)" in down  # turned about where it stands, left of the ticks
    assert 'x="14" y="152.0"' in down
    assert max(float(x) for x in re.findall(r'cx="([\d.]+)"', svg)) < width
