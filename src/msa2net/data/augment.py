"""Random changes to training samples, each a function of (seed, epoch, index) only.

Axes: C channels, h rows, w columns.
"""

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from msa2net.config import AugmentConfig


class Augmentation:
    """The transformations of an `AugmentConfig`, applied to image and label together.

    Flips and affine maps move both (image bilinear, label nearest, outside is 0); brightness,
    contrast, saturation and noise touch the image only.
    """

    def __init__(self, config: AugmentConfig) -> None:
        transforms = _geometric(config) + _photometric(config)
        self.transform = v2.Compose(transforms) if transforms else None

    def __call__(
        self, unit_Chw: Tensor, label_hw: Tensor, key: tuple[int, int, int]
    ) -> tuple[Tensor, Tensor]:
        """Change an image in [0, 1] and its label; `key` decides how.

        Args:
            unit_Chw: (C, h, w) float32.
            label_hw: (h, w) uint8.
            key: (seed, epoch, index).

        Returns:
            The changed pair, of the same shapes; the image stays in [0, 1].
        """
        if self.transform is None:
            return unit_Chw, label_hw
        # torchvision draws from torch's global generator: lend it one of our own, then put the
        # old state back, so that samples do not depend on who drew before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_mix(key))
            image, mask = self.transform(tv_tensors.Image(unit_Chw), tv_tensors.Mask(label_hw))
        return image.as_subclass(Tensor).clamp(0.0, 1.0), mask.as_subclass(Tensor)


def _geometric(config: AugmentConfig) -> list[v2.Transform]:
    shear = config.shear_degrees
    affine = v2.RandomAffine(
        degrees=config.rotate_degrees,
        translate=(config.translate, config.translate),
        scale=config.scale,
        shear=(-shear, shear, -shear, shear) if shear else None,
        interpolation=v2.InterpolationMode.BILINEAR,
    )
    transforms: list[v2.Transform] = []
    if config.horizontal_flip:
        transforms.append(v2.RandomHorizontalFlip(config.horizontal_flip))
    if config.vertical_flip:
        transforms.append(v2.RandomVerticalFlip(config.vertical_flip))
    if config.affine:
        transforms.append(v2.RandomApply([affine], p=config.affine))
    return transforms


def _photometric(config: AugmentConfig) -> list[v2.Transform]:
    transforms: list[v2.Transform] = []
    if config.brightness or config.contrast or config.saturation:
        transforms.append(v2.ColorJitter(config.brightness, config.contrast, config.saturation))
    if config.noise_std:
        transforms.append(v2.GaussianNoise(sigma=config.noise_std))
    return transforms


def _mix(key: tuple[int, int, int]) -> int:
    """Hash (seed, epoch, index) to 63 bits; Python's tuple hash is fixed for integers."""
    return hash(key) & (2**63 - 1)
