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
    known_BHW = target_BHW != ignore_index
    index_BHW = torch.where(known_BHW, target_BHW, 0)
    if torch.compiler.is_compiling():  # the compiler makes few passes of many by itself
        sums_5K = _as_defined(logits_BKHW, index_BHW, known_BHW)
        return ClassSums(*sum_over_processes(sums_5K))
    on_cpu = target_BHW.device.type == "cpu"  # a GPU's host would wait for the answer
    partly_BHW = None if on_cpu and known_BHW.all() else known_BHW
    size_K, boundary_K = _count(index_BHW, partly_BHW, logits_BKHW.shape[1]).to(logits_BKHW.dtype)
    of_probabilities_K = _ProbabilitySums.apply(logits_BKHW, index_BHW, partly_BHW)
    return ClassSums(*sum_over_processes(torch.stack([*of_probabilities_K, size_K, boundary_K])))


def _as_defined(logits_BKHW: Tensor, index_BHW: Tensor, known_BHW: Tensor) -> Tensor:
    """Return the five sums (5, K) term by term, as `ClassSums` defines them."""
    known_B1HW = known_BHW.unsqueeze(1)
    p_BKHW = logits_BKHW.softmax(1) * known_B1HW
    class_K11 = torch.arange(logits_BKHW.shape[1], device=logits_BKHW.device)[:, None, None]
    t_BKHW = (index_BHW.unsqueeze(1) == class_K11) & known_B1HW
    edge_BKHW = t_BKHW & ~_is_interior(index_BHW, known_BHW).unsqueeze(1)
    terms = (p_BKHW * t_BKHW, p_BKHW, p_BKHW.square(), t_BKHW, edge_BKHW)
    return torch.stack([term.sum((0, 2, 3), dtype=p_BKHW.dtype) for term in terms])


def _count(index_BHW: Tensor, known_BHW: Tensor | None, classes: int) -> Tensor:
    """Return (2, K): how many pixels are of each class, and how many of those at its boundary."""
    if 2 * classes < 256:
        index_BHW = index_BHW.to(torch.uint8)  # an eighth of the memory to go through
    # One count of both: pixels of class k are number k, or K + k if they are interior ones.
    # What is unknown gets a number of its own, 2·K.
    kind_BHW = torch.add(index_BHW, _is_interior(index_BHW, known_BHW), alpha=classes)
    if known_BHW is not None:
        kind_BHW = torch.where(known_BHW, kind_BHW, 2 * classes)
    counts = _count_by_index(kind_BHW, 2 * classes + 1)
    at_edge_K, inside_K = counts[:classes], counts[classes : 2 * classes]
    return torch.stack([at_edge_K + inside_K, at_edge_K])


def _is_interior(index_BHW: Tensor, known_BHW: Tensor | None) -> Tensor:
    """Tell which pixels have all four neighbours in their class (or unknown)."""
    down = index_BHW[:, 1:] == index_BHW[:, :-1]
    across = index_BHW[:, :, 1:] == index_BHW[:, :, :-1]
    if known_BHW is not None:
        down |= ~(known_BHW[:, 1:] & known_BHW[:, :-1])
        across |= ~(known_BHW[:, :, 1:] & known_BHW[:, :, :-1])
    interior_BHW = torch.zeros_like(index_BHW, dtype=torch.bool)
    both_down, both_across = down[:, :-1] & down[:, 1:], across[:, :, :-1] & across[:, :, 1:]
    interior_BHW[:, 1:-1, 1:-1] = both_down[:, :, 1:-1] & both_across[:, 1:-1]
    return interior_BHW


def _count_by_index(index_BHW: Tensor, length: int) -> Tensor:
    if index_BHW.device.type == "cpu":
        return torch.bincount(index_BHW.flatten(), minlength=length)
    # Not `bincount`, which makes a GPU's host wait.
    return _sums_by_index(torch.ones_like(index_BHW, dtype=torch.float32), index_BHW.long(), length)


def _sums_by_index(values_BHW: Tensor, index_BHW: Tensor, length: int) -> Tensor:
    """Add up values by their index, row by row: so that threads do not add to the same few sums."""
    index_RW = index_BHW.flatten(0, 1)
    rows = values_BHW.new_zeros(len(index_RW), length)
    return rows.scatter_add_(1, index_RW, values_BHW.flatten(0, 1)).sum(0)


