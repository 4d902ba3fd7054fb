"""How far a training has come: the counters and tables that a checkpoint holds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from msa2net.config import TrainConfig
from msa2net.errors import ConfigError
from msa2net.files import write_text
from msa2net.text import csv_text

Row = dict[str, Any]


@dataclass
class Progress:
    """Counters and tables; plain numbers and text, so that they can be stored.

    Attributes:
        epoch: finished epochs, their validation and their row included.
        batch: finished batches of the running epoch; all of them while it is validated.
        step: finished batches of the whole training; decides order, randomness and rates.
        losses: of the running epoch's batches.
        table: the rows of `metrics.csv`.
        timing: the rows of `timing.csv`.
        best_dice: highest mean Dice so far that may choose weights; None if nothing chooses.
        kept: what is told of the weights in the run folder; None if there are none.
        train_seconds: of the running epoch so far.
        waiting_seconds: of these, between a batch and the next: until data were there.
        validation_seconds: likewise.
        seconds: of the whole training so far.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    losses: list[float | Tensor] = field(default_factory=list)
    table: list[Row] = field(default_factory=list)
    timing: list[Row] = field(default_factory=list)
    best_dice: float | None = None
    kept: Row | None = None
    train_seconds: float = 0.0
    waiting_seconds: float = 0.0
    validation_seconds: float = 0.0
    seconds: float = 0.0

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild from `state`."""
        return cls(**state)

    def state(self) -> dict[str, Any]:
        """Return everything as plain numbers, text, lists and dictionaries."""
        self._fetch_losses()
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    @property
    def position(self) -> tuple[int, int]:
        """What tells two checkpoints apart: finished epochs and steps."""
        return self.epoch, self.step

    def count_batch(self, loss: Tensor) -> None:
        """Note a finished batch; its loss stays on its device until it is needed."""
        self.batch += 1
        self.step += 1
        self.losses.append(loss.detach())

    def mean_loss(self) -> float:
        """Return the mean over the epoch's batches, exactly rounded, so in any grouping the same.

        Raises:
            ConfigError: it is no longer a number.
        """
        self._fetch_losses()
        losses = [float(loss) for loss in self.losses]
        wrong = [loss for loss in losses if not math.isfinite(loss)]
        if wrong:
            raise ConfigError(
                f"the training loss became {wrong[0]} in epoch {self.epoch + 1}; lower "
                "train.learning_rate or use train.precision=32-true"
            )
        return math.fsum(losses) / max(1, len(losses))

    def finish_epoch(self, learning_rate: float, scores: Row, images: int) -> None:
        """Add a row to both tables and begin the next epoch.

        Args:
            learning_rate: reached at its end.
            scores: columns of its validation.
            images: trained on in it.

        Raises:
            ConfigError: the loss is no longer a number.
        """
        row = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "learning_rate": learning_rate,
            "train_loss": self.mean_loss(),
        }
        rate = images / self.train_seconds if self.train_seconds else 0.0
        timing = {
            "epoch": self.epoch + 1,
            "train_seconds": round(self.train_seconds, 3),
            "waiting_seconds": round(self.waiting_seconds, 3),
            "validation_seconds": round(self.validation_seconds, 3),
            "images_per_second": round(rate, 3),
        }
        self.table = [*self.table, row | scores]
        self.timing = [*self.timing, timing]
        self.epoch += 1
        self.restart_epoch()

    def scores(self, split: str) -> list[float]:
        """Return the Dice of each validation: the network's or its average's, the higher."""
        columns = (f"{split}_dice", f"average_{split}_dice")
        pairs = [[row[name] for name in columns if row.get(name) is not None] for row in self.table]
        return [max(pair) for pair in pairs if pair]

    def waiting_share(self) -> float | None:
        """Return which share of training was spent waiting for data; None if nobody counted."""
        running = {"train_seconds": self.train_seconds, "waiting_seconds": self.waiting_seconds}
        rows = [row for row in [*self.timing, running] if "waiting_seconds" in row]
        total = sum(row["train_seconds"] for row in rows)
        return sum(row["waiting_seconds"] for row in rows) / total if total else None

    def no_longer_gains(self, config: TrainConfig) -> bool:
        """Tell whether the last `early_stopping` validations were all no better than one before.

        It follows from the table alone, so it is the same after an interruption.
        """
        count, best = 0, -math.inf
        for value in self.scores(config.monitor):
            count = 0 if value > best else count + 1
            best = max(best, value)
        return config.early_stopping is not None and count >= config.early_stopping

    def restart_epoch(self) -> None:
        """Forget what was done in the running epoch."""
        self.batch, self.losses = 0, []
        self.train_seconds = self.waiting_seconds = self.validation_seconds = 0.0

    def write_tables(self, run: Path) -> None:
        """Write `metrics.csv`, which holds no times, and `timing.csv`."""
        for name, rows in (("metrics.csv", self.table), ("timing.csv", self.timing)):
            if rows:
                write_text(run / name, _as_csv(rows))

    def _fetch_losses(self) -> None:
        waiting = [loss for loss in self.losses if isinstance(loss, Tensor)]
        if waiting:  # one transfer for all; counted before waiting ones were
            done: list[float | Tensor] = [x for x in self.losses if not isinstance(x, Tensor)]
            self.losses = [*done, *torch.stack(waiting).float().tolist()]


def _as_csv(rows: Sequence[Row]) -> str:
    names = dict.fromkeys(name for row in rows for name in row)  # train.monitor may have changed
    return csv_text(list(names), rows)
