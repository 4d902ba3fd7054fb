"""What training needs, computed: a forward pass on a CPU whose kept tensors are counted.

Axes: B batch, C channels, h rows, w columns.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.maxxvit import MaxxVitBlock
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from msa2net.models.dual_attention import DAEFormerBlock
from msa2net.models.lka import LKABlock
from msa2net.models.masag import MASAG
from msa2net.training.memory import fixed_bytes

BLOCKS = (MaxxVitBlock, DAEFormerBlock, LKABlock, MASAG)
"""What gradient checkpointing computes a second time instead of keeping what is inside."""


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that training needs; kernels' workspaces and the allocator's gaps come on top.

    Attributes:
        fixed: weights, gradients and optimiser, whatever the batch.
        kept: by a sample for the backward pass.
        kept_between_blocks: what of it remains with gradient checkpointing.
        largest_block: what the largest block keeps of a sample while it is computed again.
        largest_tensor: of a sample; the backward pass holds a few gradients of this size.
    """

    fixed: int
    kept: float
    kept_between_blocks: float
    largest_block: float
    largest_tensor: float

    def total(self, batch: int, *, checkpointing: bool = False) -> float:
        """Return the bytes that a training with this batch size needs."""
        sample = self.kept
        if checkpointing:
            sample = self.kept_between_blocks + self.largest_block
        return self.fixed + batch * (sample + 2 * self.largest_tensor)


def training_memory(
    model: nn.Module,
    image_BChw: Tensor,
    optimizer: str = "sgd",
    context: AbstractContextManager[Any] | None = None,
) -> TrainingMemory:
    """Count what one training step keeps.

    The difference between 2·B and B samples leaves out what does not depend on their number.

    Args:
        model: on a CPU, in training mode.
        image_BChw: at least two samples, so that batch norm works.
        optimizer: `sgd` or `adamw`.
        context: for mixed precision.
    """
    once, twice = _Kept(model), _Kept(model)
    with torch.enable_grad(), context or torch.autocast("cpu", enabled=False):
        once.count(image_BChw)
        twice.count(torch.cat([image_BChw, image_BChw]))
    batch = len(image_BChw)
    inside = {name: (twice.inside[name] - kept) / batch for name, kept in once.inside.items()}
    outside = (twice.outside - once.outside) / batch
    inputs = (twice.inputs - once.inputs) / batch
    return TrainingMemory(
        fixed=fixed_bytes(model, optimizer),
        kept=outside + sum(inside.values()),
        kept_between_blocks=outside + inputs,
        largest_block=max(inside.values(), default=0.0),
        largest_tensor=(twice.largest - once.largest) / batch,
    )


class _Kept:
    """Bytes kept for the backward pass, block by block; each piece of memory counts once.

    Attributes:
        inside: of each block, its input apart.
        outside: between the blocks.
        inputs: of the blocks.
        largest: tensor of all.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.inside: dict[str, int] = {}
        self.outside = self.inputs = self.largest = 0
        weights = [*model.parameters(), *model.buffers()]
        self._own = {tensor.untyped_storage()._cdata for tensor in weights}
        self._seen: dict[int, StorageWeakRef] = {}
        self._block: str | None = None

    def count(self, image_BChw: Tensor) -> None:
        with (
            self._watching(),
            torch.autograd.graph.saved_tensors_hooks(self._keep, lambda nothing: nothing),
        ):
            self.model(image_BChw)

    def _keep(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if self._is_new(storage):
            if self._block is None:
                self.outside += storage.nbytes()
            else:
                self.inside[self._block] += storage.nbytes()
            self.largest = max(self.largest, storage.nbytes())

    def _is_new(self, storage: torch.UntypedStorage) -> bool:
        if storage._cdata in self._own or storage._cdata in self._seen:
            return False
        # A reference keeps the address from being given again.
        self._seen[storage._cdata] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        return True

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Know in which block the forward pass is."""
        handles = []
        for name, module in self.model.named_modules():
            if isinstance(module, BLOCKS):
                self.inside[name] = 0
                handles.append(module.register_forward_pre_hook(self._entering(name)))
                handles.append(module.register_forward_hook(self._leaving))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _entering(self, name: str) -> Any:
        def enter(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._block = name
            for tensor in inputs:
                if self._is_new(tensor.untyped_storage()):
                    self.inputs += tensor.untyped_storage().nbytes()

        return enter

    def _leaving(self, *_: object) -> None:
        self._block = None
