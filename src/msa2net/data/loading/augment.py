"""Random changes to training samples, each a function of (seed, epoch, index) only.

Axes: C channels, h rows, w columns.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from msa2net.config import AugmentConfig
from msa2net.data.loading.affine import Affine, warp

GREY_OF_COLOUR = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as in torchvision


@dataclass(frozen=True)
class SpatialTransform:
    """Where everything goes, image and label alike.

    Attributes:
        left_right, top_bottom: mirrored first.
        affine: then mapped; None if not.
    """

    left_right: bool
    top_bottom: bool
    affine: Affine | None


@dataclass(frozen=True)
class Jitter:
    """How one image's values change; every step ends clipped to [0, 1].

    Attributes:
        steps: (name, factor) in order; 1 changes nothing.
        noise_std: of what is added last.
    """

    steps: tuple[tuple[str, float], ...]
    noise_std: float


class Augmentation:
    """The transformations of an `AugmentConfig`, applied to image and label together.

    Flips and affine maps move both (image bilinear, label nearest, outside is 0), in one look-up;
    brightness, contrast, saturation and noise touch the image only.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config
        amounts = {
            "brightness": config.brightness,
            "contrast": config.contrast,
            "saturation": config.saturation,
        }
        self._amounts = {name: amount for name, amount in amounts.items() if amount}
        self._moves = bool(config.horizontal_flip or config.vertical_flip or config.affine)
        self._jitters = bool(self._amounts or config.noise_std)

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
        if not self._moves and not self._jitters:
            return unit_Chw, label_hw
        generator = Generator().manual_seed(derive_seed(*key))
        moved_Chw, label_hw = transform_spatially(
            unit_Chw, label_hw, self.draw_spatial_transform(generator, label_hw.shape)
        )
        if moved_Chw is unit_Chw:  # the caller's own stays as it is
            moved_Chw = unit_Chw.clone()
        if self._jitters:
            # Grey and colour are changed as pictures; of anything else, such as the sequences of
            # an MRI, every channel is a grey picture of its own.
            one_picture = len(moved_Chw) in (1, 3)
            for part in [moved_Chw] if one_picture else [channel[None] for channel in moved_Chw]:
                jitter(part, self.draw_jitter(generator), generator)
        return moved_Chw.clamp_(0.0, 1.0), label_hw

    def draw_spatial_transform(
        self, generator: Generator, size: tuple[int, ...]
    ) -> SpatialTransform:
        """Draw flips and an affine map for an image of (h, w).

        Angles, shears and scales are uniform in their ranges, shifts uniform and in whole pixels.
        """
        config, draw = self.config, torch.rand(9, generator=generator).tolist()
        affine = None
        if draw[2] < config.affine:
            most = config.translate * size[1], config.translate * size[0]
            low, high = config.scale
            affine = Affine(
                degrees=config.rotate_degrees * (2 * draw[3] - 1),
                shift=(round(most[0] * (2 * draw[4] - 1)), round(most[1] * (2 * draw[5] - 1))),
                scale=low + (high - low) * draw[6],
                shear_degrees=(
                    config.shear_degrees * (2 * draw[7] - 1),
                    config.shear_degrees * (2 * draw[8] - 1),
                ),
            )
        return SpatialTransform(
            draw[0] < config.horizontal_flip, draw[1] < config.vertical_flip, affine
        )

    def draw_jitter(self, generator: Generator) -> Jitter:
        """Draw factors, uniform about 1, and the order in which they are applied."""
        count = len(self._amounts)
        draw = torch.rand(2 * count, generator=generator).tolist() if count else []
        steps = [
            (place, name, 1 + amount * (2 * share - 1))
            for (name, amount), share, place in zip(
                self._amounts.items(), draw[:count], draw[count:], strict=True
            )
        ]
        ordered = tuple((name, factor) for _, name, factor in sorted(steps))
        return Jitter(ordered, self.config.noise_std)


def transform_spatially(
    unit_Chw: Tensor, label_hw: Tensor, how: SpatialTransform
) -> tuple[Tensor, Tensor]:
    """Move an image and its label; what does not move at all is returned as it is."""
    if how.affine is not None:
        return warp(
            unit_Chw,
            label_hw,
            how.affine,
            left_right=how.left_right,
            top_bottom=how.top_bottom,
        )
    axes = [axis for axis, mirrored in ((-1, how.left_right), (-2, how.top_bottom)) if mirrored]
    return (unit_Chw.flip(axes), label_hw.flip(axes)) if axes else (unit_Chw, label_hw)


def jitter(unit_Chw: Tensor, how: Jitter, generator: Generator) -> None:
    """Change the values of a grey or colour picture in place."""
    for name, factor in how.steps:
        STEPS[name](unit_Chw, factor)
        unit_Chw.clamp_(0.0, 1.0)
    if how.noise_std:
        unit_Chw.add_(torch.randn(unit_Chw.shape, generator=generator), alpha=how.noise_std)
        unit_Chw.clamp_(0.0, 1.0)


def _brightness(unit_Chw: Tensor, factor: float) -> None:
    unit_Chw.mul_(factor)


def _contrast(unit_Chw: Tensor, factor: float) -> None:
    mean = _grey(unit_Chw).mean()
    unit_Chw.mul_(factor).add_((1 - factor) * mean)


def _saturation(unit_Chw: Tensor, factor: float) -> None:
    if len(unit_Chw) == 3:  # grey has none
        grey_1hw = _grey(unit_Chw)
        unit_Chw.mul_(factor).add_(grey_1hw, alpha=1 - factor)


def _grey(unit_Chw: Tensor) -> Tensor:
    if len(unit_Chw) != 3:
        return unit_Chw
    weights_C = torch.tensor(GREY_OF_COLOUR)
    return torch.tensordot(weights_C, unit_Chw, dims=1)[None]


STEPS = {"brightness": _brightness, "contrast": _contrast, "saturation": _saturation}


SAMPLING = "BLAKE2b"
"""How `derive_seed` draws seeds; stored with checkpoints, since another way draws other samples."""


def derive_seed(*key: int) -> int:
    """Derive a seed of 63 bits from integers, the same on every machine and version of Python.

    It is the start of BLAKE2b over the integers in decimal, one space between them: neighbouring
    keys give unrelated seeds.
    """
    digest = hashlib.blake2b(" ".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & (2**63 - 1)
