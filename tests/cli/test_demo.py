"""`msa2net demo`: as long as the machine allows, and never from the beginning again."""

import shlex
import signal
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

import commands
from msa2net.benchmark.fitting import epochs_within, step_seconds
from msa2net.cli.demo import begun_demo, demo_config, fit
from msa2net.config import load_config
from msa2net.data.prepared.prepare import prepare
from msa2net.errors import ConfigError
from msa2net.training.checkpoint import Checkpoints
from msa2net.training.recorder import Recorder
from msa2net.training.run import train

command = sys.modules["msa2net.cli.demo"]  # the package's attribute is the function

SMALL = [
    "data.phantom_cases=[1,1,1]", "data.phantom_shape=[8,64,64]", "model.name=msa2net",
    "model.encoder=test_maxvit", "image_size=32", "train.batch_size=4",
]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "epochs"),
    [(0.3, 7), (0.4, 7), (0.44, 6), (0.7, 3), (0.85, 2), (9.0, 2)],
)
def test_epochs_that_fit_by_hand(step: float, epochs: int):
    """240 s, in which what follows takes as long as 120 steps: (240 / step - 120) / 64."""
    assert epochs_within(240, step, 64, 120, 7, 2) == epochs


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """A folder beside which the data of a small demo are prepared."""
    out = tmp_path_factory.mktemp("demo") / "run"
    prepare(demo_config(out, SMALL).data)
    return out


def test_a_step_is_measured_and_draws_nothing(drawn: Path):
    config = demo_config(drawn, SMALL)
    before = torch.get_rng_state()
    assert 0 < step_seconds(config, prepare(config.data), "cpu") < 60
    assert torch.equal(before, torch.get_rng_state())


def test_a_slow_machine_trains_fewer_epochs_and_says_so(drawn: Path, monkeypatch, capsys):
    config = demo_config(drawn, SMALL)  # 2 steps an epoch
    for step, epochs, said in (
        (0.1, 7, "0.10 s here: all of the demo about"),
        (
            1.0,
            5,
            "1.00 s here: 5 of 7 epochs are trained, so that all of the demo takes",
        ),
    ):
        monkeypatch.setattr("msa2net.benchmark.fitting.step_seconds", lambda *_, s=step: s)
        monkeypatch.setattr(command, "OVERHEAD", 1)
        monkeypatch.setattr(command, "TIME_S", command.FURTHER_STEPS + 12)
        monkeypatch.setattr("time.monotonic", lambda: 100.0)
        fitted = fit(config, 99.0, "cpu")
        assert fitted.train.epochs == epochs
        assert fitted.train.validate_every == (2 if epochs == 7 else epochs)  # the last counts
        printed = capsys.readouterr().out
        assert said in printed
    assert "takes about 1:01 min; its scores will be lower" in printed
    assert fitted.model_copy(update={"train": config.train}) == config


def test_an_interrupted_demo_goes_on_by_the_command_that_it_prints(tmp_path: Path, monkeypatch):
    """In a step, then while it evaluates; the epochs that were chosen first stay."""
    monkeypatch.setattr("msa2net.benchmark.fitting.step_seconds", lambda *_: 100.0)
    begin, sent = Recorder.on_train_batch_start, []

    def interrupted(recorder: Recorder, *arguments) -> None:
        if recorder.progress.step == 2 and not sent:
            sent.append(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        begin(recorder, *arguments)

    monkeypatch.setattr(Recorder, "on_train_batch_start", interrupted)
    settings = [word for setting in SMALL for word in ("--set", setting)]
    words = ["demo", "--out", "my demo", *settings, "--device", "cpu"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        stopped = commands.msa2net(*words, cwd=tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.returncode == 130, stopped.stderr
    assert "2 of 7 epochs are trained" in stopped.stdout
    (line,) = [line for line in stopped.stdout.splitlines() if "go on with" in line]
    assert line.startswith("SIGINT: saved after 1 epoch (3 steps)")
    assert shlex.split(line.split("go on with: ")[1]) == ["msa2net", *words]

    never = mock.Mock(side_effect=RuntimeError)
    monkeypatch.setattr("msa2net.benchmark.fitting.step_seconds", never)
    with mock.patch(
        "msa2net.evaluation.run.evaluate_run", mock.Mock(side_effect=KeyboardInterrupt)
    ):
        stopped = commands.msa2net(*words, cwd=tmp_path)
    assert stopped.returncode == 130
    assert stopped.stderr.startswith("error: interrupted; go on with: msa2net demo --out 'my demo'")

    done = commands.msa2net(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1/4 resuming the training that was begun in my demo; --overwr")
    run = tmp_path / "my demo"
    assert (run / "report.html").is_file()
    chosen = load_config(run / "config.yaml")
    assert (chosen.train.epochs, chosen.train.validate_every) == (2, 2)
    train(chosen, tmp_path / "whole", device="cpu")
    for name in ("model.safetensors", "metrics.csv"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_was_begun_is_known_by_its_settings(drawn: Path, tmp_path: Path):
    config, begun = demo_config(drawn, SMALL), demo_config(drawn, [*SMALL, "train.epochs=3"])
    assert begun_demo(drawn, config) is None
    from msa2net.config import dump_config

    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(dump_config(begun))
    assert begun_demo(run, config) == begun  # killed before the first checkpoint
    assert not Checkpoints(run).paths()
    longer = demo_config(drawn, [*SMALL, "train.epochs=9"])
    assert begun_demo(run, longer, by_hand=True) == longer
    other = demo_config(drawn, [*SMALL, "train.learning_rate=0.5"])
    with pytest.raises(ConfigError, match="other settings than this demo's; name another folder"):
        begun_demo(run, other)


def test_ctrl_c_before_the_first_step_says_what_to_do(drawn: Path, tmp_path: Path):
    from msa2net.config import dump_config

    path = tmp_path / "small.yaml"
    path.write_text(dump_config(demo_config(drawn, SMALL)))
    with mock.patch("msa2net.training.run.prepare", mock.Mock(side_effect=KeyboardInterrupt)):
        left = commands.msa2net("train", path, cwd=tmp_path)
    assert left.returncode == 130
    assert left.stdout == "interrupted before the first step; the same command goes on\n"
