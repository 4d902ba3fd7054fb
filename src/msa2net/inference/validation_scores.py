"""How a network did in validation, and what whoever applies it must hear of that.

Training notes it in `model.json` with the weights that are kept. Older run folders say it in
`metrics.csv` or, if they were scored on the validation split, in an evaluation's summary.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from msa2net.errors import DataError
from msa2net.files import EVALUATIONS, MODEL_FILE, WEIGHTS_FILE, read_json, sha256
from msa2net.inference.run_folder import ModelMetadata, TrainingMetadata
from msa2net.text import listed

HARDLY_FOUND = 0.2
"""A class of a lower Dice is hardly found."""

POOR = 0.5
"""With a lower mean Dice, more of a mask is wrong than right."""

METRICS_FILE = "metrics.csv"
_NAMES = {"val": "validation", "test": "test"}
_SHOWN = 16  # classes in a sentence


@dataclass(frozen=True)
class ValidationScores:
    """Dice of the kept weights, by the standard protocol.

    Attributes:
        split: val, or test where a training watched that.
        dice: mean over classes.
        by_class: class → mean over cases; None where no case has the class. Empty: not known.
        trained_on: these cases were trained on as well.
    """

    split: str
    dice: float
    by_class: dict[str, float | None] = field(default_factory=dict)
    trained_on: bool = False

    @property
    def hardly_found(self) -> dict[str, float]:
        """Class → Dice of those below `HARDLY_FOUND`, the lowest first."""
        found = {k: v for k, v in self.by_class.items() if v is not None and v < HARDLY_FOUND}
        return dict(sorted(found.items(), key=lambda pair: pair[1]))

    def words(self) -> str:
        """Return `validation Dice 0.843 (liver 0.95, spleen 0.93)`."""
        classes = self.by_class if len(self.by_class) > 1 else {}
        each = (f"{k} {'not in it' if v is None else f'{v:.2f}'}" for k, v in classes.items())
        aside = [listed(each, _SHOWN)] if classes else []
        aside += ["cases that were trained on"] if self.trained_on else []
        return f"{_NAMES[self.split]} Dice {self.dice:.3f}" + (
            f" ({'; '.join(aside)})" if aside else ""
        )


def validation_scores(facts: ModelMetadata, run: Path | None = None) -> ValidationScores | None:
    """Return how a network did in validation; None if nobody noted it.

    Args:
        facts: the content of `model.json`.
        run: the run folder, for what older ones do not say there.
    """
    training = TrainingMetadata.model_validate(facts.training)
    known = {
        "val": (training.val_dice, training.val_dice_by_class),
        "test": (training.test_dice, training.test_dice_by_class),
    }
    for split, (dice, of_classes) in known.items():
        if dice is None:
            continue
        by_class = _by_class(of_classes, facts.label_names)
        if not by_class and run is not None:
            by_class = _from_metrics(run / METRICS_FILE, split, facts.label_names, training)
        return ValidationScores(split, dice, by_class, split in training.trained_on)
    return None if run is None else _from_evaluation(run, facts)


def is_unfinished(facts: ModelMetadata) -> bool:
    """Tell whether weights come of a training that is under way or was broken off."""
    training = TrainingMetadata.model_validate(facts.training)
    if training.finished is not None:
        return not training.finished
    # Older trainings noted reference ranges at their end, and still older ones did not.
    done, planned = training.epochs_run, training.epochs
    return (
        facts.reference_ranges is None
        and done is not None
        and planned is not None
        and done < planned
    )


def network_warnings(facts: ModelMetadata, run: Path | None = None) -> tuple[str, ...]:
    """Return sentences that speak against a network: read them before its masks.

    Args:
        facts: the content of `model.json`.
        run: the run folder; None of an exported network.
    """
    warnings, training = [], TrainingMetadata.model_validate(facts.training)
    if is_unfinished(facts):
        warnings.append(
            f"its training is unfinished ({training.epochs_run} of {training.epochs} epochs): "
            "finish it with msa2net train … --resume"
        )
    warnings += training.warnings
    scores = validation_scores(facts, run)
    if scores is None:
        return tuple(warnings)
    if scores.dice < POOR and not training.warnings:  # they say the same, and why
        warnings.append(
            f"its {_NAMES[scores.split]} Dice is only {scores.dice:.2f}: expect most of a mask to "
            "be wrong"
        )
    if hardly := scores.hardly_found:
        named = listed((f"{name} (Dice {dice:.2f})" for name, dice in hardly.items()), _SHOWN)
        warnings.append(
            f"it hardly finds {named} in {_NAMES[scores.split]} cases: that none is found says "
            "nothing about the image"
        )
    return tuple(warnings)


def describe_networks(
    networks: Sequence[tuple[Path, ModelMetadata]],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a line on each network's validation, and all warnings.

    Args:
        networks: run folders or exported files, and what their `model.json` holds. Of several,
            each warning names its own.
    """
    lines, warnings = [], []
    for path, facts in networks:
        run = path if (path / MODEL_FILE).is_file() else None
        scores = validation_scores(facts, run)
        said = "validation scores are not known" if scores is None else scores.words()
        lines.append(f"{path}: {said}")
        whose = f"{path}: " if len(networks) > 1 else ""
        warnings += [whose + warning for warning in network_warnings(facts, run)]
    return tuple(lines), tuple(warnings)


def with_scores(facts: ModelMetadata, run: Path) -> ModelMetadata:
    """Return facts that hold the validation scores which an older run folder has elsewhere."""
    scores = validation_scores(facts, run)
    if scores is None:
        return facts
    key = f"{scores.split}_dice"
    training = {**facts.training, key: scores.dice, f"{key}_by_class": scores.by_class}
    return facts.model_copy(update={"training": training})


def _from_metrics(
    path: Path, split: str, label_names: Sequence[str], training: TrainingMetadata
) -> dict[str, float | None]:
    """Return the classes' Dice in the row of the kept weights; {} if it is not there."""
    average, epoch = "average_" if training.averaged else "", training.best_epoch
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if _number(row.get("epoch")) == epoch]
    except (OSError, ValueError, csv.Error):
        return {}
    column = f"{average}{split}_dice_"
    found = {name: rows[-1].get(column + name) for name in label_names[1:]} if rows else {}
    return _by_class(found if None not in found.values() else {}, label_names)


def _from_evaluation(run: Path, facts: ModelMetadata) -> ValidationScores | None:
    """Return the scores of the validation split, if these very weights were evaluated on it."""
    for folder in (EVALUATIONS["val"], EVALUATIONS["test"]):  # older versions had only the latter
        path = run / folder / "summary.json"
        try:
            summary = read_json(path) if path.is_file() else None
            if not isinstance(summary, Mapping) or summary.get("split") != "val":
                continue
            if summary["hashes"]["weights"] != sha256(run / WEIGHTS_FILE):
                continue
            entry = summary["protocols"]["standard"]
            dice = _number(entry["mean"]["dice"])
            of_classes = {k: v["dice"]["mean"] for k, v in entry["classes"].items()}
        except (DataError, OSError, KeyError, TypeError, AttributeError):
            continue  # a summary that is damaged says nothing; `evaluate` and `report` say so
        if dice is not None:
            return ValidationScores("val", dice, _by_class(of_classes, facts.label_names))
    return None


def _by_class(content: Any, label_names: Iterable[str]) -> dict[str, float | None]:
    if not isinstance(content, Mapping):
        return {}
    return {name: _number(content[name]) for name in label_names if name in content}


def _number(value: Any) -> float | None:
    """Return a finite number, also where a table has it as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) else None
