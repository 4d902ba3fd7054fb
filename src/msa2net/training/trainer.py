"""Lightning's loop, set up: what it logs, saves and says by itself is off."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ProgressBar

from msa2net.config import Config
from msa2net.models.registry import find_model
from msa2net.training.distributed import Processes, create_strategy
from msa2net.training.progress import Progress
from msa2net.training.task import choose_precision

LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
NOISE = (  # how the messages begin: advertisement, and what the settings say anyway
    "💡 Tip:",
    "GPU available:",
    "TPU available:",
    "`Trainer.fit` stopped:",
)
OWN_MISTAKE = r"`isinstance\(treespec, LeafSpec\)` is deprecated"  # of Lightning's use of torch


def validation_interval(config: Config) -> int:
    """Return the number of epochs between validations."""
    every = config.train.validate_every
    if config.train.keep == "best":
        every = min(every, config.train.epochs)  # a short trial must have something to choose by
    return every


def create_trainer(
    config: Config,
    run: Path,
    device: torch.device,
    callbacks: Sequence[L.Callback],
    progress: Progress,
    processes: Processes,
) -> L.Trainer:
    """Set up Lightning's loop: what it logs and saves by itself is off, our callbacks do that."""
    steps_left = -1
    if config.train.max_steps is not None:
        steps_left = max(0, config.train.max_steps - progress.step)
    return L.Trainer(
        default_root_dir=run,
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=processes.devices if device.index is None else [device.index],
        num_nodes=processes.nodes,
        strategy=create_strategy(
            config.train, processes, idle_weights=find_model(config.model.name).idle_weights
        ),
        accumulate_grad_batches=config.train.accumulate,
        precision=choose_precision(config.train.precision, device),
        max_epochs=config.train.epochs,
        max_steps=steps_left,
        gradient_clip_val=config.train.clip_norm,
        check_val_every_n_epoch=validation_interval(config),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # ours shares the order out by itself
        plugins=[processes.environment],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        callbacks=list(callbacks),
    )


@contextmanager
def suppress_lightning_messages() -> Iterator[None]:
    """Leave out what Lightning says in every training; its warnings and other messages stay."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addFilter(_is_wanted)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=OWN_MISTAKE)
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(_is_wanted)


def _is_wanted(record: logging.LogRecord) -> bool:
    return not (record.levelno <= logging.INFO and record.getMessage().startswith(NOISE))
