"""A whole run in miniature: train, evaluate, predict, report."""

import csv
import json
import logging
import os
import re
import shutil
import warnings
from pathlib import Path
from unittest import mock

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

import commands
import resumed
from msa2net.cli.train import print_result
from msa2net.config import Config, ModelConfig, TrainConfig, load_config
from msa2net.data.case import Case
from msa2net.data.geometry import Geometry
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared.store import Store, StoredCase, open_store
from msa2net.errors import ConfigError, DataError, WeightsError
from msa2net.evaluation.run import evaluate_run, example_slices, rank_cases
from msa2net.export.onnx import export_onnx
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import choose_device, load_run, read_facts
from msa2net.metrics.scoring import case_rows
from msa2net.metrics.summary import read_cases_csv
from msa2net.report.html import write_report
from msa2net.training import trainer as lightning_trainer
from msa2net.training.distributed import find_processes
from msa2net.training.outcome import learning_warnings
from msa2net.training.progress import Progress
from msa2net.training.run import train
from msa2net.training.session import TrainingResult
from msa2net.training.task import (
    SegmentationTask,
    choose_precision,
    create_optimizer,
    learning_rate_factor,
    with_own_options,
)
from msa2net.training.trainer import create_trainer
from paths import ROOT

SETTINGS = """
image_size: 32
batch_slices: 5
model: {name: msa2net, encoder: test_maxvit}
data:
  {format: FORMAT, root: ROOT, prepared: PREPARED, fit: stretch,
   phantom_cases: [2, 1, 1], phantom_shape: [8, 64, 64]}
augment: {horizontal_flip: 0.5, affine: 0.5, brightness: 0.1}
train: {epochs: 2, batch_size: 4, learning_rate: 0.01, schedule: cosine}
"""


def small_config(root: Path, format: str = "isic2018", **changes) -> Config:
    text = SETTINGS.replace("FORMAT", format).replace("ROOT", str(root / "raw"))
    (root / "small.yaml").write_text(text.replace("PREPARED", str(root / "prepared")))
    return load_config(root / "small.yaml", [f"{key}={value}" for key, value in changes.items()])


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("training")
    write_phantom("isic2018", root / "raw", cases=16)
    return root


@pytest.fixture(scope="module")
def run(workplace: Path) -> Path:
    run = workplace / "run"
    train(small_config(workplace), run, device="cpu")
    evaluate_run(run, device="cpu")
    return run


def test_the_run_folder_is_complete(run: Path):
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert {
        "config.yaml", "model.json", "model.safetensors", "metrics.csv",
        "evaluation/cases.csv", "evaluation/summary.json", "evaluation/table.md",
    } <= names  # fmt: skip
    assert not [name for name in names if ".msa2net" in name]
    facts = read_facts(run)
    assert facts.label_names == ("background", "lesion")
    assert facts.training["device"] == "cpu"
    assert facts.data["format"] == "isic2018"


def test_the_last_weights_are_there_before_the_end(workplace: Path, tmp_path: Path):
    """A long training that is cut off leaves what it had."""

    class Cut(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module) -> None:
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    config = small_config(workplace, **{"train.keep": "last"})
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(config, tmp_path / "run", device="cpu", callbacks=[Cut()])
    facts = read_facts(tmp_path / "run")
    assert facts.training["weights"] == "last"
    assert facts.training["best_epoch"] == 1
    (warning, *_) = Predictor.load(tmp_path / "run", "cpu").warnings
    assert "unfinished (1 of 2 epochs)" in warning


def test_a_trial_shorter_than_the_interval_is_validated(workplace: Path, tmp_path: Path):
    result = train(
        small_config(workplace, **{"train.epochs": 1, "train.validate_every": 9}), tmp_path / "run"
    )
    assert result.best_epoch == 1
    assert read_facts(tmp_path / "run").training["weights"] == "best on val"


