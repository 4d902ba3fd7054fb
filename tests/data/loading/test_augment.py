"""Augmentation beside a plain chain of torchvision's transforms, and the laws of its draws."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as plain

from msa2net.config import AugmentConfig
from msa2net.data.loading.affine import Affine, sampling_grid, warp
from msa2net.data.loading.augment import (
    STEPS,
    Augmentation,
    Jitter,
    SpatialTransform,
    jitter,
    transform_spatially,
)

EVERYTHING = AugmentConfig(
    horizontal_flip=0.5,
    vertical_flip=0.25,
    affine=0.6,
    rotate_degrees=30,
    translate=0.2,
    scale=(0.7, 1.4),
    shear_degrees=10,
    brightness=0.3,
    contrast=0.4,
    saturation=0.5,
    noise_std=0.05,
)
SIZE = (48, 64)


def sample(channels: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth random image in [0, 1] with a label of 5 classes."""
    generator = Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 9, 11, generator=generator)
    image = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic")[0].clamp(0, 1)
    return image, (image[0] * 4.999).to(torch.uint8)


@pytest.mark.parametrize("seed", range(12))
def test_one_look_up_equals_one_transform_after_another(seed: int):
    """Flips and the affine map, as torchvision makes them one by one."""
    image, label = sample(channels=1 + seed % 3, seed=seed)
    how = Augmentation(EVERYTHING.model_copy(update={"affine": 1.0})).draw_spatial_transform(
        Generator().manual_seed(seed), SIZE
    )
    found, found_label = transform_spatially(image, label, how)
    expected, expected_label = image, label[None]
    for mirrored, flip in (
        (how.left_right, plain.horizontal_flip),
        (how.top_bottom, plain.vertical_flip),
    ):
        if mirrored:
            expected, expected_label = flip(expected), flip(expected_label)
    options = {
        "angle": how.affine.degrees,
        "translate": list(how.affine.shift),
        "scale": how.affine.scale,
        "shear": list(how.affine.shear_degrees),
    }
    expected = plain.affine(expected, interpolation=InterpolationMode.BILINEAR, **options)
    expected_label = plain.affine(
        expected_label, interpolation=InterpolationMode.NEAREST, **options
    )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    # Positions half-way between two pixels may round either way.
    assert (found_label != expected_label[0]).float().mean() < 0.002


@pytest.mark.parametrize("axes", [(), (-1,), (-2,), (-1, -2)])
def test_mirrors_are_exact(axes: tuple[int, ...]):
    image, label = sample(channels=2)
    how = SpatialTransform(left_right=-1 in axes, top_bottom=-2 in axes, affine=None)
    found, found_label = transform_spatially(image, label, how)
    assert torch.equal(found, image.flip(axes))
    assert torch.equal(found_label, label.flip(axes))
    by_grid, label_by_grid = warp(
        image, label, Affine(), left_right=how.left_right, top_bottom=how.top_bottom
    )
    torch.testing.assert_close(by_grid, found, atol=1e-5, rtol=0)
    assert torch.equal(label_by_grid, found_label)


def test_the_grid_is_torch_s():
    inverse = Affine(25.0, (3.0, -2.0), 1.3, (5.0, -8.0)).inverse()
    height, width = SIZE
    theta = inverse.copy()
    theta[0, 1] *= height / width  # in units of half an image, not of pixels
    theta[1, 0] *= width / height
    theta[:, 2] *= np.array([2 / width, 2 / height])
    expected = torch.nn.functional.affine_grid(
        torch.from_numpy(theta)[None].float(), (1, 1, *SIZE), align_corners=False
    )
    torch.testing.assert_close(sampling_grid(inverse, SIZE)[None], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.7])
def test_values_change_as_torchvision_changes_them(name: str, factor: float, channels: int):
    image, _ = sample(channels)
    found = image.clone()
    jitter(found, Jitter(((name, factor),), 0.0), Generator())
    expected = getattr(plain, f"adjust_{name}")(image, factor)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_steps_are_made_in_the_order_drawn():
    image, _ = sample(3)
    found = image.clone()
    jitter(found, Jitter((("contrast", 1.5), ("brightness", 0.7)), 0.0), Generator())
    expected = plain.adjust_brightness(plain.adjust_contrast(image, 1.5), 0.7)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_noise_is_gaussian_and_independent_from_pixel_to_pixel():
    grey = torch.full((1, 256, 256), 0.5)
    jitter(grey, Jitter((), 0.05), Generator().manual_seed(3))
    noise = (grey[0].numpy() - 0.5) / 0.05
    assert stats.kstest(noise.ravel(), "norm").pvalue > 0.001
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.02