def _pieces(x_BHW: Tensor) -> list[slice]:
    """Cut a batch into pieces to work through one by one.

    On a CPU one image's probabilities fit into its cache and those of a batch do not: image by
    image, all passes but the first find them there. A GPU gets everything at once.
    """
    if x_BHW.device.type != "cpu":
        return [slice(None)]
    return [slice(index, index + 1) for index in range(len(x_BHW))]


class _ProbabilitySums(torch.autograd.Function):
    """Σ p·t, Σ p and Σ p² of softmax probabilities, from few passes over them.

    The one-hot target is never made. With gradients a, b, c of the three sums, the probabilities'
    is u = a·t + b + 2·c·p where the pixel is known, and the logits' is p·u − p·Σ(p·u), summed over
    classes. It is written over the probabilities: memory that was never touched before would take
    longer than the computation. Whoever asks for it a second time gets them computed once more.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_BKHW: Tensor, index_BHW: Tensor, known_BHW: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        sums = []
        p_BKHW = torch.empty_like(logits_BKHW, memory_format=torch.contiguous_format)
        for own in _pieces(index_BHW):
            own_BKHW = _probabilities(logits_BKHW, known_BHW, own, p_BKHW)
            true_BHW = own_BKHW.gather(1, index_BHW[own].unsqueeze(1)).squeeze(1)
            intersection_K = _sums_by_index(true_BHW, index_BHW[own], len(own_BKHW[0]))
            # Rows first: one float32 sum over many pixels at once loses digits.
            squares_K = torch.linalg.vector_norm(own_BKHW, dim=3).square().sum((0, 2))
            sums.append(torch.stack([intersection_K, own_BKHW.sum((0, 2, 3)), squares_K]))
        ctx.save_for_backward(logits_BKHW, index_BHW, known_BHW)
        ctx.probabilities = p_BKHW
        intersection_K, mass_K, squares_K = torch.stack(sums).sum(0)
        return intersection_K, mass_K, squares_K

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_intersection_K: Tensor, of_mass_K: Tensor, of_squares_K: Tensor
    ) -> tuple[Tensor, None, None]:
        logits_BKHW, index_BHW, known_BHW = ctx.saved_tensors
        p_BKHW, ctx.probabilities = ctx.probabilities, None
        there = p_BKHW is not None
        if not there:
            p_BKHW = torch.empty_like(logits_BKHW, memory_format=torch.contiguous_format)
        plain = logits_BKHW.is_contiguous()
        gradient_BKHW = p_BKHW if plain else torch.empty_like(logits_BKHW)  # laid out as they are
        pieces = _pieces(index_BHW)
        work_BKHW = torch.empty_like(p_BKHW[pieces[0]])
        for own in pieces:
            own_BKHW = p_BKHW[own] if there else _probabilities(logits_BKHW, known_BHW, own, p_BKHW)
            torch.mul(own_BKHW, 2 * of_squares_K[:, None, None], out=work_BKHW)
            work_BKHW += of_mass_K[:, None, None]
            index_B1HW = index_BHW[own].unsqueeze(1)
            true_B1HW = of_intersection_K.index_select(0, index_B1HW.flatten()).view_as(index_B1HW)
            work_BKHW.scatter_add_(1, index_B1HW, true_B1HW)
            # Unknown pixels have p = 0, and so does everything from here on.
            work_BKHW *= own_BKHW
            total_B1HW = work_BKHW.sum(1, keepdim=True)
            torch.addcmul(work_BKHW, own_BKHW, total_B1HW, value=-1, out=own_BKHW)
            if not plain:
                gradient_BKHW[own] = own_BKHW
        return gradient_BKHW, None, None


def _probabilities(
    logits_BKHW: Tensor, known_BHW: Tensor | None, own: slice, p_BKHW: Tensor
) -> Tensor:
    """Write softmax into `p_BKHW[own]`, 0 where the target is unknown, and return that part."""
    own_BKHW = p_BKHW[own]
    torch.softmax(logits_BKHW[own], dim=1, out=own_BKHW)
    if known_BHW is not None:
        own_BKHW *= known_BHW[own].unsqueeze(1)
    return own_BKHW