def test_metrics_table_has_a_row_an_epoch(run: Path):
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row["val_dice"]) <= 1 for row in rows)
    assert float(rows[-1]["learning_rate"]) < 1e-6  # the schedule ends at zero


def test_the_kept_weights_are_those_that_validated_best(run: Path, workplace: Path):
    facts = read_facts(run)
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    best = max(rows, key=lambda row: float(row["val_dice"]))
    assert facts.training["best_epoch"] == int(best["epoch"])
    assert facts.training["val_dice_by_class"] == {"lesion": float(best["val_dice_lesion"])}
    assert facts.training["finished"]
    again = evaluate_run(run, split="val", device="cpu").protocols["standard"].mean["dice"]
    assert again == pytest.approx(float(best["val_dice"]), abs=1e-6)
    evaluate_run(run, device="cpu")


def test_training_repeats_exactly(run: Path, workplace: Path):
    train(small_config(workplace), workplace / "again", device="cpu")
    assert (workplace / "again" / "metrics.csv").read_text() == (run / "metrics.csv").read_text()
    one, two = (load_run(folder, "cpu").model.state_dict() for folder in (run, workplace / "again"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_another_seed_is_another_run(run: Path, workplace: Path):
    train(small_config(workplace, **{"train.seed": 5}), workplace / "seed5", device="cpu")
    assert (workplace / "seed5" / "metrics.csv").read_text() != (run / "metrics.csv").read_text()


def test_the_summary_counts_what_cases_csv_holds(run: Path):
    rows = read_cases_csv(run / "evaluation" / "cases.csv")
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    assert summary["cases"] == len(rows) == 3
    tp, fp, fn = (sum(row[name] for row in rows) for name in ("tp", "fp", "fn"))
    pooled = summary["protocols"]["isic"]["mean"]["dice"]
    assert pooled == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert summary["reference"]["rows"][-1][0] == "MSA²Net"
    assert summary["data"]["same_as_training"] is True


def test_predictions_equal_what_was_evaluated(run: Path, workplace: Path):
    """A file, its array and its stored case give the same mask, and the counts of cases.csv."""
    store = open_store(workplace / "prepared")
    predictor = Predictor.load(run, "cpu")
    rows = read_cases_csv(run / "evaluation" / "cases.csv")
    for row in rows:
        case = store.case(row["case"])
        by_case = predictor(case)
        by_path = predictor(case.source)
        by_array = predictor(np.moveaxis(np.asarray(case.image[:, 0]), 0, -1))
        assert np.array_equal(by_case.labels, by_path.labels)
        assert np.array_equal(by_case.labels, by_array.labels)
        unjudged = row | {"flags": "", "anomaly_score": None}  # a Predictor alone judges nothing
        assert case_rows(case.id, by_case.labels, case.label, store.label_names) == [unjudged]


def test_batches_across_cases_change_nothing(run: Path, workplace: Path):
    store = open_store(workplace / "prepared")
    cases = [store.case(case.id) for case in store.cases]
    alone = [Predictor.load(run, "cpu", batch_slices=1)(case).labels for case in cases]
    together = Predictor.load(run, "cpu", batch_slices=7).segment(cases)
    for one, segmentation, case in zip(alone, together, cases, strict=True):
        assert segmentation.id == case.id
        # Convolutions sum in another order for another batch size: ties may fall differently.
        assert (one != segmentation.labels).mean() < 1e-3


def test_the_report_is_written(run: Path):
    text = write_report(run).read_text()
    assert "Research use only" in text
    assert "msa2net" in text


def test_volumes_train_and_evaluate_too(tmp_path: Path):
    changes = {"train.max_steps": 2, "train.validate_every": 9, "train.keep": "last"}
    config = small_config(tmp_path, "phantom", **changes)
    result = train(config, tmp_path / "run", device="cpu")
    assert result.best_dice is None  # never validated: the last weights are kept
    assert read_facts(tmp_path / "run").training["weights"] == "last"
    summary = evaluate_run(tmp_path / "run", device="cpu")
    assert set(summary.protocols) == {"standard", "transunet"}
    assert not summary.flattering
    assert len(list((tmp_path / "run" / "evaluation" / "examples").iterdir())) == 1
    trained_on = evaluate_run(tmp_path / "run", split="train", device="cpu")
    assert trained_on.flattering
    assert "trained on" in trained_on.selection
    write_report(tmp_path / "run")


@pytest.mark.parametrize("name", ["msa2net_reference", "msa2net_github"])
def test_released_networks_train_as_well(workplace: Path, tmp_path: Path, name: str):
    config = small_config(workplace, **{"model.name": name, "train.max_steps": 1})
    assert train(config, tmp_path / name, device="cpu").run.is_dir()


def test_an_existing_run_is_not_overwritten_unasked(run: Path, workplace: Path):
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="already holds a run; .*--overwrite"):
        train(small_config(workplace), run)
    assert (run / "model.safetensors").read_bytes() == before
    (workplace / "mine").mkdir()
    (workplace / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="not of a run .thesis.tex."):
        train(small_config(workplace), workplace / "mine", overwrite=True)
    assert (workplace / "mine" / "thesis.tex").exists()
    with pytest.raises(ConfigError, match="is a file"):
        train(small_config(workplace), workplace / "mine" / "thesis.tex")


def test_the_second_that_writes_into_a_run_is_told_who_is_first(
    run: Path, workplace: Path, tmp_path: Path
):
    """While one trains: another training, an evaluation, and an export."""
    config, own, told = small_config(workplace, **{"train.max_steps": 1}), tmp_path / "run", []
    another = ["train", workplace / "small.yaml", "--out", own]
    ways = (another, [*another, "--resume"], [*another, "--overwrite"], ["evaluate", own])

    class Others(L.Callback):
        def on_train_start(self, trainer, pl_module) -> None:
            shutil.copy(run / "model.json", own)  # as after an epoch
            told.extend(commands.msa2net(*words, cwd=tmp_path) for words in ways)
            with pytest.raises(DataError, match="is being written to by process"):
                export_onnx(own)

    train(config, own, device="cpu", callbacks=[Others()])
    assert len(told) == len(ways)
    start = f"{own} is being written to by process {os.getpid()} on "
    for said in told:
        commands.assert_one_sentence(said, start, "wait until that is")
    assert load_run(own, "cpu").facts.training["seed"] == config.train.seed
    assert not list(own.rglob(".*"))


@pytest.mark.parametrize("option", ["resume", "overwrite"])
def test_what_killed_processes_left_does_not_block_a_run(
    run: Path, workplace: Path, tmp_path: Path, option: str
):
    """A file of safetensors, killed while it saved in an earlier version, or ours."""
    own = tmp_path / "run"
    shutil.copytree(run, own)
    for name in (".tmpA5cYww", ".writing-abc.json", ".msa2net-writing/abc/half", ".msa2net-lock"):
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).touch()
    config = small_config(workplace, **({"train.max_steps": 1} if option == "overwrite" else {}))
    assert train(config, own, device="cpu", **{option: True}).finished
    assert not list(own.rglob(".*"))


