"""Training, the whole protocol on a page."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from timm.layers import convert_sync_batchnorm
from torch import nn

from msa2net.config import Config
from msa2net.data.prepared.prepare import Progress as ShowProgress
from msa2net.data.prepared.prepare import prepare
from msa2net.data.prepared.store import Store
from msa2net.errors import ConfigError, memory_guard
from msa2net.evaluation.model_card import write_card
from msa2net.files import write_json
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import choose_device, save_run
from msa2net.locks import alone_in
from msa2net.training.checkpoint import sync_folder
from msa2net.training.compiled import CompiledStep
from msa2net.training.datamodule import SegmentationData
from msa2net.training.distributed import check_devices, find_processes
from msa2net.training.ema import WeightAverage
from msa2net.training.finetune import REPORT as START_REPORT
from msa2net.training.finetune import FineTuneReport, check_source, start_from
from msa2net.training.fit_quality import write_reference_ranges
from msa2net.training.memory import explain
from msa2net.training.nonfinite import REPORT as NONFINITE_REPORT
from msa2net.training.nonfinite import LossWatch
from msa2net.training.outcome import learning_warnings, note_outcome
from msa2net.training.output_folder import check_run_folder, prepare_run_folder
from msa2net.training.plan import Plan
from msa2net.training.quiet import suppress_lightning_messages
from msa2net.training.recorder import LAST, EpochListener, Recorder, kept_model, set_loader_reuse
from msa2net.training.result import TrainingResult
from msa2net.training.setup import (
    create_network,
    create_preprocessing,
    create_trainer,
    supervise,
    training_splits,
    validation_interval,
)
from msa2net.training.stopping import Looks, StopTraining, TrainingInterrupted
from msa2net.training.task import SegmentationTask


@memory_guard("training", "lower train.batch_size, batch_slices or train.workers")
def train(
    config: Config,
    run: str | Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    resume: bool = False,
    accept_changes: bool = False,
    progress: ShowProgress | None = None,
    notices: Callable[[str], None] | None = None,
    callbacks: Sequence[L.Callback] = (),
    looks: Looks | None = None,
) -> TrainingResult:
    """Prepare the data, train, and keep the weights with the best validation Dice (or the last).

    Args:
        config: what to do.
        run: folder for the result; it becomes self-contained.
        device: cpu, cuda, mps or auto.
        overwrite: replace a run that is already there.
        resume: go on from the run's last checkpoint, to the very result that a training without a
            stop has; with more `train.epochs` than before, it is lengthened.
        accept_changes: resume although other settings, or the data, were changed meanwhile.
        progress: wraps the cases while they are prepared, to show a bar.
        notices: takes sentences that the training's owner should read: what changed since it was
            interrupted, what another network brought, a log that failed.
        callbacks: Lightning callbacks besides our own, for example a progress bar.
        looks: wraps numbers of the cases that are looked at when the last epoch is done, and how
            many there are, to show a bar; see `write_reference_ranges`.

    Raises:
        ConfigError: the folder holds a run already, a setting does not work or was changed, the
            loss is no longer a number, or memory is too small.
        DataError: a file of the data set cannot be used, or the disk is full.
        WeightsError: pre-trained weights cannot be had, or no checkpoint can be read.
        TrainingInterrupted: SIGTERM or SIGINT came; the training was saved.
    """
    run, target = Path(run), choose_device(device)
    processes = find_processes(config.train)
    check_devices(processes, target)
    tell = notices if notices and processes.first else (lambda _: None)
    plan = Plan(config, run, target, processes, tell)
    if accept_changes and not resume:
        raise ConfigError("--accept-changes is about a run that goes on; add --resume")
    with alone_in(run) if processes.first else nullcontext():
        return _train(plan, callbacks, looks, progress, overwrite, resume, accept_changes)


def _train(
    plan: Plan,
    callbacks: Sequence[L.Callback],
    looks: Looks | None,
    progress: ShowProgress | None,
    overwrite: bool,
    resume: bool,
    accept_changes: bool,
) -> TrainingResult:
    """Train in a run folder that no other process writes into; see `train`."""
    config, run, processes = plan.config, plan.run, plan.processes
    if processes.first:
        check_run_folder(run, overwrite=overwrite, resume=resume)
    if not resume and config.model.init_from is not None:
        check_source(config.model.init_from)
    notes = plan.read_checkpoint() if resume else []
    store = prepare(config.data, progress)
    store.ids(config.train.monitor)  # says what to do if nobody is in it
    facts, changes = plan.look_at(store, accept_changes)
    session = _Session(plan, store, facts, callbacks, looks)
    notes += changes + session.notes
    if processes.first:  # and not before all that can be wrong was looked at
        prepare_run_folder(run, config, keep=resume)
        session.write_start()
    for note in notes:
        plan.tell(note)
    with suppress_lightning_messages():
        return session.run_all()


class _Session:
    """One training: data, network and loop, built from the plan.

    Attributes:
        notes: what is to be told about another network's weights, and about the data.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        facts: dict[str, Any],
        callbacks: Sequence[L.Callback],
        looks: Looks | None,
    ) -> None:
        config, saved = plan.config, plan.saved
        self.plan, self.callbacks, self.looks = plan, callbacks, looks
        self.config, self.run, self.target = config, plan.run, plan.target
        self.processes, self.progress = plan.processes, plan.progress
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
        self.start: FineTuneReport | None = None
        if saved is None and config.model.init_from is not None:
            self.start = start_from(model, self.model_facts, config.model.init_from)
        if config.train.sync_batch_norm and plan.processes.size > 1 and plan.target.type == "cuda":
            model = convert_sync_batchnorm(model)  # timm's: torch's loses its norms' activations
        self.task = self._build_task(
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
        self.notes = [] if self.start is None else self.start.lines()
        self.notes += self.data.balance_notes()

    def _build_task(self, predictor: Predictor) -> SegmentationTask:
        """Build what Lightning trains: the network with its loss, its average, and a watch."""
        config = self.config
        average = None
        if config.train.ema is not None:
            average = WeightAverage(predictor, config.batch_slices, config.train.ema)
        classes = len(predictor.label_names)
        network, loss = supervise(predictor.model, self.plan.loss, config.train, classes)
        watch, compiled = self._watch(network, loss), None
        if config.train.compile:
            alone = config.train.accumulate == self.processes.size == 1
            compiled = CompiledStep(network, loss, graphs=alone)
        return SegmentationTask(
            predictor, network, loss, config.train, self.total_steps, watch, average, compiled
        )

    def write_start(self) -> None:
        """Write what was taken over from another network to the run folder."""
        if self.start is not None:
            write_json(self.run / START_REPORT, self.start.content())

    def _watch(self, network: nn.Module, loss: nn.Module) -> LossWatch:
        """Let every loss be looked at."""

        def go_back() -> None:
            self.task.load_networks(self.plan.checkpoints.load(tidy=False)[0]["states"])

        circumstances = {
            "precision": self.plan.precision,
            "device": self.target.type,
            "learning_rate": self.config.train.learning_rate,
        }
        report = self.run / NONFINITE_REPORT
        writes = self.processes.first
        return LossWatch(report, network, loss, go_back, circumstances, writes=writes)

    def save(self, model: nn.Module, reached: dict[str, Any]) -> None:
        """Write a network, and what it reached, to the run folder."""
        config = self.config
        training = reached | self._so_far()
        training |= {
            "precision": self.plan.precision,
            "seed": config.train.seed,
            "device": self.target.type,
            "finished": False,
            "trained_on": list(self.splits),
            "flips": config.augment.flips,
        }
        if self.data.holders:
            training["slices_with_class"] = self.data.count_slices_by_class()
        save_run(self.run, model, self.model_facts.model_copy(update={"training": training}))
        sync_folder(self.run)

    def _so_far(self) -> dict[str, Any]:
        """Tell how far the training is, and how long it took."""
        return {
            "epochs": self.config.train.epochs,
            "epochs_run": self.progress.epoch,
            "seconds": round(self.progress.seconds, 1),
        }

    def run_all(self) -> TrainingResult:
        """Train to the end, or until something stops it."""
        config, progress, recorder = self.config, self.progress, self.recorder
        if self.plan.saved is not None:
            self._go_on(self.plan.saved)
            self.plan.saved = None  # as large as three networks
        callbacks = [recorder, *self.callbacks]
        trainer = create_trainer(config, self.run, self.target, callbacks, progress, self.processes)
        with self.plan.stop:  # from here on a signal is noted, and answered where all is whole
            warnings = self._train(trainer)
            finished = warnings is not None
        if not finished and self.plan.stop.signum is not None:
            raise TrainingInterrupted(
                self.run, self.plan.stop.signum, progress.epoch, progress.step
            )
        chosen = progress.kept if progress.best_dice is not None else None
        best = 0 if chosen is None else chosen["best_epoch"]
        return TrainingResult(
            self.run,
            progress.best_dice,
            best,
            progress.seconds,
            progress.epoch,
            finished,
            progress.no_longer_gains(config.train),
            progress.waiting_share(),
            self.start,
            tuple(warnings or ()),
        )

    def _train(self, trainer: L.Trainer) -> list[str] | None:
        """Run what is left and finish the run folder.

        Returns:
            What speaks against what it came to; None if it was stopped.
        """
        try:
            if not self.plan.finished() and self.processes.first:
                self.plan.loggers.open(self.progress.epoch)
            finished = self._run_loop(trainer)
        except Exception as error:
            self._explain(error, trainer, validating=self.recorder.validating)
            raise
        finally:
            self.data.end_workers()
            self.plan.loggers.close()
        warnings = learning_warnings(self.progress, self.config.train, self.data.store)
        if self.processes.first and finished:
            finished = self._finish(trainer, warnings)
        elif self.processes.first:
            note_outcome(self.run, self._so_far())
        return warnings if finished else None

    def _finish(self, trainer: L.Trainer, warnings: list[str]) -> bool:
        """Write what is known when the last epoch is done; return False if it was stopped."""
        if self.progress.best_dice is None:
            self._save_last()  # the last weights are wanted, or all there is
        note_outcome(self.run, self._so_far(), warnings)
        predictor, slices = self.task.predictor, self.config.batch_slices
        predictor.model.to(self.target)  # Lightning took it off the device
        looks = self.plan.stop.between(self.looks)
        try:
            write_reference_ranges(self.run, predictor, slices, self.data.store, self.splits, looks)
        except StopTraining:
            return False
        except Exception as error:
            self._explain(error, trainer, validating=True)
            raise
        note_outcome(self.run, {"finished": True}, warnings)
        write_card(self.run)
        return True

    def _save_last(self) -> None:
        reached: dict[str, Any] = {"best_epoch": self.progress.epoch, "weights": LAST}
        if self.task.average is not None:
            reached["averaged"] = True
        self.save(kept_model(self.task, reached), reached)

    def _explain(self, error: Exception, trainer: L.Trainer, *, validating: bool) -> None:
        """Say what to do about an exception that means too little memory; leave others alone."""
        explain(
            error,
            self.task,
            self.data.dataset,
            (self.data.part_size, self.data.batch_size // self.data.part_size),
            self.config,
            self.target,
            trainer.precision_plugin.forward_context(),
            validating=validating,
        )

    def _go_on(self, saved: dict[str, Any]) -> None:
        """Bring network and files to the state of a checkpoint."""
        progress, per_epoch = self.progress, self.data.steps_per_epoch
        self.task.load_networks(saved["states"])
        self.recorder.go_on_from(saved["states"])
        if self.processes.first:
            progress.write_tables(self.run)
        if progress.batch == 0:  # killed between checkpoint and weights, they would be older ones
            self.recorder.keep_weights(self.task)
        if saved["steps_per_epoch"] != per_epoch:  # changed on purpose: its epoch starts again
            progress.restart_epoch()
            progress.step = progress.epoch * per_epoch

    def _run_loop(self, trainer: L.Trainer) -> bool:
        """Run what is left; return False if it was stopped."""
        recorder = self.recorder
        cuda = [self.target] if self.target.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            try:
                if recorder.restored is not None and self._epoch_ends():
                    self._end_epoch(trainer, recorder.restored)
                if not self.plan.finished():
                    self._start_at(trainer)
                    trainer.fit(self.task, datamodule=self.data)
            except StopTraining:
                return self.plan.finished()
            except SIGTERMException:
                if self.plan.stop.signum is None:
                    raise
                return self.plan.finished()
            finally:
                self.task.forget_compiled()
        return True

    def _epoch_ends(self) -> bool:
        """Tell whether all batches of the running epoch are done, but not its validation."""
        done = self.progress.batch == self.data.steps_per_epoch
        return self.progress.batch > 0 and (done or self.progress.step >= self.total_steps)

    def _end_epoch(self, trainer: L.Trainer, states: Mapping[str, Any]) -> None:
        """Repeat the validation of an epoch that was interrupted in it, and finish the epoch."""
        progress = self.progress
        complete = progress.batch == self.data.steps_per_epoch
        if complete and (progress.epoch + 1) % validation_interval(self.config) == 0:
            trainer.validate(self.task, datamodule=self.data, verbose=False)
        learning_rate = states["optimizer"]["param_groups"][0]["lr"]
        self.recorder.finish_epoch(self.task, learning_rate, states)

    def _start_at(self, trainer: L.Trainer) -> None:
        """Let Lightning count epochs from where the training stands.

        Only the loader is shortened for the rest of an interrupted epoch; the next epoch asks for
        a whole one. Lightning's own restarting is not used, see `Recorder`.
        """
        progress = self.progress
        self.data.start = (progress.epoch, progress.batch)
        counter = trainer.fit_loop.epoch_progress.current
        counter.completed = progress.epoch
        counter.processed = progress.epoch  # type: ignore[attr-defined]
        set_loader_reuse(trainer, progress.batch == 0)
