"""How a training goes on: where it stands, how fast it is, how long it will take."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from msa2net.compat import callbacks_of
from msa2net.training.progress import Progress as TrainingProgress
from msa2net.training.recorder import EpochListener, Recorder
from msa2net.training.task import SegmentationTask

Item = TypeVar("Item")

TELL_EVERY_S = 60.0
FETCH_EVERY_S = 2.0  # a loss that is shown makes a GPU wait
BAR_WIDTH = 16
DISPENSABLE = ("step", "speed", "loss", "dice")  # the first goes first where a line is too short


class TrainingBar(ProgressBar):
    """One line for the whole training, gone at its end.

    Speed and remaining time count what this process did, validations and checkpoints included.

    Args:
        console: where it is shown.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=BAR_WIDTH),
            TextColumn("{task.fields[facts]}"),
            console=console,
            transient=True,
            refresh_per_second=4,
        )
        self.line = self.bar.add_task("", total=None, facts="", visible=False)
        self._recorder: Recorder | None = None
        self._first_step, self._began, self._fetched = 0, 0.0, -math.inf
        self._loss = ""

    def disable(self) -> None:
        """Lightning's wish on all processes but the first."""
        self.bar.disable = True

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Find out where the training stands, and begin."""
        self._recorder = _recorder_of(trainer)
        self._first_step, self._began = self._recorder.progress.step, time.monotonic()
        self.bar.start()
        self._show(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Move on by a batch."""
        self._show(trainer)

    def on_validation_batch_start(
        self, trainer: L.Trainer, _: Any, __: Any, batch_idx: int, *___: Any
    ) -> None:
        """Say how far a validation is."""
        total = trainer.num_val_batches[0]
        self._show(trainer, f"validating {batch_idx + 1}/{total:g}")

    def on_train_end(self, *_: Any) -> None:
        """Remove the line."""
        self.bar.stop()

    def on_exception(self, *_: Any) -> None:
        """Remove the line before anything is said."""
        self.bar.stop()

    def _show(self, trainer: L.Trainer, doing: str = "") -> None:
        if self._recorder is None:  # a validation that is repeated before training goes on
            return
        task, progress = trainer.lightning_module, self._recorder.progress
        assert isinstance(task, SegmentationTask)
        done, seconds = progress.step - self._first_step, time.monotonic() - self._began
        facts = {"step": f"step {progress.step}/{task.total_steps}"}
        if loss := self._latest_loss():
            facts["loss"] = f"loss {loss}"
        if scored := progress.scores(task.config.monitor):
            facts["dice"] = f"Dice {scored[-1]:.3f}, best {max(scored):.3f}"
        if done:
            speed = done * self._recorder.images_per_step / seconds
            left = _seconds_left(progress, task, self._first_step, seconds)
            facts |= {"speed": f"{speed:.3g} images/s", "left": f"{as_time(left)} left"}
        if doing:
            facts["doing"] = doing
        epoch = f"epoch {min(progress.epoch + 1, task.config.epochs)}/{task.config.epochs}"
        self.bar.update(
            self.line,
            description=epoch,
            completed=progress.step,
            total=task.total_steps,
            facts=fit_to_width(facts, self.bar.console.width - len(f"{epoch}  ") - BAR_WIDTH),
            visible=True,
        )

    def _latest_loss(self) -> str:
        assert self._recorder is not None
        losses, now = self._recorder.progress.losses, time.monotonic()
        if losses and now - self._fetched >= FETCH_EVERY_S:
            self._loss, self._fetched = f"{float(losses[-1]):.4f}", now
        return self._loss


class EpochLines(EpochListener):
    """One line for every finished epoch, for log files.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say
        self._first_step, self._began = 0, math.nan

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Find out where the training stands, and begin."""
        self._first_step = _recorder_of(trainer).progress.step
        self._began = time.monotonic()

    def epoch_finished(self, progress: TrainingProgress, task: SegmentationTask) -> None:
        """Say what an epoch came to."""
        row, timing, split = progress.table[-1], progress.timing[-1], task.config.monitor
        facts = [f"epoch {row['epoch']}/{task.config.epochs}", f"loss {row['train_loss']:.4f}"]
        if row.get(f"{split}_dice") is not None:
            scored = progress.scores(split)
            facts.append(f"{split} Dice {scored[-1]:.3f} (best {max(scored):.3f})")
        facts.append(f"{timing['images_per_second']:.3g} images/s")
        seconds = time.monotonic() - self._began
        if progress.step > self._first_step and progress.step < task.total_steps and seconds > 0:
            left = _seconds_left(progress, task, self._first_step, seconds)
            facts.append(f"{as_time(left)} left")
        self._say(", ".join(facts))


def _recorder_of(trainer: L.Trainer) -> Recorder:
    return next(one for one in callbacks_of(trainer) if isinstance(one, Recorder))


def _seconds_left(
    progress: TrainingProgress, task: SegmentationTask, first_step: int, seconds: float
) -> float:
    """Return how long the rest takes, going by the seconds since `first_step`."""
    return (task.total_steps - progress.step) * seconds / (progress.step - first_step)


def progress_lines(
    items: Iterable[Item], total: int, doing: str, say: Callable[[str], None]
) -> Iterator[Item]:
    """Yield the items, and say how far they are: at the start, and once a minute.

    Args:
        items: them.
        total: how many.
        doing: what is done with them.
        say: prints a line.
    """
    began = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done == 0:
            say(f"{doing}, {total} steps")
        elif now - said >= TELL_EVERY_S:
            left = as_time((total - done) * (now - began) / done)
            say(f"{doing}, step {done}/{total}, {left} left")
            said = now
        yield item


def fit_to_width(facts: Mapping[str, str], width: int) -> str:
    """Join facts; while they are longer than `width`, those of `DISPENSABLE` go, in that order."""
    kept = dict(facts)
    for name in DISPENSABLE:
        if len(" · ".join(kept.values())) > width:
            kept.pop(name, None)
    return " · ".join(kept.values())


def as_time(seconds: float) -> str:
    """Write a duration as 12 s, 3:05 min, 2:03:05 h or 1 d 2:03:05 h."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours}:{minutes:02d}:{rest:02d} h"
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d} h"
    return f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"
