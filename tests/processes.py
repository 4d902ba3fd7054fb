"""A training of several processes; a script too: `python processes.py FOLDER RUN [KEY=VALUE …]`.

The network is a tiny one, unless `model.name` is among the settings.

Lightning starts the other processes by running this script again.
"""

import sys
from pathlib import Path

import lightning as L
from torch import nn

import resumed
from msa2net.compat import is_batch_norm
from msa2net.config import Config

STEPS, BATCH = 10, 4
CHANGES = {
    "train.batch_size": BATCH,
    "train.epochs": 1,
    "train.optimizer": "sgd",  # AdamW would magnify the last digits of small gradients
    "train.learning_rate": 0.1,
    "train.checkpoint_minutes": 0,
    "loss": "{boundary_dou: 1, dice: 0.5, cross_entropy: 0.5}",
}


class FrozenStatistics(L.Callback):
    """Takes out what depends on who computes a sample: a batch's statistics, and dropout."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        for module in pl_module.modules():
            if is_batch_norm(module) or isinstance(module, nn.Dropout):
                module.eval()


def settings(folder: Path, **changes) -> Config:
    return resumed.settings(folder, **CHANGES | changes)


def train(folder: Path, run: Path, *, resume: bool = False, **changes):
    config = settings(folder, **changes)
    callbacks = [FrozenStatistics()]
    tiny = "model.name" not in changes
    return resumed.train(folder, run, tiny=tiny, resume=resume, config=config, callbacks=callbacks)


if __name__ == "__main__":
    _, folder, run, *words = sys.argv
    changes = dict(word.split("=", 1) for word in words if word != "--resume")
    train(Path(folder), Path(run), resume="--resume" in words, **changes)
