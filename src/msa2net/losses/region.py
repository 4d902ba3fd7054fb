"""Cross-entropy and soft Dice.

Axes: B batch, K classes, H rows, W columns.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from msa2net.losses.class_sums import ClassSums, class_sums
from msa2net.losses.distributed import sum_over_processes

SMOOTH = 1.0


def cross_entropy_loss(logits_BKHW: Tensor, target_BHW: Tensor, ignore_index: int = 255) -> Tensor:
    """Mean cross-entropy over the known pixels of the whole batch; 0 when there is none."""
    per_pixel_BHW = F.cross_entropy(
        logits_BKHW, target_BHW, ignore_index=ignore_index, reduction="none"
    )
    total = per_pixel_BHW.sum()
    known = (target_BHW != ignore_index).sum().to(total.dtype)
    total, known = sum_over_processes(torch.stack([total, known]))
    return total / known.clamp(min=1)


def dice_loss(logits_BKHW: Tensor, target_BHW: Tensor, ignore_index: int = 255) -> Tensor:
    """1 − soft Dice, summed over the batch per class, mean over the foreground classes.

    Batch sums keep a class that is absent from most images from dominating, and a small smoothing
    term (1 pixel) defines the absent class: its Dice is 1 when nothing is predicted. The
    background is left out; the cross-entropy term covers it. Source: Milletari et al., V-Net,
    3DV 2016; batch form as in nnU-Net.
    """
    return dice_of_sums(class_sums(logits_BKHW, target_BHW, ignore_index))


def dice_of_sums(sums: ClassSums) -> Tensor:
    """See `dice_loss`."""
    dice_K = (2 * sums.intersection + SMOOTH) / (sums.mass + sums.size + SMOOTH)
    return 1 - dice_K[1:].mean()
