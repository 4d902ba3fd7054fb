"""Losses: `create_loss` sums the named terms with their weights.

Every loss takes logits (B, K, H, W) and a target (B, H, W) of class indices, computes in float32
and returns a scalar. Pixels whose target is `ignore_index` count nowhere. In a training of several
processes it is the loss of the whole batch, see `distributed`.
"""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from msa2net.errors import ConfigError
from msa2net.losses.boundary_dou import boundary_dou_loss, boundary_dou_of_sums
from msa2net.losses.class_sums import ClassSums, class_sums
from msa2net.losses.region import cross_entropy_loss, dice_loss, dice_of_sums

IGNORE_INDEX = 255

LossFunction = Callable[[Tensor, Tensor, int], Tensor]

LOSSES: dict[str, LossFunction] = {
    "boundary_dou": boundary_dou_loss,
    "cross_entropy": cross_entropy_loss,
    "dice": dice_loss,
}

OF_SUMS: dict[str, Callable[[ClassSums], Tensor]] = {
    "boundary_dou": boundary_dou_of_sums,
    "dice": dice_of_sums,
}
"""The same losses from sums that several of them can share."""


class WeightedSum(nn.Module):
    """The weighted sum of named losses."""

    def __init__(self, weights: Mapping[str, float], ignore_index: int = IGNORE_INDEX) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.ignore_index = ignore_index

    def forward(self, logits_BKHW: Tensor, target_BHW: Tensor) -> Tensor:
        """Return the scalar loss of logits (B, K, H, W) against classes (B, H, W)."""
        logits, target = logits_BKHW.float(), target_BHW.long()
        apart = {name: LOSSES[name] for name in self.weights if name not in OF_SUMS}
        terms = {name: loss(logits, target, self.ignore_index) for name, loss in apart.items()}
        if shared := [name for name in self.weights if name in OF_SUMS]:
            sums = class_sums(logits, target, self.ignore_index)
            terms |= {name: OF_SUMS[name](sums) for name in shared}
        weighted = [weight * terms[name] for name, weight in self.weights.items()]
        return sum(weighted[1:], start=weighted[0])


def create_loss(weights: Mapping[str, float], ignore_index: int = IGNORE_INDEX) -> WeightedSum:
    """Build the weighted sum of losses, for example `{"dice": 1, "cross_entropy": 1}`.

    Raises:
        ConfigError: an unknown name, or nothing to sum.
    """
    if unknown := sorted(set(weights) - set(LOSSES)):
        raise ConfigError(f"no loss is called '{unknown[0]}'; there are {', '.join(LOSSES)}")
    if not any(weights.values()):
        raise ConfigError("the loss has no term with a weight other than 0")
    return WeightedSum({name: weight for name, weight in weights.items() if weight}, ignore_index)
