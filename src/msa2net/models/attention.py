"""The encoders' attention for a compiler: products and a softmax instead of one fused kernel."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def unfuse(network: nn.Module) -> list[Any]:
    """Let timm's attention do without torch's fused kernel; the same results up to rounding.

    Returns:
        The modules that were changed.
    """
    attentions: list[Any] = [one for one in network.modules() if vars(one).get("fused_attn")]
    for attention in attentions:
        attention.fused_attn = False
    return attentions


@contextmanager
def unfused(network: nn.Module) -> Iterator[None]:
    """Unfuse the attention inside the `with`, and fuse again after it what was."""
    attentions = unfuse(network)
    try:
        yield
    finally:
        for attention in attentions:
            attention.fused_attn = True
