"""`msa2net check CONFIG`: the splits, folds and needs of one training, not of the data alone."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from check_cases import SMALL, case, found, make, the
from commands import assert_one_sentence, msa2net
from msa2net.config import Config, DataConfig, parse_section
from msa2net.data.check.dataset import check_store
from msa2net.data.prepared import slice_files
from msa2net.data.prepared.slice_files import build_slices
from msa2net.data.prepared.store import with_splits
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import DataError
from msa2net.models.registry import create_model
from msa2net.training import memory as estimate
from msa2net.training.memory import bytes_per_sample, fixed_bytes


def settings(folder: Path, **changes) -> DataConfig:
    return DataConfig(format="nnunet", prepared=folder, **changes)


def config(folder: Path, *, train=None, **data) -> dict:
    return {
        "image_size": 32,
        "model": {"name": "msa2net", "encoder": "test_maxvit"},
        "data": {"format": "nnunet", "prepared": str(folder), **data},
        "train": {"epochs": 1, "batch_size": 4, "learning_rate": 0.001, **(train or {})},
    }


def with_organ(*wanted: int, of: int):
    """Cases of which only some show the organ."""
    nothing = np.zeros((4, 16, 16), np.uint8)
    return [case(n) if n in wanted else case(n, label=nothing) for n in range(of)]


def test_every_fold_is_looked_at(tmp_path: Path):
    """One case of train and val shows the organ: in its fold nothing can be learned of it."""
    store = make(tmp_path, with_organ(0, 4, of=5), splits="train train val val test")
    assert not found(store, "cannot be learned")  # as it is stored all is well
    folds = settings(tmp_path, folds=2)
    findings = found(store, "cannot be", data=folds)
    lacking = {finding.where: (finding.level, finding.what) for finding in findings}
    (learned,) = (where for where, (level, _) in lacking.items() if level == "error")
    assert learned in ("fold 0: organ", "fold 1: organ")
    other = "fold 1: organ" if learned.startswith("fold 0") else "fold 0: organ"
    assert lacking[other] == (
        "warning",
        "no case of val shows this class, it cannot be scored there",
    )


def test_what_is_so_in_every_fold_is_said_once(tmp_path: Path):
    cases = [case(0), case(0), *(case(n) for n in range(2, 8))]
    cases = [
        type(one)(f"case{n}", one.image, one.label, one.geometry) for n, one in enumerate(cases)
    ]
    store = make(tmp_path, cases, splits="test test train val")
    folds = settings(tmp_path, folds=2)
    assert the(store, "two cases of one split", data=folds).where == "case0 and case1"
    test_split = [f for f in found(store, "fewer than 5", data=folds) if "test" in f.where]
    assert [finding.where for finding in test_split] == ["test"]


def test_drawn_splits_are_looked_at_instead_of_the_stored_ones(tmp_path: Path):
    store = make(tmp_path, [case(n) for n in range(6)], splits="train")
    assert {f.where for f in found(store, "no case is in this split")} == {"val", "test"}
    assert not found(store, "no case is", data=settings(tmp_path, split_ratios=(0.5, 0.2, 0.3)))
    with pytest.raises(DataError, match="6 patients cannot be drawn into 7 folds"):
        check_store(store, SMALL, data=settings(tmp_path, folds=7))


def test_cases_that_are_not_held_out_train(tmp_path: Path):
    """Nobody has to validate then, and what only val shows is learned."""
    store = make(tmp_path, with_organ(1, 2, of=3))
    assert the(store, "cannot be learned").level == "error"
    everybody = settings(tmp_path, hold_out=False)
    assert not found(store, "cannot be", data=everybody)
    none = make(tmp_path / "none", [case(n) for n in range(4)], splits="train test")
    assert the(none, "no case is in this split").level == "error"
    assert not found(none, "no case is", data=everybody)


def test_room_for_the_slices_of_all_folds(tmp_path: Path, monkeypatch):
    """Four cases of four slices: each trains in one fold, and is written once, 32×32×3 bytes."""
    store = make(tmp_path, [case(n) for n in range(5)], splits="train train val val test")
    needed = 16 * 32 * 32 * 3
    usage = SimpleNamespace(free=needed)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    folds = settings(tmp_path, folds=2)
    finding = the(store, "will write its slices", data=folds)
    assert finding.detail == "48.0 KiB for 16 slices in 2 folds, 48.0 KiB are free"
    usage.free -= 1
    assert the(store, "no room for training slices", data=folds).level == "error"
    for fold in range(2):
        there = found(store, "beside the prepared data already", data=folds)
        assert not there
        split = with_splits(store, folds.model_copy(update={"fold": fold}))
        build_slices(split, Preprocessing(channels=1, image_size=SMALL), ("train",))
    assert found(store, "beside the prepared data already", data=folds)


def test_of_several_processes_one_writes_the_slices(tmp_path: Path, monkeypatch):
    """Threads stand for processes: each locks by a file handle of its own."""
    store, write, written = (
        make(tmp_path, [case(n) for n in range(6)]),
        slice_files.write_slices,
        [],
    )

    def slowly(*arguments) -> None:
        written.append(1)
        time.sleep(0.1)
        write(*arguments)

    monkeypatch.setattr(slice_files, "write_slices", slowly)
    preprocessing = Preprocessing(channels=1, image_size=SMALL)
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(build_slices, store, preprocessing, ("train",)) for _ in range(3)]
        counts = {len(job.result().origin) for job in jobs}
    assert len(written) == len(store.ids("train")) > 1
    assert len(counts) == 1


def test_memory_of_a_training(tmp_path: Path, monkeypatch):
    store = make(tmp_path, [case(n) for n in range(3)])

    def memory(batch: int):
        content = config(tmp_path, train={"batch_size": batch})
        (finding,) = estimate.check_memory(parse_section(Config, content, origin="test"), store)
        return finding, float(finding.detail.split()[0])

    network = create_model("msa2net", 2, 1, "test_maxvit", (32, 32)).train()
    fixed, each = (
        fixed_bytes(network, "adamw"),
        bytes_per_sample(network, torch.zeros(2, 1, 32, 32)),
    )
    for batch in (1000, 100_000):
        # Counted without computing. A real network on a CPU keeps some copies more: it rearranges
        # what dilated convolutions get (models/kernels.py).
        kept = (fixed + batch * each) / 1e9
        assert 0.8 * kept - 0.06 < memory(batch)[1] < kept + 0.06
    monkeypatch.setattr(estimate, "_trains_by_default", lambda: (1_000_000_000, "machine"))
    assert memory(4)[0].level == "note"
    finding, _ = memory(100_000)
    assert (finding.level, finding.what) == (
        "error",
        "the machine has less memory than training needs",
    )
    assert finding.detail.endswith("it has 1.0 GB")
    monkeypatch.setattr(estimate, "_trains_by_default", lambda: (1_000_000_000, "GPU"))
    assert memory(100_000)[0].level == "warning"
    monkeypatch.setattr(estimate, "_trains_by_default", lambda: (None, "machine"))
    assert memory(100_000)[0].level == "note"


def test_memory_follows_the_settings_that_decide_it(tmp_path: Path, monkeypatch):
    """Built by the functions of the training: what it adds, freezes or computes twice counts."""
    store = make(tmp_path, [case(n) for n in range(3)])
    figures = []

    def fixed(model, optimizer):
        figures.append(fixed_bytes(model, optimizer))
        return figures[-1]

    def each(model, image, context):
        figures.append(bytes_per_sample(model, image, context))
        return figures[-1]

    monkeypatch.setattr(estimate, "fixed_bytes", fixed)
    monkeypatch.setattr(estimate, "bytes_per_sample", each)

    def of(**train) -> tuple[float, float]:
        figures.clear()
        content = config(tmp_path, train=train)
        content["model"]["pretrained_file"] = "encoder.safetensors"  # something to freeze
        estimate.check_memory(parse_section(Config, content, origin="test"), store)
        return figures[0], figures[1]

    plain, headed = of(), of(deep_supervision="sum")
    frozen, twice = of(freeze_encoder=True), of(gradient_checkpointing=True)
    network = create_model("msa2net", 2, 1, "test_maxvit", (32, 32))
    encoder = sum(weight.nbytes for weight in network.encoder.parameters())
    assert plain[0] - frozen[0] == 3 * encoder  # no gradient, no two moments
    assert frozen[1] < plain[1]
    assert headed[0] > plain[0]
    assert headed[1] >= plain[1]  # what a head reads is kept anyway
    assert twice[0] == plain[0]
    assert twice[1] < 0.8 * plain[1]


def test_the_command(tmp_path: Path):
    make(tmp_path / "data", with_organ(0, 4, of=5), splits="train train val val test")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(config(tmp_path / "data")), encoding="utf-8")
    sound = msa2net("check", path, cwd=tmp_path)
    assert sound.returncode == 0, sound.stderr
    assert "GB in float32 for a batch of 4" in sound.stdout
    assert "32×32" in sound.stdout
    folds = msa2net("check", path, "--set", "data.folds=2", "--image-size", "64", cwd=tmp_path)
    assert folds.returncode == 2
    assert folds.stderr == ""
    assert "64×64" in folds.stdout
    assert "fold " in folds.stdout

    assert_one_sentence(
        msa2net("check", tmp_path / "data", "--set", "data.folds=2", cwd=tmp_path),
        "--set changes a configuration",
    )
    assert_one_sentence(
        msa2net("check", path, "--set", "data.format=acdc", cwd=tmp_path),
        "was prepared from the format 'nnunet'",
    )
    assert_one_sentence(
        msa2net("check", path, "--set", "data.prepared=nowhere", cwd=tmp_path), "there is no folder"
    )
