"""Losses: golden values, values by hand, laws."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from msa2net.errors import ConfigError
from msa2net.losses import LOSSES, create_loss
from msa2net.losses.boundary_dou import boundary_weight
from msa2net.losses.class_sums import class_sums
from msa2net.losses.region import dice_loss

CASES = ("all", "class3_absent", "background_only", "thin")


@pytest.mark.parametrize("case", CASES)
def test_boundary_dou_golden(golden: Path, case: str):
    arrays = np.load(golden / "boundary_dou.npz")
    expected = json.loads((golden / "boundary_dou.json").read_text())["loss"][case]
    logits = torch.from_numpy(arrays[f"{case}_logits"]).requires_grad_()
    loss = create_loss({"boundary_dou": 1.0})(logits, torch.from_numpy(arrays[f"{case}_target"]))
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    gradient = torch.from_numpy(arrays[f"{case}_grad"])
    assert (logits.grad - gradient).norm() / gradient.norm() < 1e-4
    assert F.cosine_similarity(logits.grad.flatten(), gradient.flatten(), dim=0) > 0.99999


def _boundary_dou_by_loops(logits, target):
    """The definition, pixel by pixel; unknown pixels count nowhere and are no boundary."""
    probability = logits.softmax(1)
    batch, classes, height, width = logits.shape
    terms = []
    for k in range(classes):
        boundary = size = p2 = pt = 0.0
        for b in range(batch):
            for i in range(height):
                for j in range(width):
                    if target[b, i, j] == 255:
                        continue
                    p, t = float(probability[b, k, i, j]), float(target[b, i, j] == k)
                    p2, pt, size = p2 + p * p, pt + p * t, size + t
                    cross = [(i, j), (i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
                    inside = sum(
                        0 <= a < height and 0 <= c < width and target[b, a, c] in (k, 255)
                        for a, c in cross
                    )
                    boundary += t and inside < 5
        alpha = min(2 * (1 - (boundary + 1e-5) / (size + 1e-5)) - 1, 0.8)
        union = p2 + size
        terms.append((union - 2 * pt + 1e-5) / (union - (1 + alpha) * pt + 1e-5))
    return sum(terms) / classes


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_boundary_dou_equals_its_definition(seed):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.standard_normal((2, 3, 6, 5)))
    target = torch.from_numpy(rng.choice([0, 1, 2, 255], size=(2, 6, 5), p=[0.4, 0.4, 0.1, 0.1]))
    ours = create_loss({"boundary_dou": 1.0})(logits, target).item()
    assert ours == pytest.approx(_boundary_dou_by_loops(logits, target), abs=1e-5)


@pytest.mark.parametrize(
    ("side", "boundary"),
    [(1, 1), (3, 8), (10, 36)],
)
def test_boundary_weight_of_squares(side: int, boundary: int):
    """A square of side n has 4n − 4 boundary pixels; α = 2·(1 − C/S) − 1, at most 0.8."""
    target = torch.zeros(1, 16, 16, dtype=torch.long)
    target[0, 2 : 2 + side, 3 : 3 + side] = 1
    sums = class_sums(torch.zeros(1, 2, 16, 16), target)
    assert (sums.size[1], sums.boundary[1]) == (side**2, boundary)
    alpha = boundary_weight(sums.size, sums.boundary)[1].item()
    assert alpha == pytest.approx(min(2 * (1 - boundary / side**2) - 1, 0.8), abs=1e-4)


def test_boundary_weight_is_capped():
    target = torch.zeros(1, 200, 200, dtype=torch.long)
    sums = class_sums(torch.zeros(1, 2, 200, 200), target)
    assert boundary_weight(sums.size, sums.boundary)[0].item() == pytest.approx(0.8)


def test_dice_by_hand():
    """Four pixels, certain predictions, 3 predicted, 2 true, 2 shared: (2·2 + 1) / (5 + 1)."""
    logits = torch.tensor([[[[-20.0, 20, 20, 20]]]])
    logits = torch.cat([-logits, logits], dim=1)
    loss = dice_loss(logits, torch.tensor([[[0, 1, 1, 0]]]))
    assert loss.item() == pytest.approx(1 - 5 / 6, abs=1e-6)


def test_cross_entropy_is_torch_s():
    logits, target = torch.randn(2, 4, 5, 6), torch.randint(0, 4, (2, 5, 6))
    target[0, 0] = 255
    ours = create_loss({"cross_entropy": 1.0})(logits, target)
    torch.testing.assert_close(ours, F.cross_entropy(logits, target, ignore_index=255))


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_change_nothing(name: str):
    logits, target = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    target[:, :, 5] = 255
    loss = create_loss({name: 1.0})
    other = logits.clone()
    other[:, :, :, 5] = torch.randn(2, 3, 8)
    other.requires_grad_()
    value = loss(other, target)
    value.backward()
    assert value.item() == loss(logits, target).item()
    assert not other.grad[:, :, :, 5].any()


@pytest.mark.parametrize("name", LOSSES)
def test_all_ignored_is_finite(name: str):
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    loss = create_loss({name: 1.0})(logits, torch.full((1, 8, 8), 255))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_right_answer_costs_less_than_a_wrong_one(name: str):
    target = torch.randint(0, 3, (2, 8, 8))
    right = 8 * F.one_hot(target, 3).permute(0, 3, 1, 2).float()
    loss = create_loss({name: 1.0})
    assert loss(right, target) < loss(-right, target)


def test_weighted_sum_is_the_sum_of_its_parts():
    logits, target = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    parts = {"dice": 0.5, "cross_entropy": 2.0, "boundary_dou": 1.0}
    expected = sum(w * create_loss({name: 1.0})(logits, target) for name, w in parts.items())
    torch.testing.assert_close(create_loss(parts)(logits, target), expected)


@pytest.mark.parametrize("unknown", [False, True])
def test_gradients_can_be_asked_for_twice(unknown: bool):
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(0, 4, (3, 12, 10), generator=generator)
    if unknown:
        target[:, 2:5] = 255
    logits = torch.randn(3, 4, 12, 10, generator=generator)
    logits = logits.to(memory_format=torch.channels_last).requires_grad_()
    loss = create_loss({"boundary_dou": 1.0, "dice": 1.0})(logits, target)
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    first = first.clone()
    (second,) = torch.autograd.grad(loss, logits)
    assert torch.equal(first, second)


@pytest.mark.parametrize("unknown", [False, True])
def test_sums_for_a_compiler_are_the_same(unknown: bool, monkeypatch: pytest.MonkeyPatch):
    """There they are written term by term, here from few passes; so are their gradients."""
    generator = torch.Generator().manual_seed(5)
    target = torch.randint(0, 4, (3, 12, 10), generator=generator).repeat_interleave(3, 2)
    if unknown:
        target[:, 2:5] = 255
    logits = torch.randn(3, 4, 12, 30, generator=generator, requires_grad=True)
    found = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda answer=compiling: answer)
        loss = create_loss({"boundary_dou": 1.0, "dice": 1.0})(logits, target)
        found.append((class_sums(logits, target), torch.autograd.grad(loss, logits)[0]))
    torch.testing.assert_close(found[0], found[1])


def test_sums_over_large_images_keep_their_digits():
    logits = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(4))
    sums = class_sums(logits, torch.zeros(1, 1024, 1024, dtype=torch.long))
    exact = logits.double().softmax(1).square().sum((0, 2, 3))
    assert torch.allclose(sums.squares.double(), exact, rtol=1e-6, atol=0)


def test_half_precision_logits_are_scored_in_float32():
    logits, target = torch.randn(1, 3, 64, 64).bfloat16(), torch.randint(0, 3, (1, 64, 64))
    assert create_loss({"dice": 1.0, "boundary_dou": 1.0})(logits, target).dtype == torch.float32


@pytest.mark.parametrize(
    ("weights", "message"),
    [({"focal": 1.0}, "there are"), ({}, "no term"), ({"dice": 0.0}, "no term")],
)
def test_impossible_losses_are_refused(weights, message):
    with pytest.raises(ConfigError, match=message):
        create_loss(weights)
