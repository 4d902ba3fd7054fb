"""What memory a training needs: said before it starts, and when there was too little of it."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from traceback import clear_frames
from typing import Any

import torch
from torch import Tensor, nn

from msa2net.compat import block_inside, hold_storage_id, is_killed_worker, storage_id
from msa2net.config import Config, TrainConfig
from msa2net.data.check.findings import WHOLE, Finding, Level
from msa2net.data.loading.native_resolution import FullResolutionDataset
from msa2net.data.loading.slices import SliceDataset
from msa2net.data.prepared.store import Store
from msa2net.errors import ConfigError, is_out_of_memory
from msa2net.losses import create_loss
from msa2net.training.gradient_checkpointing import recomputed_blocks
from msa2net.training.setup import create_network, create_preprocessing, supervise
from msa2net.training.task import SegmentationTask

GB = 1e9
STATES = {"adamw": 2, "sgd": 1}  # numbers that an optimiser keeps for each weight
SAMPLES = 2  # the fewest that batch norm trains on


def explain(
    error: Exception,
    task: SegmentationTask,
    dataset: SliceDataset | FullResolutionDataset,
    parts: tuple[int, int],
    config: Config,
    device: torch.device,
    context: AbstractContextManager[Any],
    *,
    validating: bool,
) -> None:
    """Say what to do about an exception that means too little memory; leave others alone.

    Args:
        error: what happened.
        task: whose network ran out of memory.
        dataset: of training slices.
        parts: how many of them a process computes at once, and of how many such parts (of all
            processes) a batch consists.
        config: the run's.
        device: that ran out.
        context: for mixed precision.
        validating: whether cases were segmented just then.

    Raises:
        ConfigError: it does.
    """
    train, size = config.train, dataset.preprocessing.image_size
    if is_killed_worker(error):
        raise worker_sentence(train.workers) from error
    if not is_out_of_memory(error):
        return
    clear_frames(error.__traceback__)  # they hold the tensors that did not fit
    task.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if validating:
        classes = len(task.predictor.label_names)
        raise validation_sentence(device, task.predictor.batch_slices, classes, size) from error

    def measure() -> float:
        image_Chw = dataset[(0, 0)]["image"].to(device)
        task.network.to(device).train()  # Lightning took it off the device
        return bytes_per_sample(task.network, torch.stack([image_Chw, image_Chw]), context)

    fixed = fixed_bytes(task, train.optimizer)
    raise training_sentence(device, parts, fixed, measure, train) from error


def fixed_bytes(model: nn.Module, optimizer: str) -> int:
    """Return what a training needs whatever the batch: weights, gradients, optimiser."""
    total = sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
    trained = sum(tensor.nbytes for tensor in model.parameters() if tensor.requires_grad)
    return total + (1 + STATES[optimizer]) * trained


def bytes_per_sample(
    model: nn.Module, image_BChw: Tensor, context: AbstractContextManager[Any] | None = None
) -> float:
    """Measure what the backward pass needs of each sample, without keeping it.

    A forward pass hands everything it keeps for the backward pass to a hook, which counts each
    piece of memory once and lets it go. Done with B and with 2·B samples, the difference leaves out
    what does not depend on their number, such as weights in another precision. Of blocks that are
    computed twice it is their inputs, and the one block that keeps most: its second computation.

    Args:
        model: on its device.
        image_BChw: at least two samples, so that batch norm works.
        context: for mixed precision.
    """
    with torch.enable_grad(), context or nullcontext():
        once = _kept_bytes(model, image_BChw)
        twice = _kept_bytes(model, torch.cat([image_BChw, image_BChw]))
    return (twice - once) / len(image_BChw)


def training_bytes(
    model: nn.Module,
    image_BChw: Tensor,
    batch: int,
    optimizer: str,
    context: AbstractContextManager[Any] | None = None,
) -> float:
    """Estimate what a training step of `batch` samples needs; see `bytes_per_sample`.

    What kernels need for themselves comes on top.
    """
    fixed = fixed_bytes(model, optimizer)
    return fixed + batch * bytes_per_sample(model, image_BChw, context)


class _Kept:
    """Bytes kept for the backward pass; each piece of memory counts once, and weights do not."""

    def __init__(self, model: nn.Module) -> None:
        tensors = [*model.parameters(), *model.buffers()]
        self.bytes = 0
        self._own = {storage_id(tensor.untyped_storage()) for tensor in tensors}
        self._seen: dict[int, object] = {}

    def leave_out(self, tensor: Tensor) -> None:
        self._own.add(storage_id(tensor.untyped_storage()))

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage_id(storage)
        if key not in self._own and key not in self._seen:
            self._seen[key] = hold_storage_id(storage)
            self.bytes += storage.nbytes()

    def counting(self) -> AbstractContextManager[Any]:
        return torch.autograd.graph.saved_tensors_hooks(self.count, lambda nothing: nothing)


def _kept_bytes(model: nn.Module, image_BChw: Tensor) -> int:
    kept, largest = _Kept(model), 0

    def look_inside(block: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        nonlocal largest
        given = [one for one in (*inputs, *named.values()) if isinstance(one, Tensor)]
        inside = _Kept(model)
        for tensor in given:
            kept.count(tensor)
            inside.leave_out(tensor)
        with inside.counting():
            block_inside(block)(*inputs, **named)
        largest = max(largest, inside.bytes)

    blocks = recomputed_blocks(model)
    hooks = [one.register_forward_pre_hook(look_inside, with_kwargs=True) for one in blocks]
    try:
        with kept.counting():
            model(image_BChw)
    finally:
        for hook in hooks:
            hook.remove()
    return kept.bytes + largest


def check_memory(config: Config, store: Store) -> list[Finding]:
    """Say what a batch needs in float32; an error where that is more than the machine has.

    The network is built as a training builds it (auxiliary heads, frozen weights, blocks computed
    twice) and run on the meta device: no memory, no arithmetic, no weights loaded.
    What CPUs, and GPUs in bfloat16, keep for rearranged dilated convolutions is not seen there (a
    sixth in one network). With a GPU, whose mixed precision needs less, it is a warning.

    Raises:
        ConfigError: the network cannot be built so.
    """
    train, preprocessing = config.train, create_preprocessing(config, store)
    with torch.device("meta"):
        model, _ = create_network(config, store, preprocessing, pretrained=False)
        averaged = sum(value.nbytes for value in model.state_dict().values())
        loss = create_loss(config.loss)
        network, _ = supervise(model, loss, train, len(store.label_names))
        network.train()
        image_BChw = torch.empty(SAMPLES, store.channels, *config.image_size)
    at_once = train.accumulate * (train.devices or 1) * train.nodes
    batch = max(1, train.batch_size // at_once)
    needed = training_bytes(network, image_BChw, batch, train.optimizer)
    if train.ema is not None:
        needed += averaged
    what = "a training keeps the network, the optimiser and what a batch leaves behind in memory"
    advice = "have half as much again free, for what the arithmetic itself needs"
    detail = f"{needed / GB:.1f} GB in float32 for a batch of {batch}"
    total, owner = _trains_by_default()
    if total is None or needed <= total:
        return [Finding("note", WHOLE, what, advice, detail)]
    what = f"the {owner} has less memory than training needs"
    advice = "lower train.batch_size or image_size, or choose a smaller network"
    if not train.gradient_checkpointing:
        advice = f"{turn_on_checkpointing(train)}, raise train.accumulate, {advice}"
    level: Level = "error" if owner == "machine" else "warning"
    return [Finding(level, WHOLE, what, advice, f"{detail}, it has {total / GB:.1f} GB")]


def training_sentence(
    device: torch.device,
    parts: tuple[int, int],
    fixed: int,
    measure: Callable[[], float],
    train: TrainConfig,
) -> ConfigError:
    """Say what a batch needs, and what helps: first what leaves the batch as it is.

    Args:
        device: that ran out.
        parts: samples that a process computes at once, and of how many such parts a batch consists.
        fixed: bytes whatever the batch.
        measure: returns the bytes a sample; it may run out of memory as well.
        train: says whether blocks are computed twice already, and in how many parts.
    """
    at_once, number = parts
    base = f"{fixed / GB:.1f} GB for network, gradients and optimiser"
    try:
        each = measure()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        need = f"{base} are needed, and not even {SAMPLES} samples fit beside them"
        remedy = "choose a smaller network or image_size, and begin a new run with --out"
        if not train.gradient_checkpointing:
            remedy = f"{turn_on_checkpointing(train)}, or {remedy}"
    else:
        need = (
            f"{at_once} samples at once need about {(fixed + at_once * each) / GB:.1f} GB ({base}, "
            f"{each / GB:.2f} GB for each sample, measured on {SAMPLES}; the kernels' own needs "
            "come on top)"
        )
        total = _total_bytes(device)
        # A tenth is left for the kernels' own needs.
        fits = 0 if total is None else int((0.9 * total - fixed) // each)
        remedy = _remedies(at_once, number, fits, train)
        if total is not None and 1 <= fits < at_once:
            remedy += f" ({fits} at once fit into the {total / GB:.0f} GB that {device.type} has)"
        remedy += ", then go on from the last checkpoint with --resume --accept-changes"
    return ConfigError(f"not enough memory on {device.type}: {need}; {remedy}")


def _remedies(at_once: int, number: int, fits: int, train: TrainConfig) -> str:
    """Name settings; where `fits` samples at once fit, with values."""
    processes = number // train.accumulate
    more, lower = "", ""
    if 1 <= fits < at_once:
        each = train.batch_size // processes  # of a process
        more = f" to {next(n for n in range(1, each + 1) if each % n == 0 and each // n <= fits)}"
        lower = f" to {fits * number} or less"
    twice = "" if train.gradient_checkpointing else f"{turn_on_checkpointing(train)}, "
    return f"{twice}raise train.accumulate{more}, or lower train.batch_size{lower}"


def turn_on_checkpointing(train: TrainConfig) -> str:
    """Name the settings to change so that blocks are computed twice; compiled, they cannot be."""
    off = "turn off train.compile and " if train.compile else ""
    return f"{off}turn on train.gradient_checkpointing"


def validation_sentence(
    device: torch.device, slices: int, classes: int, size: tuple[int, int]
) -> ConfigError:
    """Say what a validation batch needs, and what to lower."""
    logits = 4 * slices * classes * size[0] * size[1]
    what, remedy = "a single slice needs", "end what else runs there"
    if slices > 1:
        what = f"{slices} slices at once need"
        remedy = f"set batch_slices below {slices}"
    return ConfigError(
        f"not enough memory on {device.type} while validating: {what} {logits / GB:.2f} GB for "
        f"class probabilities alone; {remedy}, then go on from the last checkpoint with --resume"
        f"{' --accept-changes' if slices > 1 else ''}"
    )


def worker_sentence(workers: int) -> ConfigError:
    """Say why a process that loads data is usually killed."""
    return ConfigError(
        f"one of the {workers} processes that load data was ended from outside, which the system "
        "does when memory (or shared memory, /dev/shm) runs out; lower train.workers, then go on "
        "from the last checkpoint with --resume"
    )


def _total_bytes(device: torch.device) -> int | None:
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def _trains_by_default() -> tuple[int | None, str]:
    """Return the memory of what trains by default, and its name; None where nobody tells."""
    if torch.cuda.is_available():
        return _total_bytes(torch.device("cuda", 0)), "GPU"
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "machine"
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None, "machine"
