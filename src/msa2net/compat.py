"""Private or undocumented interfaces of torch, timm and Lightning that this package relies on.

A new version of those may change them without a word; `tests/test_compat.py` has a test for each,
which names what breaks here when it does. Libraries are imported inside of functions.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import lightning as L
    import torch
    from torch import Tensor, nn

SCHEDULE_STATE = frozenset(
    {
        "base_lrs",
        "last_epoch",
        "verbose",
        "_step_count",
        "_get_lr_called_within_step",
        "_is_initial",
        "_last_lr",
        "lr_lambdas",
    }
)
"""Keys in the state of torch's `LambdaLR`; it makes attributes of whatever it finds there."""


# torch --------------------------------------------------------------------------------------------


def checkpoint_block(block: "nn.Module", context_fn: Callable[[], Any] | None = None) -> Any:
    """Return a block that computes its inside again in the backward pass; names of weights stay.

    Relies on torch.distributed's private `checkpoint_wrapper`, which takes a prefix out of names.

    Args:
        block: to be wrapped.
        context_fn: returns what surrounds its first and its second computation.
    """
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    options: dict[str, Any] = {} if context_fn is None else {"context_fn": context_fn}
    return checkpoint_wrapper(block, **options)


def is_checkpointed(module: "nn.Module") -> bool:
    """Tell whether a module is one that `checkpoint_block` returned."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper

    return isinstance(module, CheckpointWrapper)


def block_inside(wrapper: "nn.Module") -> "nn.Module":
    """Return the block that `checkpoint_block` was given."""
    return wrapper.get_submodule("_checkpoint_wrapped_module")


def is_batch_norm(module: "nn.Module") -> bool:
    """Tell whether a module keeps running statistics of batches; relies on torch's `_BatchNorm`."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return isinstance(module, _BatchNorm)


def lerp_all_(targets: "list[Tensor]", values: "list[Tensor]", weight: float) -> None:
    """Move each tensor towards its value in place, all in few kernels (`torch._foreach_lerp_`)."""
    import torch

    torch._foreach_lerp_(targets, values, weight)


def storage_id(storage: "torch.UntypedStorage") -> int:
    """Return a number that tells two pieces of memory apart, on the meta device too (`_cdata`)."""
    return storage._cdata


def hold_storage_id(storage: "torch.UntypedStorage") -> object:
    """Return what keeps a storage's number from being given again, without keeping its memory.

    Relies on `StorageWeakRef` of torch.multiprocessing.
    """
    from torch.multiprocessing.reductions import StorageWeakRef

    return StorageWeakRef(storage)  # type: ignore[no-untyped-call]


def is_tracing() -> bool:
    """Tell whether torch.jit records the running computation; `is_tracing` is not documented."""
    import torch

    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def compiler_error() -> type[Exception]:
    """Return what a network compiled by torch raises where it cannot be compiled."""
    from torch._dynamo.exc import TorchDynamoException

    return TorchDynamoException


def freezing_weights() -> AbstractContextManager[Any]:
    """Let weights become constants of what is compiled inside (a setting of `torch._inductor`)."""
    from torch._inductor import config

    return config.patch(freezing=True)


def is_failed_write(error: BaseException) -> bool:
    """Tell whether `torch.save` could not write; only its words say so."""
    return "PytorchStreamWriter" in str(error) or "inline_container" in str(error)


def is_killed_worker(error: BaseException) -> bool:
    """Tell whether a process that loads data is gone; only the loader's words say so."""
    text = str(error)
    return isinstance(error, RuntimeError) and "DataLoader worker" in text and "Caught" not in text


# timm ---------------------------------------------------------------------------------------------


def is_maxvit(name: str) -> bool:
    """Tell whether a network is of timm's family of MaxViT and CoAtNet, by its module's name."""
    import timm

    return bool(timm.models.is_model_in_modules(name, {"maxxvit"}))


def unfuse_attention(network: "nn.Module") -> list[Any]:
    """Let timm's attention do without torch's fused kernel; the same results up to rounding.

    Products and a softmax instead, for a compiler or an exporter. Relies on the flag `fused_attn`.

    Returns:
        The modules that were changed.
    """
    attentions: list[Any] = [one for one in network.modules() if vars(one).get("fused_attn")]
    for attention in attentions:
        attention.fused_attn = False
    return attentions


@contextmanager
def unfused_attention(network: "nn.Module") -> Iterator[None]:
    """Unfuse the attention inside the `with`, and fuse again after it what was."""
    attentions = unfuse_attention(network)
    try:
        yield
    finally:
        for attention in attentions:
            attention.fused_attn = True


# Lightning ----------------------------------------------------------------------------------------


def callbacks_of(trainer: "L.Trainer") -> "Iterable[L.Callback]":
    """Return a trainer's callbacks; a connector sets them, which types do not show."""
    untyped: Any = trainer
    callbacks: Iterable[L.Callback] = untyped.callbacks
    return callbacks


def set_epochs_done(trainer: "L.Trainer", epochs: int) -> None:
    """Let Lightning count epochs from there on; relies on its loop's `epoch_progress`."""
    counter: Any = trainer.fit_loop.epoch_progress.current
    counter.completed = counter.processed = epochs


def set_loader_reuse(trainer: "L.Trainer", reuse: bool) -> None:
    """Let the next epoch have the same training loader, or ask the data module for another.

    Relies on `reload_dataloaders_every_n_epochs` being read anew before every epoch.
    """
    untyped: Any = trainer
    untyped.reload_dataloaders_every_n_epochs = int(not reuse)
