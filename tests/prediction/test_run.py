"""Folders of images to masks: what is found, what is written, and what an interruption leaves."""

import csv
import itertools
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from commands import assert_one_sentence, msa2net
from msa2net.data.case import Geometry, Segmentation
from msa2net.errors import ConfigError, DataError
from msa2net.inference.predictor import Predictor
from msa2net.inference.sharding import World, device_of_process
from msa2net.prediction.inputs import find_images
from msa2net.prediction.records import read_record, structure_rows, write_tables
from msa2net.prediction.run import predict_files
from prediction_runs import NAMES, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """For photographs."""
    return write_run(tmp_path_factory.mktemp("runs") / "photo", channels=3)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> Path:
    """For volumes."""
    return write_run(tmp_path_factory.mktemp("runs") / "volume")


def photographs(folder: Path, count: int, broken: int = 0) -> list[str]:
    """Write small pictures, every `broken`-th of which is cut short; returns the names of those."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, wrong = np.random.default_rng(0), []
    for number in range(count):
        path = folder / f"p{number:04d}.png"
        side = int(rng.integers(20, 45))
        Pillow.fromarray(rng.integers(0, 255, (side, 33, 3), np.uint8)).save(path)
        if broken and number % broken == broken - 1:
            path.write_bytes(path.read_bytes()[:200])
            wrong.append(path.stem)
    return wrong


def contents(folder: Path, *, times: bool = False) -> dict[str, bytes]:
    """Every file but the records, whose fingerprints hold the inputs' times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (times or path.parent.name != "records")
    }


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


