"""What region losses are made of: per class, sums over all known pixels of the whole batch.

Axes: B batch, K classes, H rows, W columns.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from msa2net.losses.distributed import sum_over_processes


class ClassSums(NamedTuple):
    """Sums over known pixels of the batch, of all processes together; each is (K,) float32.

    With softmax probabilities p and the one-hot target t:

    Attributes:
        intersection: Σ p·t.
        mass: Σ p.
        squares: Σ p².
        size: Σ t, how many pixels are of the class.
        boundary: how many of them have a neighbour (above, below, left, right) that is not.
    """

    intersection: Tensor
    mass: Tensor
    squares: Tensor
    size: Tensor
    boundary: Tensor


def class_sums(logits_BKHW: Tensor, target_BHW: Tensor, ignore_index: int = 255) -> ClassSums:
    """Add up per class what region losses need; differentiable in the logits.

    Outside of the image is background; an unknown neighbour is not held against a pixel.

    Args:
        logits_BKHW: (B, K, H, W) float.
        target_BHW: (B, H, W) int64, classes or `ignore_index`.
        ignore_index: marks unknown pixels, which count nowhere.
    """
    classes = logits_BKHW.shape[1]
    known_BHW = target_BHW != ignore_index
    index_BHW = torch.where(known_BHW, target_BHW, 0)
    with torch.no_grad():
        interior_BHW = _is_interior(target_BHW, ~known_BHW)
        # One count of both: pixels of class k are number k, or K + k if they are interior ones.
        # What is unknown gets a number of its own, 2·K.
        kind_BHW = torch.where(known_BHW, index_BHW + classes * interior_BHW, 2 * classes)
        counts = sums_by_index(None, kind_BHW, 2 * classes + 1).to(logits_BKHW.dtype)
        at_edge_K, inside_K = counts[:classes], counts[classes : 2 * classes]
    intersection_K, mass_K, squares_K = _ProbabilitySums.apply(logits_BKHW, index_BHW, known_BHW)
    own_5K = torch.stack([intersection_K, mass_K, squares_K, at_edge_K + inside_K, at_edge_K])
    return ClassSums(*sum_over_processes(own_5K))


def sums_by_index(values_BHW: Tensor | None, index_BHW: Tensor, length: int) -> Tensor:
    """Add up values, or count pixels, by their index; float64 on a CPU, float32 elsewhere.

    Args:
        values_BHW: None counts.
        index_BHW: from 0 to length - 1.
        length: of the result (length,).
    """
    if index_BHW.device.type == "cpu":
        weights = None if values_BHW is None else values_BHW.flatten().double()
        return torch.bincount(index_BHW.flatten(), weights, minlength=length)
    # Not `bincount`, which makes the host wait; and row by row, so that not all of a GPU's threads
    # add to the same few numbers.
    index_RW = index_BHW.flatten(0, 1)
    values_RW = torch.ones_like(index_RW, dtype=torch.float32)
    if values_BHW is not None:
        values_RW = values_BHW.flatten(0, 1)
    rows = values_RW.new_zeros(len(index_RW), length)
    return rows.scatter_add_(1, index_RW, values_RW).sum(0)


def _is_interior(target_BHW: Tensor, unknown_BHW: Tensor) -> Tensor:
    """Tell which pixels have all four neighbours in their class (or unknown)."""
    down = target_BHW[:, 1:] == target_BHW[:, :-1]
    down |= unknown_BHW[:, 1:] | unknown_BHW[:, :-1]
    across = target_BHW[:, :, 1:] == target_BHW[:, :, :-1]
    across |= unknown_BHW[:, :, 1:] | unknown_BHW[:, :, :-1]
    interior_BHW = torch.zeros_like(unknown_BHW)
    interior_BHW[:, 1:-1, 1:-1] = (
        down[:, :-1, 1:-1] & down[:, 1:, 1:-1] & across[:, 1:-1, :-1] & across[:, 1:-1, 1:]
    )
    return interior_BHW


class _ProbabilitySums(torch.autograd.Function):
    """Σ p·t, Σ p and Σ p² of softmax probabilities, from few readings of them.

    Of everything that is as large as the logits, only the probabilities are kept, and the one-hot
    target is never made. With gradients a, b, c of the three sums, the probabilities' is
    a·t + b + 2·c·p where the pixel is known, from which that of softmax follows.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_BKHW: Tensor, index_BHW: Tensor, known_BHW: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        probability_BKHW = logits_BKHW.softmax(dim=1)
        probability_BKHW *= known_BHW.unsqueeze(1)
        ctx.save_for_backward(probability_BKHW, index_BHW)
        classes = logits_BKHW.shape[1]
        true_BHW = probability_BKHW.gather(1, index_BHW.unsqueeze(1)).squeeze(1)
        intersection_K = sums_by_index(true_BHW, index_BHW, classes).to(logits_BKHW.dtype)
        mass_K = probability_BKHW.sum(dim=(0, 2, 3))
        squares_K = torch.linalg.vector_norm(probability_BKHW, dim=(0, 2, 3)).square()
        return intersection_K, mass_K, squares_K

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_intersection_K: Tensor, of_mass_K: Tensor, of_squares_K: Tensor
    ) -> tuple[Tensor, None, None]:
        # Unknown pixels have p = 0, so softmax's own gradient, which is a multiple of p, is 0.
        probability_BKHW, index_BHW = ctx.saved_tensors
        gradient_BKHW = probability_BKHW * (2 * of_squares_K[:, None, None])
        gradient_BKHW += of_mass_K[:, None, None]
        gradient_BKHW.scatter_add_(1, index_BHW.unsqueeze(1), of_intersection_K[index_BHW][:, None])
        return (
            torch.ops.aten._softmax_backward_data(
                gradient_BKHW, probability_BKHW, 1, probability_BKHW.dtype
            ),
            None,
            None,
        )
