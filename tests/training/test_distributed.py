"""Several processes: the same training as one, and only one of them writes."""

import copy
import csv
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from timm.layers import convert_sync_batchnorm

import processes
from msa2net.config import TrainConfig, load_config
from msa2net.data.phantom.files import write_phantom
from msa2net.errors import ConfigError
from msa2net.inference.run_folder import read_facts
from msa2net.models.registry import create_model
from msa2net.training.checkpoint import Checkpoints
from msa2net.training.datamodule import whole_parts
from msa2net.training.distributed import check_devices, find_processes, gather_rows, share_to_score
from msa2net.training.gradient_checkpointing import checkpoint_blocks
from msa2net.training.stopping import OUT_OF_TIME, StopRequest
from paths import ROOT

CASES = 58  # 40 are trained on, in 10 batches of 4; 6 validate


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("processes")
    write_phantom("isic2018", root / "raw", cases=CASES)
    return root


@pytest.fixture(scope="module")
def alone(workplace: Path) -> Path:
    processes.train(workplace, workplace / "alone")
    return workplace / "alone"


NETWORK = {"model.name": "msa2net", "train.max_steps": 3}


@pytest.fixture(scope="module")
def network_alone(workplace: Path) -> Path:
    """Three steps of the real network."""
    processes.train(workplace, workplace / "network", **NETWORK)
    return workplace / "network"


def in_two(workplace: Path, run: Path, *changes: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, processes.__file__, workplace, run, "train.devices=2", *changes]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def largest_difference(one: Path, two: Path) -> float:
    """Of any weight, relative to the largest of its tensor."""
    a, b = (load_file(run / "model.safetensors") for run in (one, two))
    assert a.keys() == b.keys()
    return max(
        float((a[name] - b[name]).abs().max() / a[name].abs().max().clamp(min=1e-6))
        for name in a
        if a[name].is_floating_point()
    )


def test_two_processes_train_as_one(workplace: Path, alone: Path, tmp_path: Path):
    """Ten steps with gloo, normalisation frozen, Boundary-DoU in the loss."""
    in_two(workplace, tmp_path / "run")
    # 1.1e-6 was measured; with a loss of each process's own share it is 0.015.
    assert largest_difference(tmp_path / "run", alone) <= 1e-5
    rows = [next(csv.DictReader((run / "metrics.csv").open())) for run in (tmp_path / "run", alone)]
    assert [row["step"] for row in rows] == ["10", "10"]
    for column in rows[0]:
        assert float(rows[0][column]) == pytest.approx(float(rows[1][column]), abs=1e-5)
    assert len(Checkpoints(tmp_path / "run").paths()) == 2


