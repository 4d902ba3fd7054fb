"""What a run folder holds, read and checked for the report.

A missing file is empty; a file that is there but broken is an error that names it.
"""

import csv
import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from msa2net.errors import DataError
from msa2net.files import read_json
from msa2net.metrics.protocol import CaseRow
from msa2net.metrics.summary import read_cases_csv

SUMMARY_SCHEMA = 1
RANKS = ("worst", "median", "best")


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
        config: config.yaml, parsed.
        model: model.json.
        epochs: rows of metrics.csv; None is an empty cell or not a finite number.
        summary: evaluation/summary.json; empty if the run was not evaluated.
        cases: rows of evaluation/cases.csv.
        examples: files of evaluation/examples, worst cases first; see `read_example`.
    """

    name: str
    labels: tuple[str, ...]
    config_text: str
    config: dict[str, Any]
    model: dict[str, Any]
    epochs: list[dict[str, float | None]]
    summary: dict[str, Any]
    cases: list[CaseRow]
    examples: list[Path]


def read_run(run: Path) -> RunContent:
    """Read what a report needs from a run folder.

    Raises:
        DataError: `run` is not a run folder, or a file in it is broken.
    """
    config_path, model_path = run / "config.yaml", run / "model.json"
    if not config_path.is_file() and not model_path.is_file():
        raise DataError(
            f"{run} is not a run folder: it has neither config.yaml nor model.json; give the "
            "folder that `msa2net train` or `msa2net import-weights` wrote"
        )
    evaluation = run / "evaluation"
    summary = _mapping(evaluation / "summary.json", read_json)
    if summary.get("schema", SUMMARY_SCHEMA) != SUMMARY_SCHEMA:
        raise DataError(
            f"{evaluation / 'summary.json'} has schema {summary['schema']} and this version reads "
            f"{SUMMARY_SCHEMA}; evaluate the run again with the version that writes the report"
        )
    model = _mapping(model_path, read_json)
    metrics, cases = run / "metrics.csv", evaluation / "cases.csv"
    epochs = _read_epochs(metrics) if metrics.is_file() else []
    examples = [path for path in evaluation.glob("examples/*.npz") if _rank(path) in RANKS]
    return RunContent(
        name=run.resolve().name,
        labels=_labels(summary, model, epochs),
        config_text=_text(config_path) if config_path.is_file() else "",
        config=_mapping(config_path, _read_yaml),
        model=model,
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


def find(tree: Any, *names: str) -> Any:
    """Return the first value under one of these names, however deep; outer ones come first.

    Args:
        tree: nested dicts; anything else holds nothing.
        names: tried one after the other.
    """
    for name in names:
        level = [tree]
        while level:
            nodes = [node for node in level if isinstance(node, dict)]
            for node in nodes:
                if node.get(name) is not None:
                    return node[name]
            level = [value for node in nodes for value in node.values()]
    return None


def _rank(path: Path) -> str:
    return path.stem.partition("-")[0]


def _labels(
    summary: dict[str, Any], model: dict[str, Any], epochs: list[dict[str, float | None]]
) -> tuple[str, ...]:
    names = find(summary, "label_names") or find(model, "label_names", "labels")
    if not isinstance(names, list):
        columns = epochs[0] if epochs else {}
        of_classes = [column for column in columns if column.startswith("val_dice_")]
        names = ["background", *(column.removeprefix("val_dice_") for column in of_classes)]
    return tuple(map(str, names))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not valid YAML: {error}") from error


def _mapping(path: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    """Read a file that holds names and values; a file that is not there is empty."""
    value = read(path) if path.is_file() else {}
    if not isinstance(value, dict):
        raise DataError(f"{path} does not hold names and values; restore it or make the run anew")
    return value


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
