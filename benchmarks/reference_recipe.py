"""The published way of training and scoring, written anew from its description, to measure beside.

Float32 and eager; a sample is augmented at its native 512² on the CPU, then resized by splines; the
loss loops over classes and images; a volume goes through the network slice by slice; distances are
MedPy's. Nothing here is slowed down on purpose: every part is the plain way to write it with scipy,
numpy and torch. The published code was seen to take, on two CPU cores of the same kind, 58 ms to
augment a sample, 9 ms to resize it and 1.1 to 1.8 s for four slices of 224² in the network;
`side_by_side.py` prints what this one takes.

Axes: B batch, K classes, C channels, Z slices, H rows, W columns.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import LinearNDInterpolator
from torch import Tensor, nn
from torch.nn import functional as F

Image = NDArray[np.float32]
Label = NDArray[np.uint8]
Pair = tuple[Image, Label]
Rng = np.random.Generator

MOST_AUGMENTERS = 4
EPSILON = 1e-5


# Augmentation -------------------------------------------------------------------------------------


def augment(image_HW: Image, label_HW: Label, rng: Rng) -> Pair:
    """Apply none to four of the ten, in random order, one after another at full size."""
    count = int(rng.integers(0, MOST_AUGMENTERS + 1))
    for index in rng.permutation(len(AUGMENTERS))[:count]:
        image_HW, label_HW = AUGMENTERS[index](image_HW, label_HW, rng)
    return image_HW, label_HW


def flip_rows(image_HW: Image, label_HW: Label, rng: Rng) -> Pair:
    """Mirror top and bottom in half of the cases."""
    return (image_HW[::-1], label_HW[::-1]) if rng.random() < 0.5 else (image_HW, label_HW)


def flip_columns(image_HW: Image, label_HW: Label, rng: Rng) -> Pair:
    """Mirror left and right in half of the cases."""
    return (image_HW[:, ::-1], label_HW[:, ::-1]) if rng.random() < 0.5 else (image_HW, label_HW)


def noise(image_HW: Image, label_HW: Label, rng: Rng) -> Pair:
    """Add Gaussian noise."""
    return image_HW + rng.normal(0.0, 0.05, image_HW.shape).astype(np.float32), label_HW


def blur(image_HW: Image, label_HW: Label, rng: Rng) -> Pair:  # noqa: ARG001
    """Blur with a Gaussian of one pixel."""
    return ndimage.gaussian_filter(image_HW, 1.0), label_HW


def multiply(image_HW: Image, label_HW: Label, rng: Rng) -> Pair:
    """Multiply all values with the same factor."""
    return image_HW * np.float32(rng.uniform(0.5, 1.5)), label_HW


def scale(image_HW: Image, label_HW: Label, rng: Rng) -> Pair:
    """Scale each axis on its own."""
    down, across = rng.uniform(0.5, 2.0, 2)
    return warp(image_HW, label_HW, np.diag([1 / down, 1 / across]))


def rotate(image_HW: Image, label_HW: Label, rng: Rng) -> Pair:
    """Rotate about the centre."""
    angle = np.deg2rad(rng.uniform(-40.0, 40.0))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return warp(image_HW, label_HW, turn)


def shear(image_HW: Image, label_HW: Label, rng: Rng) -> Pair:
    """Shear along the rows."""
    slope = np.tan(np.deg2rad(rng.uniform(-16.0, 16.0)))
    return warp(image_HW, label_HW, np.array([[1.0, 0.0], [slope, 1.0]]))


def translate(image_HW: Image, label_HW: Label, rng: Rng) -> Pair:
    """Shift along both axes."""
    shift = rng.uniform(-0.2, 0.2, 2) * image_HW.shape
    return warp(image_HW, label_HW, np.eye(2), shift)


def warp(
    image_HW: Image, label_HW: Label, matrix: NDArray[np.float64], shift: Any = (0.0, 0.0)
) -> Pair:
    """Apply an affine map about the centre; outside is 0."""
    centre = (np.array(image_HW.shape) - 1) / 2
    offset = centre - matrix @ centre + np.asarray(shift)
    image_HW = ndimage.affine_transform(image_HW, matrix, offset, order=1)
    return image_HW, ndimage.affine_transform(label_HW, matrix, offset, order=0)


def piecewise_affine(image_HW: Image, label_HW: Label, rng: Rng) -> Pair:
    """Move a grid of 4×4 points at random, and everything between them by linear interpolation."""
    height, width = image_HW.shape
    rows, columns = np.linspace(0, height - 1, 4), np.linspace(0, width - 1, 4)
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    strength = rng.uniform(0.008, 0.03)
    moved = points + rng.normal(0.0, strength, points.shape) * (height, width)
    moved = np.clip(moved, 0, (height - 1, width - 1))
    grid = np.stack(np.mgrid[:height, :width], axis=-1).reshape(-1, 2)
    source = LinearNDInterpolator(points, moved)(grid).T.reshape(2, height, width)
    image_HW = ndimage.map_coordinates(image_HW, source, order=1)
    return image_HW, ndimage.map_coordinates(label_HW, source, order=0)


AUGMENTERS: tuple[Callable[[Image, Label, Rng], Pair], ...] = (
    flip_rows,
    flip_columns,
    noise,
    blur,
    multiply,
    scale,
    rotate,
    shear,
    piecewise_affine,
    translate,
)


def resize(image_HW: Image, label_HW: Label, size: int) -> Pair:
    """Bring a sample to the network's size: the image by cubic splines, the label by nearest."""
    factors = size / image_HW.shape[0], size / image_HW.shape[1]
    return ndimage.zoom(image_HW, factors, order=3), ndimage.zoom(label_HW, factors, order=0)


