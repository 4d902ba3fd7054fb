"""A training from its settings to its result: what it resumes, is built of, and saves."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from timm.layers import convert_sync_batchnorm
from torch import nn

from msa2net.config import Config
from msa2net.data.prepared.store import Store
from msa2net.files import write_json
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import save_run
from msa2net.locks import alone_in
from msa2net.losses import create_loss
from msa2net.models.registry import find_model
from msa2net.training import finetune, nonfinite
from msa2net.training.checkpoint import Checkpoints, sync_folder
from msa2net.training.compiled import CompiledStep
from msa2net.training.datamodule import SegmentationData
from msa2net.training.distributed import check_devices, find_processes
from msa2net.training.ema import WeightAverage
from msa2net.training.loggers import Loggers, check_loggers
from msa2net.training.memory import explain
from msa2net.training.output_folder import check_run_folder, prepare_run_folder
from msa2net.training.progress import Progress
from msa2net.training.recorder import EpochListener, Recorder
from msa2net.training.resume import check_same_training, training_facts
from msa2net.training.setup import create_network, create_preprocessing, supervise, training_splits
from msa2net.training.stopping import StopRequest, TrainingInterrupted
from msa2net.training.task import SegmentationTask, choose_precision


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to.

    Attributes:
        run: the run folder.
        best_dice: mean Dice of the kept weights on the monitored split; None if the last weights
            were kept, or nothing was scored.
        best_epoch: when they were reached, counted from 1.
        waiting_share: which part of the training was spent waiting for data; None if nothing was
            counted.
        seconds: duration of the training itself, without its interruptions.
        epochs: that are finished.
        finished: False if `train.max_time` came first; `resume` goes on.
        stopped_early: `train.early_stopping` ended it.
        start: what was taken over from `model.init_from`; None without it, or if resumed.
        warnings: sentences on a training that came to nothing; they stand in `model.json` too.
    """

    run: Path
    best_dice: float | None
    best_epoch: int
    seconds: float
    epochs: int
    finished: bool
    stopped_early: bool = False
    waiting_share: float | None = None
    start: finetune.FineTuneReport | None = None
    warnings: tuple[str, ...] = ()


class Plan:
    """A training before its data are known: settings that work, and where it goes on from.

    Args:
        config: what to do.
        run: the run folder.
        device: where it computes.
        notices: takes sentences for the training's owner.

    Attributes:
        processes: all that take part.
        notify: takes sentences for the training's owner; of several processes one speaks.
        notes: sentences that are to be told once everything was checked.
        saved: the checkpoint it goes on from; None if it begins.
        progress: where it stands.

    Raises:
        ConfigError: a setting does not work.
    """

    def __init__(
        self,
        config: Config,
        run: Path,
        device: torch.device,
        notices: Callable[[str], None] | None,
    ) -> None:
        self.config, self.run, self.device = config, run, device
        self.processes = find_processes(config.train)
        check_devices(self.processes, device)
        self.notify = notices if notices and self.processes.first else (lambda _: None)
        check_loggers(config.train.loggers)
        minutes = config.train.max_time
        self.stop = StopRequest(None if minutes is None else 60 * minutes)
        self.loggers = Loggers(run, config, self.notify)
        self.precision = choose_precision(config.train.precision, device)
        self.loss = create_loss(config.loss)
        find_model(config.model.name)
        self.checkpoints = Checkpoints(run)
        self.notes: list[str] = []
        self.saved: dict[str, Any] | None = None
        self.progress = Progress()

    def lock_folder(self) -> AbstractContextManager[None]:
        """Keep other processes from the run folder."""
        return alone_in(self.run) if self.processes.first else nullcontext()

    def check_folder(self, *, overwrite: bool, resume: bool) -> None:
        """Refuse a folder that must not be written into; read its checkpoint to resume from it.

        Raises:
            ConfigError: see `check_run_folder`.
            WeightsError: no checkpoint is whole, or `model.init_from` names no network.
        """
        if self.processes.first:
            check_run_folder(self.run, overwrite=overwrite, resume=resume)
        if resume:
            self.saved, self.notes = self.checkpoints.load(tidy=self.processes.first)
            self.progress = Progress.from_state(self.saved["progress"])
        elif self.config.model.init_from is not None:
            finetune.check_source(self.config.model.init_from)

    def check_data(self, store: Store, *, accept_changes: bool) -> dict[str, Any]:
        """Return what checkpoints say of this training, if one that is resumed is the same.

        Raises:
            ConfigError: it is not; see `check_same_training`.
            DataError: nobody is in the split that is scored.
        """
        store.ids(self.config.train.monitor)  # says what to do
        facts = training_facts(
            self.config, store, self.precision, self.device.type, self.processes.size
        )
        if self.saved is None:
            return facts
        self.notes += check_same_training(self.saved, facts, self.progress, accept_changes)
        ended = f"the training in {self.run} is finished, after {self.progress.epoch} epochs"
        if self.progress.no_longer_gains(self.config.train):
            self.notes.append(
                f"{ended}, by train.early_stopping; a larger one goes on, with --accept-changes"
            )
        elif self.finished():
            self.notes.append(f"{ended}; a larger train.epochs lengthens it")
        return facts

    def finished(self) -> bool:
        """Tell whether nothing is left to do."""
        train, progress = self.config.train, self.progress
        steps_done = train.max_steps is not None and progress.step >= train.max_steps
        ended = progress.epoch >= train.epochs or steps_done or progress.no_longer_gains(train)
        return progress.batch == 0 and ended