class StopAfter:
    """A progress that is interrupted, as by Ctrl-C, when so many images were begun."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, jobs, total):
        yield from itertools.islice(jobs, self.count)
        raise KeyboardInterrupt


# Failures and interruptions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "stop"), [(40, 25), pytest.param(1000, 512, marks=pytest.mark.slow)]
)
def test_every_tenth_broken_and_interrupted_in_the_middle(run, tmp_path: Path, count, stop):
    wrong = photographs(tmp_path / "in", count, broken=10)
    said = msa2net("predict", run, "in", "--out", "whole", cwd=tmp_path)
    assert said.returncode == 2
    assert f"{count - len(wrong)} of {count} images segmented" in said.stdout
    assert {path.stem for path in (tmp_path / "whole").glob("*.png")} == {
        path.stem for path in (tmp_path / "in").iterdir() if path.stem not in wrong
    }
    named = table(tmp_path / "whole" / "failures.csv")
    assert [row["case"] for row in named] == wrong
    assert all("truncated" in row["error"] for row in named)
    lines = said.stderr.splitlines()
    assert len(lines) == min(len(wrong), 5) + (len(wrong) > 5)
    if len(wrong) > 5:
        assert f"and {len(wrong) - 5} more images have no mask; all are listed in" in lines[-1]

    with pytest.raises(KeyboardInterrupt):
        predict_files(run, [tmp_path / "in"], tmp_path / "halves", progress=StopAfter(stop))
    halfway = contents(tmp_path / "halves", times=True)
    masks = {name for name in halfway if name.endswith(".png")}
    assert 0 < len(masks) < stop
    for name in masks:  # whole ones, of which each is in the table
        assert halfway[name] == (tmp_path / "whole" / name).read_bytes()
    rows = table(tmp_path / "halves" / "structures.csv")
    assert {row["case"] + ".png" for row in rows} == masks
    before = {name: (tmp_path / "halves" / name).stat().st_mtime_ns for name in masks}
    result = predict_files(run, [tmp_path / "in"], tmp_path / "halves", existing="resume")
    assert {f"{name}.png" for name in result.finished} == masks
    assert len(result.predicted) + len(result.finished) + len(result.failures) == count
    after = contents(tmp_path / "halves")
    expected = contents(tmp_path / "whole")
    table_of_failures = after.pop("failures.csv"), expected.pop("failures.csv")
    assert after == expected
    assert [len(text.splitlines()) for text in table_of_failures] == [len(wrong) + 1] * 2
    kept = {name: (tmp_path / "halves" / name).stat().st_mtime_ns for name in masks}
    assert kept == before
    assert not list((tmp_path / "halves").glob(".msa2net*"))


def test_interruption_is_one_sentence_and_130(run, tmp_path: Path, monkeypatch):
    photographs(tmp_path / "in", 3)
    command = sys.modules["msa2net.cli.predict"]  # the package's attribute is the function
    monkeypatch.setattr(command, "track", lambda jobs, total, _: StopAfter(1)(jobs, total))
    said = msa2net("predict", run, "in", "--out", "out", cwd=tmp_path)
    assert said.returncode == 130
    [line] = said.stderr.splitlines()
    assert "interrupted" in line
    assert "--resume" in line


@pytest.mark.slow
def test_ctrl_c_in_a_process_of_its_own(run, tmp_path: Path):
    photographs(tmp_path / "in", 300)
    words = ["predict", run, "in", "--out", "out", "--threads", "1"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "msa2net", *map(str, words)],
            cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    while process.poll() is None and len(list((tmp_path / "out").glob("*.png"))) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    masks = list((tmp_path / "out").glob("*.png"))
    assert 20 <= len(masks) < 300
    for path in masks:
        Pillow.open(path).load()
    again = msa2net("predict", run, "in", "--out", "out", "--resume", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 300


def test_killed_between_its_record_and_its_mask_it_is_done_again(run, tmp_path: Path):
    """The record stands before the outputs do, so that what is there is known to be ours."""
    photographs(tmp_path / "in", 2)
    predict_files(run, [tmp_path / "in"], tmp_path / "out")
    expected = contents(tmp_path / "out")
    (tmp_path / "out" / "p0000.png").unlink()
    result = predict_files(run, [tmp_path / "in"], tmp_path / "out", existing="resume")
    assert (result.predicted, result.finished) == (("p0000",), ("p0001",))
    assert contents(tmp_path / "out") == expected


def test_a_failed_image_leaves_nothing_old(run, tmp_path: Path):
    photographs(tmp_path / "in", 3)
    predict_files(run, [tmp_path / "in"], tmp_path / "out")
    broken = tmp_path / "in" / "p0001.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    for existing in ("overwrite", "resume"):
        result = predict_files(run, [tmp_path / "in"], tmp_path / "out", existing=existing)
        assert [failure.name for failure in result.failures] == ["p0001"]
        there = {name for name in contents(tmp_path / "out") if "p0001" in name}
        assert there == set()
        assert "p0001" not in (tmp_path / "out" / "structures.csv").read_text()
        assert [row["case"] for row in table(tmp_path / "out" / "failures.csv")] == ["p0001"]
    broken.write_bytes(whole)
    result = predict_files(run, [tmp_path / "in"], tmp_path / "out", existing="resume")
    assert result.predicted == ("p0001",)
    assert not (tmp_path / "out" / "failures.csv").exists()
    broken.write_bytes(whole[:100])
    predict_files(run, [tmp_path / "in"], tmp_path / "out", existing="resume")
    assert (tmp_path / "out" / "failures.csv").exists()
    broken.unlink()  # and an image that is not there any more has not failed
    predict_files(run, [tmp_path / "in"], tmp_path / "out", existing="resume")
    assert not (tmp_path / "out" / "failures.csv").exists()


def test_old_masks_go_when_their_new_ones_are_ready(run, tmp_path: Path):
    """And until then each row of the tables is of the mask that is there."""
    photographs(tmp_path / "in", 5)
    other = write_run(tmp_path / "other", channels=3, seed=1)
    for network, out in ((run, "out"), (run, "old"), (other, "new")):
        predict_files(network, [tmp_path / "in"], tmp_path / out)
    new = contents(tmp_path / "new")
    options = {"existing": "overwrite", "batch_slices": 1, "progress": StopAfter(3)}
    with pytest.raises(KeyboardInterrupt):
        predict_files(other, [tmp_path / "in"], tmp_path / "out", **options)
    there = contents(tmp_path / "out")
    made_anew = {name for name in new if name.endswith(".png") and there[name] == new[name]}
    assert 0 < len(made_anew) < 5
    rows = {out: table(tmp_path / out / "structures.csv") for out in ("out", "old", "new")}
    expected = [
        two if f"{two['case']}.png" in made_anew else one
        for one, two in zip(rows["old"], rows["new"], strict=True)
    ]
    assert rows["out"] == expected
    predict_files(other, [tmp_path / "in"], tmp_path / "out", existing="overwrite")
    assert contents(tmp_path / "out") == new


def test_what_killed_processes_left_is_no_record(run, tmp_path: Path):
    """Of an earlier version, which wrote beside the record: with another network's sizes."""
    photographs(tmp_path / "in", 2)
    other = write_run(tmp_path / "other", channels=3, seed=1)
    predict_files(other, [tmp_path / "in"], tmp_path / "other-out")
    predict_files(run, [tmp_path / "in"], tmp_path / "out")
    expected = contents(tmp_path / "out")
    for name in (".writing-abcdef.json", ".of-somebody.json"):
        left = tmp_path / "out" / "records" / name
        shutil.copy(tmp_path / "other-out" / "records" / "p0001.json", left)
    (tmp_path / "out" / "overlays" / ".writing-abc.jpg").touch()
    predict_files(run, [tmp_path / "in"], tmp_path / "out", existing="resume")
    (tmp_path / "out" / "records" / ".of-somebody.json").unlink()
    assert contents(tmp_path / "out") == expected
    assert not list((tmp_path / "out").rglob(".*"))


