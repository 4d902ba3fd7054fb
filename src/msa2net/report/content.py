"""What a run folder holds, read and checked for the report.

A missing file is None or empty; a file that is there but broken is an error that names it.
"""

import csv
import io
import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from msa2net.config import Config, ModelConfig, load_config
from msa2net.errors import DataError
from msa2net.files import read_json
from msa2net.inference.run_folder import (
    CONFIG_FILE,
    MODEL_FILE,
    ModelFacts,
    NetworkFacts,
    read_facts,
)
from msa2net.metrics.protocol import CaseRow
from msa2net.metrics.summary import read_cases_csv
from msa2net.report.layouts import Summary, TrainingFacts

SUMMARY_SCHEMA = 1
RANKS = ("worst", "median", "best")

Layout = TypeVar("Layout", bound=BaseModel)


@dataclass(frozen=True, eq=False)
class Example:
    """One case to look at.

    Attributes:
        rank: worst, median or best.
        case: its id.
        image: (Z, H, W, 3) uint8.
        truth: (Z, H, W) uint8, class indices, 255 is ignored.
        prediction: (Z, H, W) uint8, class indices.
    """

    rank: str
    case: str
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class RunContent:
    """A run folder's files.

    Attributes:
        name: of the folder.
        labels: class names, background first, from whichever file has them.
        config_text: config.yaml as it stands.
        config: the same, checked; None for imported weights.
        model: model.json; None while no epoch has been validated yet.
        training: the part of `model` that is about training; empty without it.
        epochs: rows of metrics.csv; None is an empty cell or not a finite number.
        summary: evaluation/summary.json; None if the run was not evaluated.
        cases: rows of evaluation/cases.csv.
        examples: files of evaluation/examples, worst cases first; see `read_example`.
    """

    name: str
    labels: tuple[str, ...]
    config_text: str
    config: Config | None
    model: ModelFacts | None
    training: TrainingFacts
    epochs: list[dict[str, float | None]]
    summary: Summary | None
    cases: list[CaseRow]
    examples: list[Path]

    @property
    def network(self) -> NetworkFacts | ModelConfig:
        """The network as it was built, or as the configuration asks for it."""
        if self.model is not None:
            return self.model.network
        assert self.config is not None  # `read_run` lets no folder without both pass
        return self.config.model


def read_run(run: Path) -> RunContent:
    """Read what a report needs from a run folder.

    Raises:
        DataError: `run` is not a run folder, or a table or summary in it is broken.
        ConfigError: config.yaml is broken.
        WeightsError: model.json is broken or newer than we are.
    """
    config_path, model_path = run / CONFIG_FILE, run / MODEL_FILE
    if not config_path.is_file() and not model_path.is_file():
        raise DataError(
            f"{run} is not a run folder: it has neither {CONFIG_FILE} nor {MODEL_FILE}; give the "
            "folder that `msa2net train` or `msa2net import-weights` wrote"
        )
    evaluation = run / "evaluation"
    metrics, cases = run / "metrics.csv", evaluation / "cases.csv"
    config = load_config(config_path) if config_path.is_file() else None
    model = read_facts(run) if model_path.is_file() else None
    epochs = _read_epochs(metrics) if metrics.is_file() else []
    summary = _read_summary(evaluation / "summary.json")
    examples = [path for path in evaluation.glob("examples/*.npz") if _rank(path) in RANKS]
    return RunContent(
        name=run.resolve().name,
        labels=_labels(summary, model, epochs),
        config_text=_text(config_path) if config else "",
        config=config,
        model=model,
        training=_checked(TrainingFacts, model.training if model else {}, model_path),
        epochs=epochs,
        summary=summary,
        cases=read_cases_csv(cases) if cases.is_file() else [],
        examples=sorted(examples, key=lambda path: (RANKS.index(_rank(path)), path.stem)),
    )


def read_example(path: Path) -> Example:
    """Read one file of evaluation/examples, named `<rank>-<case>.npz`.

    Raises:
        DataError: the file is broken or its arrays do not fit each other.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            image, truth, prediction = (arrays[k] for k in ("image", "truth", "prediction"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read {path}: {error}; evaluate the run again") from error
    grid = truth.shape
    fits = len(grid) == 3 and 0 not in grid
    fits = fits and prediction.shape == grid and image.shape == (*grid, 3)
    if not fits or {image.dtype, truth.dtype, prediction.dtype} != {np.dtype(np.uint8)}:
        raise DataError(
            f"{path}: expected uint8 image (Z, H, W, 3), truth and prediction (Z, H, W), found "
            f"{image.dtype} {image.shape}, {truth.dtype} {grid}, "
            f"{prediction.dtype} {prediction.shape}; evaluate the run again"
        )
    return Example(_rank(path), path.stem.partition("-")[2], image, truth, prediction)


def _rank(path: Path) -> str:
    return path.stem.partition("-")[0]


def _labels(
    summary: Summary | None, model: ModelFacts | None, epochs: list[dict[str, float | None]]
) -> tuple[str, ...]:
    if summary is not None:
        return summary.label_names
    if model is not None:
        return model.label_names
    columns = epochs[0] if epochs else {}
    of_classes = [column for column in columns if re.match("(val|test)_dice_", column)]
    return ("background", *(column.split("_dice_", 1)[1] for column in of_classes))


def _read_summary(path: Path) -> Summary | None:
    if not path.is_file():
        return None
    content = read_json(path)
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SUMMARY_SCHEMA:
        raise DataError(
            f"{path} has schema {schema} and this version reads {SUMMARY_SCHEMA}; evaluate the run "
            "again with the version that writes the report"
        )
    return _checked(Summary, content, path)


def _checked(layout: type[Layout], content: object, path: Path) -> Layout:
    try:
        return layout.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "its content"
        raise DataError(
            f"{path} is damaged: {place}: {first['msg']}; make it again or restore it"
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _read_epochs(path: Path) -> list[dict[str, float | None]]:
    try:
        rows = list(csv.DictReader(io.StringIO(_text(path)), restkey="", strict=True))
        if any("" in row for row in rows):
            raise ValueError("a row has more cells than the first")
        table = [{key: _cell(cell) for key, cell in row.items()} for row in rows]
        if any(row.get("epoch") is None for row in table):
            raise ValueError("a row has no epoch")
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a metrics.csv of `msa2net train`: {error}") from error
    return table


def _cell(cell: str | None) -> float | None:
    value = float(cell) if cell else math.nan
    return value if math.isfinite(value) else None
