"""What a training is before its data are known: settings that work, and where it goes on from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from msa2net.config import Config
from msa2net.data.prepared.store import Store
from msa2net.losses import create_loss
from msa2net.models.registry import find_model, parse_image_size
from msa2net.training.checkpoint import Checkpoints
from msa2net.training.distributed import Processes
from msa2net.training.loggers import Loggers, check_loggers
from msa2net.training.progress import Progress
from msa2net.training.resume import check_same_training, training_facts
from msa2net.training.stopping import StopRequest
from msa2net.training.task import choose_precision


class Plan:
    """A training before its data are known.

    Args:
        config: what to do.
        run: the run folder.
        target: the device.
        processes: all that take part.
        notices: takes sentences for the training's owner.

    Attributes:
        tell: takes sentences for the training's owner.
        saved: the checkpoint it goes on from; None if it begins.
        progress: where it stands.

    Raises:
        ConfigError: a setting does not work.
    """

    def __init__(
        self,
        config: Config,
        run: Path,
        target: torch.device,
        processes: Processes,
        notices: Callable[[str], None],
    ) -> None:
        check_loggers(config.train.loggers)
        minutes = config.train.max_time
        self.stop = StopRequest(None if minutes is None else 60 * minutes)
        self.config, self.run, self.target = config, run, target
        self.processes, self.loggers = processes, Loggers(run, config, notices)
        self.tell = notices
        self.precision = choose_precision(config.train.precision, target)
        self.loss = create_loss(config.loss)
        parse_image_size(config.image_size)
        find_model(config.model.name)
        self.checkpoints = Checkpoints(run)
        self.saved: dict[str, Any] | None = None
        self.progress = Progress()

    def read_checkpoint(self) -> list[str]:
        """Read the last checkpoint that is whole; return what is to be told about it."""
        self.saved, notes = self.checkpoints.load(tidy=self.processes.first)
        self.progress = Progress.from_state(self.saved["progress"])
        return notes

    def look_at(self, store: Store, accept_changes: bool) -> tuple[dict[str, Any], list[str]]:
        """Look whether a training that goes on is still the same.

        Returns:
            What its checkpoints say of it, and what is to be told.
        """
        facts = training_facts(
            self.config, store, self.precision, self.target.type, self.processes.size
        )
        if self.saved is None:
            return facts, []
        notes = check_same_training(self.saved, facts, self.progress, accept_changes)
        if self.progress.no_longer_gains(self.config.train):
            notes.append(
                f"the training in {self.run} is finished, after {self.progress.epoch} epochs, by "
                "train.early_stopping; a larger one goes on, with --accept-changes"
            )
        elif self.finished():
            notes.append(
                f"the training in {self.run} is finished, after {self.progress.epoch} epochs; a "
                "larger train.epochs lengthens it"
            )
        return facts, notes

    def finished(self) -> bool:
        """Tell whether nothing is left to do."""
        train, progress = self.config.train, self.progress
        steps_done = train.max_steps is not None and progress.step >= train.max_steps
        ended = progress.epoch >= train.epochs or steps_done or progress.no_longer_gains(train)
        return progress.batch == 0 and ended
