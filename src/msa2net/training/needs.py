"""What memory a training will need, said before it starts."""

import os

import torch

from msa2net.config import Config
from msa2net.data.check.findings import WHOLE, Finding, Level
from msa2net.data.prepared.store import Store
from msa2net.losses import create_loss
from msa2net.training.memory import (
    GB,
    SAMPLES,
    bytes_per_sample,
    fixed_bytes,
    turn_on_checkpointing,
)
from msa2net.training.setup import create_network, create_preprocessing, supervise


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
    needed = fixed_bytes(network, train.optimizer)
    if train.ema is not None:
        needed += averaged
    needed += batch * round(bytes_per_sample(network, image_BChw))
    what = "a training keeps the network, the optimiser and what a batch leaves behind in memory"
    advice = "have half as much again free, for what the arithmetic itself needs"
    detail = f"{needed / GB:.1f} GB in float32 for a batch of {batch}"
    total, owner = _total_bytes()
    if total is None or needed <= total:
        return [Finding("note", WHOLE, what, advice, detail)]
    what = f"the {owner} has less memory than training needs"
    advice = "lower train.batch_size or image_size, or choose a smaller network"
    if not train.gradient_checkpointing:
        advice = f"{turn_on_checkpointing(train)}, raise train.accumulate, {advice}"
    level: Level = "error" if owner == "machine" else "warning"
    return [Finding(level, WHOLE, what, advice, f"{detail}, it has {total / GB:.1f} GB")]


def _total_bytes() -> tuple[int | None, str]:
    """Return the memory of what trains by default, and its name; None where nobody tells."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory, "GPU"
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "machine"
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None, "machine"
