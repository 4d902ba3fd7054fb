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
    counts_NK = [_count(target_BHW[own], classes, ignore_index) for own in _pieces(target_BHW)]
    size_K, boundary_K = torch.stack(counts_NK).sum(0).to(logits_BKHW.dtype)
    of_probabilities_K = _ProbabilitySums.apply(logits_BKHW, target_BHW, ignore_index)
    return ClassSums(*sum_over_processes(torch.stack([*of_probabilities_K, size_K, boundary_K])))


def _pieces(x_BHW: Tensor) -> list[slice]:
    """Cut a batch into pieces to work through one by one.

    On a CPU one image's probabilities fit into its cache and those of a batch do not: image by
    image, all passes but the first find them there. A GPU gets everything at once.
    """
    if x_BHW.device.type != "cpu":
        return [slice(None)]
    return [slice(index, index + 1) for index in range(len(x_BHW))]


def _count(target_BHW: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Return (2, K): how many pixels are of each class, and how many of those at its boundary."""
    known_BHW = target_BHW != ignore_index
    # One count of both: pixels of class k are number k, or K + k if they are interior ones.
    # What is unknown gets a number of its own, 2·K.
    kind_BHW = target_BHW + classes * _is_interior(target_BHW, ~known_BHW)
    kind_BHW = torch.where(known_BHW, kind_BHW, 2 * classes)
    counts = sums_by_index(None, kind_BHW, 2 * classes + 1)
    at_edge_K, inside_K = counts[:classes], counts[classes : 2 * classes]
    return torch.stack([at_edge_K + inside_K, at_edge_K])


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
    """Σ p·t, Σ p and Σ p² of softmax probabilities, from few passes over them.

    Nothing as large as the logits is kept for the way back: softmax is computed once more there,
    which takes less time than memory that was never touched before. The one-hot target is never
    made. With gradients a, b, c of the three sums, the probabilities' is a·t + b + 2·c·p where the
    pixel is known, from which that of softmax follows.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_BKHW: Tensor, target_BHW: Tensor, ignore_index: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(logits_BKHW, target_BHW)
        ctx.ignore_index = ignore_index
        classes = logits_BKHW.shape[1]
        pieces = _pieces(target_BHW)
        p_BKHW = _plain_memory(logits_BKHW[pieces[0]])
        sums = []
        for own in pieces:
            index_B1HW = _probabilities(logits_BKHW[own], target_BHW[own], ignore_index, p_BKHW)
            true_BHW = p_BKHW.gather(1, index_B1HW).squeeze(1)
            intersection_K = sums_by_index(true_BHW, index_B1HW.squeeze(1), classes)
            mass_K = p_BKHW.sum(dim=(0, 2, 3))
            squares_K = torch.linalg.vector_norm(p_BKHW, dim=(0, 2, 3)).square()
            sums.append(torch.stack([intersection_K, mass_K, squares_K]))
        intersection_K, mass_K, squares_K = torch.stack(sums).sum(0).to(logits_BKHW.dtype)
        return intersection_K, mass_K, squares_K

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_intersection_K: Tensor, of_mass_K: Tensor, of_squares_K: Tensor
    ) -> tuple[Tensor, None, None]:
        logits_BKHW, target_BHW = ctx.saved_tensors
        gradient_BKHW = torch.empty_like(logits_BKHW)  # laid out as the logits are
        pieces = _pieces(target_BHW)
        p_BKHW, of_p_BKHW, found_BKHW = (_plain_memory(logits_BKHW[pieces[0]]) for _ in range(3))
        for own in pieces:
            index_B1HW = _probabilities(logits_BKHW[own], target_BHW[own], ctx.ignore_index, p_BKHW)
            torch.mul(p_BKHW, 2 * of_squares_K[:, None, None], out=of_p_BKHW)
            of_p_BKHW += of_mass_K[:, None, None]
            true_B1HW = of_intersection_K.index_select(0, index_B1HW.flatten()).view_as(index_B1HW)
            of_p_BKHW.scatter_add_(1, index_B1HW, true_B1HW)
            # Unknown pixels have p = 0, so this, which is a multiple of p, is 0 there.
            own_BKHW = gradient_BKHW[own]
            own_BKHW = own_BKHW if own_BKHW.is_contiguous() else found_BKHW
            torch.ops.aten._softmax_backward_data.out(
                of_p_BKHW, p_BKHW, 1, p_BKHW.dtype, grad_input=own_BKHW
            )
            if own_BKHW is found_BKHW:
                gradient_BKHW[own] = found_BKHW
        return gradient_BKHW, None, None


def _plain_memory(x_BKHW: Tensor) -> Tensor:
    return torch.empty_like(x_BKHW, memory_format=torch.contiguous_format)


def _probabilities(
    logits_BKHW: Tensor, target_BHW: Tensor, ignore_index: int, out_BKHW: Tensor
) -> Tensor:
    """Write softmax into `out_BKHW`, 0 where the target is unknown.

    Returns:
        (B, 1, H, W), the target's classes; 0 where it is unknown.
    """
    torch.softmax(logits_BKHW, dim=1, out=out_BKHW)
    target_B1HW = target_BHW.unsqueeze(1)
    known_B1HW = target_B1HW != ignore_index
    if target_BHW.device.type == "cpu" and known_B1HW.all():  # a GPU's host would wait for this
        return target_B1HW
    out_BKHW *= known_B1HW
    return torch.where(known_B1HW, target_B1HW, 0)