@pytest.fixture(scope="module")
def draws() -> list[tuple[SpatialTransform, Jitter]]:
    augmentation = Augmentation(EVERYTHING)
    found = []
    for index in range(3000):
        generator = Generator().manual_seed(index)
        found.append(
            (
                augmentation.draw_spatial_transform(generator, SIZE),
                augmentation.draw_jitter(generator),
            )
        )
    return found


def test_how_often_things_happen(draws):
    """Within four standard deviations of a share in 3,000."""
    for expected, happened in (
        (0.5, [how.left_right for how, _ in draws]),
        (0.25, [how.top_bottom for how, _ in draws]),
        (0.6, [how.affine is not None for how, _ in draws]),
        (0.5 * 0.25, [how.left_right and how.top_bottom for how, _ in draws]),
    ):
        share = np.mean(happened)
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / len(draws))


def test_amounts_are_uniform_in_their_ranges(draws):
    affines = [how.affine for how, _ in draws if how.affine is not None]
    uniform = {
        (-30, 30): [affine.degrees for affine in affines],
        (0.7, 1.4): [affine.scale for affine in affines],
        (-10, 10): [angle for affine in affines for angle in affine.shear_degrees],
    }
    for name, amount in (("brightness", 0.3), ("contrast", 0.4), ("saturation", 0.5)):
        uniform[1 - amount, 1 + amount] = [dict(jitter.steps)[name] for _, jitter in draws]
    for (low, high), values in uniform.items():
        assert low <= min(values) <= max(values) <= high
        assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 0.001
    for axis, side in ((0, SIZE[1]), (1, SIZE[0])):
        shifts = np.array([affine.shift[axis] for affine in affines])
        assert (shifts == shifts.round()).all()
        most = round(0.2 * side)
        assert (shifts.min(), shifts.max()) == (-most, most)
        assert abs(shifts.mean()) < 4 * 0.2 * side / np.sqrt(3 * len(shifts))


def test_every_order_of_the_steps_is_as_likely(draws):
    orders = [tuple(name for name, _ in jitter.steps) for _, jitter in draws]
    counts = np.unique([" ".join(order) for order in orders], return_counts=True)[1]
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 0.001


def test_the_key_alone_decides():
    image, label = sample()
    before = image.clone()
    augmentation = Augmentation(EVERYTHING)
    first = augmentation(image, label, (1, 2, 3))
    torch.rand(7)
    augmentation(image, label, (1, 2, 4))
    again = Augmentation(EVERYTHING)(image, label, (1, 2, 3))
    assert torch.equal(image, before)
    assert all(map(torch.equal, first, again))
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert not torch.equal(augmentation(image, label, other)[0], first[0])


def test_geometry_does_not_depend_on_what_happens_to_values():
    image, label = sample()
    plain_config = EVERYTHING.model_copy(
        update=dict.fromkeys(("brightness", "contrast", "saturation", "noise_std"), 0.0)
    )
    for index in range(6):
        key = (0, 0, index)
        moved = Augmentation(plain_config)(image, label, key)[1]
        assert torch.equal(Augmentation(EVERYTHING)(image, label, key)[1], moved)


def test_channels_that_are_no_colour_change_on_their_own():
    """Four sequences of an MRI: the same value everywhere comes out as four different ones."""
    image, label = torch.full((4, *SIZE), 0.5), torch.zeros(SIZE, dtype=torch.uint8)
    config = AugmentConfig(brightness=0.5)
    found, _ = Augmentation(config)(image, label, (0, 0, 0))
    assert len({round(channel.mean().item(), 6) for channel in found}) == 4
    colour, _ = Augmentation(config)(image[:3], label, (0, 0, 0))
    assert len({round(channel.mean().item(), 6) for channel in colour}) == 1


def test_image_and_label_move_together():
    """An image that equals its label still does after flips and affine maps, but for the edge."""
    config = AugmentConfig(horizontal_flip=0.5, vertical_flip=0.5, affine=1.0, shear_degrees=10)
    label = torch.zeros(64, 64, dtype=torch.uint8)
    label[10:40, 20:55] = 1
    for index in range(10):
        image, moved = Augmentation(config)(label[None].float(), label, (0, 0, index))
        disagree = ((image[0] > 0.5) != (moved == 1)).float().mean()
        assert disagree < 0.02
        assert set(moved.unique().tolist()) <= {0, 1}


def test_no_augmentation_changes_nothing():
    image, label = torch.rand(3, 16, 16), torch.randint(0, 2, (16, 16), dtype=torch.uint8)
    same_image, same_label = Augmentation(AugmentConfig())(image, label, (0, 0, 0))
    assert torch.equal(image, same_image)
    assert torch.equal(label, same_label)