def test_tables_that_cannot_be_written_are_not_claimed(run, tmp_path: Path):
    photographs(tmp_path / "in", 2)
    (tmp_path / "out" / "structures.csv").mkdir(parents=True)
    said = msa2net("predict", run, "in", "--out", "out", cwd=tmp_path)
    assert said.returncode == 2
    assert "2 of 2 images segmented" in said.stdout
    assert "structures.csv" not in said.stdout
    (line,) = said.stderr.splitlines()
    assert "structures.csv: Is a directory" in line
    assert "--resume writes the tables anew" in line
    (tmp_path / "out" / "structures.csv").rmdir()
    (tmp_path / "out" / "labels.txt").unlink()  # as by a kill just after the first mask
    said = msa2net("predict", run, "in", "--out", "out", "--resume", cwd=tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    assert "sizes of the structures: out/structures.csv" in said.stdout
    assert len(table(tmp_path / "out" / "structures.csv")) == 2 * (len(NAMES) - 1)
    assert (tmp_path / "out" / "labels.txt").read_text().split() == list(NAMES)


def test_a_record_that_cannot_be_read_is_named(run, tmp_path: Path):
    """Its image has a mask, and is missing in the tables."""
    photographs(tmp_path / "in", 2)
    predict_files(run, [tmp_path / "in" / "p0000.png"], tmp_path / "out")
    (tmp_path / "out" / "records" / "p0000.json").write_text("{}")
    said = msa2net("predict", run, "in/p0001.png", "--out", "out", cwd=tmp_path)
    assert said.returncode == 2
    (line,) = said.stderr.splitlines()
    assert "p0000 is in none of the tables: out/records/p0000.json is damaged (made_by" in line
    assert {row["case"] for row in table(tmp_path / "out" / "structures.csv")} == {"p0001"}
    result = predict_files(run, [tmp_path / "in"], tmp_path / "out", existing="overwrite")
    assert result.problems == ()
    assert result.structures_file == tmp_path / "out" / "structures.csv"


def test_an_image_that_changed_is_predicted_anew(run, tmp_path: Path):
    photographs(tmp_path / "in", 2)
    predict_files(run, [tmp_path / "in"], tmp_path / "out")
    shutil.copy(tmp_path / "in" / "p0001.png", tmp_path / "in" / "p0000.png")
    result = predict_files(run, [tmp_path / "in"], tmp_path / "out", existing="resume")
    assert (result.predicted, result.finished) == (("p0000",), ("p0001",))
    same = [(tmp_path / "out" / f"p000{number}.png").read_bytes() for number in (0, 1)]
    assert same[0] == same[1]


def test_images_that_the_network_refuses_do_not_stop_the_others(run, tmp_path: Path, monkeypatch):
    """What fails in the network's hands takes none of its batch with it."""
    photographs(tmp_path / "in", 5)
    predict_files(run, [tmp_path / "in"], tmp_path / "whole")
    original = Predictor.segment

    def segment(predictor, cases, monitor=None):
        def checked():
            for case in cases:
                if case.id in ("p0001", "p0003"):
                    raise DataError(f"{case.source}: not for this network")
                yield case

        return original(predictor, checked(), monitor)

    monkeypatch.setattr(Predictor, "segment", segment)
    result = predict_files(run, [tmp_path / "in"], tmp_path / "out")
    assert result.predicted == ("p0000", "p0002", "p0004")
    assert [failure.name for failure in result.failures] == ["p0001", "p0003"]
    assert "p0001.png: not for this network" in result.failures[0].sentence
    for name in result.predicted:
        masks = [(tmp_path / folder / f"{name}.png").read_bytes() for folder in ("whole", "out")]
        assert masks[0] == masks[1]


def test_a_picture_of_another_kind_is_named(volumes, tmp_path: Path):
    """By the network itself, in the middle of a batch."""
    photographs(tmp_path / "in", 1)
    Pillow.fromarray(np.full((9, 9), 3, np.uint16)).save(tmp_path / "in" / "grey.png")
    said = msa2net("predict", volumes, "in", "--out", "out", cwd=tmp_path)
    assert_one_sentence(said, "p0000.png", "3 channels and the network takes 1", "no colour")
    assert "1 of 2 images segmented" in said.stdout


def test_values_of_another_unit_get_no_mask_that_looks_right(run, volumes, tmp_path: Path):
    """White all over, or black, an image would be answered too."""
    Pillow.fromarray(np.full((9, 9), 3, np.uint8)).save(tmp_path / "ct.png")
    said = msa2net("predict", volumes, "ct.png", "--out", "a", cwd=tmp_path)
    assert_one_sentence(said, "ct.png: the image holds 8-bit values", "Hounsfield units", "NIfTI")
    deep = np.array([[0, 256], [0, 0]], np.uint16)
    Pillow.fromarray(deep).save(tmp_path / "deep.png")
    said = msa2net("predict", run, "deep.png", "--out", "b", cwd=tmp_path)
    assert_one_sentence(said, "deep.png: the image holds values from 0 to 256", "8-bit images")
    assert not list(tmp_path.glob("?/*.png"))


# Whose masks they are -----------------------------------------------------------------------------


def test_only_masks_of_the_same_making_are_gone_on_with(run, tmp_path: Path):
    photographs(tmp_path / "in", 2)
    other = write_run(tmp_path / "other", channels=3, seed=1, training={"flips": ["horizontal"]})
    flipping = write_run(tmp_path / "flips", channels=3, training={"flips": ["horizontal"]})
    command = ("in/p0000.png", "--out", "out", "--resume")
    first = msa2net("predict", run, "in", "--out", "out", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    before = contents(tmp_path / "out", times=True)
    for words, part in (
        ((other, *command), "was made by another network"),
        ((run, *command, "--with", other), "was made by another network"),
        ((flipping, *command, "--flips"), "was made without --flips"),
        ((run, *command, "--sliding"), "was made without --sliding"),
    ):
        said = msa2net("predict", *words, cwd=tmp_path)
        assert_one_sentence(said, "out/p0000.png", part, "--overwrite", "another --out")
    # The same weights and preprocessing are the same network, whatever its folder is called.
    moved = msa2net("predict", flipping, "in", "--out", "out", "--resume", cwd=tmp_path)
    assert moved.returncode == 0, moved.stderr
    assert "0 of 2 images segmented, 2 were done already" in moved.stdout
    assert contents(tmp_path / "out", times=True) == before
    mask = tmp_path / "out" / "p0000.png"
    mask.write_bytes((tmp_path / "out" / "p0001.png").read_bytes())
    said = msa2net("predict", run, *command, cwd=tmp_path)
    assert_one_sentence(said, "p0000.png was not written by msa2net predict, or was changed since")
    shutil.rmtree(tmp_path / "out" / "records")
    said = msa2net("predict", run, "in/p0001.png", "--out", "out", "--resume", cwd=tmp_path)
    assert_one_sentence(said, "p0001.png was not written by msa2net predict")


def test_existing_masks_are_refused_by_a_sentence_that_names_both_ways(run, tmp_path: Path):
    photographs(tmp_path / "in", 1)
    predict_files(run, [tmp_path / "in"], tmp_path / "out")
    again = msa2net("predict", run, "in", "--out", "out", cwd=tmp_path)
    assert_one_sentence(again, "out/p0000.png exists already", "--resume", "--overwrite")
    both = msa2net("predict", run, "in", "--out", "out", "--resume", "--overwrite", cwd=tmp_path)
    assert_one_sentence(both, "--overwrite replaces what --resume would keep")


def test_more_outputs_are_made_of_the_same_image(run, tmp_path: Path):
    photographs(tmp_path / "in", 1)
    plain = predict_files(run, [tmp_path / "in"], tmp_path / "out", overlays=False)
    assert plain.predicted == ("p0000",)
    assert not (tmp_path / "out" / "overlays").exists()
    more = predict_files(run, [tmp_path / "in"], tmp_path / "out", existing="resume")
    assert more.predicted == ("p0000",)
    fewer = predict_files(
        run, [tmp_path / "in"], tmp_path / "out", existing="resume", overlays=False
    )
    assert fewer.finished == ("p0000",)
    # An old overlay would show an old mask.
    predict_files(run, [tmp_path / "in"], tmp_path / "out", existing="overwrite", overlays=False)
    assert not list((tmp_path / "out" / "overlays").iterdir())


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "is not valid JSON"),
        ("{}", "is damaged"),
        ('{"schema_version": 9}', "another version"),
    ],
)
def test_a_record_that_cannot_be_read_is_refused(run, tmp_path: Path, content: str, part: str):
    photographs(tmp_path / "in", 1)
    predict_files(run, [tmp_path / "in"], tmp_path / "out")
    (tmp_path / "out" / "records" / "p0000.json").write_text(content)
    said = msa2net("predict", run, "in", "--out", "out", "--resume", cwd=tmp_path)
    assert_one_sentence(said, "records/p0000.json", part)
    replaced = msa2net("predict", run, "in", "--out", "out", "--overwrite", cwd=tmp_path)
    assert replaced.returncode == 0, replaced.stderr


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"structures": [{"case": "p0000", "liver": "3"}]}, "'liver' is no column"),
        ({"structures": [{"case": 3}]}, "structures.0.case is 3"),
        ({"anomaly_score": float("inf")}, "anomaly_score is inf"),
        ({"suspicion": 1.0}, "suspicion is the former name of anomaly_score"),
        ({"outputs": {"../../x.png": "0" * 64}}, "'../../x.png' is no path in a folder"),
        ({"outputs": {"/x.png": "0" * 64}}, "'/x.png' is no path"),
        ({"outputs": {"x.png": "none"}}, "outputs.x.png is 'none'"),
        ({"more": 1}, "more is 1"),
    ],
)
def test_a_forged_record_is_named_and_breaks_no_table(run, tmp_path: Path, changes, part: str):
    photographs(tmp_path / "in", 2)
    predict_files(run, [tmp_path / "in"], tmp_path / "out")
    path = tmp_path / "out" / "records" / "p0000.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    (problem,) = write_tables(tmp_path / "out")
    assert "p0000 is in none of the tables" in problem
    assert part in problem
    assert {row["case"] for row in table(tmp_path / "out" / "structures.csv")} == {"p0001"}