@pytest.mark.slow
def test_two_processes_stop_in_time_and_go_on_to_the_same_end(workplace: Path, tmp_path: Path):
    """They agree at the tenth step, which ends the first epoch: its validation is repeated."""
    two_epochs = ("train.epochs=2", "train.ema=0.9", "train.deep_supervision=sum")
    in_two(workplace, tmp_path / "whole", *two_epochs)
    in_two(workplace, tmp_path / "run", *two_epochs, "train.max_time=0.0001")
    assert [path.name.split("-")[1] for path in Checkpoints(tmp_path / "run").paths()] == [
        "step00000010", "step00000000",
    ]  # fmt: skip
    in_two(workplace, tmp_path / "run", *two_epochs, "--resume")
    for name in ("metrics.csv", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_weights_that_never_run_do_not_stop_two_processes(workplace: Path, tmp_path: Path):
    in_two(workplace, tmp_path / "run", "model.name=msa2net_reference", "train.max_steps=2")
    assert read_facts(tmp_path / "run").network.name == "msa2net_reference"


def test_checkpoints_that_another_process_removes_are_passed_over(tmp_path: Path):
    """The first process tidies while the others look."""
    ours = Checkpoints(tmp_path)
    for step in (1, 2):
        ours.save({}, 0, step)
    newest, older = ours.paths()
    (older.parent / older.name.replace("step00000001", "step00000000")).symlink_to("removed")
    assert ours.paths() == [newest, older]


# Parts of a batch ---------------------------------------------------------------------------------


def test_a_batch_in_parts_is_the_same_step(workplace: Path, alone: Path, tmp_path: Path):
    """With a loss that is a mean over pixels; those over the batch are computed part by part."""
    # At the rate of the other tests the last digits of a sum can grow to 1e-4 within ten steps.
    only = {"loss": "{cross_entropy: 1}", "train.learning_rate": 0.05}
    processes.train(workplace, tmp_path / "whole", **only)
    processes.train(workplace, tmp_path / "parts", **only, **{"train.accumulate": 2})
    assert largest_difference(tmp_path / "parts", tmp_path / "whole") <= 1e-4
    rows = [
        next(csv.DictReader((tmp_path / name / "metrics.csv").open()))
        for name in ("parts", "whole")
    ]
    assert [row["step"] for row in rows] == ["10", "10"]
    assert float(rows[0]["train_loss"]) == pytest.approx(float(rows[1]["train_loss"]), abs=1e-5)


@pytest.mark.parametrize(
    ("batch", "samples", "parts", "message"),
    [
        (10, 99, 4, "batch_size is 10 and has to be dealt out to 4 equal parts .*; use 8 or 12"),
        (3, 99, 4, "use 4$"),
        (8, 3, 4, "there are 3 slices to train on, fewer than 4 parts"),
    ],
)
def test_batches_that_cannot_be_dealt_out(batch: int, samples: int, parts: int, message: str):
    with pytest.raises(ConfigError, match=message):
        whole_parts(batch, samples, parts)


def test_batches_for_few_samples():
    assert whole_parts(16, 9, 4) == 8
    assert whole_parts(16, 9, 1) == 9
    assert whole_parts(16, 99, 4) == 16


# Blocks computed twice ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "encoder"),
    [("msa2net", "test_maxvit"), ("msa2net", "test_efficientnet"), ("unet", "test_resnet")],
)
def test_computing_blocks_twice_changes_nothing(name: str, encoder: str):
    """Neither gradients nor statistics, with stochastic depth; and it keeps less."""
    torch.manual_seed(1)
    plain = create_model(name, 3, 1, encoder, 64, drop_path=0.2).train()
    twice = copy.deepcopy(plain)
    checkpoint_blocks(twice)
    assert twice.state_dict().keys() == plain.state_dict().keys()
    image = torch.randn(2, 1, 64, 64)
    for model in (plain, twice):
        torch.manual_seed(2)
        model(image).square().mean().backward()
    for (key, one), two in zip(plain.named_parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=key)
    for (key, one), two in zip(
        plain.state_dict().items(), twice.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, two, msg=key)
    again = copy.deepcopy(twice).eval()  # as a weight average does
    torch.testing.assert_close(again(image), plain.eval()(image))


def test_a_run_that_computes_twice_is_the_same_run(
    workplace: Path, network_alone: Path, tmp_path: Path
):
    twice = NETWORK | {"train.gradient_checkpointing": True}
    processes.train(workplace, tmp_path / "run", **twice)
    assert largest_difference(tmp_path / "run", network_alone) == 0


@pytest.mark.slow
def test_a_compiled_step_trains_alike(workplace: Path, network_alone: Path, tmp_path: Path):
    processes.train(workplace, tmp_path / "run", **NETWORK | {"train.compile": True})
    assert largest_difference(tmp_path / "run", network_alone) <= 1e-3


# Who is who ---------------------------------------------------------------------------------------

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SRUN = {
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
}


