"""What happens at the end of an epoch: the table of metrics, and the best weights."""

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from torch import nn

from msa2net.config import TrainConfig
from msa2net.errors import ConfigError
from msa2net.files import write_text
from msa2net.metrics import summarise
from msa2net.training.task import SegmentationTask

LAST = "last"


class EpochLog(L.Callback):
    """Writes `metrics.csv` after each epoch, and hands over weights to be kept.

    These are the weights that score best on `train.monitor`, or, with `train.keep` last, those of
    every epoch that is scored, so that a training that is cut off leaves something.

    Args:
        run: the run folder.
        config: which split is scored (it names the columns), and which weights are kept.
        save: takes the network and what was reached; `weights` in it says who chose them.

    Attributes:
        best_dice: highest mean Dice (standard protocol) so far; None if nothing chooses.
        best_epoch: counted from 1.
    """

    def __init__(
        self, run: Path, config: TrainConfig, save: Callable[[nn.Module, dict[str, Any]], None]
    ) -> None:
        self.path = run / "metrics.csv"
        self.split = config.monitor
        # The configuration lets the test split choose only where that is asked for by name.
        self.chosen_by_test = config.select_on_test
        self.keep = config.keep
        self.save = save
        self.table: list[dict[str, Any]] = []
        self.best_dice: float | None = None
        self.best_epoch = 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch's row; hand over the weights if validation says they are the best.

        Raises:
            ConfigError: the loss is no longer a number.
        """
        assert isinstance(pl_module, SegmentationTask)
        epoch = trainer.current_epoch + 1
        loss = float(trainer.callback_metrics["train_loss_epoch"])
        if not math.isfinite(loss):
            raise ConfigError(
                f"the training loss became {loss} in epoch {epoch}; lower train.learning_rate or "
                "use train.precision=32-true"
            )
        validation = _scores(pl_module, self.split)
        row = {
            "epoch": epoch,
            "step": trainer.global_step,
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "train_loss": loss,
        }
        self.table.append(row | validation)
        self._write()
        column = f"{self.split}_dice"
        dice = validation[column]
        if dice is None:
            return
        reached = {"best_epoch": epoch, column: dice}
        if self.keep == LAST:
            self.save(pl_module.model, reached | {"weights": LAST})
        elif self.best_dice is None or dice > self.best_dice:
            self.best_dice, self.best_epoch = dice, epoch
            chosen_by = "test" if self.chosen_by_test else "val"
            self.save(pl_module.model, reached | {"weights": f"best on {chosen_by}"})

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.table)  # None becomes an empty cell
        write_text(self.path, text.getvalue())


def _scores(task: SegmentationTask, split: str) -> dict[str, float | None]:
    """Return mean and per-class Dice of this epoch's scoring, None where there was none."""
    names = task.predictor.label_names
    rows, task.rows = task.rows, []
    if not rows:
        return dict.fromkeys([f"{split}_dice", *(f"{split}_dice_{name}" for name in names[1:])])
    summary = summarise(rows, names, "standard")
    per_class: dict[str, float | None] = {
        f"{split}_dice_{name}": figures["dice"]["mean"]
        for name, figures in summary["classes"].items()
    }
    return {f"{split}_dice": summary["mean"]["dice"]} | per_class
