"""Windows sliding over slices: against a plain loop, at the training's scale, and what is refused.

Axes: Z slices, H rows, W columns.
"""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from msa2net.data.case import Case, Geometry
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, DataError
from msa2net.inference.engine import count_windows
from msa2net.inference.predictor import Predictor
from msa2net.inference.torch_backend import EnsembleMember, TorchBackend

NAMES = ("background", "bright")
SIZE = (32, 32)


class Positional(nn.Module):
    """Answers that depend on the place in the window, so that every window leaves its trace."""

    def __init__(self) -> None:
        super().__init__()
        self.weight_HW = nn.Parameter(torch.randn(SIZE), requires_grad=False)
        self.windows = 0

    def forward(self, image_BCHW: Tensor) -> Tensor:
        self.windows += len(image_BCHW)
        logit_B1HW = image_BCHW[:, :1] * 3 + self.weight_HW
        return torch.cat([-logit_B1HW, logit_B1HW], dim=1)


class Bright(nn.Module):
    """Class 1 where the image is brighter than its middle."""

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return torch.cat([-image_BCHW[:, :1], image_BCHW[:, :1]], dim=1) * 1000


def preprocessing(**options) -> Preprocessing:
    return Preprocessing(channels=1, image_size=SIZE, **options)


def starts(length: int, overlap: float) -> list[int]:
    """Where windows begin: a step apart, the last one against the border."""
    step = int(SIZE[0] * (1 - overlap))
    return [*range(0, length - SIZE[0], step), length - SIZE[0]]


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_windows_are_averaged_as_a_plain_loop_does(overlap):
    """σ is an eighth of the side; weights fall off with distance from the window's centre."""
    model = Positional()
    group = TorchBackend([EnsembleMember(model, preprocessing())])
    unit_BChw = torch.rand(2, 1, 50, 71)
    found = group.probabilities(unit_BChw, 3, "sliding", overlap)
    distance = (np.arange(32) - 15.5) / (32 / 8)
    gauss = np.exp(-0.5 * distance**2)
    weight_hw = torch.tensor(np.outer(gauss, gauss), dtype=torch.float32)
    weight_hw = weight_hw.clamp_min(max(float(weight_hw[weight_hw > 0].min()), 1e-3))
    total, weights = torch.zeros(2, 2, 50, 71), torch.zeros(50, 71)
    for top in starts(50, overlap):
        for left in starts(71, overlap):
            here = (..., slice(top, top + 32), slice(left, left + 32))
            logits = model((unit_BChw[here] - 0.5) / 0.5)
            total[here] += logits.softmax(1) * weight_hw
            weights[here] += weight_hw
    torch.testing.assert_close(found, total / weights, atol=2e-5, rtol=0)


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([0.0, 0.25, 0.5, 0.9]))
def test_windows_are_counted_as_they_are_laid(height, width, overlap):
    model = Positional()
    group = TorchBackend([EnsembleMember(model, preprocessing())])
    group.probabilities(torch.zeros(1, 1, height, width), 64, "sliding", overlap)
    assert count_windows((height, width), SIZE, overlap) == model.windows


def test_a_window_as_large_as_the_slice_is_the_resized_way():
    image_ZHW = np.random.default_rng(0).integers(0, 256, (5, *SIZE), np.uint8)
    model = Positional()
    ways = [Predictor(model, preprocessing(), NAMES, 4, mode=m) for m in ("resize", "sliding")]
    resized, sliding = (way(image_ZHW).labels for way in ways)
    assert np.array_equal(resized, sliding)


def test_small_slices_are_surrounded_as_by_pad():
    """What `fit: pad` leaves empty is 0 before standardising, so it is here."""
    seen = []
    model = Bright()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image_ZHW = np.full((1, 20, 64), 255, np.uint8)
    Predictor(model, preprocessing(), NAMES, 10, mode="sliding")(image_ZHW)
    window_HW = seen[0][0, 0]
    assert (window_HW[6:26] == 1).all()
    assert (window_HW[:6] == -1).all()
    assert (window_HW[26:] == -1).all()


def test_a_batch_of_windows_changes_nothing():
    image_ZHW = np.random.default_rng(0).integers(0, 256, (3, 40, 90), np.uint8)
    model = Positional()
    one, many = (
        Predictor(model, preprocessing(), NAMES, batch, mode="sliding")(image_ZHW).labels
        for batch in (1, 50)
    )
    assert np.array_equal(one, many)


def test_windows_see_pixels_as_large_as_in_training():
    """A scan of half the pixel size is halved first; its blocks of 2×2 come back exactly."""
    mask_ZHW = (np.random.default_rng(2).random((3, 45, 60)) < 0.4).repeat(2, 1).repeat(2, 2)
    image = np.where(mask_ZHW, 220, 20).astype(np.int16)[None]
    seen = []
    model = Bright()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    known = preprocessing(pixel_mm=(1.0, 1.0))
    apply = Predictor(model, known, NAMES, 100, mode="sliding")
    found = apply(Case("fine", image, geometry=Geometry.from_spacing((3.0, 0.5, 0.5))))
    assert np.array_equal(found.labels, mask_ZHW)
    halved = count_windows((45, 60), SIZE, 0.5)
    assert sum(shape[0] for shape in seen) == 3 * halved
    with pytest.raises(DataError, match=r"plain: the image has no spacing, and windows .* 1×1 mm"):
        apply(Case("plain", image))


def test_a_crop_is_kept_to():
    """A network that was only shown the middle answers background outside of it."""
    image = np.full((1, 80, 60), 255, np.uint8)
    apply = Predictor(Bright(), preprocessing(fit="stretch", crop=0.5), NAMES, 100, mode="sliding")
    labels = apply(image).labels[0]
    assert labels[20:60, 15:45].all()
    assert labels.sum() == 40 * 30


@pytest.mark.parametrize("wrong_mm", [(1000.0, 1000.0), (1.0, 1e9), (1e300, 1e300)])
def test_a_spacing_that_makes_a_slice_enormous_is_refused(wrong_mm):
    """512² at a metre a pixel would be windows over 731,429²."""
    p = preprocessing(pixel_mm=(0.7, 0.7))
    apply = Predictor(Bright(), p, NAMES, mode="sliding")
    image = np.zeros((1, 1, 512, 512), np.float32)
    geometry = Geometry.from_spacing((1.0, *wrong_mm))
    with pytest.raises(DataError, match="windows would slide over .* correct the spacing") as said:
        apply(Case("big", image, geometry=geometry))
    assert len(str(said.value)) < 1000


def test_what_cannot_be_is_said(monkeypatch):
    for options, message in (
        ({"mode": "tiles"}, "no mode 'tiles'; use resize or sliding"),
        ({"overlap": 1.0}, "cannot overlap by 1.0"),
        ({"batch_slices": 0}, "a batch of 0 slices"),
    ):
        with pytest.raises(ConfigError, match=message):
            Predictor(Bright(), preprocessing(), NAMES, **options)
    monkeypatch.setitem(sys.modules, "monai.inferers.utils", None)
    with pytest.raises(ConfigError, match="need MONAI; install it with pip install monai"):
        Predictor(Bright(), preprocessing(), NAMES, mode="sliding")
    Predictor(Bright(), preprocessing(), NAMES)  # nobody else needs it
