"""Cross-entropy and soft Dice.

Axes: B batch, K classes, H rows, W columns.
"""

from torch import Tensor
from torch.nn import functional as F

from msa2net.losses.boundary_dou import one_hot

SMOOTH = 1.0


def cross_entropy_loss(logits_BKHW: Tensor, target_BHW: Tensor, ignore_index: int = 255) -> Tensor:
    """Mean cross-entropy over known pixels; 0 when there is none."""
    per_pixel_BHW = F.cross_entropy(
        logits_BKHW, target_BHW, ignore_index=ignore_index, reduction="none"
    )
    return per_pixel_BHW.sum() / (target_BHW != ignore_index).sum().clamp(min=1)


def dice_loss(logits_BKHW: Tensor, target_BHW: Tensor, ignore_index: int = 255) -> Tensor:
    """1 − soft Dice, summed over the batch per class, mean over the foreground classes.

    Batch sums keep a class that is absent from most images from dominating, and a small smoothing
    term (1 pixel) defines the absent class: its Dice is 1 when nothing is predicted. The
    background is left out; the cross-entropy term covers it. Source: Milletari et al., V-Net,
    3DV 2016; batch form as in nnU-Net.
    """
    known_B1HW = (target_BHW != ignore_index).unsqueeze(1)
    target_BKHW = one_hot(target_BHW, logits_BKHW.shape[1], known_B1HW)
    probability_BKHW = logits_BKHW.softmax(dim=1) * known_B1HW
    intersection_K = (probability_BKHW * target_BKHW).sum(dim=(0, 2, 3))
    total_K = (probability_BKHW + target_BKHW).sum(dim=(0, 2, 3))
    dice_K = (2 * intersection_K + SMOOTH) / (total_K + SMOOTH)
    return 1 - dice_K[1:].mean()
