"""Curves and pictures beside metrics.csv, and the line that shows a training's progress."""

import contextlib
import csv
import importlib.util
import io
import itertools
import math
import re
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import resumed
from msa2net.cli.bar import EpochLines, TrainingBar, as_time, fit_to_width, progress_lines
from msa2net.cli.console import looks, track, training_progress
from msa2net.data.case import Case
from msa2net.data.phantom.files import write_phantom
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError
from msa2net.inference.predictor import Predictor
from msa2net.training import loggers
from msa2net.training.loggers import check_loggers, sample_picture


def needs(package: str) -> pytest.MarkDecorator:
    found = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not found, reason=f"{package} is not installed")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("loggers")
    write_phantom("isic2018", root / "raw", cases=13)
    return root


def rows(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv and timing.csv together."""
    tables = [list(csv.DictReader((run / name).open())) for name in ("metrics.csv", "timing.csv")]
    return [one | two for one, two in zip(*tables, strict=True)]


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the event files back with TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "logs" / "tensorboard")).Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def assert_curves_are_the_tables(run: Path) -> None:
    found, table = curves(run), rows(run)
    assert found.keys() == table[0].keys() - {"epoch"}
    for name, points in found.items():
        assert [step for step, _ in points] == [int(row["epoch"]) for row in table], name
        values = [float(row[name]) for row in table]
        assert [value for _, value in points] == pytest.approx(values, rel=1e-6), name


@needs("tensorboard")
def test_tensorboard_has_the_tables_and_pictures(workplace: Path, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = resumed.settings(workplace, **{"train.loggers": "[tensorboard]", "train.epochs": 3})
    resumed.train(workplace, tmp_path / "run", config=config)
    assert_curves_are_the_tables(tmp_path / "run")
    events = EventAccumulator(
        str(tmp_path / "run" / "logs" / "tensorboard"), size_guidance={"images": 0}
    ).Reload()
    (tag,) = events.Tags()["images"]  # one case validates
    assert tag.startswith("validation/ISIC_")
    pictures = events.Images(tag)
    assert [picture.step for picture in pictures] == [1, 2, 3]
    shown = np.asarray(Image.open(io.BytesIO(pictures[0].encoded_image_string)))
    assert shown.shape == (256, 512, 3)


@needs("tensorboard")
@pytest.mark.parametrize("moment", [8, 30, 38, 40, 46, 54])
def test_an_interrupted_training_has_the_same_curves(
    workplace: Path, tmp_path: Path, moment: int, monkeypatch
):
    """Cut off anywhere, each epoch is there exactly once, with the values of the tables."""
    seconds = itertools.count(2_000_000_000)  # event files go by theirs
    monkeypatch.setattr(
        "tensorboard.summary.writer.event_file_writer.time",
        SimpleNamespace(time=lambda: next(seconds)),
    )
    run, left = tmp_path / "run", [moment]

    class CutOffError(Exception):
        pass

    def act(kind: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise CutOffError

    config = resumed.settings(workplace, **{"train.loggers": "[tensorboard]"})
    patches = resumed.writing(act)
    with patches[0], patches[1], patches[2], pytest.raises(CutOffError):
        resumed.train(workplace, run, config=config, callbacks=[resumed.Moments(act)])
    resumed.train(workplace, run, config=config, resume=True)
    assert_curves_are_the_tables(run)
    resumed.train(
        workplace,
        run,
        config=resumed.settings(workplace, **{"train.loggers": "[tensorboard]", "train.epochs": 4}),
        resume=True,
    )
    assert_curves_are_the_tables(run)


def test_logs_change_nothing_and_may_change(workplace: Path, tmp_path: Path):
    """Other logs are no other training."""
    seen: list[int] = []

    class Log:
        def __init__(self, folder, config, epoch) -> None:
            seen.append(epoch)

        def write(self, epoch, values, pictures) -> None:
            seen.append(epoch)
            assert all(math.isfinite(value) for value in values.values())

        def close(self) -> None:
            seen.append(-1)

    config = resumed.settings(workplace, **{"train.loggers": "[wandb]"})
    with (
        mock.patch.dict(loggers.LOGS, {"wandb": Log}),
        mock.patch("msa2net.training.session.check_loggers"),
    ):
        resumed.train(workplace, tmp_path / "one", config=config)
    assert seen == [0, 1, 2, -1]
    resumed.train(workplace, tmp_path / "two")
    assert resumed.equal(resumed.states(tmp_path / "one"), resumed.states(tmp_path / "two"))
    longer = resumed.settings(workplace, **{"train.epochs": 3})
    resumed.train(workplace, tmp_path / "one", config=longer, resume=True)


def test_a_log_that_fails_is_left_out_and_the_training_goes_on(workplace: Path, tmp_path: Path):
    class Down:
        def __init__(self, *_) -> None:
            pass

        def write(self, epoch, values, pictures) -> None:
            raise ConnectionError("the service\nis down")

        def close(self) -> None:
            raise AssertionError

    notices: list[str] = []
    config = resumed.settings(workplace, **{"train.loggers": "[mlflow]"})
    with (
        mock.patch.dict(loggers.LOGS, {"mlflow": Down}),
        mock.patch("msa2net.training.session.check_loggers"),
    ):
        result = resumed.train(workplace, tmp_path / "run", config=config, notices=notices.append)
    assert result.finished
    assert notices == [
        "mlflow is left out from here on: the service is down; metrics.csv has all rows"
    ]


def test_a_log_that_cannot_be_opened_is_said_before_training(workplace: Path, tmp_path: Path):
    def no_key(*_) -> None:
        raise PermissionError("api_key\nnot configured")

    config = resumed.settings(workplace, **{"train.loggers": "[wandb]"})
    with (
        mock.patch.dict(loggers.LOGS, {"wandb": no_key}),
        mock.patch("msa2net.training.session.check_loggers"),
        pytest.raises(ConfigError, match="wandb cannot be opened: api_key not configured; set it"),
    ):
        resumed.train(workplace, tmp_path / "run", config=config)
    assert not (tmp_path / "run" / "metrics.csv").exists()
    resumed.train(workplace, tmp_path / "run", overwrite=True)


def test_a_log_that_is_not_installed_is_one_sentence(workplace: Path, tmp_path: Path):
    config = resumed.settings(workplace, **{"train.loggers": "[wandb, mlflow]"})
    with (
        mock.patch("importlib.util.find_spec", return_value=None),
        pytest.raises(ConfigError, match=r'wandb, mlflow, which .* pip install "\.\[logging\]"'),
    ):
        resumed.train(workplace, tmp_path / "run", config=config)
    assert not (tmp_path / "run").exists()
    check_loggers(())
    with pytest.raises(ConfigError, match=r"'train.loggers.0' is 'comet'"):
        resumed.settings(workplace, **{"train.loggers": "[comet]"})


@needs("wandb")
def test_wandb_goes_on_under_one_id(workplace: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = resumed.settings(workplace, **{"train.loggers": "[wandb]", "train.epochs": 1})
    resumed.train(workplace, tmp_path / "run", config=config)
    first = (tmp_path / "run" / "logs" / "wandb-id").read_text()
    longer = resumed.settings(workplace, **{"train.loggers": "[wandb]", "train.epochs": 2})
    resumed.train(workplace, tmp_path / "run", config=longer, resume=True)
    assert (tmp_path / "run" / "logs" / "wandb-id").read_text() == first
    assert len(list((tmp_path / "run" / "logs").glob(f"wandb/offline-run-*{first}"))) == 2


@needs("mlflow")
def test_mlflow_goes_on_in_one_run(workplace: Path, tmp_path: Path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the slim package brings no database
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    config = resumed.settings(workplace, **{"train.loggers": "[mlflow]", "train.epochs": 1})
    resumed.train(workplace, tmp_path / "run", config=config)
    longer = resumed.settings(workplace, **{"train.loggers": "[mlflow]", "train.epochs": 2})
    resumed.train(workplace, tmp_path / "run", config=longer, resume=True)
    identity = (tmp_path / "run" / "logs" / "mlflow-id").read_text()
    points = mlflow.MlflowClient().get_metric_history(identity, "train_loss")
    assert [point.step for point in points] == [1, 2]


def test_the_sample_picture_by_hand():
    """Truth left, answer right, in the slice with most of both."""
    image = np.zeros((1, 3, 4, 4), np.uint8)
    image[0, 1] = 200
    label = np.zeros((3, 4, 4), np.uint8)
    found = label.copy()
    label[1, :2], label[0, 0] = 1, 1
    found[1, 3, 3] = 1
    predictor = Predictor(
        torch.nn.Identity(),
        Preprocessing(channels=1, image_size=(32, 32), fit="stretch", intensity="fixed"),
        ("background", "x"),
    )
    picture = sample_picture(predictor, Case("a", image, label), found)
    assert picture.shape == (4, 8, 3)
    changed = (picture != 200).any(axis=-1)
    assert changed[:, :4].tolist() == (label[1] > 0).tolist()
    assert changed[:, 4:].tolist() == (found[1] > 0).tolist()


# The line that shows progress ---------------------------------------------------------------------


def shown(workplace: Path, run: Path, **options) -> list[str]:
    """What the bar said, line by line, in a training that takes a second a batch."""
    lines: list[str] = []
    bar = TrainingBar(Console(file=io.StringIO(), force_terminal=True, width=200))
    update = bar.bar.update

    def note(line, **values) -> None:
        lines.append(f"{values['description']} {values['facts']}")
        update(line, **values)

    bar.bar.update = note
    resumed.train(workplace, run, callbacks=[*options.pop("callbacks", []), bar], **options)
    return lines


def test_the_bar_says_where_how_fast_and_how_long(workplace: Path, tmp_path: Path, monkeypatch):
    clock = [100.0]

    class Clock(L.Callback):
        def on_train_batch_start(self, *_) -> None:
            clock[0] += 1

    monkeypatch.setattr("msa2net.cli.bar.time.monotonic", lambda: clock[0])
    lines = shown(workplace, tmp_path / "run", callbacks=[Clock()])
    assert lines[0] == "epoch 1/2 step 0/8"
    assert lines[1].startswith("epoch 1/2 step 1/8 · loss ")
    assert lines[1].endswith(" · 2 images/s · 7 s left")  # 2 a second, 7 steps to go
    assert any(line.endswith("validating 1/1") for line in lines)
    second = next(line for line in lines if line.startswith("epoch 2/2 step 5/8"))
    assert " · Dice 0." in second
    assert second.endswith("2 images/s · 3 s left")
    assert not any("/0" in line for line in lines)


def test_in_a_narrow_terminal_the_bar_leaves_out_what_says_least():
    facts = {
        "step": "step 1234/90000",
        "loss": "loss 0.1234",
        "dice": "Dice 0.812, best 0.820",
        "speed": "12.3 images/s",
        "left": "1:02:03 h left",
    }
    assert fit_to_width(facts, 200) == " · ".join(facts.values())
    assert (
        fit_to_width(facts, 70)
        == "loss 0.1234 · Dice 0.812, best 0.820 · 12.3 images/s · 1:02:03 h left"
    )
    assert fit_to_width(facts, 55) == "loss 0.1234 · Dice 0.812, best 0.820 · 1:02:03 h left"
    validating = facts | {"doing": "validating 11/12"}
    assert (
        fit_to_width(validating, 58) == "Dice 0.812, best 0.820 · 1:02:03 h left · validating 11/12"
    )
    assert fit_to_width(validating, 10) == "1:02:03 h left · validating 11/12"


def test_the_bar_of_a_resumed_training_counts_from_where_it_stands(workplace: Path, tmp_path: Path):
    config = resumed.settings(workplace, **{"train.max_time": 0.0001})
    resumed.train(workplace, tmp_path / "run", config=config)
    longer = resumed.settings(workplace, **{"train.epochs": 3})
    lines = shown(workplace, tmp_path / "run", config=longer, resume=True)
    assert lines[0].startswith("epoch 1/3 step 1/12")
    assert "left" not in lines[0]
    assert "images/s" in lines[1]
    assert "epoch 3/3 step 12/12" in lines[-1]


def test_without_a_terminal_there_is_a_line_an_epoch(workplace: Path, tmp_path: Path, monkeypatch):
    """Also of an epoch whose validation was cut off and is all that is left to do."""
    clock = [100.0]

    class Clock(L.Callback):
        def on_train_batch_start(self, *_) -> None:
            clock[0] += 1

    monkeypatch.setattr("msa2net.cli.bar.time.monotonic", lambda: clock[0])
    lines: list[str] = []
    changes = {"train.epochs": 3, "train.validate_every": 2}
    config = resumed.settings(workplace, **changes)
    shown = [Clock(), EpochLines(lines.append)]
    resumed.train(workplace, tmp_path / "run", config=config, callbacks=shown)
    number = r"\d\.\d{3}"
    assert len(lines) == 3
    assert re.fullmatch(r"epoch 1/3, loss \d\.\d{4}, [\d.e+]+ images/s, 8 s left", lines[0])
    dice = rf"val Dice {number} \(best {number}\)"
    assert re.fullmatch(rf"epoch 2/3, loss .*, {dice}, .* images/s, 4 s left", lines[1])
    assert re.fullmatch(r"epoch 3/3, loss .* images/s", lines[2])

    class CutOffError(Exception):
        pass

    class Cut(L.Callback):
        def on_validation_end(self, *_) -> None:
            raise CutOffError

    lines.clear()
    for resume in (False, True):
        cut = contextlib.nullcontext() if resume else pytest.raises(CutOffError)
        callbacks = [EpochLines(lines.append), *([] if resume else [Cut()])]
        one = resumed.settings(workplace, **{"train.epochs": 1, "train.checkpoint_minutes": 1e-9})
        with cut:
            resumed.train(
                workplace, tmp_path / "cut", config=one, callbacks=callbacks, resume=resume
            )
    assert [line.partition(",")[0] for line in lines] == ["epoch 1/1"]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal_gets_bars_and_a_file_gets_no_empty_lines(terminal: bool, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    monkeypatch.setattr("msa2net.cli.console.console", lambda: screen)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(training_progress(verbose=True), TrainingBar if terminal else EpochLines)
    assert list(track(iter("abc"), 3, "going")) == ["a", "b", "c"]
    assert ("going" in screen.file.getvalue()) == terminal
    assert terminal or screen.file.getvalue() == ""


def test_without_a_terminal_the_end_of_a_training_is_a_line_a_minute(monkeypatch):
    clock, lines = [0.0], []
    monkeypatch.setattr("msa2net.cli.bar.time.monotonic", lambda: clock[0])
    for _ in progress_lines(range(8), 8, "measuring", lines.append):
        clock[0] += 40
    assert lines == [
        "measuring, 8 steps",
        "measuring, step 2/8, 4:00 min left",
        "measuring, step 4/8, 2:40 min left",
        "measuring, step 6/8, 1:20 min left",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_the_end_of_a_training_is_shown(terminal: bool, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    monkeypatch.setattr("msa2net.cli.console.console", lambda: screen)
    monkeypatch.setenv("TERM", "xterm")
    assert list(looks(range(3), 3)) == [0, 1, 2]
    assert "fitting the reference ranges" in screen.file.getvalue()
    assert terminal or screen.file.getvalue() == "fitting the reference ranges, 3 steps\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (185, "3:05 min"), (7385, "2:03:05 h"), (93785, "1 d 2:03:05 h")],
)
def test_durations_by_hand(seconds: float, text: str):
    assert as_time(seconds) == text
