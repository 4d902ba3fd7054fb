"""Training, the whole protocol on a page: check, prepare, build, fit, finish."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from msa2net.compat import set_epochs_done, set_loader_reuse
from msa2net.config import Config
from msa2net.data.prepared.prepare import Progress as ShowProgress
from msa2net.data.prepared.prepare import prepare
from msa2net.errors import ConfigError, memory_guard
from msa2net.evaluation.model_card import write_card
from msa2net.inference.run_folder import choose_device
from msa2net.training.fit_quality import write_reference_ranges
from msa2net.training.outcome import learning_warnings, note_outcome
from msa2net.training.recorder import LAST, kept_model
from msa2net.training.session import Plan, Session, TrainingResult
from msa2net.training.stopping import Looks, StopTraining
from msa2net.training.trainer import (
    create_trainer,
    suppress_lightning_messages,
    validation_interval,
)


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
    plan = Plan(config, Path(run), choose_device(device), notices)
    if accept_changes and not resume:
        raise ConfigError("--accept-changes is about a run that goes on; add --resume")
    with plan.lock_folder():
        plan.check_folder(overwrite=overwrite, resume=resume)
        store = prepare(config.data, progress)
        facts = plan.check_data(store, accept_changes=accept_changes)
        session = Session(plan, store, facts, callbacks)
        session.open_folder()
        with suppress_lightning_messages():
            trainer = create_trainer(
                config,
                plan.run,
                plan.device,
                [session.recorder, *callbacks],
                plan.progress,
                plan.processes,
            )
            with plan.stop:  # from here on a signal is noted, and answered where all is whole
                finished = fit(session, trainer) and finish(session, trainer, looks)
    return session.result(finished=finished)


def fit(session: Session, trainer: L.Trainer) -> bool:
    """Train to the last epoch; return False if something stopped it before.

    Raises:
        ConfigError: memory is too small, or the loss is no longer a number.
    """
    plan = session.plan
    try:
        if not plan.finished() and plan.processes.first:
            plan.loggers.open(plan.progress.epoch)
        finished = _run_loop(session, trainer)
    except Exception as error:
        session.explain(error, trainer, validating=session.recorder.validating)
        raise
    finally:
        session.data.end_workers()
        plan.loggers.close()
    if plan.processes.first and not finished:
        note_outcome(plan.run, session.so_far())
    return finished


def finish(session: Session, trainer: L.Trainer, looks: Looks | None) -> bool:
    """Write what is known when the last epoch is done; return False if it was stopped in that.

    Raises:
        ConfigError: memory is too small.
    """
    plan, task = session.plan, session.task
    session.warnings = learning_warnings(plan.progress, plan.config.train, session.store)
    if not plan.processes.first:
        return True
    if plan.progress.best_dice is None:
        _save_last(session)  # the last weights are wanted, or all there is
    note_outcome(plan.run, session.so_far(), session.warnings)
    predictor, slices = task.predictor, plan.config.batch_slices
    predictor.model.to(plan.device)  # Lightning took it off the device
    looks = plan.stop.between(looks)
    try:
        write_reference_ranges(plan.run, predictor, slices, session.store, session.splits, looks)
    except StopTraining:
        return False
    except Exception as error:
        session.explain(error, trainer, validating=True)
        raise
    note_outcome(plan.run, {"finished": True}, session.warnings)
    write_card(plan.run)
    return True


def _save_last(session: Session) -> None:
    reached: dict[str, Any] = {"best_epoch": session.plan.progress.epoch, "weights": LAST}
    if session.task.average is not None:
        reached["averaged"] = True
    session.save(kept_model(session.task, reached), reached)


def _run_loop(session: Session, trainer: L.Trainer) -> bool:
    """Run what is left; return False if it was stopped."""
    plan, recorder = session.plan, session.recorder
    cuda = [plan.device] if plan.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        try:
            if recorder.restored is not None and _epoch_ends(session):
                _end_epoch(session, trainer, recorder.restored)
            if not plan.finished():
                _start_at(session, trainer)
                trainer.fit(session.task, datamodule=session.data)
        except StopTraining:
            return plan.finished()
        except SIGTERMException:
            if plan.stop.signum is None:
                raise
            return plan.finished()
        finally:
            session.task.forget_compiled()
    return True


def _epoch_ends(session: Session) -> bool:
    """Tell whether all batches of the running epoch are done, but not its validation."""
    progress = session.plan.progress
    done = progress.batch == session.data.steps_per_epoch
    return progress.batch > 0 and (done or progress.step >= session.total_steps)


def _end_epoch(session: Session, trainer: L.Trainer, states: Mapping[str, Any]) -> None:
    """Repeat the validation of an epoch that was interrupted in it, and finish the epoch."""
    progress = session.plan.progress
    complete = progress.batch == session.data.steps_per_epoch
    if complete and (progress.epoch + 1) % validation_interval(session.plan.config) == 0:
        trainer.validate(session.task, datamodule=session.data, verbose=False)
    learning_rate = states["optimizer"]["param_groups"][0]["lr"]
    session.recorder.finish_epoch(session.task, learning_rate, states)


def _start_at(session: Session, trainer: L.Trainer) -> None:
    """Let Lightning count epochs from where the training stands.

    Only the loader is shortened for the rest of an interrupted epoch; the next epoch asks for
    a whole one. Lightning's own restarting is not used, see `Recorder`.
    """
    progress = session.plan.progress
    session.data.start = (progress.epoch, progress.batch)
    set_epochs_done(trainer, progress.epoch)
    set_loader_reuse(trainer, progress.batch == 0)
