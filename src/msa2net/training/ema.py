"""The moving average of a network's weights, which is often the better network."""

import copy

import torch
from torch import Tensor, nn

from msa2net.compat import lerp_all_
from msa2net.inference.predictor import Predictor

SLOW_START = 10


class WeightAverage(nn.Module):
    """Follows a network: average ← d · average + (1 − d) · network, after every step.

    d rises from 1/10 to `decay` as min(decay, (1 + n) / (10 + n)), n the steps before, so that the
    first weights, drawn at random, are soon forgotten (the rule of TensorFlow's
    ExponentialMovingAverage). Running statistics are averaged with the weights; counters are
    copied. Source: Polyak and Juditsky, 1992; in this form usual for image networks.

    Attributes:
        model: the average.
        predictor: segments with it.
    """

    def __init__(self, predictor: Predictor, batch_slices: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.model = copy.deepcopy(predictor.model).requires_grad_(False)
        self.predictor = Predictor(
            self.model, predictor.preprocessing, predictor.label_names, batch_slices
        )

    @torch.no_grad()
    def follow(self, model: nn.Module, steps: int) -> None:
        """Take a step towards the network; `steps` are those before this one."""
        weight = 1 - min(self.decay, (1 + steps) / (SLOW_START + steps))
        own, other = _tensors(self.model), _tensors(model)
        pairs = [(a, b) for a, b in zip(own, other, strict=True) if a.is_floating_point()]
        averages, values = [a for a, _ in pairs], [b for _, b in pairs]
        lerp_all_(averages, values, weight)
        for counter, value in zip(own, other, strict=True):
            if not counter.is_floating_point():
                counter.copy_(value)

    def begin_at(self, model: nn.Module) -> None:
        """Forget the past: the average is the network as it is now."""
        self.model.load_state_dict(model.state_dict())


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
