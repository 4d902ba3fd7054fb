"""The paper's augmentation: 0 to 4 of ten changes, in random order, at the image's native size.

The list is the public code's. Each change interpolates for itself, one after the other, the image
linearly and the label by nearest neighbour; outside is 0; nothing is clipped. Two of that code's
defects are left out unless they are asked for (`PaperDefect`).

Axes: C channels, H rows, W columns.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.random import Generator
from scipy import ndimage
from torch import Tensor

from msa2net.config import PaperDefect
from msa2net.data.loading.affine import Affine, sample, sampling_grid
from msa2net.data.loading.augment import derive_seed

Pair = tuple[Tensor, Tensor]
Change = Callable[[Tensor, Tensor, Generator], Pair]

MOST = 4
# The public code adds noise of 0.005 · 255, meant for images of 0 to 255, to images of 0 to 1.
NOISE, DEFECTIVE_NOISE = 0.005, 0.005 * 255
POINTS = 4  # of the piecewise affine change, along each axis


class PaperAugmentation:
    """Draws how many, which and in what order from a sample's key, and applies them.

    Args:
        defects: `noise` is 255 times as strong, as there. (`streams` is the sampler's.)
    """

    def __init__(self, defects: Sequence[PaperDefect] = ()) -> None:
        self.noise_std = DEFECTIVE_NOISE if "noise" in defects else NOISE
        self.changes: tuple[Change, ...] = (
            _flip_rows,
            _flip_columns,
            self._add_noise,
            _blur,
            _multiply,
            _scale,
            _rotate,
            _shear,
            _piecewise_affine,
            _translate,
        )

    def __call__(self, unit_CHW: Tensor, label_HW: Tensor, key: tuple[int, int, int]) -> Pair:
        """Change an image in [0, 1] and its label; `key` decides how.

        Args:
            unit_CHW: (C, H, W) float32.
            label_HW: (H, W) uint8.
            key: (seed, epoch, index).

        Returns:
            The changed pair, of the same shapes; the image may leave [0, 1].
        """
        draw = np.random.default_rng(derive_seed(*key))
        for index in draw.permutation(len(self.changes))[: draw.integers(MOST + 1)]:
            unit_CHW, label_HW = self.changes[index](unit_CHW, label_HW, draw)
        return unit_CHW, label_HW

    def _add_noise(self, unit_CHW: Tensor, label_HW: Tensor, draw: Generator) -> Pair:
        noise_HW = draw.normal(0.0, self.noise_std, label_HW.shape).astype(np.float32)
        return unit_CHW + torch.from_numpy(noise_HW), label_HW


def _flip_rows(unit_CHW: Tensor, label_HW: Tensor, draw: Generator) -> Pair:
    return (unit_CHW.flip(1), label_HW.flip(0)) if draw.random() < 0.5 else (unit_CHW, label_HW)


def _flip_columns(unit_CHW: Tensor, label_HW: Tensor, draw: Generator) -> Pair:
    return (unit_CHW.flip(2), label_HW.flip(1)) if draw.random() < 0.5 else (unit_CHW, label_HW)


def _blur(unit_CHW: Tensor, label_HW: Tensor, _: Generator) -> Pair:
    blurred = ndimage.gaussian_filter(unit_CHW.numpy(), (0, 1, 1), mode="mirror", truncate=2.0)
    return torch.from_numpy(blurred), label_HW


def _multiply(unit_CHW: Tensor, label_HW: Tensor, draw: Generator) -> Pair:
    """Multiply by 0.5 to 1.5; the public code calls this linear contrast."""
    return unit_CHW * draw.uniform(0.5, 1.5), label_HW


def _scale(unit_CHW: Tensor, label_HW: Tensor, draw: Generator) -> Pair:
    across, down = draw.uniform(0.5, 2.0, 2)
    return _map(unit_CHW, label_HW, np.array([[1 / across, 0, 0], [0, 1 / down, 0]]))


def _rotate(unit_CHW: Tensor, label_HW: Tensor, draw: Generator) -> Pair:
    return _map(unit_CHW, label_HW, Affine(degrees=draw.uniform(-40, 40)).inverse())


def _shear(unit_CHW: Tensor, label_HW: Tensor, draw: Generator) -> Pair:
    affine = Affine(shear_degrees=(draw.uniform(-16, 16), 0.0))
    return _map(unit_CHW, label_HW, affine.inverse())


def _translate(unit_CHW: Tensor, label_HW: Tensor, draw: Generator) -> Pair:
    across, down = draw.uniform(-0.2, 0.2, 2)
    height, width = label_HW.shape
    return _map(unit_CHW, label_HW, Affine(shift=(across * width, down * height)).inverse())


def _piecewise_affine(unit_CHW: Tensor, label_HW: Tensor, draw: Generator) -> Pair:
    """Move each of 4×4 points by about 0.8 to 3 % of the sides; triangles between them follow.

    A point is not moved out of the image. Each square between four points is cut into two
    triangles along the diagonal that goes down to the right.
    """
    size = np.array(label_HW.shape)
    moves_PP2 = draw.normal(0.0, draw.uniform(0.008, 0.03), (POINTS, POINTS, 2)) * size
    places_PP2 = np.stack(
        np.meshgrid(*(np.linspace(0, n - 1, POINTS) for n in size), indexing="ij"), 2
    )
    moves_PP2 = np.clip(places_PP2 + moves_PP2, 0, size - 1) - places_PP2
    looks_HW2 = _between_points(moves_PP2, (int(size[0]), int(size[1])))
    grid_HW2 = sampling_grid(Affine().inverse(), (int(size[0]), int(size[1])))
    shift_HW2 = torch.from_numpy(looks_HW2[..., ::-1] * (2 / size[::-1])).float()
    return sample(unit_CHW, label_HW, grid_HW2 + shift_HW2)


def _between_points(values_PP2: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Interpolate values at POINTS × POINTS places, linearly in each triangle: (H, W, 2)."""
    (row, v), (column, u) = (_cell(n) for n in size)
    row, v, column, u = row[:, None], v[:, None, None], column[None], u[None, :, None]
    corner = values_PP2[row, column]
    far = values_PP2[row + 1, column + 1]
    upper = (
        corner
        + u * (values_PP2[row, column + 1] - corner)
        + v * (far - values_PP2[row, column + 1])
    )
    lower = (
        corner
        + v * (values_PP2[row + 1, column] - corner)
        + u * (far - values_PP2[row + 1, column])
    )
    return np.where(u >= v, upper, lower)


def _cell(length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each pixel the point before it, and how far it is to the next, 0 to 1."""
    place = np.linspace(0, POINTS - 1, length)
    before = np.minimum(place.astype(int), POINTS - 2)
    return before, place - before


def _map(unit_CHW: Tensor, label_HW: Tensor, inverse_23: np.ndarray) -> Pair:
    grid_HW2 = sampling_grid(inverse_23, (label_HW.shape[0], label_HW.shape[1]))
    return sample(unit_CHW, label_HW, grid_HW2)