# Loss ---------------------------------------------------------------------------------------------


def boundary_dou(logits_BKHW: Tensor, target_BHW: Tensor) -> Tensor:
    """Boundary-DoU, class after class, the boundary's length image after image."""
    probability_BKHW = torch.softmax(logits_BKHW, dim=1)
    classes = logits_BKHW.shape[1]
    onehot_BKHW = torch.cat([(target_BHW == k).unsqueeze(1) for k in range(classes)], 1).float()
    loss = logits_BKHW.new_zeros(())
    for k in range(classes):
        loss = loss + _difference_over_union(probability_BKHW[:, k], onehot_BKHW[:, k])
    return loss / classes


def _difference_over_union(score_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    cross = target_BHW.new_tensor([[0, 1, 0], [1, 1, 1], [0, 1, 0]])[None, None]
    counts_BHW = torch.zeros_like(target_BHW)
    for index, target_HW in enumerate(target_BHW):
        counts_BHW[index] = F.conv2d(target_HW[None, None], cross, padding=1)[0, 0]
    counts_BHW = counts_BHW * target_BHW
    counts_BHW[counts_BHW == 5] = 0
    boundary, size = torch.count_nonzero(counts_BHW), torch.count_nonzero(target_BHW)
    alpha = 1 - (boundary + EPSILON) / (size + EPSILON)
    alpha = torch.clamp(2 * alpha - 1, max=0.8)
    intersection = torch.sum(score_BHW * target_BHW)
    y_sum = torch.sum(target_BHW * target_BHW)
    z_sum = torch.sum(score_BHW * score_BHW)
    return (z_sum + y_sum - 2 * intersection + EPSILON) / (
        z_sum + y_sum - (1 + alpha) * intersection + EPSILON
    )


# Prediction and evaluation ------------------------------------------------------------------------


def predict(model: nn.Module, image_ZHW: Image, size: int) -> Label:
    """Segment a volume with values in [0, 1], slice by slice."""
    labels_ZHW = np.zeros(image_ZHW.shape, dtype=np.uint8)
    height, width = image_ZHW.shape[1:]
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        for index, image_HW in enumerate(image_ZHW):
            small_hw = ndimage.zoom(image_HW, (size / height, size / width), order=3)
            input_BChw = torch.from_numpy(small_hw)[None, None].float().to(device)
            logits_BKhw = model((input_BChw - 0.5) / 0.5)
            found_hw = torch.argmax(torch.softmax(logits_BKhw, dim=1), dim=1)[0].cpu().numpy()
            labels_ZHW[index] = ndimage.zoom(found_hw, (height / size, width / size), order=0)
    return labels_ZHW


def evaluate(prediction_ZHW: Label, truth_ZHW: Label, classes: int) -> list[tuple[float, float]]:
    """Score class after class: Dice and HD95 in voxels, by the published rules."""
    return [score(prediction_ZHW, truth_ZHW, k) for k in range(1, classes)]


def score(prediction_ZHW: Label, truth_ZHW: Label, k: int) -> tuple[float, float]:
    """Score one class."""
    from medpy.metric.binary import dc, hd95

    one, other = prediction_ZHW == k, truth_ZHW == k
    if one.any() and other.any():
        return float(dc(one, other)), float(hd95(one, other))
    return (1.0, 0.0) if one.any() else (0.0, 0.0)


# Training -----------------------------------------------------------------------------------------


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, image_BChw: Tensor, label_Bhw: Tensor
) -> float:
    """Take one step; returns the loss."""
    model.train()
    loss = boundary_dou(model(image_BChw), label_Bhw)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
