"""What a training came to."""

from dataclasses import dataclass
from pathlib import Path

from msa2net.training.finetune import FineTuneReport


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
    start: FineTuneReport | None = None
    warnings: tuple[str, ...] = ()
