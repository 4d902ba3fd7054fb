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
        self.geometric = _geometric(config)
        self.photometric = _photometric(config)

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
        if not self.geometric and not self.photometric:
            return unit_Chw, label_hw
        # torchvision draws from torch's global generator: lend it one of our own, then put the
        # old state back, so that samples do not depend on who drew before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(*key))
            image, mask = tv_tensors.Image(unit_Chw), tv_tensors.Mask(label_hw)
            for transform in self.geometric:
                image, mask = transform(image, mask)
            unit_Chw = image.as_subclass(Tensor)
            # Grey and colour are changed as pictures; of anything else, such as the sequences of
            # an MRI, every channel is a grey picture of its own.
            parts = [unit_Chw] if len(unit_Chw) in (1, 3) else [c[None] for c in unit_Chw]
            unit_Chw = torch.cat([self._change_intensities(part) for part in parts])
        return unit_Chw.clamp(0.0, 1.0), mask.as_subclass(Tensor)

    def _change_intensities(self, unit_Chw: Tensor) -> Tensor:
        image = tv_tensors.Image(unit_Chw)
        for transform in self.photometric:
            image = transform(image)
        return image.as_subclass(Tensor)


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


def mix(*key: int) -> int:
    """Hash integers to a seed of 63 bits; Python's hash of a tuple of integers never changes."""
    return hash(key) & (2**63 - 1)
