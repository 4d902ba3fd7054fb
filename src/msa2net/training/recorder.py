"""What happens around batches and epochs: counting, seeding, tables, checkpoints, leaving."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from msa2net.compat import set_loader_reuse
from msa2net.config import TrainConfig
from msa2net.data.loading.augment import derive_seed
from msa2net.metrics.protocol import CaseRow
from msa2net.metrics.summary import summarise
from msa2net.training.checkpoint import Checkpoints
from msa2net.training.distributed import agree
from msa2net.training.loggers import Loggers
from msa2net.training.nonfinite import Step
from msa2net.training.progress import Progress
from msa2net.training.stopping import StopRequest, StopTraining
from msa2net.training.task import SegmentationTask

LAST = "last"
SAVING_SHARE = 0.1  # of the time, at most
AGREE_EVERY = 10  # steps between two questions to the other processes, which make a GPU wait
STEP_STREAM = 1  # keeps the seeds of steps apart from those of samples


class EpochListener(L.Callback):
    """A callback that is told of every epoch when all of it is written."""

    def epoch_finished(self, progress: Progress, task: SegmentationTask) -> None:
        """Hear of an epoch: its rows are the last of `progress.table` and `progress.timing`."""


class Recorder(L.Callback):
    """Keeps a training's progress, in memory and on disk, so that it can go on after any end.

    Lightning's own checkpoints are not used: resumed in the middle of an epoch they do not repeat
    it exactly. A checkpoint here is the progress and the states of `SegmentationTask.parts`, taken
    between two batches. Order, augmentation and dropout follow from (seed, epoch, step), so nothing
    else has to be restored. While an epoch is validated the state is that of its last batch; an
    interrupted validation is repeated.

    Args:
        run: the run folder.
        config: which split is scored (it names the columns), and which weights are kept.
        progress: where the training stands.
        images_per_step: of all processes together.
        facts: what else a checkpoint holds.
        checkpoints: where they are written.
        stop: says when to leave.
        save: takes the network and what was reached; `weights` in it says who chose them.
        loggers: get every epoch's rows and pictures.
        listeners: are told of every epoch.
        writes: of several processes one does.

    Attributes:
        validating: whether cases are segmented just now.
    """

    def __init__(
        self,
        run: Path,
        config: TrainConfig,
        progress: Progress,
        images_per_step: int,
        facts: Mapping[str, Any],
        checkpoints: Checkpoints,
        stop: StopRequest,
        save: Callable[[nn.Module, dict[str, Any]], None],
        loggers: Loggers,
        listeners: Sequence[EpochListener] = (),
        *,
        writes: bool = True,
    ) -> None:
        self.run = run
        self.config = config
        self.progress = progress
        self.images_per_step = images_per_step
        self.facts = facts
        self.checkpoints = checkpoints
        self.stop = stop
        self.save = save
        self.loggers = loggers
        self.listeners = listeners
        self.validating = False
        self.restored: Mapping[str, Any] | None = None  # until training starts
        self._writes = writes
        self._part, self._loss = 0, torch.zeros(())  # of the running batch, the part counted from 0
        self._saved_at: tuple[int, int] | None = None
        self._saved_when = self._mark = self._ready = time.monotonic()
        self._saving_seconds = 0.0
        self._seconds_before, self._began = progress.seconds, time.monotonic()

    # What happens when --------------------------------------------------------------------------

    def go_on_from(self, restored: Mapping[str, Any]) -> None:
        """Take over a checkpoint's states; they are loaded when training starts."""
        self.restored = restored
        self._saved_at = self.progress.position

    def on_train_start(self, _: L.Trainer, pl_module: L.LightningModule) -> None:
        """Load the states, or write the first checkpoint: it shows that the disk takes one."""
        assert isinstance(pl_module, SegmentationTask)
        if self.restored is not None:
            pl_module.restore(self.restored, self.progress.step)
            self.restored = None
        if self._saved_at is None:
            self._save_checkpoint(pl_module)
        self._mark = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Keep the loader from here on; only the rest of an interrupted epoch needs its own."""
        if self.progress.batch == 0:
            set_loader_reuse(trainer, True)
        self._mark = self._ready = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, *_: Any
    ) -> None:
        """Seed what the network draws, such as dropout, from (seed, step, process)."""
        assert isinstance(pl_module, SegmentationTask)
        progress = self.progress
        progress.waiting_seconds += time.monotonic() - self._ready
        part = progress.step * self.config.accumulate + self._part
        seed = derive_seed(self.config.seed, STEP_STREAM, part, trainer.global_rank)
        pl_module.at = Step(progress.epoch + 1, progress.step + 1, seed, batch)
        torch.manual_seed(seed)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Count the batch, if this was all of it; save and leave if it is time."""
        assert isinstance(pl_module, SegmentationTask)
        self._ready = time.monotonic()
        loss = outputs["loss"].detach()  # of several parts each is divided by their number
        self._loss = loss if self._part == 0 else self._loss + loss
        self._part = (self._part + 1) % self.config.accumulate
        if self._part:
            return
        if pl_module.average is not None:
            pl_module.average.follow(pl_module.model, self.progress.step)
        self.progress.count_batch(self._loss)
        now = time.monotonic()
        self.progress.train_seconds += now - self._mark
        self._mark = now
        if trainer.world_size == 1 or self.progress.step % AGREE_EVERY == 0:
            self._leave_if_time(trainer)
        self._save_if_time(pl_module)
        self._ready = time.monotonic()

    def on_validation_start(self, *_: Any) -> None:
        """Start the clock of a validation."""
        self.validating = True
        self._mark = time.monotonic()

    def on_validation_end(self, *_: Any) -> None:
        """Note that training goes on."""
        self.validating = False

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        """Save and leave if it is time; several processes do at its end."""
        now = time.monotonic()
        self.progress.validation_seconds += now - self._mark
        self._mark = now
        if trainer.world_size == 1:
            self._leave_if_time(trainer)
        self._save_if_time(pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Finish the epoch, and leave if it is time or no longer worth while.

        Raises:
            ConfigError: the loss is no longer a number.
        """
        assert isinstance(pl_module, SegmentationTask)
        learning_rate = trainer.optimizers[0].param_groups[0]["lr"]
        pl_module.look_at_losses()
        self.finish_epoch(pl_module, learning_rate, _states(pl_module))
        self._leave_if_time(trainer)
        if self.progress.no_longer_gains(self.config):
            raise StopTraining

    def on_exception(
        self, _: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Save before leaving, where the states are those between two batches."""
        if isinstance(exception, StopTraining | SIGTERMException):
            self._save_checkpoint(pl_module)

    # The end of an epoch ------------------------------------------------------------------------

    def finish_epoch(
        self, task: SegmentationTask, learning_rate: float, states: Mapping[str, Any]
    ) -> None:
        """Write the epoch's rows, its checkpoint, and then the weights if they are to be kept.

        A kill before the checkpoint is there repeats the end of the epoch; one after it is made
        good by `keep_weights` when the training goes on.
        """
        scores = _scores(task, self.config.monitor)
        progress = self.progress
        progress.finish_epoch(learning_rate, scores, progress.batch * self.images_per_step)
        self._choose(scores)
        if self._writes:
            progress.write_tables(self.run)
            self.loggers.write(progress.table[-1], progress.timing[-1], task.pictures)
            task.pictures = {}
        self._write(states)
        self.keep_weights(task)
        for listener in self.listeners:
            listener.epoch_finished(progress, task)
        self._mark = time.monotonic()

    def keep_weights(self, task: SegmentationTask) -> None:
        """Write the network to the run folder if this epoch's weights are those to be kept."""
        kept = self.progress.kept
        if self._writes and kept is not None and kept["best_epoch"] == self.progress.epoch:
            self.save(kept_model(task, kept), kept)

    def _choose(self, scores: Mapping[str, float | None]) -> None:
        """Decide whether the weights of the epoch that was just finished are kept.

        Where an average is scored too, the higher of the two counts, and of two equals the average.
        Where nothing chooses (`keep` is last) it is the average.
        """
        progress, config = self.progress, self.config
        column = f"{config.monitor}_dice"
        dice, averaged = scores[column], scores.get(f"average_{column}")
        if dice is None:
            return
        reached: dict[str, Any] = {"best_epoch": progress.epoch}
        if averaged is not None:
            reached["averaged"] = config.keep == LAST or averaged >= dice
            dice = averaged if reached["averaged"] else dice
        reached[column] = dice
        kept = f"average_{column}_" if reached.get("averaged") else f"{column}_"
        reached[f"{column}_by_class"] = {
            name.removeprefix(kept): value
            for name, value in scores.items()
            if name.startswith(kept)
        }
        if config.keep == LAST:
            progress.kept = reached | {"weights": LAST}
        elif progress.best_dice is None or dice > progress.best_dice:
            progress.best_dice = dice
            # The configuration lets the test split choose only where that is asked for by name.
            chosen_by = "test" if config.select_on_test else "val"
            progress.kept = reached | {"weights": f"best on {chosen_by}"}

    # Checkpoints --------------------------------------------------------------------------------

    def _leave_if_time(self, trainer: L.Trainer) -> None:
        self.stop.check(self._saving_seconds)
        self.stop.take(agree(self.stop.code, trainer))
        if self.stop.code:
            raise StopTraining

    def _save_if_time(self, task: L.LightningModule) -> None:
        least = self._saving_seconds / SAVING_SHARE
        wait = max(60 * self.config.checkpoint_minutes, least)
        if self.config.checkpoint_minutes and time.monotonic() - self._saved_when >= wait:
            self._save_checkpoint(task)

    def _save_checkpoint(self, task: L.LightningModule) -> None:
        assert isinstance(task, SegmentationTask)
        if self.progress.position != self._saved_at:
            task.look_at_losses()
            self.progress.mean_loss()  # raises rather than replace a training that still works
            self._write(_states(task))

    def _write(self, states: Mapping[str, Any]) -> None:
        progress, started = self.progress, time.monotonic()
        progress.seconds = round(self._seconds_before + started - self._began, 3)
        if self._writes:
            content = {**self.facts, "progress": progress.state(), "states": dict(states)}
            self.checkpoints.save(content, progress.epoch, progress.step)
        self._saved_at = progress.position
        self._saved_when = self._mark = self._ready = time.monotonic()
        self._saving_seconds = self._saved_when - started


def _states(task: SegmentationTask) -> dict[str, Any]:
    return {name: part.state_dict() for name, part in task.parts().items()}


def kept_model(task: SegmentationTask, kept: Mapping[str, Any]) -> nn.Module:
    """Return the network or its average, whichever is kept."""
    if task.average is None or not kept.get("averaged"):
        return task.model
    return task.average.model


def _scores(task: SegmentationTask, split: str) -> dict[str, float | None]:
    """Return mean and per-class Dice of this epoch's scoring, None where there was none."""
    names = task.predictor.label_names
    scores = _table_columns(task.rows, names, split)
    if task.average is not None:
        scores |= _table_columns(task.average_rows, names, f"average_{split}")
    task.rows, task.average_rows = [], []
    return scores


def _table_columns(
    rows: Sequence[CaseRow], names: Sequence[str], split: str
) -> dict[str, float | None]:
    if not rows:
        return dict.fromkeys([f"{split}_dice", *(f"{split}_dice_{name}" for name in names[1:])])
    summary = summarise(rows, names, "standard", intervals=False)
    dice = {name: values["dice"].mean for name, values in summary.classes.items()}
    columns = {f"{split}_dice": summary.mean["dice"]}
    columns |= {f"{split}_dice_{name}": value for name, value in dice.items()}
    # Checkpoints hold plain numbers, no numpy ones.
    return {name: None if value is None else float(value) for name, value in columns.items()}
