"""What a run folder, or the folder of an evaluation alone, holds, read and checked for the report.

A missing file is None or empty; a file that is there but broken is an error that names it.
"""

import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from msa2net.data.io.hdf5_npz import read_npz
from msa2net.errors import DataError
from msa2net.evaluation.examples import MAX_EXAMPLE_BYTES, RANKS
from msa2net.evaluation.schema import Summary
from msa2net.evaluation.summary import read_summary
from msa2net.files import CONFIG_FILE, EVALUATIONS, MODEL_FILE
from msa2net.metrics.protocol import CaseRow
from msa2net.metrics.summary import mean_dice, read_cases_csv
from msa2net.text import printable

if TYPE_CHECKING:
    from msa2net.config import Architecture, Config
    from msa2net.inference.run_folder import ModelMetadata, TrainingMetadata

SUMMARY_FILE = "summary.json"
LEFT_OUT = Path("left out of the report")  # in place of every path: its folders may name people

Section = TypeVar("Section", bound=BaseModel)


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
    """The files of a run folder, or of the folder of an evaluation alone.

    Attributes:
        name: of the folder.
        is_run: False of the folder of an evaluation alone, which knows no network or training.
        labels: class names, background first, from whichever file has them.
        config_text: config.yaml without its paths.
        config: the same, checked; None for imported weights.
        model: model.json; None while no epoch has been validated yet.
        epochs: rows of metrics.csv; None is an empty cell or not a finite number.
        summary: evaluation/summary.json; None if the run was not evaluated.
        cases: rows of evaluation/cases.csv.
        examples: files of evaluation/examples, from worst to best; see `read_example`.
        evaluation: the folder of these, with a slash; "" of an evaluation alone.
    """

    name: str
    is_run: bool
    labels: tuple[str, ...]
    config_text: str
    config: "Config | None"
    model: "ModelMetadata | None"
    epochs: list[dict[str, float | None]]
    summary: Summary | None
    cases: list[CaseRow]
    examples: list[Path]
    evaluation: str

    @property
    def training(self) -> "TrainingMetadata":
        """What is known of the network's training."""
        from msa2net.inference.run_folder import TrainingMetadata

        return TrainingMetadata.model_validate(self.model.training if self.model else {})

    @property
    def network(self) -> "Architecture | None":
        """The network as it was built, or as the configuration asks for it."""
        if self.model is not None:
            return self.model.network
        return self.config.model if self.config else None


def read_run(run: Path, split: str = "test") -> RunContent:
    """Read what a report needs from a run folder, or from the folder of an evaluation alone.

    Args:
        run: the folder.
        split: of the scores in a run folder.

    Raises:
        DataError: `run` is neither, or a table or summary in it is broken.
        ConfigError: config.yaml is broken.
        WeightsError: model.json is broken or newer than we are.
    """
    config_path, model_path = run / CONFIG_FILE, run / MODEL_FILE
    is_run = config_path.is_file() or model_path.is_file()
    if not is_run and not (run / SUMMARY_FILE).is_file():
        raise DataError(
            f"{run} is not a run folder: it has neither {CONFIG_FILE} nor {MODEL_FILE}; give the "
            "folder that `msa2net train` or `msa2net import-weights` wrote, or one with the "
            f"{SUMMARY_FILE} of `msa2net evaluate`"
        )
    evaluation = run / EVALUATIONS[split] if is_run else run
    metrics, cases = run / "metrics.csv", evaluation / "cases.csv"
    config, config_text, model = None, "", None
    if is_run:
        from msa2net.config import dump_config, load_config
        from msa2net.inference.run_folder import read_facts

        if config_path.is_file():
            config = load_config(config_path)
            config_text = dump_config(_without_paths(config))
        model = read_facts(run) if model_path.is_file() else None
    epochs = _read_epochs(metrics) if metrics.is_file() else []
    summary_path = evaluation / SUMMARY_FILE
    summary = read_summary(summary_path) if summary_path.is_file() else None
    rows = read_cases_csv(cases) if cases.is_file() else []
    examples = [path for path in evaluation.glob("examples/*.npz") if _rank(path) in RANKS]
    return RunContent(
        name=run.resolve().name,
        is_run=is_run,
        labels=_labels(summary, model, epochs),
        config_text=config_text,
        config=config,
        model=model,
        epochs=epochs,
        summary=summary,
        cases=rows,
        examples=_from_worst_to_best(examples, rows),
        evaluation=f"{EVALUATIONS[split]}/" if is_run else "",
    )


def read_example(path: Path) -> Example:
    """Read one file of evaluation/examples, named `<rank>-<case>.npz`.

    Raises:
        DataError: the file is broken or its arrays do not fit each other.
    """
    try:
        arrays = read_npz(path, ("image", "truth", "prediction"), MAX_EXAMPLE_BYTES)
    except DataError as error:
        raise DataError(f"{error}; evaluate again") from error
    image, truth, prediction = arrays.values()
    grid = truth.shape
    fits = len(grid) == 3 and 0 not in grid
    fits = fits and prediction.shape == grid and image.shape == (*grid, 3)
    if not fits or {image.dtype, truth.dtype, prediction.dtype} != {np.dtype(np.uint8)}:
        raise DataError(
            f"{path}: expected uint8 image (Z, H, W, 3), truth and prediction (Z, H, W), found "
            f"{image.dtype} {image.shape}, {truth.dtype} {grid}, "
            f"{prediction.dtype} {prediction.shape}; evaluate again"
        )
    return Example(_rank(path), _case(path), image, truth, prediction)


def _from_worst_to_best(examples: list[Path], rows: list[CaseRow]) -> list[Path]:
    """Sort by rank, then by mean Dice, then by name; a case without a Dice comes last of a rank."""

    def place(path: Path) -> tuple[int, float, str]:
        own = [row for row in rows if row["case"] == _case(path)]
        dice = mean_dice(own)
        return RANKS.index(_rank(path)), math.inf if dice is None else dice, path.stem

    return sorted(examples, key=place)


def _without_paths(section: Section) -> Section:
    kept: dict[str, object] = {}
    for name, value in section:
        if isinstance(value, Path):
            kept[name] = LEFT_OUT
        elif isinstance(value, BaseModel):
            kept[name] = _without_paths(value)
    return section.model_copy(update=kept)


def _case(path: Path) -> str:
    return printable(path.stem.partition("-")[2])


def _rank(path: Path) -> str:
    return path.stem.partition("-")[0]


def _labels(
    summary: Summary | None, model: "ModelMetadata | None", epochs: list[dict[str, float | None]]
) -> tuple[str, ...]:
    if summary is not None:
        return summary.label_names
    if model is not None:
        return tuple(map(printable, model.label_names))
    columns = epochs[0] if epochs else {}
    of_classes = [column for column in columns if re.match("(val|test)_dice_", column)]
    return ("background", *(column.split("_dice_", 1)[1] for column in of_classes))


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