class Session:
    """A training with its data: loaders, network, loss, optimiser and recorder.

    Args:
        plan: what to do.
        store: the prepared data.
        facts: what checkpoints say of the training besides its state.
        callbacks: Lightning callbacks besides our own.

    Attributes:
        splits: that are trained on.
        total_steps: of the whole training.
        start: what was loaded from another network; None if nothing was.
        warnings: what speaks against what it came to; known at its end.
    """

    def __init__(
        self, plan: Plan, store: Store, facts: dict[str, Any], callbacks: Sequence[L.Callback]
    ) -> None:
        config, saved = plan.config, plan.saved
        self.plan, self.store, self.warnings = plan, store, list[str]()
        self.splits = training_splits(config, store)
        preprocessing = create_preprocessing(config, store)
        self.data = SegmentationData(config, store, preprocessing, self.splits, plan.processes.size)
        per_epoch = self.data.steps_per_epoch
        self.total_steps = min(
            config.train.epochs * per_epoch,
            config.train.max_steps or config.train.epochs * per_epoch,
        )
        model, self.model_facts = create_network(
            config, store, preprocessing, pretrained=saved is None
        )
        self.start: finetune.FineTuneReport | None = None
        if saved is None and config.model.init_from is not None:
            self.start = finetune.init_from(model, self.model_facts, config.model.init_from)
        if config.train.sync_batch_norm and plan.processes.size > 1 and plan.device.type == "cuda":
            model = convert_sync_batchnorm(model)  # timm's: torch's loses its norms' activations
        self.task = self._create_task(
            Predictor(model, preprocessing, store.label_names, config.batch_slices)
        )
        self.recorder = Recorder(
            plan.run,
            config.train,
            plan.progress,
            self.data.batch_size,
            facts | {"steps_per_epoch": per_epoch},
            plan.checkpoints,
            plan.stop,
            self.save,
            plan.loggers,
            [one for one in callbacks if isinstance(one, EpochListener)],
            writes=plan.processes.first,
        )
        plan.notes += [] if self.start is None else self.start.lines()
        plan.notes += self.data.balance_notes()

    def _create_task(self, predictor: Predictor) -> SegmentationTask:
        """Build what Lightning trains: the network with its loss, its average, and a watch."""
        plan, train, average, compiled = self.plan, self.plan.config.train, None, None
        if train.ema is not None:
            average = WeightAverage(predictor, plan.config.batch_slices, train.ema)
        classes = len(predictor.label_names)
        network, loss = supervise(predictor.model, plan.loss, train, classes)
        watch = nonfinite.LossWatch(
            plan.run / nonfinite.REPORT,
            network,
            loss,
            self._load_last_networks,
            {
                "precision": plan.precision,
                "device": plan.device.type,
                "learning_rate": train.learning_rate,
            },
            writes=plan.processes.first,
        )
        if train.compile:
            graphs = train.accumulate == plan.processes.size == 1
            compiled = CompiledStep(network, loss, graphs=graphs)
        return SegmentationTask(
            predictor, network, loss, train, self.total_steps, watch, average, compiled
        )

    def _load_last_networks(self) -> None:
        self.task.load_networks(self.plan.checkpoints.load(tidy=False)[0]["states"])

    def open_folder(self) -> None:
        """Write what a run folder begins with, and tell what is to be told.

        Not before all that can be wrong was looked at: an earlier run is removed.
        """
        plan = self.plan
        if plan.processes.first:
            prepare_run_folder(plan.run, plan.config, keep=plan.saved is not None)
            if self.start is not None:
                write_json(plan.run / finetune.REPORT, self.start.content())
        for note in plan.notes:
            plan.notify(note)
        if plan.saved is not None:
            self._go_on_from(plan.saved)
            plan.saved = None  # as large as three networks

    def _go_on_from(self, saved: dict[str, Any]) -> None:
        """Bring network and files to the state of a checkpoint."""
        progress, per_epoch = self.plan.progress, self.data.steps_per_epoch
        self.task.load_networks(saved["states"])
        self.recorder.go_on_from(saved["states"])
        if self.plan.processes.first:
            progress.write_tables(self.plan.run)
        if progress.batch == 0:  # killed between checkpoint and weights, they would be older ones
            self.recorder.keep_weights(self.task)
        if saved["steps_per_epoch"] != per_epoch:  # changed on purpose: its epoch starts again
            progress.restart_epoch()
            progress.step = progress.epoch * per_epoch

    def save(self, model: nn.Module, reached: dict[str, Any]) -> None:
        """Write a network, and what it reached, to the run folder."""
        plan, config = self.plan, self.plan.config
        training = reached | self.so_far()
        training |= {
            "precision": plan.precision,
            "seed": config.train.seed,
            "device": plan.device.type,
            "finished": False,
            "trained_on": list(self.splits),
            "flips": config.augment.flips,
        }
        if self.data.holders:
            training["slices_with_class"] = self.data.count_slices_by_class()
        save_run(plan.run, model, self.model_facts.model_copy(update={"training": training}))
        sync_folder(plan.run)

    def so_far(self) -> dict[str, Any]:
        """Return how far the training is, and how long it took."""
        progress = self.plan.progress
        return {
            "epochs": self.plan.config.train.epochs,
            "epochs_run": progress.epoch,
            "seconds": round(progress.seconds, 1),
        }

    def explain(self, error: Exception, trainer: L.Trainer, *, validating: bool) -> None:
        """Say what to do about an exception that means too little memory; leave others alone."""
        explain(
            error,
            self.task,
            self.data.dataset,
            (self.data.part_size, self.data.batch_size // self.data.part_size),
            self.plan.config,
            self.plan.device,
            trainer.precision_plugin.forward_context(),
            validating=validating,
        )

    def result(self, *, finished: bool) -> TrainingResult:
        """Return what the training came to.

        Raises:
            TrainingInterrupted: a signal ended it.
        """
        plan, progress = self.plan, self.plan.progress
        if not finished and plan.stop.signum is not None:
            raise TrainingInterrupted(plan.run, plan.stop.signum, progress.epoch, progress.step)
        chosen = progress.kept if progress.best_dice is not None else None
        return TrainingResult(
            plan.run,
            progress.best_dice,
            0 if chosen is None else chosen["best_epoch"],
            progress.seconds,
            progress.epoch,
            finished,
            progress.no_longer_gains(plan.config.train),
            progress.waiting_share(),
            self.start,
            tuple(self.warnings) if finished else (),
        )