def test_only_a_run_s_own_files_are_replaced(workplace: Path, tmp_path: Path):
    config = small_config(workplace, **{"train.max_steps": 1})
    train(config, tmp_path / "run", device="cpu")
    before = (tmp_path / "run" / "model.json").stat().st_mtime_ns
    (tmp_path / "run" / "notes.txt").write_text("precious")
    with pytest.raises(ConfigError, match=r"not of a run \(notes.txt\)"):
        train(config, tmp_path / "run", device="cpu", overwrite=True)
    (tmp_path / "run" / "notes.txt").unlink()
    train(config, tmp_path / "run", device="cpu", overwrite=True)
    assert (tmp_path / "run" / "model.json").stat().st_mtime_ns > before


def test_mixed_precision_trains_with_clipping(workplace: Path, tmp_path: Path):
    changes = {"train.max_steps": 2, "train.precision": "bf16-mixed", "train.clip_norm": 0.5}
    train(small_config(workplace, **changes), tmp_path / "run", device="cpu")
    assert read_facts(tmp_path / "run").training["precision"] == "bf16-mixed"


TINY = {"epochs": 1, "batch_size": 4, "learning_rate": 0.1}


def test_gradients_are_clipped_together():
    network = torch.nn.Linear(4, 3)
    optimizer = create_optimizer(network, TrainConfig(**TINY, optimizer="sgd"), "32-true")
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    SegmentationTask.configure_gradient_clipping(None, optimizer, None)
    assert network.bias.grad[0] == 7
    SegmentationTask.configure_gradient_clipping(None, optimizer, 0.5)
    norm = torch.cat([one.grad.flatten() for one in network.parameters()]).norm()
    assert norm == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimisers_are_fused_where_no_scaler_stands_between(name: str):
    network, config = torch.nn.Linear(4, 3), TrainConfig(**TINY, optimizer=name)
    for precision in ("32-true", "bf16-mixed", "16-mixed"):
        (fused,) = {
            group["fused"] for group in create_optimizer(network, config, precision).param_groups
        }
        assert fused == (precision != "16-mixed")


