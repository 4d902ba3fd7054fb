"""Boundary difference-over-union (Sun et al., Boundary Difference over Union Loss, MICCAI 2023).

Axes: B batch, K classes, H rows, W columns.
"""

from torch import Tensor

from msa2net.losses.class_sums import ClassSums, class_sums

EPSILON = 1e-5
MAX_ALPHA = 0.8


def boundary_dou_loss(logits_BKHW: Tensor, target_BHW: Tensor, ignore_index: int = 255) -> Tensor:
    """Dice-like loss whose denominator weighs large objects' interiors down.

    Per class over the whole batch, with softmax probabilities p and one-hot target t:
    C counts boundary pixels, S target pixels, α = min(2·(1 − C/S) − 1, 0.8), and the term is
    (Σp² + Σt² − 2Σpt) / (Σp² + Σt² − (1 + α)Σpt); the loss is the mean over classes.

    A class absent from the batch gives 1 and no gradient: that is the published behaviour.
    """
    return boundary_dou_of_sums(class_sums(logits_BKHW, target_BHW, ignore_index))


def boundary_dou_of_sums(sums: ClassSums) -> Tensor:
    """See `boundary_dou_loss`."""
    alpha_K = boundary_weight(sums.size, sums.boundary)
    squares_K = sums.squares + sums.size  # t² = t
    numerator_K = squares_K - 2 * sums.intersection + EPSILON
    denominator_K = squares_K - (1 + alpha_K) * sums.intersection + EPSILON
    return (numerator_K / denominator_K).mean()


def boundary_weight(size_K: Tensor, boundary_K: Tensor) -> Tensor:
    """Return α (K,): near −1 for thin objects, up to 0.8 for large smooth ones."""
    alpha_K = 2 * (1 - (boundary_K + EPSILON) / (size_K + EPSILON)) - 1
    return alpha_K.clamp(max=MAX_ALPHA)
