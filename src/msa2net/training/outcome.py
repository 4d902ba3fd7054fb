"""What a training came to: how far and how long it went, and whether it learnt anything."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msa2net.config import TrainConfig
from msa2net.data.labels import IGNORE
from msa2net.data.prepared.store import Store, StoredCase
from msa2net.files import MODEL_FILE
from msa2net.inference.run_folder import read_facts, write_facts
from msa2net.training.progress import Progress

NOTHING = 0.01
"""A mean Dice up to this is as good as none: all is missed but for luck."""

MARGIN = 1.02
"""The Dice of one class everywhere is reached but for the border of resized labels."""

LEAST_EPOCHS = 3
"""A loss is compared with its start from so many epochs on; fewer say too little."""

ADVICE = "look at the labels with msa2net check, lower train.learning_rate, or train longer"


def note_outcome(run: Path, so_far: Mapping[str, Any], warnings: Sequence[str] = ()) -> None:
    """Add to a run's weights how far its training went; they may be those of an earlier epoch.

    Args:
        run: the run folder; one without weights stays as it is.
        so_far: what is known of the training by now.
        warnings: what speaks against it, once it is finished.
    """
    if not (run / MODEL_FILE).is_file():
        return
    facts = read_facts(run)
    training = facts.training | dict(so_far)
    training.pop("warnings", None)
    if warnings:
        training["warnings"] = list(warnings)
    write_facts(run, facts.model_copy(update={"training": training}))


def learning_warnings(progress: Progress, config: TrainConfig, store: Store) -> list[str]:
    """Say what speaks against a training that is finished; empty if nothing does.

    Scores are held against that of the best constant prediction: one class in every pixel. Where
    nothing was scored, the loss must at least have fallen.

    Args:
        progress: its tables.
        config: which split was scored.
        store: its data, whose labels were counted when they were prepared.
    """
    split = config.monitor
    scores = progress.scores(split)
    if not scores:
        return _of_losses(progress.table)
    best = max(scores)
    constant, name = constant_dice(store, split)
    if best <= NOTHING:
        found = f"the best {split} Dice is {best:.3f}, next to none of the structures is found"
    elif best <= MARGIN * constant:
        found = f"the best {split} Dice, {best:.3f}, is not above the {constant:.3f} of calling "
        found += f"every pixel {name}"
    else:
        return []
    return [f"nothing useful was learnt: {found}; {ADVICE}"]


def constant_dice(store: Store, split: str) -> tuple[float, str]:
    """Return the highest mean Dice that one class in every pixel gets, and the class's name.

    Of a class with a share p of a case's pixels it is 2·p / (1 + p), and 0 of a case without it;
    every other class that is there gets 0.
    """
    cases = [case for case in store.cases if case.split == split]
    counts = np.array([_voxels(case, len(store.label_names)) for case in cases], np.float64)
    if not counts.size or not counts[:, 1:].any():
        return 0.0, store.label_names[0]
    share_NK = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    dice_K = (2 * share_NK / (1 + share_NK)).mean(axis=0)[1:]
    best = int(dice_K.argmax())
    there = np.count_nonzero(counts[:, 1:].any(axis=0))
    return float(dice_K[best] / there), store.label_names[1 + best]


def _voxels(case: StoredCase, classes: int) -> list[int]:
    known = {int(label): number for label, number in case.voxels.items() if int(label) != IGNORE}
    return [known.get(label, 0) for label in range(classes)]


def _of_losses(table: Sequence[Mapping[str, Any]]) -> list[str]:
    losses = [float(row["train_loss"]) for row in table]
    if len(losses) < LEAST_EPOCHS or min(losses[1:]) < losses[0]:
        return []
    return [
        f"nothing useful was learnt: the training loss was {losses[0]:.3f} in the first epoch and "
        f"never lower, {losses[-1]:.3f} in the last; {ADVICE}"
    ]