def test_what_validation_said_of_the_network_is_told(volumes, tmp_path: Path):
    scores = {"val_dice": 0.09, "val_dice_by_class": {"liver": 0.18, "spleen": 0.0}}
    training = scores | {"finished": False, "epochs": 10, "epochs_run": 3}
    weak = write_run(tmp_path / "weak", training=training)
    image = nibabel.Nifti1Image(np.zeros((32, 32, 2), np.int16), np.diag([1, 1, 3, 1]))
    nibabel.save(image, tmp_path / "scan.nii.gz")
    said = msa2net("predict", "weak", "scan.nii.gz", "--out", "out", cwd=tmp_path)
    assert said.returncode == 0
    for part in (
        "network weak: validation Dice 0.090 (liver 0.18, spleen 0.00)\n",
        "warning: its training is unfinished (3 of 10 epochs): finish it",
        "warning: its validation Dice is only 0.09: ",
        "warning: it hardly finds spleen (Dice 0.00), liver (Dice 0.18) in validation cases",
    ):
        assert part in said.stdout, said.stdout
    record = read_record(tmp_path / "out", "scan")
    assert len(record.warnings) == 3
    assert record.warnings == Predictor.load(weak, "cpu").warnings
    both = Predictor.load([weak, volumes], "cpu")
    assert both.warnings == tuple(f"{weak}: {warning}" for warning in record.warnings)
    assert both.performance[1] == f"{volumes}: validation scores are not known"
    # All of it is said again where everything is done already.
    result = predict_files(weak, [tmp_path / "scan.nii.gz"], tmp_path / "out", existing="resume")
    assert (result.finished, result.warnings) == (("scan",), record.warnings)


