"""Training, the whole protocol on a page."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ProgressBar
from torch import nn

from msa2net.config import Config, dump_config
from msa2net.data.prepare import Progress, prepare
from msa2net.data.preprocessing import Preprocessing
from msa2net.data.store import Store
from msa2net.errors import ConfigError
from msa2net.files import write_text
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import (
    CONFIG_FILE,
    MODEL_FILE,
    WEIGHTS_FILE,
    ModelFacts,
    NetworkFacts,
    choose_device,
    save_run,
    software_versions,
)
from msa2net.losses import create_loss
from msa2net.models.registry import create_model, find_model, parse_image_size
from msa2net.training.callbacks import LAST, EpochLog
from msa2net.training.datamodule import SegmentationData
from msa2net.training.task import SegmentationTask, choose_precision

# Everything a run folder holds; nothing else is ever removed from it.
RUN_ENTRIES = (
    CONFIG_FILE,
    MODEL_FILE,
    WEIGHTS_FILE,
    "metrics.csv",
    "evaluation",
    "prediction",
    "report.html",
)


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to.

    Attributes:
        run: the run folder.
        best_dice: mean Dice of the kept weights on the monitored split; None if the last weights
            were kept, or nothing was scored.
        best_epoch: when they were reached, counted from 1.
        seconds: duration of the training itself.
    """

    run: Path
    best_dice: float | None
    best_epoch: int
    seconds: float


def train(
    config: Config,
    run: str | Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
    callbacks: Sequence[L.Callback] = (),
) -> TrainingResult:
    """Prepare the data, train, and keep the weights with the best validation Dice (or the last).

    Args:
        config: what to do.
        run: folder for the result; it becomes self-contained.
        device: cpu, cuda, mps or auto.
        overwrite: replace a run that is already there.
        progress: wraps the cases while they are prepared, to show a bar.
        callbacks: Lightning callbacks besides our own, for example a progress bar.

    Raises:
        ConfigError: the folder holds a run already, or a setting does not work.
        DataError: a file of the data set cannot be used.
        WeightsError: pre-trained weights cannot be had.
    """
    run = Path(run)
    target = choose_device(device)
    loss = create_loss(config.loss)
    parse_image_size(config.image_size)
    find_model(config.model.name)
    check_run_folder(run, overwrite)
    store = prepare(config.data, progress)
    store.ids(config.train.monitor)  # says what to do if nobody is in it
    splits = training_splits(config, store)
    preprocessing = create_preprocessing(config, store)
    model, facts = create_network(config, store, preprocessing)
    _start_run_folder(run, config)  # not before everything that can be wrong was looked at
    predictor = Predictor(model, preprocessing, store.label_names, config.batch_slices)
    task = SegmentationTask(predictor, loss, config.train)
    started = time.monotonic()

    def save(model: nn.Module, reached: dict[str, Any]) -> None:
        training = reached | {
            "epochs": config.train.epochs,
            "precision": choose_precision(config.train.precision, target),
            "seed": config.train.seed,
            "device": target.type,
            "seconds": round(time.monotonic() - started, 1),
            "trained_on": list(splits),
        }
        save_run(run, model, facts.model_copy(update={"training": training}))

    log = EpochLog(run, config.train, save)
    trainer = create_trainer(config, run, target, [log, *callbacks])
    trainer.fit(task, SegmentationData(config, store, preprocessing, splits))
    if log.best_dice is None:  # the last weights are wanted, or all there is
        save(model, {"best_epoch": trainer.current_epoch, "weights": LAST})
    return TrainingResult(run, log.best_dice, log.best_epoch, time.monotonic() - started)


def training_splits(config: Config, store: Store) -> tuple[str, ...]:
    """Name the splits that are trained on: train, and val too where it is not held out.

    Raises:
        DataError: nobody is in them.
    """
    if config.data.hold_out:
        store.ids("train")
        return ("train",)
    present = {case.split for case in store.cases}
    splits = tuple(split for split in ("train", "val") if split in present)
    if not splits:
        store.ids("train")  # says what to do
    return splits


def create_trainer(
    config: Config, run: Path, device: torch.device, callbacks: Sequence[L.Callback]
) -> L.Trainer:
    """Set up Lightning's loop: what it logs and saves by itself is off, our callbacks do that."""
    every = config.train.validate_every
    if config.train.keep == "best":
        every = min(every, config.train.epochs)  # a short trial must have something to choose by
    return L.Trainer(
        default_root_dir=run,
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=1 if device.index is None else [device.index],
        precision=choose_precision(config.train.precision, device),
        max_epochs=config.train.epochs,
        max_steps=config.train.max_steps or -1,
        gradient_clip_val=config.train.clip_norm,
        check_val_every_n_epoch=every,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        callbacks=list(callbacks),
    )


def create_preprocessing(config: Config, store: Store) -> Preprocessing:
    """Derive the network's preprocessing from the configuration and the data's own facts."""
    return Preprocessing(
        channels=store.channels,
        image_size=config.image_size,
        fit=config.data.fit,
        crop=config.data.crop,
        resampling=config.data.resampling,
        intensity=store.intensity,
        low=store.low,
        high=store.high,
    )


def create_network(
    config: Config, store: Store, preprocessing: Preprocessing
) -> tuple[nn.Module, ModelFacts]:
    """Build the network for a data set, its first weights drawn from `train.seed`."""
    network = NetworkFacts(
        name=config.model.name,
        encoder=config.model.encoder,
        num_classes=len(store.label_names),
        in_channels=store.channels,
        image_size=config.image_size,
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.train.seed)
        model = create_model(
            **network.model_dump(),
            pretrained=config.model.pretrained,
            pretrained_file=config.model.pretrained_file,
        )
    facts = ModelFacts(
        network=network,
        label_names=store.label_names,
        preprocessing=preprocessing,
        data={"format": store.format, "hash": store.hash},
        versions=software_versions(),
    )
    return model, facts


def check_run_folder(run: Path, overwrite: bool) -> None:
    """Refuse a folder that training must not write into.

    Raises:
        ConfigError: it is a file, holds something else, or holds a run and `overwrite` is off.
    """
    if run.exists() and not run.is_dir():
        raise ConfigError(f"{run} is a file; name a folder for the run")
    if not run.is_dir() or not any(run.iterdir()):
        return
    foreign = sorted(path.name for path in run.iterdir() if path.name not in RUN_ENTRIES)
    if foreign:
        raise ConfigError(
            f"{run} holds something that is not of a run ({foreign[0]}); name a new folder"
        )
    if not overwrite and not (run / MODEL_FILE).is_file():
        raise ConfigError(
            f"{run} holds a training that did not come to any weights; replace it with "
            "--overwrite, or name another folder with --out"
        )
    if not overwrite:
        raise ConfigError(
            f"{run} already holds a run; name another folder with --out, or replace it with "
            "--overwrite"
        )


def _start_run_folder(run: Path, config: Config) -> None:
    """Remove an earlier run's files, and only those, then write `config.yaml`."""
    for name in RUN_ENTRIES:
        path = run / name
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot remove {path} of the earlier run: {error}") from error
    resolved = config.data.model_copy(update={"prepared": config.data.prepared.resolve()})
    write_text(run / CONFIG_FILE, dump_config(config.model_copy(update={"data": resolved})))