@pytest.mark.parametrize(("before", "after"), [("16-mixed", "32-true"), ("32-true", "16-mixed")])
def test_a_state_goes_on_in_an_optimiser_of_the_other_kind(before: str, after: str):
    """torch would place the steps of AdamW by the saved flag, for kernels that the other lacks."""
    network, config = torch.nn.Linear(4, 3), TrainConfig(**TINY, optimizer="adamw")
    earlier, own = (create_optimizer(network, config, one) for one in (before, after))
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    earlier.step()
    saved = earlier.state_dict()
    own.load_state_dict(with_own_options(saved, own))
    fused = after != "16-mixed"
    assert [group["fused"] for group in own.param_groups] == [fused, fused]
    assert [group["fused"] for group in saved["param_groups"]] == [not fused, not fused]
    own.step()
    assert {int(state["step"]) for state in own.state.values()} == {2}


def test_an_empty_split_is_found_before_training(workplace: Path, tmp_path: Path):
    write_phantom("isic2018", tmp_path / "raw", cases=3)
    (tmp_path / "raw" / "splits").mkdir()
    for name, ids in (("train", "ISIC_0000000"), ("val", ""), ("test", "ISIC_0000001")):
        (tmp_path / "raw" / "splits" / f"{name}.txt").write_text(ids)
    with pytest.raises(DataError, match=r"no case in split 'val'; of its \d+ cases, name some"):
        train(small_config(tmp_path), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_values_that_are_not_finite_are_refused_by_name(run: Path):
    image = np.zeros((3, 1, 40, 40), np.float32)
    image[1, 0, 3, 3:5] = np.nan, np.inf
    with pytest.raises(DataError, match="scan7: the image holds 2 values that are NaN"):
        Predictor.load(run, "cpu")(Case("scan7", image))


def test_arrays_that_are_not_understood_are_refused(run: Path):
    predictor = Predictor.load(run, "cpu")
    for shape in ((40, 40, 4), (1, 2, 40, 40), (40,)):
        with pytest.raises(DataError, match="is not understood"):
            predictor(np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match="c2: the image has 2 channels and the network takes 3"):
        predictor(Case("c2", np.zeros((2, 1, 40, 40), np.uint8)))


def test_a_diverged_training_says_what_to_do(workplace: Path, tmp_path: Path):
    config = small_config(workplace, **{"train.learning_rate": "1e30", "train.clip_norm": "null"})
    with pytest.raises(
        ConfigError, match=r"loss became nan in epoch ., step .*; lower train.learning"
    ):
        train(config, tmp_path / "run", device="cpu")


def table(*values: float | None) -> Progress:
    return Progress(table=[{"val_dice": value, "test_dice": 0.5} for value in values])


@pytest.mark.parametrize(
    ("values", "patience", "stops"),
    [
        ((), 1, False),
        ((0.5,), 1, False),
        ((0.5, 0.5), 1, True),  # as good is no gain
        ((0.5, 0.4), 2, False),
        ((0.5, None, 0.4, None), 2, False),  # epochs without a validation do not count
        ((0.5, None, 0.4, None, 0.3), 2, True),
        ((0.5, 0.4, 0.3, 0.6), 2, False),  # it would have ended before
        ((0.5, 0.4, 0.45, 0.6, 0.5, 0.55), 2, True),
        ((0.5, 0.4, 0.3, 0.2), None, False),
    ],
)
def test_early_stopping_by_hand(values, patience: int | None, stops: bool):
    config = TrainConfig(epochs=9, batch_size=1, learning_rate=1, early_stopping=patience)
    assert table(*values).no_longer_gains(config) is stops
    other = config.model_copy(update={"monitor": "test"})
    assert table(*values).no_longer_gains(other) is (
        patience is not None and len(values) > patience
    )


def test_a_training_without_gain_ends(workplace: Path, tmp_path: Path):
    """At a rate of nothing, every validation equals the first."""
    changes = {"train.epochs": 50, "train.early_stopping": 2, "train.learning_rate": 1e-12}
    result = train(small_config(workplace, **changes), tmp_path / "run", device="cpu")
    assert (result.epochs, result.finished, result.stopped_early) == (3, True, True)
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 1 + 3
    notices: list[str] = []
    again = train(
        small_config(workplace, **changes),
        tmp_path / "run",
        device="cpu",
        resume=True,
        notices=notices.append,
    )
    assert again.epochs == 3
    assert "is finished, after 3 epochs, by train.early_stopping" in notices[0]


def test_stopping_by_the_test_split_is_refused(workplace: Path):
    changes = {"train.monitor": "test", "train.keep": "last", "train.early_stopping": 2}
    with pytest.raises(ConfigError, match="stopping by the test split flatters every score"):
        small_config(workplace, **changes)


def test_a_fold_is_an_option(workplace: Path, tmp_path: Path):
    small_config(workplace)
    words = ["train", workplace / "small.yaml", "--set", "train.max_steps=1", "--fold", "1"]
    refused = commands.msa2net(*words, cwd=tmp_path)
    commands.assert_one_sentence(refused, "fold is 1, but there are no folds")
    words += ["--set", "data.folds=2"]
    for out, name in (("run", "run-fold1"), ("other-fold1", "other-fold1")):
        result = commands.msa2net(*words, "--out", out, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert f"next: msa2net evaluate {name}" in result.stdout
        assert load_config(tmp_path / name / "config.yaml").data.fold == 1
    zero = commands.msa2net(*words[:4], "--fold", "0", cwd=tmp_path)
    commands.assert_one_sentence(zero, "--fold needs folds; add --set data.folds=5")


@pytest.mark.slow
def test_a_compiled_training_is_the_plain_one(workplace: Path, tmp_path: Path):
    """The same losses and scores, up to the order of sums."""
    tables = []
    for compiled in (False, True):
        config = small_config(workplace, **{"train.compile": compiled})
        train(config, tmp_path / f"run-{compiled}", device="cpu")
        rows = (tmp_path / f"run-{compiled}" / "metrics.csv").read_text().splitlines()
        tables.append([[float(cell) for cell in row.split(",")] for row in rows[1:]])
    assert np.allclose(tables[0], tables[1], rtol=1e-2)


def test_the_end_is_told_with_the_next_command(workplace: Path, tmp_path: Path):
    small_config(workplace)
    changes = ["train.epochs=9", "train.early_stopping=1", "train.learning_rate=1e-12"]
    settings = [word for change in changes for word in ("--set", change)]
    result = commands.msa2net(
        "train", workplace / "small.yaml", "--out", "my run", *settings, cwd=tmp_path
    )
    perhaps = ("waiting for data", "warning: nothing useful was learnt")
    lines = [line for line in result.stdout.splitlines() if not any(map(line.count, perhaps))]
    assert re.fullmatch(r"trained 2 epochs in \d+ s; the network is in my run", lines[-5])
    assert lines[-4].startswith("train.early_stopping: the last validations brought no higher")
    assert re.fullmatch(r"best Dice while training 0\.\d{4} \(mean .*\), in epoch 1", lines[-3])
    assert lines[-1] == "next: msa2net evaluate 'my run'"
    assert "0/0" not in result.stdout
    known = read_facts(tmp_path / "my run").training
    assert (known["best_epoch"], known["epochs_run"], known["epochs"]) == (1, 2, 9)
    with (tmp_path / "my run" / "timing.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    spent = sum(float(row["train_seconds"]) + float(row["validation_seconds"]) for row in rows)
    assert known["seconds"] > spent - 0.1  # of both epochs; weights are written on top
    card = (tmp_path / "my run" / "MODEL_CARD.md").read_text()
    assert "2 of 9 epochs" in card


@pytest.mark.parametrize(("share", "said"), [(None, False), (0.04, False), (0.31, True)])
def test_much_waiting_for_data_is_told(share: float | None, said: bool, capsys):
    print_result(TrainingResult(Path("run"), 0.5, 1, 60.0, 1, True, False, share))
    assert ("31% of it was spent waiting for data" in capsys.readouterr().out) is said


def test_what_a_training_came_to_nothing_for_is_told(capsys):
    print_result(
        TrainingResult(Path("run"), 0.0, 1, 60.0, 1, True, warnings=("nothing useful was learnt",))
    )
    assert "\nwarning: nothing useful was learnt\n" in capsys.readouterr().out


class Silent(nn.Module):
    """Finds nothing, and the smallest rate does not change that."""

    widths = (1,)

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.score = nn.Parameter(torch.zeros(num_classes))
        self.score.data[0] = 9

    def forward(self, image_BCHW):
        size = (len(image_BCHW), len(self.score), *image_BCHW.shape[2:])
        return self.score[None, :, None, None].expand(size) + 0 * image_BCHW.mean()


def test_a_training_that_learns_nothing_ends_with_a_warning(tmp_path: Path):
    write_phantom("isic2018", tmp_path / "raw", cases=13)
    config = resumed.settings(tmp_path, **{"train.learning_rate": 1e-12, "train.epochs": 1})
    with resumed.msa2net_is(lambda network, _: Silent(1, network.num_classes)):
        result = train(config, tmp_path / "run", device="cpu")
    (warning,) = result.warnings
    assert warning.startswith("nothing useful was learnt: the best val Dice is 0.000, next to none")
    assert "msa2net check" in warning
    assert read_facts(tmp_path / "run").training["warnings"] == [warning]
    assert f"**Warning:** {warning}" in (tmp_path / "run" / "MODEL_CARD.md").read_text()


def stored(split: str, *voxels: int) -> StoredCase:
    counts = {str(label): number for label, number in enumerate(voxels)}
    geometry = Geometry().to_json()
    return StoredCase("one", split, (1, 1, 1, sum(voxels)), geometry, [], "", "", voxels=counts)


def warnings_of(dice, losses=(1.0, 0.9, 0.8), monitor: str = "val") -> list[str]:
    """Of data with two structures, in half of the pixels of one case and in few of another."""
    cases = (stored("val", 50, 50, 0), stored("val", 70, 20, 10), stored("train", 0, 0, 100))
    store = Store(
        Path(), "images", "photograph", ("none", "skin", "nail"), 3, "fixed", 0, 255, cases
    )
    progress = Progress()
    for epoch, loss in enumerate(losses):
        progress.table.append({"epoch": epoch + 1, "train_loss": loss})
    if dice is not None:
        progress.table[0][f"{monitor}_dice"] = dice
    train = TrainConfig(epochs=3, batch_size=1, learning_rate=1)
    return learning_warnings(progress, train, store)


def test_a_score_is_held_against_one_answer_for_every_pixel():
    """All skin: Dice 2/3 and 1/3, and nothing of nails: a mean of 1/4."""
    (warning,) = warnings_of(0.25)
    assert "the best val Dice, 0.250, is not above the 0.250 of calling every pixel skin" in warning
    assert warnings_of(0.26) == []
    assert "next to none of the structures is found" in warnings_of(0.01)[0]
    assert warnings_of(0.8, losses=(1.0, 1.1, 1.2)) == []  # the score says it all


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ((1.0, 1.1, 1.0), "was 1.000 in the first epoch and never lower, 1.000 in the last"),
        ((1.0, 1.1, 0.99), None),
        ((1.0, 0.9, 1.1), None),  # it can be learnt; why it went up again is another matter
        ((1.0, 1.1), None),  # too few to tell
    ],
)
def test_a_loss_that_never_falls_is_told_where_nothing_is_scored(losses, said: str | None):
    warnings = warnings_of(None, losses)
    assert len(warnings) == (said is not None)
    assert said is None or said in warnings[0]


NEW_SETTINGS = ("early_stopping", "freeze_encoder", "loggers", "init_from")


@pytest.mark.parametrize("name", NEW_SETTINGS)
def test_settings_of_training_are_documented(name: str):
    text = (ROOT / "docs" / "training.md").read_text()
    section = ModelConfig if name == "init_from" else TrainConfig
    assert section.model_fields[name].description
    assert f"`{'model' if name == 'init_from' else 'train'}.{name}" in text


def test_not_a_run_folder(tmp_path: Path, run: Path):
    with pytest.raises(WeightsError, match="is not a run folder"):
        Predictor.load(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(WeightsError, match="is damaged"):
        Predictor.load(tmp_path)
    newer = json.loads((run / "model.json").read_text()) | {"schema_version": 99, "network": "?"}
    (tmp_path / "model.json").write_text(json.dumps(newer))
    with pytest.raises(WeightsError, match="newer version"):
        Predictor.load(tmp_path)
    (tmp_path / "model.json").write_text((run / "model.json").read_text())
    with pytest.raises(WeightsError, match="no weight file"):
        Predictor.load(tmp_path)


def test_evaluating_without_the_data_says_where_they_were(run: Path, tmp_path: Path):
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    text = (run / "config.yaml").read_text().replace("prepared:", "prepared: /nowhere #")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(DataError, match="data of this run are no longer at /nowhere; make"):
        evaluate_run(tmp_path)


def test_a_run_names_its_data_from_wherever_it_is_used(
    workplace: Path, tmp_path: Path, monkeypatch
):
    """Paths are stored whole: the command that goes on, or scores, works from any folder."""
    monkeypatch.chdir(workplace)
    config = small_config(Path(), **{"train.max_steps": 1, "train.epochs": 1})
    train(config, "relative", device="cpu")
    stored = load_config(workplace / "relative/config.yaml")
    assert stored.data.root == workplace / "raw"
    assert stored.data.prepared == workplace / "prepared"
    monkeypatch.chdir(tmp_path)
    train(stored, workplace / "relative", device="cpu", resume=True)
    evaluate_run(workplace / "relative")


def test_unknown_device():
    with pytest.raises(ConfigError, match="there is no device 'abacus'"):
        choose_device("abacus")


def test_precision_is_float32_on_cpus_unless_asked_for():
    assert choose_precision("auto", torch.device("cpu")) == "32-true"
    assert choose_precision("bf16-mixed", torch.device("cpu")) == "bf16-mixed"


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_learning_rate_by_hand(schedule: str):
    config = TrainConfig(epochs=1, batch_size=1, learning_rate=1, schedule=schedule, warmup=0.1)
    factors = [learning_rate_factor(step, 100, config) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[9] == pytest.approx(10 / 11)
    assert factors[10] == 1
    middle = {"cosine": 0.5, "poly": 0.5**0.9}[schedule]
    assert factors[55] == pytest.approx(middle)
    assert factors[100] == 0
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_biases_and_norms_are_not_decayed():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    for name in ("adamw", "sgd"):
        config = TrainConfig(
            epochs=1, batch_size=1, learning_rate=1, optimizer=name, weight_decay=0.3
        )
        decayed, plain = create_optimizer(model, config, "32-true").param_groups
        assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0)
        assert [p.ndim for p in decayed["params"]] == [2]
        assert [p.ndim for p in plain["params"]] == [1, 1, 1]


def test_ranking_takes_each_case_once():
    truth = np.ones((1, 10, 10), np.uint8)
    rows = []
    for index in range(7):
        prediction = truth.copy()
        prediction[0, : index + 1] = 0
        rows += case_rows(f"c{index}", prediction, truth, ("background", "x"))
    assert rank_cases(rows, 2) == {
        "c6": "worst", "c5": "worst", "c0": "best", "c1": "best", "c3": "median", "c4": "median",
    }  # fmt: skip
    assert len(rank_cases(rows[:2], 2)) == 2


def test_example_slices_are_those_with_labels():
    truth, prediction = np.zeros((2, 60, 4, 4), np.uint8)
    truth[10:50, 0, 0] = 1
    chosen = example_slices(truth, prediction)
    assert len(chosen) == 24
    assert (chosen[0], chosen[-1]) == (10, 49)
    assert example_slices(np.zeros((5, 2, 2)), np.zeros((5, 2, 2))) == [2]


def test_slurm_does_not_save_and_requeue_past_our_checkpoints(tmp_path: Path, monkeypatch):
    for name, value in {
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NAME": "training",
        "SLURM_JOB_ID": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
    }.items():
        monkeypatch.setenv(name, value)
    config = small_config(tmp_path)
    trainer = create_trainer(
        config, tmp_path, torch.device("cpu"), [], Progress(), find_processes(config.train)
    )
    environment = trainer._accelerator_connector.cluster_environment
    assert type(environment).__name__ == "LightningEnvironment"


def test_lightning_s_advertisement_is_left_out_and_its_warnings_are_not(
    workplace: Path, tmp_path: Path
):
    said: list[str] = []
    loggers = [logging.getLogger(name) for name in lightning_trainer.LOGGERS]
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())

    class Speaking(L.Callback):
        def on_train_start(self, *_) -> None:
            loggers[0].info("a message")
            loggers[0].warning("GPU available: but a warning")
            warnings.warn("a real warning", FutureWarning, stacklevel=1)

    def train_once(name: str) -> list[str]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            train(
                small_config(workplace, **{"train.epochs": 1}),
                tmp_path / name,
                device="cpu",
                callbacks=[Speaking()],
            )
        return [str(one.message) for one in found]

    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        warned = train_once("quiet")
        assert said == ["a message", "GPU available: but a warning"]
        assert "a real warning" in warned
        assert not [text for text in warned if "LeafSpec" in text]
        with mock.patch.multiple(lightning_trainer, NOISE=(), OWN_MISTAKE="nothing"):  # it is there
            said.clear()
            train_once("loud")
            assert [text for text in said if text.startswith("GPU available")]
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
    assert not [one for logger in loggers for one in logger.filters]