def test_an_ensemble_answers_as_the_predictor_does(run, tmp_path: Path):
    photographs(tmp_path / "in", 2)
    other = write_run(tmp_path / "other", channels=3, seed=1)
    said = msa2net("predict", run, "in", "--with", other, "--out", "out", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    labels = Predictor.load([run, other], "cpu")(tmp_path / "in" / "p0001.png").labels[0]
    assert len(np.unique(labels)) > 1
    written = np.array(Pillow.open(tmp_path / "out" / "p0001.png"))
    assert np.array_equal(written, labels)


# Processes ----------------------------------------------------------------------------------------


def test_processes_share_the_images_and_one_table_lists_all(run, tmp_path: Path):
    wrong = photographs(tmp_path / "in", 13, broken=5)
    predict_files(run, [tmp_path / "in"], tmp_path / "alone")
    done: list[str] = []
    for rank in (2, 0, 1):
        result = predict_files(run, [tmp_path / "in"], tmp_path / "out", world=World(rank, 3))
        done += [*result.predicted, *(failure.name for failure in result.failures)]
    assert len(done) == len(set(done)) == 13
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    assert [row["case"] for row in table(tmp_path / "out" / "failures.csv")] == wrong
    # What one process left is done by whoever comes, however many they are.
    (tmp_path / "out" / "p0003.png").unlink()
    world = [
        predict_files(
            run, [tmp_path / "in"], tmp_path / "out", existing="resume", world=World(rank, 2)
        )
        for rank in (0, 1)
    ]
    assert [result.predicted for result in world] == [(), ("p0003",)]
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")


def test_two_predictions_into_one_folder_do_not_mix(run, tmp_path: Path):
    photographs(tmp_path / "in", 2)
    refused: list[str] = []

    def progress(jobs, _):
        with pytest.raises(DataError) as error:
            predict_files(run, [tmp_path / "in"], tmp_path / "out")
        refused.append(str(error.value))
        predict_files(run, [tmp_path / "in"], tmp_path / "out", world=World(1, 2))  # shares it
        return jobs

    predict_files(run, [tmp_path / "in"], tmp_path / "out", progress=progress, world=World(0, 2))
    (sentence,) = refused
    assert f"{tmp_path / 'out'} is being written to by process {os.getpid()} on" in sentence
    assert not list((tmp_path / "out").glob(".msa2net*"))


def test_the_command_reads_its_share_from_torchrun(run, tmp_path: Path, monkeypatch):
    photographs(tmp_path / "in", 5)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    said = msa2net("predict", run, "in", "--out", "out", cwd=tmp_path)
    assert "2 of 2 images segmented" in said.stdout
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [
        "p0001.png", "p0003.png",
    ]  # fmt: skip
    monkeypatch.delenv("WORLD_SIZE")
    assert_one_sentence(
        msa2net("predict", run, "in", "--out", "other", cwd=tmp_path), "WORLD_SIZE is ''"
    )


@pytest.mark.parametrize(
    ("device", "environment", "cards", "expected"),
    [
        ("auto", {}, 4, "auto"),
        ("auto", {"LOCAL_RANK": "3"}, 4, "cuda:3"),
        ("auto", {"SLURM_LOCALID": "3"}, 1, "cuda:0"),  # SLURM shows each its own as the first
        ("auto", {"LOCAL_RANK": "3"}, 0, "auto"),
        ("cpu", {"LOCAL_RANK": "3"}, 4, "cpu"),
    ],
)
def test_each_process_takes_its_own_card(monkeypatch, device, environment, cards, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cards > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    assert device_of_process(device, environment) == expected


# What there is to predict -------------------------------------------------------------------------


def test_patterns_that_the_shell_left_alone(tmp_path: Path):
    photographs(tmp_path / "in" / "a", 2)
    photographs(tmp_path / "in" / "b[1]", 1)
    found = find_images([f"{tmp_path}/in/a/*.png"])
    assert [image.name for image in found] == ["p0000", "p0001"]
    assert [image.name for image in find_images([tmp_path / "in" / "b[1]"])] == ["p0000"]
    with pytest.raises(DataError, match="would both be written as p0000"):
        find_images([f"{tmp_path}/in/*"])
    [none] = find_images([f"{tmp_path}/in/*.gz"])
    assert "no file or folder is called like" in none.problem
    twice = find_images([tmp_path / "in" / "a", tmp_path / "in" / "a" / "p0001.png"])
    assert len(twice) == 2


def test_folders_without_images(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    [none] = find_images([tmp_path / "empty"])
    assert re.search(r"empty holds no image .*, and no DICOM .* below$", none.problem)
    photographs(tmp_path / "all[1]" / "a", 2)
    [none] = find_images([tmp_path / "all[1]"])
    assert "name those in the folders below by a pattern" in none.problem
    pattern = none.problem.split("'")[-2]
    assert [image.name for image in find_images([pattern])] == ["p0000", "p0001"]
    [none] = find_images([tmp_path / ("x" * 300)])
    assert re.search("cannot look for .*: File name too long", none.problem)
    photographs(tmp_path / "in", 1)
    with pytest.raises(ConfigError, match="--series chooses among DICOM series"):
        find_images([tmp_path / "in"], series="2")


def test_an_input_that_is_no_image_does_not_stop_the_others(run, tmp_path: Path):
    photographs(tmp_path / "in", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    inputs = ("in", "empty", "gone.png", "notes.txt", "*.gz", "x" * 300)
    said = msa2net("predict", run, *inputs, "--out", "out", cwd=tmp_path)
    assert said.returncode == 2
    assert "1 of 6 images segmented, 5 failed" in said.stdout
    assert (tmp_path / "out" / "p0000.png").is_file()
    errors = said.stderr.splitlines()
    parts = ("empty holds no image", "gone.png", "notes.txt", "*.gz", "too long")
    for part in parts:
        assert sum(part in line for line in errors) == 1, part
    rows = table(tmp_path / "out" / "failures.csv")
    assert {row["case"] for row in rows} >= {"empty", "gone", "notes"}


def test_what_a_folder_holds_besides_is_said(run, tmp_path: Path):
    photographs(tmp_path / "in", 1)
    for name in ("b.mgz", "c.mha", "d.nrrd", ".hidden"):
        (tmp_path / "in" / name).write_bytes(b"another kind of volume")
    photographs(tmp_path / "in" / "more", 2)
    (tmp_path / "in" / "papers").mkdir()
    (tmp_path / "in" / "p0000_gt.png").write_bytes(b"a label")
    said = msa2net("predict", run, "in", "--out", "out", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    kind = "left out, no images of a kind that is read, or copies:"
    assert f"{kind} 3 files (in/b.mgz, in/c.mha, in/d.nrrd)" in lines
    assert "not looked into: 1 folder with images (in/more); name them, too" in lines
    result = predict_files(run, [tmp_path / "in"], tmp_path / "again")
    names = ["b.mgz", "c.mha", "d.nrrd", "more"]
    assert result.left_out == tuple(tmp_path / "in" / name for name in names)


def test_options_that_do_not_make_sense(run, tmp_path: Path):
    photographs(tmp_path / "in", 1)
    with pytest.raises(ConfigError, match="no way with existing outputs 'keep'"):
        predict_files(run, [tmp_path / "in"], tmp_path / "out", existing="keep")
    with pytest.raises(ConfigError, match="no DICOM segmentation 'bits'; use none, binary"):
        predict_files(run, [tmp_path / "in"], tmp_path / "out", dicom_seg="bits")
    with pytest.raises(ConfigError, match="p0000.png is no DICOM"):
        predict_files(run, [tmp_path / "in"], tmp_path / "out", dicom_seg="binary")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a file; name a folder"):
        predict_files(run, [tmp_path / "in"], tmp_path / "file")
    with pytest.raises(ConfigError, match="a batch of 0 slices is none; use 1 or more"):
        predict_files(run, [tmp_path], tmp_path / "new", batch_slices=0)
    with pytest.raises(ConfigError, match="no run is named"):
        predict_files([], [tmp_path / "in"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Geometry and sizes -------------------------------------------------------------------------------


def test_a_mask_keeps_everything_that_a_header_says_of_place(volumes, tmp_path: Path):
    """Oblique, in micrometres, sform and qform with codes of their own."""
    turn = nibabel.affines.from_matvec(
        np.array([[0.0, -0.6, 0.8], [0.0, 0.8, 0.6], [-1.0, 0.0, 0.0]]) * (700, 800, 2500),
        (5000, -3000, 100),
    )
    values = np.random.default_rng(0).integers(-1000, 1000, (9, 40, 21)).astype(np.int16)
    scan = nibabel.Nifti1Image(values, turn)
    scan.set_sform(turn, 2)
    scan.set_qform(turn, 4)
    scan.header.set_xyzt_units("micron")
    nibabel.save(scan, tmp_path / "scan.nii.gz")
    predict_files(volumes, [tmp_path / "scan.nii.gz"], tmp_path / "out")
    mask = nibabel.load(tmp_path / "out" / "scan.nii.gz")
    read = nibabel.load(tmp_path / "scan.nii.gz")
    assert mask.shape == read.shape
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, read.affine)
    np.testing.assert_array_equal(mask.get_qform(), read.get_qform())
    for field in ("sform_code", "qform_code", "xyzt_units"):
        assert mask.header[field] == read.header[field], field
    rows = table(tmp_path / "out" / "structures.csv")
    labels = np.asarray(mask.dataobj)
    assert [row["structure"] for row in rows] == ["liver", "spleen"]
    for index, row in enumerate(rows, start=1):
        count = int((labels == index).sum())
        assert int(row["voxels"]) == count
        assert float(row["volume_ml"]) == pytest.approx(count * 0.7 * 0.8 * 2.5 / 1000, rel=1e-5)
    assert sum(int(row["voxels"]) for row in rows) > 0


@pytest.mark.parametrize("at_once", [2**24, 4])
def test_sizes_worked_out_by_hand(at_once: int):
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0, 0, :3] = 1
    labels[1, 2, 3] = 2
    known = Geometry.from_spacing((5.0, 2.0, 1.5))  # a voxel is 15 mm³
    rows = structure_rows(Segmentation("x", labels, (*NAMES, "empty"), known), at_once)
    assert [row["volume_ml"] for row in rows] == ["0.045", "0.015", "0"]
    assert [row["voxels"] for row in rows] == ["3", "1", "0"]
    assert {row["area_mm2"] for row in rows} == {""}
    flat = structure_rows(Segmentation("x", labels[:1], NAMES, known))
    assert [row["area_mm2"] for row in flat] == ["9", "0"]
    picture = structure_rows(Segmentation("x", labels[:1], NAMES))
    assert [(row["voxels"], row["volume_ml"], row["area_mm2"]) for row in picture] == [
        ("3", "", ""), ("0", "", ""),
    ]  # fmt: skip
    sheared = Geometry((5.0, 2.0, 1.5), np.array(
        [[1.5, 0, 3, 0], [0, 2, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1.0]]
    ))  # fmt: skip
    rows = structure_rows(Segmentation("x", labels, NAMES, sheared))
    assert rows[0]["volume_ml"] == "0.036"  # 1.5 × 2 × 4 mm³ a voxel: the slices lean


def test_a_folder_that_cannot_be_written_is_one_sentence(run, tmp_path: Path):
    photographs(tmp_path / "in", 1)
    if os.geteuid() == 0:  # who may write everywhere, but not below a file
        (tmp_path / "out").write_text("")
    else:
        (tmp_path / "out").mkdir(mode=0o500)
    said = msa2net("predict", run, "in", "--out", "out/masks", cwd=tmp_path)
    assert_one_sentence(said, "out", "check that the folder is")


def test_of_a_very_large_picture_a_part_is_drawn(run, tmp_path: Path, monkeypatch):
    """Its mask has all of its pixels."""
    monkeypatch.setattr("msa2net.prediction.run._LARGEST_PICTURE", 40 * 30)
    Pillow.new("RGB", (90, 60), (9, 99, 199)).save(tmp_path / "big.png")
    predict_files(run, [tmp_path / "big.png"], tmp_path / "out")
    with Pillow.open(tmp_path / "out" / "overlays" / "big.jpg") as drawn:
        assert drawn.size == (30, 20)
    with Pillow.open(tmp_path / "out" / "big.png") as mask:
        assert mask.size == (90, 60)


def test_a_picture_beyond_all_limits_is_refused_before_it_is_unpacked(run, tmp_path: Path):
    Pillow.new("L", (9, 9)).save(tmp_path / "huge.png")
    content = bytearray((tmp_path / "huge.png").read_bytes())
    content[16:24] = struct.pack(">2I", 60000, 50000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "huge.png").write_bytes(content)
    said = msa2net("predict", run, "huge.png", "--out", "out", cwd=tmp_path)
    assert_one_sentence(said, "huge.png", "implausibly large")
