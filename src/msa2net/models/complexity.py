"""How large a network is and what one image costs."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from msa2net.models.registry import MODELS, create_model


@dataclass(frozen=True)
class ModelSummary:
    """Size and cost of one network.

    Attributes:
        parameters: all, idle ones included.
        multiply_adds: for one image of the network's own size; half of what torch's counter
            reports for convolutions and matrix products.
    """

    parameters: int
    multiply_adds: int


def summarise_model(name: str, num_classes: int = 9, in_channels: int = 1) -> ModelSummary:
    """Build a network on the meta device (no memory, no arithmetic) and count."""
    size = MODELS[name].image_size
    with torch.device("meta"):
        model = create_model(name, num_classes, in_channels).eval()
        image_BCHW = torch.empty(1, in_channels, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image_BCHW)
    return ModelSummary(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=counter.get_total_flops() // 2,
    )
