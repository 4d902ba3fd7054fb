"""A training that is cut off anywhere goes on to the very same end."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import lightning as L
import pytest
import torch

import commands
import resumed
from msa2net.config import dump_config, load_config
from msa2net.data.loading.slices import SliceDataset
from msa2net.data.phantom.files import write_phantom
from msa2net.errors import ConfigError, DataError, WeightsError
from msa2net.inference.run_folder import read_facts
from msa2net.training.checkpoint import Checkpoints
from msa2net.training.checkpoint_state import what_is_missing
from msa2net.training.stopping import StopRequest, TrainingInterrupted
from resumed import CutOffError, assert_same_run, cut_off

CASES = 13  # 9 are trained on, in 4 batches of 2; 1 validates


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("resume")
    write_phantom("isic2018", root / "raw", cases=CASES)
    return root


@pytest.fixture(scope="module")
def whole(workplace: Path) -> Path:
    """The uninterrupted run."""
    resumed.train(workplace, workplace / "whole")
    return workplace / "whole"


@pytest.fixture(scope="module")
def whole_network(workplace: Path) -> Path:
    """The uninterrupted run of the real network."""
    resumed.train(workplace, workplace / "whole-network", tiny=False)
    return workplace / "whole-network"


# Killed -------------------------------------------------------------------------------------------


KILLS = {"step": 11, "saving": 6, "validation": 1}


@pytest.fixture(scope="module")
def killed(workplace: Path, whole_network: Path, tmp_path_factory) -> Path:
    """A folder of runs of the real network, each named after the moment of its kill."""
    root = tmp_path_factory.mktemp("killed")
    words = [word for moment, count in KILLS.items() for word in (root / moment, moment, count)]
    done = subprocess.run(
        [sys.executable, resumed.__file__, workplace, *map(str, words)],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(-signal.SIGKILL)] * len(KILLS), done.stderr
    return root


@pytest.mark.parametrize("moment", KILLS)
def test_a_killed_process_goes_on_to_the_same_end(
    workplace: Path, killed: Path, whole_network: Path, moment: str
):
    run = killed / moment
    resumed.train(workplace, run, tiny=False, resume=True)
    assert_same_run(run, whole_network)


def test_cut_off_after_the_last_epoch(workplace: Path, tmp_path: Path, whole: Path):
    """All epochs are done, but what is usual of their cases was not noted yet."""
    run = tmp_path / "run"

    def die(*_) -> None:
        raise CutOffError

    with (
        mock.patch.object(resumed.training, "write_reference_ranges", die),
        pytest.raises(CutOffError),
    ):
        resumed.train(workplace, run)
    assert json.loads((run / "model.json").read_text())["reference_ranges"] is None
    resumed.train(workplace, run, resume=True)
    assert_same_run(run, whole)
    usual = json.loads((run / "model.json").read_text())["reference_ranges"]
    assert (usual["train_cases"], usual["val_cases"]) == (9, 1)
    assert (run / "MODEL_CARD.md").read_text() == (whole / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_last_epoch_leaves_a_run_that_works(
    workplace: Path, tmp_path: Path, whole: Path, signum: int
):
    """Between two cases that are measured; what is left is done later, and nothing trained anew."""
    run, shown = tmp_path / "run", []

    def looks(numbers, total: int):
        for number in numbers:
            if number == 11:
                signal.raise_signal(signum)
            shown.append((number, total))
            yield number

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        with pytest.raises(TrainingInterrupted) as stopped:
            resumed.train(workplace, run, looks=looks)
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert (stopped.value.signum, stopped.value.epochs) == (signum, 2)
    assert shown[-1] == (11, 20)  # 9 training cases twice, a validation case twice
    facts = read_facts(run)
    assert facts.reference_ranges is None
    assert facts.training["epochs_run"] == facts.training["epochs"] == 2
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()

    class NoStep(L.Callback):
        def on_train_batch_start(self, *_) -> None:
            raise AssertionError

    shown.clear()
    result = resumed.train(
        workplace, run, resume=True, callbacks=[NoStep()],
        looks=lambda numbers, total: [(shown.append(number), number)[1] for number in numbers],
    )  # fmt: skip
    assert result.finished
    assert shown == list(range(20))
    assert_same_run(run, whole)
    assert (run / "MODEL_CARD.md").read_text() == (whole / "MODEL_CARD.md").read_text()


def test_too_little_memory_after_the_last_epoch_is_explained(
    workplace: Path, tmp_path: Path, whole: Path
):
    failing = mock.Mock(side_effect=MemoryError)
    with (
        mock.patch("msa2net.training.fit_quality.measure_input", failing),
        pytest.raises(ConfigError, match="not enough memory on cpu while validating: .* go on"),
    ):
        resumed.train(workplace, tmp_path / "run")
    resumed.train(workplace, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)


def test_a_lengthened_run_that_is_stopped_tells_how_far_it_is(
    workplace: Path, tmp_path: Path, whole: Path
):
    """Its weights may stay those of the first training."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    longer = resumed.settings(workplace, **{"train.epochs": 5, "train.learning_rate": 1e-12})
    before = read_facts(run).training

    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, *_) -> None:
            if trainer.current_epoch == 3:
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(TrainingInterrupted):
        resumed.train(
            workplace, run, resume=True, accept_changes=True, config=longer, callbacks=[Stop()]
        )
    after = read_facts(run).training
    assert (after["epochs"], after["epochs_run"]) == (5, 3)
    assert after["seconds"] > before["seconds"]
    assert after["seconds"] == round(Checkpoints(run).load()[0]["progress"]["seconds"], 1)


