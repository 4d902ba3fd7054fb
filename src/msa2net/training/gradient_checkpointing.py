"""Gradient checkpointing: what is inside of a block is computed again rather than kept.

Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016. Only a block's input is kept for
the backward pass, which runs the block a second time.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn

from msa2net.compat import checkpoint_block, is_batch_norm, is_checkpointed
from msa2net.models.dual_attention import DAEFormerBlock
from msa2net.models.lka import LKABlock
from msa2net.models.masag import MASAG

DECODER_BLOCKS = (DAEFormerBlock, LKABlock, MASAG)
Context = AbstractContextManager[None]


def checkpoint_blocks(model: nn.Module) -> None:
    """Let every block of a network be computed twice, in place; names of weights stay."""
    encoder = model.get_submodule("encoder")
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, DECODER_BLOCKS)
    ]
    places += _encoder_blocks(encoder)
    for parent, name in places:
        block = parent.get_submodule(name)
        parent.register_module(name, checkpoint_block(block, partial(_contexts, block)))


def recomputed_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks that are computed twice, the outer ones where some lie within others."""
    found = {n: one for n, one in model.named_modules() if is_checkpointed(one)}
    inner = {name for name in found for outer in found if name.startswith(outer + ".")}
    return [block for name, block in found.items() if name not in inner]


def _encoder_blocks(backbone: nn.Module) -> list[tuple[nn.Module, str]]:
    """Name a backbone's blocks: the parts of its innermost lists of stages."""
    lists = [
        module
        for module in backbone.modules()
        if isinstance(module, nn.Sequential | nn.ModuleList) and _is_stage(module)
    ]
    return [(stage, name) for stage in lists for name, _ in stage.named_children()]


def _is_stage(module: nn.Module) -> bool:
    """Tell a list of blocks, each of which has parts of its own, from a list of layers or lists."""
    children = list(module.children())
    simple = any(not list(child.children()) for child in children)
    nested = any(
        isinstance(inner, nn.Sequential | nn.ModuleList) and _is_stage(inner)
        for child in children
        for inner in child.modules()
    )
    return bool(children) and not simple and not nested


def _contexts(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return what surrounds a block's first and its second computation."""
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Keep batch norm from counting the same batch twice."""
    norms: list[Any] = [one for one in block.modules() if is_batch_norm(one)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