@pytest.mark.parametrize(
    ("variables", "settings", "expected"),
    [
        ({}, {}, (1, 1, 0, "LightningEnvironment")),
        ({}, {"devices": 4}, (4, 1, 0, "LightningEnvironment")),
        ({"LOCAL_RANK": "3", "WORLD_SIZE": "4"}, {"devices": 4}, (4, 1, 3, "LightningEnvironment")),
        (TORCHRUN, {}, (4, 2, 5, "TorchElasticEnvironment")),
        (TORCHRUN, {"devices": 4, "nodes": 2}, (4, 2, 5, "TorchElasticEnvironment")),
        (SRUN, {}, (4, 2, 5, "SLURMEnvironment")),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, {}, (1, 1, 0, "LightningEnvironment")),
    ],
)
def test_processes_are_found(variables: dict, settings: dict, expected: tuple):
    config = TrainConfig(epochs=1, batch_size=8, learning_rate=1, **settings)
    found = find_processes(config, variables)
    kind = type(found.environment).__name__
    assert (found.devices, found.nodes, found.rank, kind) == expected
    assert found.first is (expected[2] == 0)


def test_settings_that_contradict_the_launcher_are_refused():
    config = TrainConfig(epochs=1, batch_size=8, learning_rate=1, devices=2)
    with pytest.raises(ConfigError, match="train.devices is 2 .* but torchrun started 4 processes"):
        find_processes(config, TORCHRUN)


@pytest.mark.parametrize("device", ["mps", "cuda:1"])
def test_processes_need_a_device_each(device: str):
    config = TrainConfig(epochs=1, batch_size=8, learning_rate=1, devices=2)
    with pytest.raises(ConfigError, match=f"2 processes cannot share the device '{device}'"):
        check_devices(find_processes(config, {}), torch.device(device))


@pytest.mark.parametrize(("names", "world"), [("abcde", 2), ("ab", 4), ("abc", 3)])
def test_rows_come_back_in_the_order_of_one_process(names: str, world: int):
    """No process is without a case, and none counts twice."""
    cases = {name: [{"case": name, "class": index} for index in (1, 2)] for name in names}
    shares = [share_to_score(list(names), rank, world) for rank in range(world)]
    assert all(shares)
    parts = [[row for name in share for row in cases[name]] for share in shares]
    trainer = mock.Mock(world_size=world)

    def gather(into: list, _: list) -> None:
        into[:] = parts

    with mock.patch("torch.distributed.all_gather_object", gather):
        found = gather_rows(parts[0], trainer)
    assert found == [row for name in names for row in cases[name]]


def test_a_reason_to_leave_is_everybody_s():
    stop = StopRequest(None)
    stop.take(0)
    assert stop.code == 0
    stop.take(OUT_OF_TIME)
    assert (stop.code, stop.signum) == (OUT_OF_TIME, None)
    stop.take(signal.SIGTERM)
    assert (stop.code, stop.signum) == (signal.SIGTERM, signal.SIGTERM)


def test_synchronised_norms_keep_their_activations():
    """What torch's own conversion, and so Lightning's, loses."""
    model = create_model("msa2net", 3, 1, "test_maxvit", 64).eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        before = model(image)
        converted = convert_sync_batchnorm(model)
        torch.testing.assert_close(converted(image), before)
    kinds = {type(module).__name__ for module in converted.modules()}
    assert not kinds & {"BatchNorm2d", "BatchNormAct2d"}
    assert "SyncBatchNormAct" in kinds


DOCUMENT = ROOT / "docs" / "training.md"


def test_launch_lines_of_the_documents_are_commands_of_ours():
    """torchrun and srun are not here; what they start is parsed, settings included."""
    text = DOCUMENT.read_text()
    lines = re.findall(r"^(?:`torchrun .* -m |srun )(msa2net .*?)`?$", text, re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line.replace("$RESUME", "--resume"))
        assert words[:2] == ["msa2net", "train"]
        changes = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
        assert set(words[3::2]) <= {"--out", "--set", "--resume"}
        load_config(DOCUMENT.parents[1] / words[2], changes)


SETTINGS = (
    "devices", "nodes", "strategy", "sync_batch_norm", "accumulate", "gradient_checkpointing",
    "compile", "deep_supervision", "ema", "oversample_foreground", "decay_all",
)  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_documented(name: str):
    assert TrainConfig.model_fields[name].description
    assert f"`train.{name}" in DOCUMENT.read_text()