def test_a_compiled_training_validates_alike_when_it_goes_on(
    workplace: Path, tmp_path: Path, monkeypatch
):
    """Attention rounds otherwise in it, also where no step comes before the validation."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    config = resumed.settings(workplace, **{"train.compile": True})
    whole, run = tmp_path / "whole", tmp_path / "run"
    resumed.train(workplace, whole, tiny=False, config=config)

    def die(_, network: torch.nn.Module) -> None:
        assert not any(vars(module).get("fused_attn") for module in network.modules())
        raise CutOffError

    for moment in ("on_validation_start", "on_validation_end"):
        callback = L.Callback()
        setattr(callback, moment, die)
        with pytest.raises(CutOffError):
            resumed.train(
                workplace, run, tiny=False, config=config, callbacks=[callback], resume=run.exists()
            )
    resumed.train(workplace, run, tiny=False, config=config, resume=True)
    assert_same_run(run, whole)


EVERY_BATCH, EPOCH_ENDS = 1e-9, 0


@pytest.mark.parametrize(
    ("minutes", "stride"),
    [
        (EVERY_BATCH, 9),
        (EPOCH_ENDS, 7),
        pytest.param(EVERY_BATCH, 1, marks=pytest.mark.slow),
        pytest.param(EPOCH_ENDS, 1, marks=pytest.mark.slow),
    ],
)
def test_cut_off_at_every_moment(
    workplace: Path, tmp_path: Path, whole: Path, minutes: float, stride: int
):
    """Once at each: in each step, each write, each validation, each boundary of two epochs."""
    config = resumed.settings(workplace, **{"train.checkpoint_minutes": minutes})
    run, count = tmp_path / "run", 1
    while cut_off(workplace, run, count, config=config):
        started = bool(Checkpoints(run).paths())
        resumed.train(workplace, run, resume=started, overwrite=not started, config=config)
        assert_same_run(run, whole)
        shutil.rmtree(run)
        count += stride
    assert count > 50


def test_cut_off_again_and_again(workplace: Path, tmp_path: Path, whole: Path):
    """Every life of the training is a few moments long; it gets there all the same."""
    run, lives = tmp_path / "run", 1
    while cut_off(workplace, run, 9 + lives % 4, resume=lives > 1):
        lives += 1
    assert lives > 5
    assert_same_run(run, whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workplace: Path, tmp_path: Path, whole: Path, workers: int):
    run = tmp_path / "run"
    assert cut_off(workplace, run, 12)
    other = resumed.settings(workplace, **{"train.workers": workers})
    resumed.train(workplace, run, resume=True, config=other)
    assert_same_run(run, whole)


@pytest.mark.parametrize(
    "changes",
    [
        {"train.optimizer": "sgd", "train.schedule": "poly"},
        {"train.precision": "bf16-mixed", "train.keep": "last", "train.accumulate": 2},
        {"train.max_steps": 6},
        {"train.validate_every": 2, "train.epochs": 3},
        {"train.early_stopping": 1, "train.epochs": 9, "train.learning_rate": 1e-12},
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [20, 45])
def test_other_settings_resume_too(workplace: Path, tmp_path: Path, changes: dict, count: int):
    config = resumed.settings(workplace, **changes)
    resumed.train(workplace, tmp_path / "whole", config=config)
    cut_off(workplace, tmp_path / "run", count, config=config)
    resumed.train(workplace, tmp_path / "run", resume=True, config=config)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_thirty_kills_at_random_moments(workplace: Path, tmp_path: Path, capfd):
    """Killed from outside at no particular moment: while it prepares, steps, saves, validates."""
    config = resumed.settings(workplace, **{"train.epochs": 4})
    resumed.train(workplace, tmp_path / "whole", config=config)
    draw, kills, runs = random.Random(0), 0, 0
    while kills < 30:
        run, code = tmp_path / f"run{runs}", None
        while code != 0:
            words = [sys.executable, resumed.__file__, workplace, run, "slowly", "0"]
            with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()  # imports are done
                if kills < 30:
                    time.sleep(draw.uniform(0.3, 4))
                    process.kill()
                process.communicate()
            code = process.returncode
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
        assert_same_run(run, tmp_path / "whole")
        runs += 1
    with capfd.disabled():
        sys.stdout.write(f"\n{kills} kills, {runs} runs, each equal to the uninterrupted one\n")


# Signals and time ---------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["step", "validation"])
def test_a_signal_saves_and_leaves(
    workplace: Path, tmp_path: Path, whole: Path, signum: int, moment: str
):
    """Only at epoch ends otherwise: what is there to go on from was saved for the signal."""
    sent = []

    def act(kind: str) -> None:
        if kind == moment and not sent:
            sent.append(kind)
            signal.raise_signal(signum)

    config = resumed.settings(workplace, **{"train.checkpoint_minutes": 0})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        with pytest.raises(TrainingInterrupted) as stopped:
            resumed.train(
                workplace, tmp_path / "run", config=config, callbacks=[resumed.Moments(act)]
            )
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert stopped.value.signum == signum
    assert stopped.value.steps == {"step": 1, "validation": 4}[moment]
    assert "-step0000000" in Checkpoints(tmp_path / "run").paths()[0].name
    resumed.train(workplace, tmp_path / "run", resume=True, config=config)
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.slow  # signals to a group of processes, on whatever machine runs this
def test_ctrl_c_reaches_workers_too_and_only_the_training_answers(workplace: Path, tmp_path: Path):
    """A terminal sends it to the whole group; workers that died of it would lose the batch."""
    path = tmp_path / "small.yaml"
    resumed.settings(workplace, **{})
    path.write_text(next(workplace.glob("settings-*.yaml")).read_text())
    # A shell that starts pytest in the background lets it ignore SIGINT, and all it starts with it.
    code = (
        "import signal; from msa2net.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler); main()"
    )
    words = [sys.executable, "-c", code, "train", path, "--out", tmp_path / "run"]
    words += ["--set", "train.epochs=1000", "--set", "train.workers=2", "--device", "cpu"]
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        give_up = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < give_up:
            if any(
                "step00000000" not in path.name for path in Checkpoints(tmp_path / "run").paths()
            ):
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            pytest.fail(f"it did not leave: {out}{err}")
    assert process.returncode == 128 + signal.SIGINT, err
    assert "SIGINT: saved after" in out
    assert "Traceback" not in err
    assert Checkpoints(tmp_path / "run").load()[1] == []


def test_a_worker_that_hangs_does_not_keep_the_training(
    workplace: Path, tmp_path: Path, monkeypatch
):
    """Workers ignore signals, and so the request to leave: Python would wait for them at exit."""
    load, loaded = SliceDataset.__getitem__, []

    def hang(dataset: SliceDataset, position: tuple[int, int]):
        loaded.append(position)  # in the worker's memory
        if len(loaded) > 4:  # two batches are needed for the first step: the loop looks ahead
            time.sleep(600)
        return load(dataset, position)

    class Leave(L.Callback):
        def on_train_batch_end(self, *_) -> None:
            raise CutOffError

    monkeypatch.setattr(SliceDataset, "__getitem__", hang)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)  # torch's patience
    before = multiprocessing.active_children()
    config = resumed.settings(workplace, **{"train.workers": 1})
    with pytest.raises(CutOffError):
        resumed.train(workplace, tmp_path / "run", config=config, callbacks=[Leave()])
    assert multiprocessing.active_children() == before


def test_a_second_signal_ends_the_process():
    code = (
        "import signal\n"
        "from msa2net.training.stopping import StopRequest\n"
        "with StopRequest(None) as stop:\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    assert stop.signum == signal.SIGTERM and stop.check(0)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "raise SystemExit(3)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGTERM


def test_the_limit_leaves_room_for_one_more_batch_and_for_saving(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    stop = StopRequest(100)
    checks = []
    for now in (5, 15, 20, 60):  # the longest time between two looks is 10, then 40
        clock[0] = now
        checks.append(stop.check(saving_seconds=4))
    assert checks == [False, False, False, True]  # 60 + 2·(40 + 4) ≥ 100
    assert stop.out_of_time
    clock[0] = 0
    assert StopRequest(None).check(1e9) is False


def test_a_long_preparation_is_not_taken_for_a_long_batch(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    stop = StopRequest(100)
    clock[0] = 40
    with stop:
        clock[0] = 45
        assert stop.check(saving_seconds=4) is False  # 45 + 2·(5 + 4) < 100
    assert stop.check(saving_seconds=23) is True  # 45 + 2·(5 + 23) ≥ 100


def test_a_training_out_of_time_is_told_how_to_go_on(workplace: Path, tmp_path: Path, whole: Path):
    config = resumed.settings(workplace, **{"train.max_time": 0.0001})
    result = resumed.train(workplace, tmp_path / "run", config=config)
    assert (result.finished, result.epochs) == (False, 0)
    resumed.train(workplace, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", whole)


# What is no longer the same -----------------------------------------------------------------------


@pytest.fixture
def stopped(workplace: Path, tmp_path: Path) -> Path:
    """A run that was cut off in its second epoch."""
    assert cut_off(workplace, tmp_path / "run", 42)
    return tmp_path / "run"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    workplace: Path, stopped: Path, whole: Path, damage
):
    newest = Checkpoints(stopped).paths()[0]
    damage(newest)
    notices: list[str] = []
    resumed.train(workplace, stopped, resume=True, notices=notices.append)
    assert len(notices) == 1
    assert f"{newest} is damaged (its checksum is another); the one before is taken" in notices[0]
    assert_same_run(stopped, whole)


def forge(run: Path, changes: dict) -> None:
    """Leave one checkpoint in a run: the last one with entries replaced, its checksum right."""
    paths = Checkpoints(run).paths()
    state = torch.load(paths[0], weights_only=True)
    for name, value in changes.items():
        *outer, last = name.split("/")
        place = state
        for key in outer:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    for path in paths:
        path.unlink()
    del state["schema"]
    Checkpoints(run).save(state, 9, 9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"progress": None}, "progress is missing"),
        ({"progress": {}}, "progress.epoch is missing"),
        ({"progress/table": []}, "counts 2 finished epochs and its table has 0 rows"),
        ({"progress/kept": None}, "progress.kept is missing"),
        ({"progress/epoch": "three"}, "progress.epoch is 'three'"),
        ({"progress/step": -1}, "progress.step is -1"),
        ({"progress/more": 1}, "progress.more is 1"),
        ({"progress/timing": [3]}, "progress.timing.0 is 3"),
        ({"progress/kept": {}}, "best_epoch is missing"),
        ({"states": {}}, "states lack model, optimizer, schedule"),
        ({"states/model": {"first.weight": 3}}, "states.model holds something else than tensors"),
        ({"states/optimizer/param_groups": 3}, "no groups of weights"),
        ({"states/schedule/step": 3}, "states.schedule holds 'step'"),
        ({"config": {"train": 3}}, "how many epochs"),
        ({"config": 3}, "config is 3"),
        ({"config/image_size": torch.zeros(2)}, "config holds more than settings"),
        ({"data": {}}, "data.format is missing"),
        ({"versions": None}, "versions is missing"),
        ({"steps_per_epoch": 0}, "steps_per_epoch is 0"),
    ],
)
def test_a_checkpoint_with_foreign_fields_is_damaged(
    tmp_path: Path, whole: Path, changes: dict, words: str
):
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    forge(tmp_path, changes)
    assert words in what_is_missing(torch.load(Checkpoints(tmp_path).paths()[0]))
    with pytest.raises(WeightsError, match="all checkpoints in .* are damaged, the newest: "):
        Checkpoints(tmp_path).load()


SHAPE = torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"states/model/first.weight": SHAPE}, "the checkpoint's model does not fit this network"),
        ({"states/model/more": SHAPE}, r"1 unexpected \(more\)"),
        ({"states/optimizer/state": {0: {"exp_avg": SHAPE}}}, "optimiser does not fit"),
        ({"states/optimizer/state": {99: {}}}, "optimiser does not fit"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(
    workplace: Path, stopped: Path, changes: dict, words: str
):
    forge(stopped, changes)
    with pytest.raises(WeightsError, match=words):
        resumed.train(workplace, stopped, resume=True)


def test_a_checkpoint_that_finds_no_memory_is_not_called_damaged(
    workplace: Path, stopped: Path, whole: Path
):
    said = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")
    with (
        mock.patch("msa2net.training.checkpoint.torch.load", side_effect=said),
        pytest.raises(ConfigError, match=r"not enough memory while training .*; lower train.batch"),
    ):
        resumed.train(workplace, stopped, resume=True)
    resumed.train(workplace, stopped, resume=True)
    assert_same_run(stopped, whole)


def test_nothing_to_go_on_from_is_one_sentence(workplace: Path, stopped: Path, tmp_path: Path):
    for path in Checkpoints(stopped).paths():
        truncate(path)
    with pytest.raises(WeightsError, match=r"\(2\) are damaged, the newest: its checksum is ano"):
        resumed.train(workplace, stopped, resume=True)
    with pytest.raises(WeightsError, match="holds no checkpoint .* with --out, or start without"):
        resumed.train(workplace, tmp_path / "nothing", resume=True)
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(ConfigError, match="choose one"):
        resumed.train(workplace, stopped, resume=True, overwrite=True)
    with pytest.raises(ConfigError, match="add --resume"):
        resumed.train(workplace, stopped, accept_changes=True)


def test_a_begun_run_says_how_to_go_on(workplace: Path, stopped: Path):
    with pytest.raises(ConfigError, match="already holds a run; go on with it by --resume"):
        resumed.train(workplace, stopped)


def test_changed_settings_are_named_with_both_values(workplace: Path, stopped: Path):
    other = resumed.settings(
        workplace,
        **{"train.learning_rate": 0.5, "loss": "{dice: 2, cross_entropy: 1}", "train.workers": 1},
    )
    with pytest.raises(ConfigError) as refused:
        resumed.train(workplace, stopped, resume=True, config=other)
    sentence = str(refused.value)
    assert "loss.dice was 1.0 and is 2.0; train.learning_rate was 0.02 and is 0.5" in sentence
    assert "--accept-changes" in sentence
    assert "workers" not in sentence
    notices: list[str] = []
    resumed.train(
        workplace, stopped, resume=True, config=other, accept_changes=True, notices=notices.append
    )
    assert "resuming despite changes: loss.dice was 1.0" in notices[0]


def test_samples_that_an_older_version_would_draw_otherwise_are_named(
    workplace: Path, stopped: Path
):
    checkpoints = Checkpoints(stopped)
    state, _ = checkpoints.load()
    del state["sampling"]
    checkpoints.save(state, state["progress"]["epoch"], state["progress"]["step"])
    with pytest.raises(ConfigError, match=r"drew its samples from another hash.*--accept-changes"):
        resumed.train(workplace, stopped, resume=True)
    resumed.train(workplace, stopped, resume=True, accept_changes=True)


def test_accepted_rates_are_used_at_once(workplace: Path, stopped: Path):
    rates = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, *_) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    other = resumed.settings(workplace, **{"train.learning_rate": 0.5, "train.weight_decay": 0})
    resumed.train(
        workplace, stopped, resume=True, config=other, accept_changes=True, callbacks=[Watch()]
    )
    assert rates[0] > 0.05  # more than the old highest


def test_another_batch_size_starts_the_epoch_again(workplace: Path, stopped: Path):
    other = resumed.settings(workplace, **{"train.batch_size": 3})
    resumed.train(workplace, stopped, resume=True, config=other, accept_changes=True)
    saved = resumed.states(stopped)
    assert [row["step"] for row in saved["progress"]["table"]] == [4, 6]
    assert saved["states"]["schedule"]["last_epoch"] == 6  # the rates follow the new steps


@pytest.mark.parametrize("change", ["model.encoder=resnet18", "train.optimizer=sgd"])
def test_another_network_cannot_go_on(workplace: Path, stopped: Path, change: str):
    key, value = change.split("=")
    with pytest.raises(ConfigError, match=f"cannot go on with another .*{key} was .* is {value}"):
        resumed.train(
            workplace,
            stopped,
            resume=True,
            accept_changes=True,
            config=resumed.settings(workplace, **{key: value}),
        )


def test_changed_data_are_named(workplace: Path, stopped: Path, tmp_path: Path):
    write_phantom("isic2018", tmp_path / "raw", cases=CASES + 1)
    with pytest.raises(ConfigError, match=r"data set was \w{12} and is \w{12} \(.* new there"):
        resumed.train(workplace, stopped, resume=True, config=resumed.settings(tmp_path))


def test_moved_data_are_the_same_data(workplace: Path, stopped: Path, tmp_path: Path, whole: Path):
    shutil.copytree(workplace / "raw", tmp_path / "raw")
    resumed.train(workplace, stopped, resume=True, config=resumed.settings(tmp_path))
    assert_same_run(stopped, whole)


def test_another_machine_is_told_of(workplace: Path, stopped: Path, monkeypatch):
    monkeypatch.setattr(
        "msa2net.training.resume.software_versions", lambda: {"torch": "99", "msa2net": "0"}
    )
    notices: list[str] = []
    resumed.train(workplace, stopped, resume=True, notices=notices.append)
    assert "may not be the uninterrupted one's to the last digit" in notices[0]
    assert "torch was" in notices[0]
    assert "is 99" in notices[0]


# Finished, lengthened -----------------------------------------------------------------------------


def test_a_finished_run_says_so_and_a_longer_one_goes_on(
    workplace: Path, tmp_path: Path, whole: Path
):
    run, notices = tmp_path / "run", []
    shutil.copytree(whole, run)
    (run / "model.onnx").write_text("exported from its weights, which stay")
    result = resumed.train(workplace, run, resume=True, notices=notices.append)
    assert result.finished
    (run / "model.onnx").unlink()
    assert "is finished, after 2 epochs; a larger train.epochs lengthens it" in notices[0]
    assert_same_run(run, whole)
    longer = resumed.settings(workplace, **{"train.epochs": 4})
    result = resumed.train(workplace, run, resume=True, config=longer, notices=notices.append)
    assert result.epochs == 4
    assert "lengthened from 2 to 4 epochs" in notices[1]
    assert "not what 4 epochs without a stop would have given" in notices[1]
    table = resumed.states(run)["progress"]["table"]
    assert table[:2] == resumed.states(whole)["progress"]["table"]
    assert [row["epoch"] for row in table] == [1, 2, 3, 4]
    assert 0.02 > table[2]["learning_rate"] > 0 == table[3]["learning_rate"]


def test_lengthening_is_as_exact(workplace: Path, tmp_path: Path, whole: Path):
    """A lengthened run that is cut off equals one that was lengthened and left alone."""
    longer = resumed.settings(workplace, **{"train.epochs": 3})
    for name in ("whole", "run"):
        shutil.copytree(whole, tmp_path / name)
    resumed.train(workplace, tmp_path / "whole", resume=True, config=longer)
    assert cut_off(workplace, tmp_path / "run", 9, resume=True, config=longer)
    resumed.train(workplace, tmp_path / "run", resume=True, config=longer)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


# Files --------------------------------------------------------------------------------------------


def test_checkpoints_are_plain_and_two(whole: Path):
    paths = Checkpoints(whole).paths()
    assert [path.name[:23] for path in paths] == [
        "epoch00002-step00000008", "epoch00001-step00000008",
    ]  # fmt: skip
    content = torch.load(paths[0], weights_only=True)
    assert set(content["states"]) == {"model", "optimizer", "schedule", "precision"}
    assert content["config"]["train"]["epochs"] == 2


def test_tables_hold_times_apart(whole: Path):
    assert "second" not in (whole / "metrics.csv").read_text()
    lines = (whole / "timing.csv").read_text().splitlines()
    assert lines[0] == "epoch,train_seconds,waiting_seconds,validation_seconds,images_per_second"
    for line in lines[1:]:
        _, train, waiting, validation, rate = map(float, line.split(","))
        assert 0 < waiting < train
        assert min(validation, rate) > 0


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"kept": torch.ones(3)}, 0, 1)

    def full(state, file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(DataError, match="No space left on device; the one before it is kept"):
            checkpoints.save({"lost": torch.ones(3)}, 0, 2)
    (kept,) = (tmp_path / "checkpoints").iterdir()
    assert kept.name[:23] == "epoch00000-step00000001"
    assert torch.equal(torch.load(kept, weights_only=True)["kept"], torch.ones(3))


def test_a_newer_checkpoint_is_not_guessed_at(tmp_path: Path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("msa2net.training.checkpoint.SCHEMA", 99)
        Checkpoints(tmp_path).save({}, 0, 0)
    with pytest.raises(WeightsError, match="has schema 99, this version reads 1"):
        Checkpoints(tmp_path).load()


def test_commands_say_how_to_go_on(workplace: Path, tmp_path: Path):
    """Stopped by time, resumed by the command that was printed; then finished, then refused."""
    path = tmp_path / "small.yaml"
    resumed.settings(workplace)
    path.write_text(next(workplace.glob("settings-*.yaml")).read_text())
    first = commands.msa2net(
        "train", path, "--out", "run", "--set", "train.max_time=0.0001", cwd=tmp_path
    )
    assert first.returncode == 0, first.stderr
    line = next(line for line in first.stdout.splitlines() if "--resume" in line)
    assert "train.max_time" in line
    words = line.split("msa2net ", 1)[1].split()
    assert words == ["train", "run/config.yaml", "--out", "run", "--resume"]
    second = commands.msa2net(*words, "--set", "train.max_time=null", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "next: msa2net evaluate run" in second.stdout
    third = commands.msa2net(*words, cwd=tmp_path)
    assert third.returncode == 0
    assert "is finished, after 2 epochs" in third.stdout
    again = commands.msa2net("train", path, "--out", "run", cwd=tmp_path)
    commands.assert_one_sentence(again, "go on with it by --resume")


def test_the_command_leaves_with_the_signal_s_code(workplace: Path, tmp_path: Path, monkeypatch):
    from msa2net.training import run as training

    def stopped(*_, **__):
        raise TrainingInterrupted(tmp_path / "a run", signal.SIGTERM, 3, 70)

    monkeypatch.setattr(training, "train", stopped)
    path = tmp_path / "small.yaml"
    resumed.settings(workplace)
    path.write_text(next(workplace.glob("settings-*.yaml")).read_text())
    left = commands.msa2net("train", path, cwd=tmp_path)
    assert left.returncode == 128 + signal.SIGTERM
    assert "SIGTERM: saved after 3 epochs (70 steps); go on with: msa2net train" in left.stdout
    assert "--resume" in left.stdout


@pytest.mark.parametrize(
    ("written", "minutes"), [("11:30:00", 690), ("1-06:00:00", 1800), ("90", 90), ("0:00:30", 0.5)]
)
def test_a_limit_is_minutes_or_a_time(workplace: Path, written: str, minutes: float):
    """YAML 1.1 would take the first for 41,400."""
    config = resumed.settings(workplace, **{"train.max_time": written})
    assert config.train.max_time == minutes
    path = workplace / "dumped.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config


@pytest.mark.parametrize("written", ["soon", "11:30", "11:61:00", "0"])
def test_another_limit_is_refused(workplace: Path, written: str):
    with pytest.raises(ConfigError, match=r"'train.max_time' is"):
        resumed.settings(workplace, **{"train.max_time": written})
