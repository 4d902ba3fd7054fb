"""`python train.py` and `python test.py`, with the flags of the paper's README."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from commands import assert_one_sentence, script
from golden_weights import published_state
from msa2net.cli.paper import evaluate_as_published, find_run, train_as_published
from msa2net.config import load_config
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared.store import open_store
from msa2net.errors import ConfigError, WeightsError
from paths import ROOT

ORGANS = ("aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen")
SMALL = ("--network", "msa2net_pico", "--img_size", "32", "--no-pretrained", "--batch_size", "24")
FOLDERS = ("--root_path", "./data/Synapse/train_npz", "--test_path", "./data/Synapse/test_vol_h5")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """The paper's folders with phantom data, and its settings."""
    root = tmp_path_factory.mktemp("paper")
    write_phantom("synapse", root / "data" / "Synapse", cases=5)
    (root / "configs").mkdir()
    settings = yaml.safe_load((ROOT / "configs" / "synapse-paper.yaml").read_text())
    settings["train"]["workers"] = 0
    (root / "configs" / "synapse-paper.yaml").write_text(yaml.safe_dump(settings))
    return root


@pytest.fixture(scope="module")
def trained(workplace: Path) -> Path:
    result = script(
        train_as_published, *FOLDERS, *SMALL, "--eval_interval", "1", "--max_epochs", "2",
        cwd=workplace,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "the last weights were kept" in result.stdout
    assert "python test.py" in result.stdout
    return workplace / "model_out" / "msa2net_pico-001"


def test_training_keeps_the_last_weights_and_looks_at_the_test_volumes(trained: Path):
    model = json.loads((trained / "model.json").read_text())
    assert model["training"]["weights"] == "last"
    assert model["training"]["best_epoch"] == 2
    assert model["preprocessing"]["resampling"] == "spline"
    assert model["preprocessing"]["fit"] == "stretch"
    config = load_config(trained / "config.yaml")
    assert (config.train.optimizer, config.train.schedule) == ("sgd", "poly")
    assert config.train.learning_rate == pytest.approx(0.05)  # a batch of 24 is the base
    assert config.loss == {"boundary_dou": 1.0}
    header, first, second = (trained / "metrics.csv").read_text().splitlines()
    assert "test_dice_liver" in header.split(",")
    assert "val_dice" not in header
    column = header.split(",").index("test_dice")
    assert all(0 <= float(row.split(",")[column]) <= 1 for row in (first, second))


def test_a_split_without_validation_trains(workplace: Path, tmp_path: Path):
    """The paper has none."""
    shutil.copytree(workplace / "data", tmp_path / "data")
    lists = tmp_path / "data" / "Synapse" / "splits"
    lists.mkdir()
    cases = {
        "train": {p.name[:8] for p in (lists.parent / "train_npz").glob("*.npz")},
        "val": set(),
        "test": {p.name[:8] for p in (lists.parent / "test_vol_h5").glob("*.h5")},
    }
    for split, ids in cases.items():
        (lists / f"{split}.txt").write_text("\n".join(sorted(ids)))
    shutil.copytree(workplace / "configs", tmp_path / "configs")
    result = script(train_as_published, *FOLDERS, *SMALL, "--max_epochs", "1", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_all_training_cases_train(workplace: Path, trained: Path):
    splits = json.loads((trained / "model.json").read_text())["training"]["trained_on"]
    store = open_store(workplace / "prepared" / "synapse")
    cases = {case.id for case in store.cases if case.split in splits}
    assert not (store.root / "slices").exists()  # they are augmented at their own size
    files = (workplace / "data" / "Synapse" / "train_npz").glob("*.npz")
    assert cases == {path.name[:8] for path in files}


def test_scores_of_every_organ_under_both_protocols(workplace: Path, trained: Path):
    result = script(
        evaluate_as_published, "--volume_path", "./data/Synapse/", "--output_dir", "./model_out",
        cwd=workplace,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for expected in (*ORGANS, "stomach", "standard", "transunet", "DSC", "HD95", "paper"):
        assert expected in result.stdout, result.stdout
    assert "the last of the training" in result.stdout
    before = (workplace / "prepared" / "synapse" / "dataset.json").read_bytes()
    summary = json.loads((trained / "evaluation" / "summary.json").read_text())
    for protocol in ("standard", "transunet"):
        for organ in ORGANS:
            figures = summary["protocols"][protocol]["classes"][organ]
            assert {"dice", "hd95_voxels"} <= figures.keys()
    assert not summary["flattering"]
    assert summary["data"]["same_as_training"]
    assert (trained / "report.html").is_file()
    shutil.copytree(workplace / "data/Synapse/test_vol_h5", workplace / "other" / "test_vol_h5")
    result = script(
        evaluate_as_published, "--volume_path", "other", "--output_dir", trained, cwd=workplace
    )
    assert result.returncode == 0, result.stderr
    # What the network was trained on is not touched by testing it on something else.
    assert (workplace / "prepared" / "synapse" / "dataset.json").read_bytes() == before
    assert (workplace / "prepared" / "test-other" / "dataset.json").is_file()


def test_selection_on_test_has_to_be_asked_for_and_is_named(workplace: Path, trained: Path):
    with pytest.raises(ConfigError, match="flatters every score"):
        load_config(ROOT / "configs" / "synapse-paper.yaml", ["train.keep=best"])
    result = script(
        train_as_published, *FOLDERS, *SMALL, "--eval_interval", "1", "--max_epochs", "1",
        "--select-on-test", cwd=workplace,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    run = workplace / "model_out" / "msa2net_pico-002"
    assert json.loads((run / "model.json").read_text())["training"]["weights"] == "best on test"
    result = script(
        evaluate_as_published, "--volume_path", "data/Synapse/test_vol_h5", "--output_dir", run,
        cwd=workplace,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "TEST split" in " ".join(result.stdout.split())
    assert json.loads((run / "evaluation" / "summary.json").read_text())["flattering"]
    assert "TEST split" in (run / "evaluation" / "table.md").read_text()
    assert "TEST split" in (run / "report.html").read_text()


def test_published_weights_beside_the_data(workplace: Path, golden: Path, monkeypatch):
    """A .pth in the output folder is imported and scored on the same prepared data."""
    folder = workplace / "published"
    folder.mkdir()
    torch.save(published_state(golden / "github_manifest.json"), folder / "best.pth")
    run = find_run(folder)
    assert run.name.startswith("imported-best-")
    assert find_run(folder) == run
    changed = published_state(golden / "github_manifest.json")
    changed["decoder_0.last_layer.bias"] += 1
    torch.save(changed, folder / "best.pth")
    assert find_run(folder) != run  # other weights under the same name
    torch.save({}, folder / "other.pth")
    with pytest.raises(WeightsError, match=r"holds 2 \.pth files"):
        find_run(folder)


@pytest.mark.parametrize(
    ("command", "arguments", "parts"),
    [
        (train_as_published, ("--root_path", "x/train_npz"), ["lie in one folder"]),
        (
            train_as_published,
            ("--root_path", "x/train_npz", "--test_path", "x/test_vol_h5"),
            ["there is no folder x/train_npz"],
        ),
        (train_as_published, (*FOLDERS, "--network", "segnet"), ["no network is called 'segnet'"]),
        (evaluate_as_published, ("--output_dir", "nothing"), ["nothing holds no run and no .pth"]),
    ],
)
def test_mistakes(workplace: Path, command, arguments, parts):
    assert_one_sentence(script(command, *arguments, cwd=workplace), *parts)


def test_without_a_connection_the_way_out_is_named(workplace: Path):
    """The paper starts from ImageNet weights; offline, nothing else is done in silence."""
    words = [word for word in SMALL if word != "--no-pretrained"]
    result = script(train_as_published, *FOLDERS, *words, "--max_epochs", "1", cwd=workplace)
    assert_one_sentence(result, "model.pretrained_file", "--no-pretrained")


@pytest.mark.parametrize("name", ["train.py", "test.py"])
def test_the_scripts_at_the_root_explain_themselves(name: str):
    result = subprocess.run(
        [sys.executable, ROOT / name, "--help"], capture_output=True, text=True, check=True,
        env={"COLUMNS": "120", "PATH": ""},
    )  # fmt: skip
    flags = set(re.findall(r"--[a-z_-]+", result.stdout))
    expected = {
        "train.py": {"--root_path", "--test_path", "--batch_size", "--eval_interval"}
        | {"--max_epochs", "--network", "--select-on-test"},
        "test.py": {"--volume_path", "--output_dir"},
    }
    assert expected[name] <= flags


@pytest.mark.slow
def test_the_paper_s_commands_as_written(tmp_path: Path):
    """The README's own lines with the whole network, only the epochs fewer.

    The ImageNet weights come from a hub cache filled here, so that timm's own way of fetching them
    is walked without a connection.
    """
    write_phantom("synapse", tmp_path / "data" / "Synapse", cases=3)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    hub = tmp_path / "hub" / "hub" / "models--timm--maxvit_rmlp_small_rw_224.sw_in1k"
    for folder in (hub / "refs", hub / "snapshots" / "0"):
        folder.mkdir(parents=True)
    (hub / "refs" / "main").write_text("0")
    backbone = timm.create_model("maxvit_rmlp_small_rw_224")
    save_file(backbone.state_dict(), hub / "snapshots" / "0" / "model.safetensors")
    said = ""
    for line in (
        "train.py --root_path ./data/Synapse/train_npz --test_path ./data/Synapse/test_vol_h5 "
        "--batch_size 20 --eval_interval 20 --max_epochs 1",
        "test.py --volume_path ./data/Synapse/ --output_dir ./model_out",
    ):
        script_file, *arguments = line.split()
        result = subprocess.run(
            [sys.executable, ROOT / script_file, *arguments], cwd=tmp_path, text=True,
            capture_output=True, check=False, env=os.environ | {"HF_HOME": str(tmp_path / "hub")},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        said += result.stdout
    for organ in ORGANS:
        assert organ in said
    facts = json.loads((tmp_path / "model_out/msa2net-001/model.json").read_text())
    assert facts["network"]["name"] == "msa2net"
