"""Boundary difference-over-union (Sun et al., Boundary Difference over Union Loss, MICCAI 2023).

Axes: B batch, K classes, H rows, W columns.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-5
MAX_ALPHA = 0.8


def boundary_dou_loss(logits_BKHW: Tensor, target_BHW: Tensor, ignore_index: int = 255) -> Tensor:
    """Dice-like loss whose denominator weighs large objects' interiors down.

    Per class over the whole batch, with softmax probabilities p and one-hot target t:
    C counts boundary pixels, S target pixels, α = min(2·(1 − C/S) − 1, 0.8), and the term is
    (Σp² + Σt² − 2Σpt) / (Σp² + Σt² − (1 + α)Σpt); the loss is the mean over classes.

    A class absent from the batch gives 1 and no gradient: that is the published behaviour.
    """
    known_B1HW = (target_BHW != ignore_index).unsqueeze(1)
    target_BKHW = one_hot(target_BHW, logits_BKHW.shape[1], known_B1HW)
    probability_BKHW = logits_BKHW.softmax(dim=1) * known_B1HW
    alpha_K = _boundary_weight(target_BKHW, known_B1HW)
    intersection_K = _sum_over_batch(probability_BKHW * target_BKHW)
    squares_K = _sum_over_batch(probability_BKHW.square() + target_BKHW)  # t² = t
    numerator_K = squares_K - 2 * intersection_K + EPSILON
    denominator_K = squares_K - (1 + alpha_K) * intersection_K + EPSILON
    return (numerator_K / denominator_K).mean()


def one_hot(target_BHW: Tensor, num_classes: int, known_B1HW: Tensor) -> Tensor:
    """Make (B, K, H, W) float one-hot targets; unknown pixels are 0 in every class."""
    classes_K = torch.arange(num_classes, device=target_BHW.device)
    match_BKHW = target_BHW.unsqueeze(1) == classes_K[:, None, None]
    return (match_BKHW & known_B1HW).float()


def _boundary_weight(target_BKHW: Tensor, known_B1HW: Tensor) -> Tensor:
    """Return α (K,): near −1 for thin objects, up to 0.8 for large smooth ones.

    A target pixel is boundary when its 3×3 cross holds fewer than 5 target pixels. Outside the
    image is background; an unknown neighbour is not held against the pixel.
    """
    inside_BKHW = F.pad((target_BKHW > 0) | ~known_B1HW, (1, 1, 1, 1), value=False)
    interior_BKHW = (
        inside_BKHW[..., :-2, 1:-1]
        & inside_BKHW[..., 2:, 1:-1]
        & inside_BKHW[..., 1:-1, :-2]
        & inside_BKHW[..., 1:-1, 2:]
    )
    size_K = _sum_over_batch(target_BKHW)
    boundary_K = size_K - _sum_over_batch(target_BKHW * interior_BKHW)
    alpha_K = 2 * (1 - (boundary_K + EPSILON) / (size_K + EPSILON)) - 1
    return alpha_K.clamp(max=MAX_ALPHA)


def _sum_over_batch(x_BKHW: Tensor) -> Tensor:
    return x_BKHW.sum(dim=(0, 2, 3))
