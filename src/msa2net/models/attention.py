"""The encoders' attention for a compiler: products and a softmax instead of one fused kernel."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


def fused_attentions(network: nn.Module) -> list[nn.Module]:
    """Return timm's attention modules that hand their work to torch's fused kernel."""
    return [module for module in network.modules() if vars(module).get("fused_attn")]


@contextmanager
def written_out(attentions: Sequence[nn.Module]) -> Iterator[None]:
    """Let them be written out for a while, with the same results up to rounding.

    A compiler fuses them by itself, and better: in MaxViT's windows of 49 positions torch's kernel
    takes a CPU longer. On a GPU torch 2.11 hands that kernel, on the way back, the bias of
    positions in an order in memory that it refuses ("last dimension must be contiguous").
    """
    _set(attentions, fused=False)
    try:
        yield
    finally:
        _set(attentions, fused=True)


def _set(attentions: Sequence[Any], *, fused: bool) -> None:
    for module in attentions:
        module.fused_attn = fused
