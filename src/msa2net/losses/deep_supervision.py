"""The loss of several outputs: of each alone, or of every sum of some of them.

Source of the two ways and of their names: Rahman et al., EMCAD, CVPR 2024, whose public code calls
them deep supervision and mutation; the first is Lee et al., Deeply-Supervised Nets, AISTATS 2015,
the second MUTATION of Rahman and Marculescu, MERIT, MIDL 2023.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn


class SupervisedLoss(nn.Module):
    """The mean of a loss over sums of outputs.

    - `sum`: over the outputs, each alone.
    - `mutation`: over all non-empty subsets of the outputs, whose logits are added; 15 of 4.

    The sources add where this takes the mean, so that the loss, the clipping of its gradient and
    the rate that suits SGD stay what they are with one output.
    """

    def __init__(self, loss: nn.Module, mutation: bool) -> None:
        super().__init__()
        self.loss = loss
        self.mutation = mutation

    def forward(self, outputs: Sequence[Tensor], target_BHW: Tensor) -> Tensor:
        """Return the scalar loss of logits, each (B, K, H, W), against classes (B, H, W)."""
        sizes = range(1, len(outputs) + 1) if self.mutation else (1,)
        chosen = [subset for size in sizes for subset in combinations(outputs, size)]
        losses = [self.loss(sum(rest, start=first), target_BHW) for first, *rest in chosen]
        return torch.stack(losses).mean()
