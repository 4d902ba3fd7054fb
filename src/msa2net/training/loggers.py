"""Curves and pictures in TensorBoard, Weights & Biases or MLflow, besides `metrics.csv`.

They get the rows of `metrics.csv` and `timing.csv`, counted by epoch, before the epoch's checkpoint
is written: a training that goes on repeats what was logged after its checkpoint and nothing else.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from msa2net.config import Config, LoggerName, dump_config
from msa2net.data.case import Case
from msa2net.data.display import display_image
from msa2net.errors import ConfigError, DataError
from msa2net.files import write_text
from msa2net.inference.predictor import Predictor
from msa2net.report.overlay import overlay

FOLDER = "logs"
PICTURES = 4  # cases of each validation that are shown
Pictures = Mapping[str, NDArray[np.uint8]]


class Log(Protocol):
    """A place where curves and pictures go."""

    def write(self, epoch: int, values: Mapping[str, float], pictures: Pictures) -> None:
        """Add an epoch's numbers and pictures (H, W, 3), and bring them to the disk."""

    def close(self) -> None:
        """Finish; whatever was written stays."""


class TensorBoardLog:
    """Event files in `RUN/logs/tensorboard`; what was logged after `epoch` is taken back."""

    def __init__(self, folder: Path, config: Config, epoch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(
            folder / "tensorboard", purge_step=epoch + 1 if epoch else None
        )
        if epoch == 0:
            self.writer.add_text("config", f"```yaml\n{dump_config(config)}```", 0)

    def write(self, epoch: int, values: Mapping[str, float], pictures: Pictures) -> None:
        """Add scalars and images."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        for name, picture_HW3 in pictures.items():
            self.writer.add_image(f"validation/{name}", picture_HW3, epoch, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()


class WandbLog:
    """A run of Weights & Biases that goes on under the same id; files in `RUN/logs/wandb`."""

    def __init__(self, folder: Path, config: Config, _: int) -> None:
        self.wandb = importlib.import_module("wandb")
        folder.mkdir(parents=True, exist_ok=True)
        known = _remembered(folder / "wandb-id")
        self.run = self.wandb.init(
            project="msa2net",
            name=folder.parent.name,
            id=known,
            resume="allow" if known else None,
            dir=folder,
            config=config.model_dump(mode="json"),
        )
        write_text(folder / "wandb-id", self.run.id)

    def write(self, epoch: int, values: Mapping[str, float], pictures: Pictures) -> None:
        """Log a step; one that the run has already is ignored by the service."""
        shown = {f"validation/{name}": self.wandb.Image(x) for name, x in pictures.items()}
        self.run.log({**values, **shown}, step=epoch)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


class MlflowLog:
    """A run of MLflow that goes on under the same id, where its tracking URI points."""

    def __init__(self, folder: Path, config: Config, _: int) -> None:
        self.mlflow = importlib.import_module("mlflow")
        folder.mkdir(parents=True, exist_ok=True)
        known = _remembered(folder / "mlflow-id")
        if known is None:
            self.mlflow.set_experiment("msa2net")
        run = self.mlflow.start_run(run_id=known, run_name=folder.parent.name)
        if known is None:
            self.mlflow.log_text(dump_config(config), "config.yaml")
        write_text(folder / "mlflow-id", run.info.run_id)

    def write(self, epoch: int, values: Mapping[str, float], pictures: Pictures) -> None:
        """Log numbers and pictures under the epoch."""
        self.mlflow.log_metrics(dict(values), step=epoch)
        for name, picture_HW3 in pictures.items():
            self.mlflow.log_image(picture_HW3, f"validation/{name}/epoch{epoch:05d}.png")

    def close(self) -> None:
        """Finish the run."""
        self.mlflow.end_run()


LOGS: dict[LoggerName, Callable[[Path, Config, int], Log]] = {
    "tensorboard": TensorBoardLog,
    "wandb": WandbLog,
    "mlflow": MlflowLog,
}


class Loggers:
    """All logs of a run; one that fails on the way is named and left out, the training goes on.

    Args:
        run: the run folder.
        config: which logs, and what the run is.
        notices: takes a sentence about one that failed.
    """

    def __init__(self, run: Path, config: Config, notices: Callable[[str], None]) -> None:
        self.run, self.config, self.notices = run, config, notices
        self._logs: dict[LoggerName, Log] = {}

    def open(self, epoch: int) -> None:
        """Open all logs, to go on after `epoch` finished epochs.

        Raises:
            ConfigError: one cannot be opened; better known now than after the first epoch.
        """
        for name in self.config.train.loggers:
            try:
                self._logs[name] = LOGS[name](self.run / FOLDER, self.config, epoch)
            except Exception as error:  # each has ways of its own to fail
                raise ConfigError(
                    f"{name} cannot be opened: {_one_line(error)}; set it up, or take it out of "
                    "train.loggers"
                ) from error

    def write(self, row: Mapping[str, Any], timing: Mapping[str, Any], pictures: Pictures) -> None:
        """Write an epoch's rows of both tables; empty cells are left out."""
        epoch = int(row["epoch"])
        values = {
            name: float(value)
            for name, value in {**row, **timing}.items()
            if name != "epoch" and value is not None
        }
        for name, log in list(self._logs.items()):
            self._try(name, partial(log.write, epoch, values, pictures))

    def close(self) -> None:
        """Close what was opened."""
        for name, log in list(self._logs.items()):
            self._try(name, log.close)

    def _try(self, name: LoggerName, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # a service that is down must not end a training
            del self._logs[name]
            self.notices(
                f"{name} is left out from here on: {_one_line(error)}; metrics.csv has all rows"
            )


def check_loggers(names: Sequence[LoggerName]) -> None:
    """Refuse logs whose packages are not installed.

    Raises:
        ConfigError: naming them and what to type.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"train.loggers names {', '.join(missing)}, which is not installed; "
            'pip install ".[logging]" in msa2net\'s folder, or remove it: metrics.csv is always '
            "written"
        )


def sample_picture(predictor: Predictor, case: Case, found_ZHW: NDArray[np.uint8]) -> NDArray[Any]:
    """Paint the true and the found labels side by side, in the slice with most of them.

    Returns:
        (H, 2·W, 3) uint8.

    Raises:
        DataError: the case has no labels.
    """
    if case.label is None:
        raise DataError(f"case {case.id} has no labels to show")
    painted = (case.label > 0) | (found_ZHW > 0)
    z = int(painted.sum(axis=(1, 2)).argmax())
    window = (
        () if case.image.dtype == np.uint8 else predictor.preprocessing.intensity_range(case.image)
    )
    picture_HW3 = display_image(case.image[:, z : z + 1], *window)[0]
    classes = len(predictor.label_names)
    pair = (np.asarray(labels[z]) for labels in (case.label, found_ZHW))
    return np.hstack([overlay(picture_HW3, labels_HW, num_classes=classes) for labels_HW in pair])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _remembered(file: Path) -> str | None:
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None
