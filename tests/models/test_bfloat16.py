"""bfloat16 on CPUs: the two tests that guard against poisoned gradients.

torch's bfloat16 kernel for depthwise convolutions with dilation has returned weight gradients
near 1e30 on CPUs with AMX, in some steps only.
"""

import math

import pytest
import torch
from torch import nn

from msa2net.losses import create_loss
from msa2net.models.registry import create_model


def _dilated_depthwise(model: nn.Module) -> dict[str, nn.Conv2d]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1 and max(module.dilation) > 1
    }


def test_dilated_depthwise_convolutions_see_float32():
    model = create_model("msa2net", 3, 1, "test_maxvit", 64)
    seen = {}
    convolutions = _dilated_depthwise(model)
    assert len(convolutions) == 3 + 4  # three gates, four LKA blocks
    for name, module in convolutions.items():
        module.register_forward_hook(
            lambda module, args, out, name=name: seen.update(
                {name: (out.dtype, module.weight.dtype)}
            )
        )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(torch.randn(2, 1, 64, 64))
    assert logits.dtype == torch.bfloat16  # autocast was on everywhere else
    assert seen == dict.fromkeys(convolutions, (torch.float32, torch.float32))


@pytest.mark.slow
def test_gradients_under_autocast_stay_near_float32():
    """Eight steps, 128², batch 16, channels-last: every gradient finite; norms within 10 % of
    float32's for each convolution that was seen to fail, and for the whole network.
    """
    torch.manual_seed(0)
    model = create_model("msa2net_pico", 2, 3, image_size=128)
    loss = create_loss({"dice": 1.0, "cross_entropy": 1.0})
    for _ in range(8):
        image = torch.randn(16, 3, 128, 128).contiguous(memory_format=torch.channels_last)
        target = torch.randint(0, 2, (16, 128, 128))
        norms = {}
        for enabled in (False, True):
            model.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                logits = model(image)
            loss(logits, target).backward()
            assert all(p.grad.isfinite().all() for p in model.parameters())
            norms[enabled] = {name: p.grad.norm().item() for name, p in model.named_parameters()}
        for name in _dilated_depthwise(model):
            weight = f"{name}.weight"
            assert norms[True][weight] == pytest.approx(norms[False][weight], rel=0.1), weight
        total = {enabled: math.hypot(*values.values()) for enabled, values in norms.items()}
        assert total[True] == pytest.approx(total[False], rel=0.1)
        with torch.no_grad():
            for p in model.parameters():
                p -= 1e-3 * p.grad
