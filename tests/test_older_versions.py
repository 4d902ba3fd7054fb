"""What version 1 wrote is read as it was: a run folder, prepared data, an evaluation, masks.

They were made by the commit before the redesign: a phantom training of two epochs, whose weights
were then replaced by those of `golden_weights`, so that none have to be stored.
"""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest

from commands import msa2net
from golden_weights import weight_by_rule
from msa2net.files import sha256
from msa2net.inference.run_folder import read_facts
from msa2net.models.registry import create_model
from msa2net.models.weights import save_weights
from msa2net.report.html import write_report

SCANNED_NS = 1796074620048589937  # when scan.nii.gz was written: its record knows it by that


@pytest.fixture(scope="module")
def version_1(golden: Path, tmp_path_factory) -> Path:
    """A copy of all of it, with weights; `config.yaml` names the data where they are now."""
    root = tmp_path_factory.mktemp("older") / "version_1"
    shutil.copytree(golden / "version_1", root)
    facts = read_facts(root / "run")
    model = create_model(**facts.network.model_dump())
    state = {
        key: weight_by_rule(f"before.{key}", list(value.shape)).to(value.dtype)
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    weights = root / "run" / "model.safetensors"
    save_weights(model, weights)
    os.utime(root / "scan.nii.gz", ns=(SCANNED_NS, SCANNED_NS))
    (stated,), found = facts.weights_sha256, sha256(weights)
    for path in root.rglob("*.json"):  # another processor may round the last digit otherwise
        path.write_text(path.read_text().replace(stated, found))
    config = root / "run" / "config.yaml"
    config.write_text(config.read_text().replace("prepared: data", f"prepared: {root / 'data'}"))
    return root


def scores(folder: Path) -> list[float]:
    with (folder / "cases.csv").open(newline="") as file:
        return [float(row[key]) for row in csv.DictReader(file) for key in ("dice", "hd95_mm")]


def test_the_run_evaluates_to_the_same_scores(version_1: Path, tmp_path: Path):
    shutil.copytree(version_1 / "run", tmp_path / "run")
    before = scores(tmp_path / "run" / "evaluation")
    done = msa2net("evaluate", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert scores(tmp_path / "run" / "evaluation") == pytest.approx(before, rel=1e-3)


def test_masks_that_are_there_are_known(version_1: Path):
    done = msa2net("predict", "run", "scan.nii.gz", "--out", "masks", "--resume", cwd=version_1)
    assert done.returncode == 0, done.stderr
    assert "0 of 1 images segmented, 1 were done already" in done.stdout


def test_masks_come_out_the_same(version_1: Path, tmp_path: Path):
    done = msa2net(
        "predict", version_1 / "run", version_1 / "scan.nii.gz", "--out", "new", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    new, old = (folder / "structures.csv" for folder in (tmp_path / "new", version_1 / "masks"))
    assert new.read_text() == old.read_text()


def test_the_evaluation_is_shown_and_compared(version_1: Path, tmp_path: Path):
    summary = json.loads((version_1 / "run/evaluation/summary.json").read_text())
    liver = summary["protocols"]["standard"]["classes"]["liver"]["dice"]["mean"]
    page = write_report(version_1 / "run", tmp_path / "page.html").read_text()
    assert f"{liver:.4f}" in page
    shutil.copytree(version_1 / "run", tmp_path / "other")
    done = msa2net("compare", version_1 / "run", "other", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the same in 1 case" in " ".join(done.stdout.split())


def test_its_configuration_trains_on_its_data(version_1: Path, tmp_path: Path):
    done = msa2net(
        "train", version_1 / "run" / "config.yaml", "--out", "again", "--set", "train.max_steps=1",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "prepar" not in done.stdout
