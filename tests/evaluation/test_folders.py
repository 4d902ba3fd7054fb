"""`evaluate` on two folders: what is matched, what values mean, what is refused, what comes out."""

import csv
import json
import math
import shutil
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from PIL import Image

import msa2net
from commands import assert_one_sentence
from commands import msa2net as command
from msa2net.config import DataConfig, NetworkConfig
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared.prepare import prepare
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, DataError, Msa2NetError
from msa2net.evaluation import folders as folders_module
from msa2net.evaluation import label_maps
from msa2net.evaluation.run import evaluate_run
from msa2net.evaluation.schema import Summary
from msa2net.evaluation.summary import LabelsHash, read_summary
from msa2net.inference.run_folder import ModelMetadata, save_run
from msa2net.metrics.schema import MetricValue, WorstCase
from msa2net.metrics.summary import read_cases_csv
from msa2net.models.registry import create_model
from msa2net.report.html import write_report
from msa2net.training.output_folder import check_run_folder

NAMES = ("background", "liver", "tumour")
SPACING = (3.0, 1.2, 0.7)  # Z, H, W, in millimetres
EXACT = ("dice", "iou", "sensitivity", "precision", "specificity", "accuracy")
DISTANCES = ("hd95_mm", "hd_mm", "assd_mm", "hd95_voxels", "hd_voxels", "assd_voxels")


def save_nifti(path: Path, labels_ZHW: np.ndarray, *, origin=(0.0, 0.0, 0.0)) -> None:
    """Write as viewers show it: columns to the left, rows to the back."""
    depth, height, width = SPACING
    affine = np.diag([-width, -height, depth, 1.0])
    affine[:3, 3] = origin
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels_ZHW.transpose(2, 1, 0), affine), path)


def save_png(path: Path, labels_HW: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels_HW.astype(np.uint8)).save(path)


def body() -> np.ndarray:
    """A cube of liver, and a tumour apart from it."""
    labels = np.zeros((14, 20, 24), np.uint8)
    labels[3:9, 4:12, 5:13] = 1
    labels[10:13, 14:18, 16:21] = 2
    return labels


def write_volumes(
    root: Path, change: Callable[[np.ndarray], np.ndarray] = np.copy, cases: int = 3
) -> tuple[Path, Path]:
    """Labels, and predictions made from them."""
    for index in range(cases):
        labels = np.roll(body(), index, axis=2)
        save_nifti(root / "labels" / f"case{index}.nii.gz", labels)
        save_nifti(root / "predictions" / f"case{index}.nii.gz", change(labels))
    return root / "predictions", root / "labels"


def value(summary: Summary, label: str, metric: str, protocol: str = "standard") -> MetricValue:
    return summary.protocols[protocol].classes[label][metric]


# What happened, in numbers ------------------------------------------------------------------------


def test_labels_against_themselves_are_perfect(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path)
    summary = msa2net.evaluate(predictions, labels, NAMES)
    assert summary.protocols.keys() == {"standard", "transunet"}
    for label in NAMES[1:]:
        assert [value(summary, label, metric).mean for metric in EXACT] == [1.0] * 6
        assert [value(summary, label, metric).mean for metric in DISTANCES] == [0.0] * 6
        assert value(summary, label, "volume_difference_percent").mean == 0
        assert value(summary, label, "surface_dice_2mm").mean == 1
        assert value(summary, label, "dice", "transunet").mean == 1
        assert value(summary, label, "hd95_voxels", "transunet").mean == 0
        assert value(summary, label, "dice").n == 3
        assert [worst.case for worst in summary.worst[label]] == ["case0", "case1", "case2"]


def test_an_erased_structure_is_missed_everywhere(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, lambda labels: np.where(labels == 2, 0, labels))
    summary = msa2net.evaluate(predictions, labels, NAMES)
    tumour = value(summary, "tumour", "dice")
    assert (tumour.mean, tumour.missed, tumour.n) == (0, 3, 3)
    diagonal = math.dist((0, 0, 0), np.multiply((13, 19, 23), SPACING))
    assert value(summary, "tumour", "hd95_mm").mean == pytest.approx(diagonal)
    assert value(summary, "tumour", "volume_difference_percent").mean == -100
    assert value(summary, "liver", "dice").mean == 1
    # By the published rules a missed class is as near as can be.
    assert value(summary, "tumour", "hd95_voxels", "transunet").mean == 0
    assert summary.worst["tumour"][0] == WorstCase(case="case0", dice=0.0, outcome="missed")


def test_swapped_classes_score_nothing_although_both_are_there(tmp_path: Path):
    table = np.array([0, 2, 1], np.uint8)
    predictions, labels = write_volumes(tmp_path, lambda labels: table[labels])
    summary = msa2net.evaluate(predictions, labels, NAMES)
    for label in NAMES[1:]:
        found = value(summary, label, "dice")
        assert (found.mean, found.missed, found.false_positives) == (0, 0, 0)
        assert value(summary, label, "hd95_mm").mean > 5
    # The same files, the classes told by name: nothing is wrong with them.
    (predictions / "labels.txt").write_text("background\ntumour\nliver\n")
    named = msa2net.evaluate(predictions, labels, NAMES)
    assert named.protocols["standard"].mean["dice"] == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shift_by_two_voxels_is_two_spacings(tmp_path: Path, axis: int):
    """Of a cube: both outer faces are two voxels from the other's, and a sixth of the surface."""
    cube = np.zeros((20, 20, 20), np.uint8)
    cube[5:14, 5:14, 5:14] = 1
    save_nifti(tmp_path / "labels" / "a.nii.gz", cube)
    save_nifti(tmp_path / "predictions" / "a.nii", np.roll(cube, 2, axis=axis))
    summary = msa2net.evaluate(tmp_path / "predictions", tmp_path / "labels")
    assert summary.label_names == ("background", "foreground")
    for metric in ("hd95_mm", "hd_mm", "hd95_directed_max_mm"):
        expected = pytest.approx(2 * SPACING[axis], abs=1e-6)  # headers hold 32-bit floats
        assert value(summary, "foreground", metric).mean == expected
    assert value(summary, "foreground", "hd95_voxels").mean == 2
    assert value(summary, "foreground", "dice").mean == pytest.approx(7 / 9)


def test_empty_predictions_miss_all_and_empty_labels_apply_to_none(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, np.zeros_like)
    summary = msa2net.evaluate(predictions, labels, NAMES)
    assert summary.protocols["standard"].counts().missed == 6
    assert summary.protocols["standard"].mean["dice"] == 0
    back = msa2net.evaluate(labels, predictions, NAMES)
    assert back.protocols["standard"].counts().false_positives == 6
    assert value(back, "liver", "dice", "transunet").mean == 1
    none = msa2net.evaluate(predictions, predictions, NAMES)
    assert value(none, "liver", "dice").mean is None
    assert value(none, "liver", "dice").not_applicable == 3
    assert none.worst == {"liver": (), "tumour": ()}


@pytest.mark.parametrize(("way", "mean"), [("inf", math.inf), ("nan", None)])
def test_a_failure_s_distance_as_asked_for(tmp_path: Path, way: str, mean: float | None):
    predictions, labels = write_volumes(tmp_path, np.zeros_like)
    summary = msa2net.evaluate(predictions, labels, NAMES, failed_distance=way, out=tmp_path / "o")
    assert summary.failed_distance == way
    assert value(summary, "liver", "hd95_mm").mean == mean
    text = (tmp_path / "o" / "summary.json").read_text()

    def refuse(word: str):
        raise AssertionError(f"{word} is no JSON")

    strict = json.loads(text, parse_constant=refuse)
    liver = strict["protocols"]["standard"]["classes"]["liver"]
    assert liver["hd95_mm"]["mean"] == ("Infinity" if mean else None)
    assert read_summary(tmp_path / "o" / "summary.json").model_dump() == summary.model_dump()
    with pytest.raises(ConfigError, match="failed_distance is 'far'; choose from diagonal"):
        msa2net.evaluate(predictions, labels, NAMES, failed_distance="far")


def test_protocols_are_chosen_by_name(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, cases=1)
    one = msa2net.evaluate(predictions, labels, NAMES, protocol="standard")
    assert one.protocols.keys() == {"standard"}
    assert one.note is None
    with pytest.raises(ConfigError, match="no protocol 'honest'; choose from standard"):
        msa2net.evaluate(predictions, labels, NAMES, protocol="honest")


def test_rules_say_that_nothing_was_resampled(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, cases=1)
    summary = msa2net.evaluate(predictions, labels, NAMES)
    for entry in summary.protocols.values():
        rules = dict(entry.rules)
        assert "scored as they are" in rules["back to the case's own grid"]
        assert not any("nearest neighbour" in rule for rule in rules.values())
    assert "cannot be repeated from files" in summary.note


# Which file belongs to which ----------------------------------------------------------------------


def test_every_unmatched_name_is_in_one_error(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, cases=9)
    for index in range(7):
        (predictions / f"case{index}.nii.gz").unlink()
    save_nifti(predictions / "other.nii.gz", body())
    with pytest.raises(DataError) as caught:
        msa2net.evaluate(predictions, labels, NAMES)
    said = str(caught.value)
    assert "by name: 2 match, 1 of 3 only in the predictions (other), " in said
    lacking = "7 of 9 only in the labels (case0, case1, case2, case3, case4 and 2 more); "
    assert lacking in said
    assert "--common" in said
    assert "--missing-as-empty" in said


def test_missing_predictions_count_as_empty_if_asked(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, cases=4)
    (predictions / "case1.nii.gz").unlink()
    summary = msa2net.evaluate(predictions, labels, NAMES, missing_as_empty=True)
    assert summary.data.missing == 1
    assert "1 of 4 cases have no prediction" in summary.note
    assert "case1" in summary.note
    liver = value(summary, "liver", "dice")
    assert (liver.mean, liver.missed, liver.n) == (0.75, 1, 4)
    save_nifti(predictions / "other.nii.gz", body())
    with pytest.raises(DataError, match=r"3 match, 1 of 4 only in the predictions \(o"):
        msa2net.evaluate(predictions, labels, NAMES, missing_as_empty=True)


@pytest.mark.parametrize(
    ("of_prediction", "of_label"), [("_0000", ""), ("", "_gt"), ("_0000", "_segmentation")]
)
def test_what_data_sets_add_to_all_names_is_no_part_of_them(tmp_path, of_prediction, of_label):
    for name in ("a", "b_0000"):
        save_nifti(tmp_path / "p" / f"{name}{of_prediction}.nii.gz", body())
        save_nifti(tmp_path / "l" / f"{name}{of_label}.nii.gz", body())
    summary = msa2net.evaluate(tmp_path / "p", tmp_path / "l", NAMES)
    assert [worst.case for worst in summary.worst["liver"]] == ["a", "b_0000"]


def test_mixed_names_and_suffixes_are_counted_by_the_best_reading(tmp_path: Path):
    """Some match, some do not, and all labels have an ending: of the plain names none matches."""
    for name in ("a.nii.gz", "b.nii", "C.nii.gz", "x.png"):
        save = save_png if name.endswith("png") else save_nifti
        save(tmp_path / "p" / name, body()[5] if name.endswith("png") else body())
    for name in ("a_gt.nii", "b_gt.nii.gz", "c_gt.nii.gz", "d_gt.nii.gz"):
        save_nifti(tmp_path / "l" / name, body())
    with pytest.raises(DataError) as caught:
        msa2net.evaluate(tmp_path / "p", tmp_path / "l", NAMES)
    counts = "2 match, 2 of 4 only in the predictions (C, x), 2 of 4 only in the labels (c, d); "
    assert f"by name: {counts}but for capital letters or an ending 1 more would" in str(
        caught.value
    )
    assert "such as C and c; " in str(caught.value)
    (tmp_path / "l" / "a_gt.nii").rename(tmp_path / "l" / "a.nii")  # now not all have the ending
    with pytest.raises(DataError) as caught:
        msa2net.evaluate(tmp_path / "p", tmp_path / "l", NAMES)
    assert "1 matches, 3 of 4 only in the predictions (C, b, x), 3 of 4 " in str(caught.value)
    assert "2 more would match, such as b and b_gt; " in str(caught.value)


def test_masks_that_are_not_read_are_no_silent_gap(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, cases=1)
    for folder in (predictions, labels):
        (folder / "case1.mha").write_text("")  # in both, so no name would be without a partner
        (folder / "case0.nrrd").write_text("")  # there as NIfTI as well
    for common in (False, True):
        with pytest.raises(DataError, match=r"predictions holds files of a kind .*\(case1.mha\)"):
            msa2net.evaluate(predictions, labels, NAMES, common=common)


def test_common_cases_alone_and_a_word_about_the_rest(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, cases=9)
    for index in range(7):
        (predictions / f"case{index}.nii.gz").unlink()
    save_nifti(predictions / "other.nii.gz", body())
    noise = np.zeros((14, 20, 24), np.int16)
    for index in (7, 8):  # only of what is scored
        save_nifti(tmp_path / "images" / f"case{index}.nii.gz", noise)
    options = ("--labels", labels, "--names", ",".join(NAMES), "--images", tmp_path / "images")
    result = command("evaluate", predictions, *options, "--common", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    left_out = (
        "Only the 2 cases that both folders have were scored; left out: 1 of 3 predictions (other) "
        "and 7 of 9 labels (case0, case1, case2, case3, case4 and 2 more)."
    )
    assert f"Warning: {left_out}" in " ".join(result.stdout.split())
    out = tmp_path / "predictions-evaluation"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["cases"] == 2
    assert summary["data"]["left_out"] == {
        "predictions": {"cases": 1, "of": 3, "first": ["other"]},
        "labels": {"cases": 7, "of": 9, "first": [f"case{index}" for index in range(5)]},
    }
    heading = "predictions against labels, 2 cases in common"
    for name in ("table.md", "table.tex"):
        text = (out / name).read_text()
        assert heading in text
        assert left_out in text
    page = (out / "report.html").read_text()
    assert f'id="subset"><strong>Warning:</strong> {left_out}</p>' in page
    assert "<dt>Left out</dt><dd>1 of 3 predictions, 7 of 9 labels</dd>" in page
    assert {row["case"] for row in read_cases_csv(out / "cases.csv")} == {"case7", "case8"}
    command("evaluate", labels, *options[:4], "--out", "all", cwd=tmp_path)
    compared = command("compare", out, "all", "--common", cwd=tmp_path)
    assert left_out in " ".join(compared.stdout.split())


def test_common_without_anything_left_out_or_in_common(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, cases=2)
    summary = msa2net.evaluate(predictions, labels, NAMES, common=True, out=tmp_path / "out")
    assert [side.cases for side in summary.data.left_out.values()] == [0, 0]
    assert "Warning" not in (tmp_path / "out" / "table.md").read_text()
    assert msa2net.evaluate(predictions, labels, NAMES).data.left_out is None
    with pytest.raises(ConfigError, match="choose one of the two"):
        msa2net.evaluate(predictions, labels, NAMES, common=True, missing_as_empty=True)
    for index in range(2):
        (predictions / f"case{index}.nii.gz").rename(predictions / f"x{index}.nii.gz")
    with pytest.raises(
        DataError, match=r"none match, 2 of 2 only .* alike in both folders"
    ) as error:
        msa2net.evaluate(predictions, labels, NAMES, common=True)
    assert "--common" not in str(error.value)


def test_one_name_twice_and_mixed_kinds_are_refused(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, cases=1)
    save_nifti(labels / "case0.nii", body())
    with pytest.raises(DataError, match=r"case0\.nii and .*case0\.nii\.gz have the same name"):
        msa2net.evaluate(predictions, labels, NAMES)
    (labels / "case0.nii").unlink()
    (predictions / "case0.nii.gz").unlink()
    save_png(predictions / "case0.png", body()[5])
    with pytest.raises(DataError, match=r"case0.nii.gz is a volume and .*case0.png a picture"):
        msa2net.evaluate(predictions, labels, NAMES)


def test_what_stands_beside_the_masks_is_passed_over(tmp_path: Path):
    """Tables, descriptions, hidden companions, and the overlays that `predict` writes."""
    predictions, labels = write_volumes(tmp_path, cases=1)
    (predictions / "overlays").mkdir()
    save_png(predictions / "overlays" / "case0.jpg", body()[5])
    (predictions / "plans.json").write_text("{}")
    (predictions / "dataset.json").write_text('{"schema": 2, "label_names": []}')
    (predictions / "scores.csv").write_text("case,dice\n")
    (labels / "._case0.nii.gz").write_text("")
    summary = msa2net.evaluate(predictions, labels, NAMES)
    assert summary.cases == 1


# What values mean ---------------------------------------------------------------------------------


def pictures(root: Path, predicted: list[np.ndarray], labelled: list[np.ndarray]) -> tuple:
    for index, (p, t) in enumerate(zip(predicted, labelled, strict=True)):
        save_png(root / "p" / f"{index}.png", p)
        save_png(root / "l" / f"{index}.png", t)
    return root / "p", root / "l"


def square(value: int, at: int = 2) -> np.ndarray:
    mask = np.zeros((12, 15), np.uint8)
    mask[at : at + 4, 3:9] = value
    return mask


@pytest.mark.parametrize(("of_prediction", "of_label"), [(255, 255), (1, 255), (255, 1), (1, 1)])
def test_black_and_white_pictures_need_no_names(tmp_path: Path, of_prediction, of_label):
    summary = msa2net.evaluate(*pictures(tmp_path, [square(of_prediction, 4)], [square(of_label)]))
    assert summary.label_names == ("background", "foreground")
    assert summary.image_kind == "photograph"
    assert summary.protocols.keys() == {"standard", "isic"}
    assert summary.protocols["isic"].mean["dice"] == pytest.approx(0.5)  # 12 of 24 pixels


def test_values_without_a_name_say_what_to_type(tmp_path: Path):
    folders = pictures(tmp_path, [square(1), square(7)], [square(1), square(1)])
    with pytest.raises(DataError) as caught:
        msa2net.evaluate(*folders)
    for part in ("case 1: ", "p/1.png holds the value 7 (24 voxels)", "--names background,NAME"):
        assert part in str(caught.value)
    with pytest.raises(DataError) as caught:
        msa2net.evaluate(*folders, NAMES)
    for part in ("case 1: ", "7 (24 voxels)", "classes (0 background, 1 liver, 2 tumour)"):
        assert part in str(caught.value)
    save_png(tmp_path / "p" / "1.png", np.arange(180, dtype=np.uint8).reshape(12, 15))
    for names in (None, NAMES):
        with pytest.raises(DataError, match=r"; soft edges make such values, save the mask witho"):
            msa2net.evaluate(*folders, names)
    # 0, 1 and 255 in one mask is neither black and white nor, in a prediction, an ignored pixel.
    save_png(tmp_path / "p" / "1.png", np.maximum(square(1), square(255, 7)))
    for names in (None, NAMES[:2], NAMES):
        with pytest.raises(DataError, match=r"case 1: .*255 \(24 voxels\)"):
            msa2net.evaluate(*folders, names)


def test_ignored_pixels_of_labels_are_left_out(tmp_path: Path):
    label = np.maximum(square(1), square(255, 7))
    folders = pictures(tmp_path, [square(1) + square(1, 7)], [label])
    for names in (None, ("background", "lesion")):  # nobody says that these are indices
        with pytest.raises(DataError, match=r"case 0: .*255 \(24 "):
            msa2net.evaluate(*folders, names)
    (folders[1] / "labels.txt").write_text("background\nlesion\n")
    found = value(msa2net.evaluate(*folders), "lesion", "dice")
    assert (found.mean, found.false_positives) == (1, 0)
    # Three classes: 255 is never one of them.
    (folders[1] / "labels.txt").write_text("background\nlesion\nhair\n")
    summary = msa2net.evaluate(*folders)
    assert value(summary, "lesion", "dice").mean == 1
    assert value(summary, "hair", "dice").not_applicable == 1


def test_a_folder_of_two_named_classes_in_black_and_white(tmp_path: Path):
    """As `predict` writes them; if 255 were ignored here, nothing would be left to score."""
    folders = pictures(tmp_path, [square(255), square(0)], [square(255), square(0)])
    for folder in folders:
        (folder / "labels.txt").write_text("background\nlesion\n")
    found = value(msa2net.evaluate(*folders), "lesion", "dice")
    assert (found.mean, found.n, found.not_applicable) == (1, 1, 1)


def test_only_one_folder_names_classes(tmp_path: Path):
    for named in ("p", "l"):
        folders = pictures(tmp_path / named, [square(2)], [square(2)])
        (tmp_path / named / named / "labels.txt").write_text("\n".join(NAMES))
        summary = msa2net.evaluate(*folders)
        assert summary.label_names == NAMES
        assert value(summary, "tumour", "dice").mean == 1


@pytest.mark.parametrize("beside", [False, True])
def test_names_of_nnunet_map_predictions_to_labels(tmp_path: Path, beside: bool):
    table = np.array([0, 2, 1], np.uint8)
    predictions, labels = write_volumes(tmp_path / "a", lambda labels: table[labels], cases=1)
    truth = body()
    truth[0, 0, :5] = 3  # nnU-Net's ignore label: what is predicted there counts nowhere
    save_nifti(labels / "case0.nii.gz", truth)
    mapped = table[body()]
    mapped[0, 0, :5] = 1
    save_nifti(predictions / "case0.nii.gz", mapped)
    (predictions / "labels.txt").write_text("background\ntumour\nliver\n")
    content = {"channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    content["labels"] = {"background": 0, "liver": 1, "tumour": 2, "ignore": 3}
    where = labels.parent if beside else labels
    (where / "dataset.json").write_text(json.dumps(content))
    summary = msa2net.evaluate(predictions, labels)
    assert summary.label_names == NAMES
    assert summary.protocols["standard"].mean["dice"] == 1
    with pytest.raises(ConfigError, match="dataset.json names the classes background, liver"):
        msa2net.evaluate(predictions, labels, ("background", "tumour", "liver"))


def test_a_class_that_only_one_side_knows(tmp_path: Path):
    folders = pictures(tmp_path, [square(1)], [square(1)])
    (folders[0] / "labels.txt").write_text("background\nliver\nspleen\n")
    summary = msa2net.evaluate(*folders, NAMES)  # no prediction holds the spleen
    assert "do not know the class tumour" in summary.note
    assert value(summary, "liver", "dice").mean == 1
    save_png(folders[0] / "0.png", square(1) + square(2, 7))
    with pytest.raises(DataError) as caught:
        msa2net.evaluate(*folders, NAMES)
    for part in ("case 0: ", "'spleen' (value 2, 24 voxels)", "background, liver, tumour"):
        assert part in str(caught.value)
    # The same of black and white.
    (folders[0] / "labels.txt").write_text("background\nspleen\n")
    save_png(folders[0] / "0.png", square(255))
    with pytest.raises(DataError, match=r"'spleen' \(value 255, 24 voxels\)"):
        msa2net.evaluate(*folders, NAMES)


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (("one",), r"no names of classes \(there is 1\)"),
        (("a", "a"), r"no names of classes \('a' stands there twice\)"),
        (tuple(map(str, range(3000))), r"^these are no names .* \(there are 3000\); .{9,120}$"),
        (("liver", "background"), r"\('background' is not the first\)"),
        (("liver", "tumour", "background"), "background first"),
        ("background", r"\(they are no list\)"),
        (("liver", "background", "tumour"), "background first"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, names, part: str):
    predictions, labels = write_volumes(tmp_path, cases=1)
    (predictions / "labels.txt").write_text("\n".join(NAMES))
    with pytest.raises((ConfigError, DataError), match=part):
        msa2net.evaluate(predictions, labels, names)


# Where voxels lie ---------------------------------------------------------------------------------


def test_grids_that_differ_are_both_shown(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, cases=2)
    save_nifti(predictions / "case1.nii.gz", body(), origin=(0, 0, 1.0))
    with pytest.raises(DataError) as caught:
        msa2net.evaluate(predictions, labels, NAMES, out=tmp_path / "out")
    for part in ("case case1: ", "at (0, 0, 0) mm", "at (0, 0, 1) mm", "3×1.2×0.7", "1 mm apart"):
        assert part in str(caught.value)
    assert str(caught.value).count("case case1: ") == 1
    assert not (tmp_path / "out").exists()
    save_nifti(predictions / "case1.nii.gz", body()[:-1])
    with pytest.raises(DataError, match=r"14×20×24 but .* is 13×20×24"):
        msa2net.evaluate(predictions, labels, NAMES)
    # Rounding of headers is forgiven.
    save_nifti(predictions / "case1.nii.gz", np.roll(body(), 1, axis=2), origin=(0, 0, 0.3))
    assert msa2net.evaluate(predictions, labels, NAMES).protocols["standard"].mean["dice"] == 1


def test_another_axis_order_is_the_same_grid(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, cases=1)
    image = nibabel.load(predictions / "case0.nii.gz")
    turned = image.as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
    assert turned.shape != image.shape
    nibabel.save(turned, predictions / "case0.nii.gz")
    summary = msa2net.evaluate(predictions, labels, NAMES)
    assert summary.protocols["standard"].mean["dice"] == 1


def test_masks_of_several_volumes_are_refused(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, cases=1)
    several = np.stack([body(), body()], axis=-1)
    nibabel.save(nibabel.Nifti1Image(several, np.eye(4)), predictions / "case0.nii.gz")
    with pytest.raises(DataError, match=r"case case0: .* holds 2 volumes"):
        msa2net.evaluate(predictions, labels, NAMES)


# How it is done -----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_cases_in_memory_than_workers(tmp_path: Path, monkeypatch, workers: int):
    predictions, labels = write_volumes(tmp_path, cases=8)
    alive: set[int] = set()
    most, lock, index = 0, threading.Lock(), folders_module.class_indices

    def counted(*arguments):
        nonlocal most
        found = index(*arguments)
        with lock:
            alive.add(id(found))
            most = max(most, len(alive))
            weakref.finalize(found, alive.discard, id(found))
        return found

    monkeypatch.setattr(folders_module, "class_indices", counted)
    msa2net.evaluate(predictions, labels, NAMES, workers=workers)
    assert not alive
    assert most <= 2 * workers  # a case is two masks
    assert most >= 2  # so the counting counts
    with pytest.raises(ConfigError, match="workers is 0"):
        msa2net.evaluate(predictions, labels, NAMES, workers=0)


def test_cases_are_scored_side_by_side_and_come_in_order(tmp_path: Path, monkeypatch):
    predictions, labels = write_volumes(tmp_path, cases=4)
    together, score = threading.Barrier(2, timeout=20), folders_module.case_rows

    def wait_for_another(*arguments, **options):
        together.wait()  # breaks, and fails the test, if cases came one after another
        return score(*arguments, **options)

    seen = []
    monkeypatch.setattr(folders_module, "case_rows", wait_for_another)
    msa2net.evaluate(
        predictions, labels, NAMES, workers=2, out=tmp_path / "out",
        progress=lambda names, total: (seen.append(f"{name} of {total}") or name for name in names),
    )  # fmt: skip
    assert seen == [f"case{index} of 4" for index in range(4)]
    rows = read_cases_csv(tmp_path / "out" / "cases.csv")
    assert [row["case"] for row in rows[::2]] == [f"case{index}" for index in range(4)]


def test_the_first_error_ends_it_and_nothing_is_written(tmp_path: Path, monkeypatch):
    predictions, labels = write_volumes(tmp_path, cases=30)
    (predictions / "case10.nii.gz").write_bytes(b"no volume")  # the third by name
    begun, read = [], label_maps.read_nifti_label

    def counted(path: Path):
        begun.append(path)
        return read(path)

    monkeypatch.setattr(label_maps, "read_nifti_label", counted)
    with pytest.raises(DataError, match=r"case case10: .*case10.nii.gz"):
        msa2net.evaluate(predictions, labels, NAMES, workers=1, out=tmp_path / "out")
    assert len(begun) < 60
    assert not (tmp_path / "out").exists()


def test_the_folder_holds_everything_and_nothing_of_the_one_before(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, cases=4)
    out = tmp_path / "out"
    (out / "examples").mkdir(parents=True)
    (out / "examples" / "worst-gone.npz").write_text("")
    (out / "examples" / "mine.txt").write_text("")
    summary = msa2net.evaluate(predictions, labels, NAMES, out=out)
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {
        "cases.csv", "summary.json", "table.md", "table.tex", "examples/mine.txt",
        "examples/worst-case0.npz", "examples/median-case1.npz", "examples/best-case3.npz",
    }  # fmt: skip
    assert read_summary(out / "summary.json").model_dump() == summary.model_dump()
    older = tmp_path / "older.json"  # as keys were called once
    older.write_text((out / "summary.json").read_text().replace("directed_max", "directed"))
    assert '"hd95_directed_mm"' in older.read_text()
    assert read_summary(older) == read_summary(out / "summary.json")
    with np.load(out / "examples" / "worst-case0.npz") as example:
        assert example["image"].shape == (*example["truth"].shape, 3)
        assert not example["image"].any()
        assert np.array_equal(example["truth"], example["prediction"])
        assert set(np.unique(example["truth"])) == {0, 1, 2}


def test_odd_names_of_masks_are_scored_and_read_again(tmp_path: Path):
    """A carriage return, a formula, an order to the terminal: as a Linux folder may hold them."""
    names = ("a\rb", "=1+1", "-x", "<b>c\x1b[31m")
    for folder in ("masks", "labels"):
        (tmp_path / folder).mkdir()
        for name in names:
            mask = np.zeros((8, 8), np.uint8)
            mask[2:6, 2 : 5 + len(name) % 3] = 255
            Image.fromarray(mask).save(tmp_path / folder / f"{name}.png")
    out = tmp_path / "out"
    summary = msa2net.evaluate(tmp_path / "masks", tmp_path / "labels", out=out)
    cases = {r"a\rb", "=1+1", "-x", r"<b>c\x1b[31m"}
    assert {row["case"] for row in read_cases_csv(out / "cases.csv")} == cases
    assert "'=1+1," in (out / "cases.csv").read_text()
    page = write_report(out).read_text()
    assert "<b>c" not in page
    assert page.count("Dice 1.000") == 4  # each card finds its scores
    for path in out.iterdir():
        assert path.is_dir() or not {*path.read_text()} & {"\x1b", "\r"}
    assert {one.case for one in summary.worst["foreground"]} == cases


def test_images_are_shown_with_the_masks(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path, cases=2)
    noise = np.random.default_rng(0).integers(-900, 900, (14, 20, 24)).astype(np.int16)
    save_nifti(tmp_path / "images" / "case0_0000.nii.gz", noise)
    arguments = {"images": tmp_path / "images", "out": tmp_path / "out"}
    with pytest.raises(DataError, match=r"1 of 2 labels have no image in .*\(case1\)"):
        msa2net.evaluate(predictions, labels, NAMES, **arguments)
    save_nifti(tmp_path / "images" / "case1.nii.gz", noise, origin=(9, 0, 0))
    with pytest.raises(DataError, match="9 mm apart"):
        msa2net.evaluate(predictions, labels, NAMES, **arguments)
    assert not (tmp_path / "out").exists()
    save_nifti(tmp_path / "images" / "case1.nii.gz", noise)
    msa2net.evaluate(predictions, labels, NAMES, **arguments)
    with np.load(tmp_path / "out" / "examples" / "best-case1.npz") as example:
        assert example["image"].std() > 50


@pytest.mark.parametrize("inside", ["predictions", "predictions/new", "labels"])
def test_folders_that_are_read_are_never_written(tmp_path: Path, inside: str):
    predictions, labels = write_volumes(tmp_path, cases=1)
    with pytest.raises(ConfigError, match="which is only read; name another folder as --out"):
        msa2net.evaluate(predictions, labels, NAMES, out=tmp_path / inside)
    assert len(list(tmp_path.rglob("*.*"))) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file is a file"):
        msa2net.evaluate(predictions, labels, NAMES, out=tmp_path / "file")


def test_hashes_tell_files_and_cases_apart(tmp_path: Path):
    predictions, labels = write_volumes(tmp_path)
    before = msa2net.evaluate(predictions, labels, NAMES)
    assert before == msa2net.evaluate(predictions, labels, NAMES, workers=1)
    assert before.data.hash == before.hashes.labels
    assert before.hashes.weights is None
    assert before.data.predictions == "predictions"
    assert str(tmp_path) not in before.model_dump_json()
    changed = body()
    changed[0, 0, 0] = 1
    save_nifti(predictions / "case0.nii.gz", changed)
    after = msa2net.evaluate(predictions, labels, NAMES).hashes
    assert after.predictions != before.hashes.predictions
    assert after.labels == before.hashes.labels
    for folder in (predictions, labels):
        (folder / "case2.nii.gz").rename(folder / "case7.nii.gz")
    renamed = msa2net.evaluate(predictions, labels, NAMES).hashes
    assert all(
        getattr(renamed, what) != getattr(after, what)
        for what in ("predictions", "labels", "split")
    )


def test_the_hash_of_arrays_sees_values_shapes_and_names():
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    digests = set()
    for name, array in (
        ("a", labels), ("b", labels), ("a", labels.reshape(3, 2, 4)), ("a", labels[::-1]),
    ):  # fmt: skip
        taken = LabelsHash()
        taken.add(name, array)
        digests.add(taken.hexdigest())
    assert len(digests) == 4


# Of a run, and by commands ------------------------------------------------------------------------


def untrained_run(folder: Path, store, image_size: int = 32) -> Path:
    """A run folder whose network guesses; what it says is scored, not how well."""
    network = NetworkConfig(
        name="msa2net", encoder="test_maxvit", num_classes=len(store.label_names),
        in_channels=store.channels, image_size=(image_size, image_size),
    )  # fmt: skip
    preprocessing = Preprocessing(
        channels=store.channels, image_size=(image_size, image_size),
        intensity=store.intensity, low=store.low, high=store.high,
    )  # fmt: skip
    facts = ModelMetadata(
        network=network, label_names=store.label_names, preprocessing=preprocessing,
        data={"format": store.format, "hash": store.hash},
    )  # fmt: skip
    save_run(folder, create_model(**network.model_dump()), facts)
    return folder


@pytest.fixture(scope="module", params=["nnunet", "isic2018"])
def evaluated(request, tmp_path_factory) -> tuple[Path, DataConfig, list[str]]:
    """A run, evaluated; the images of its test cases predicted by the command."""
    root = tmp_path_factory.mktemp(request.param)
    write_phantom(request.param, root / "raw", cases=6)
    data = DataConfig(format=request.param, root=root / "raw", prepared=root / "prepared")
    store = prepare(data)
    run = untrained_run(root / "run", store)
    evaluate_run(run, data=data, device="cpu")
    images = [Path(store.row(case_id).files[0]["path"]) for case_id in store.ids("test")]
    said = command("predict", run, *images, "--out", "masks", "--no-overlays", cwd=root)
    assert said.returncode == 0, said.stderr
    for case_id in store.ids("test"):
        label = Path(store.row(case_id).files[-1]["path"])
        (root / "truth").mkdir(exist_ok=True)
        shutil.copy(label, root / "truth" / label.name)
    return root, data, store.ids("test")


def test_a_run_and_its_written_masks_score_alike(evaluated):
    """To the last digit; only the published way back to a volume's grid is not in the files."""
    root, _, ids = evaluated
    summary = msa2net.evaluate(root / "masks", root / "truth", out=root / "of-masks")
    of_run = read_summary(root / "run" / "evaluation" / "summary.json")
    same = ("label_names", "cases", "image_kind", "worst", "failed_distance", "intervals")
    assert all(getattr(summary, key) == getattr(of_run, key) for key in same)
    ours, theirs = (
        {name: entry.mean for name, entry in found.protocols.items() if name != "transunet"}
        for found in (summary, of_run)
    )
    assert ours == theirs
    classes = [s.protocols["standard"].classes for s in (summary, of_run)]
    assert classes[0] == classes[1]
    tables = [
        list(csv.DictReader(path.open()))
        for path in (root / "of-masks/cases.csv", root / "run/evaluation/cases.csv")
    ]
    volumes = summary.image_kind == "volume"
    for one, other in zip(*tables, strict=True):
        for column in one:
            if volumes and column.endswith("_transunet"):
                continue
            assert one[column] == other[column], column
    assert {row["case"] for row in tables[0]} == set(ids)
    assert summary.hashes.split == of_run.hashes.split


def test_a_run_s_summary_says_what_was_scored(evaluated):
    root, data, _ = evaluated
    summary = read_summary(root / "run" / "evaluation" / "summary.json")
    assert (summary.source, summary.split) == ("run", "test")
    assert summary.hashes.weights == summary.model.weights_sha256
    assert summary.note is None
    assert (root / "run" / "evaluation" / "table.tex").is_file()
    before = summary.hashes
    again = evaluate_run(root / "run", data=data, device="cpu", failed_distance="inf")
    assert again.hashes == before
    rules = dict(again.protocols["standard"].rules)
    assert rules["distance: missed or false positive"].startswith("infinity")
    evaluate_run(root / "run", data=data, device="cpu")


def test_another_split_has_a_folder_of_its_own(evaluated):
    root, data, _ = evaluated
    run = root / "run"
    files = list((run / "evaluation").rglob("*.*"))
    before = {path: path.read_bytes() for path in files}
    other = evaluate_run(run, data=data, device="cpu", split="val")
    assert {path: path.read_bytes() for path in files} == before
    written = read_summary(run / "evaluation-val" / "summary.json")
    assert (written.split, written.hashes) == ("val", other.hashes)
    of_test = read_summary(run / "evaluation" / "summary.json")
    assert other.hashes.labels != of_test.hashes.labels
    page = write_report(run, split="val")
    assert page == run / "evaluation-val" / "report.html"
    assert "val split" in page.read_text()
    card = (run / "MODEL_CARD.md").read_text()
    assert "test split" in card
    assert f"Mean Dice on val then: {written.protocols['standard'].mean['dice']:.4f}" in card
    assert "test split" in write_report(run).read_text()
    check_run_folder(run, overwrite=True, resume=False)  # it is of a run, and goes with it


def test_predict_names_classes_and_refuses_a_folder_of_others(evaluated, tmp_path: Path):
    root, _, _ = evaluated
    names = read_summary(root / "run" / "evaluation" / "summary.json").label_names
    assert (root / "masks" / "labels.txt").read_text().splitlines() == list(names)
    image = next(path for path in (root / "raw").rglob("*") if path.suffix in (".gz", ".jpg"))
    again = command(
        "predict", root / "run", image, "--out", root / "masks", "--overwrite", cwd=root
    )
    assert again.returncode == 0, again.stderr
    (tmp_path / "labels.txt").write_text("background\nheart\n")
    before = set(tmp_path.iterdir())
    refused = command("predict", root / "run", image, "--out", tmp_path, cwd=root)
    assert_one_sentence(refused, "names the classes background, heart", "choose another --out")
    assert set(tmp_path.iterdir()) == before


def test_the_command_scores_folders(tmp_path: Path):
    predictions, _ = write_volumes(tmp_path)
    said = command(
        "evaluate", "predictions", "--labels", "labels", "--names", "background, liver,tumour",
        "--workers", "2", cwd=tmp_path,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "liver" in said.stdout
    assert "cannot be repeated from files" in " ".join(said.stdout.split())
    assert "predictions-evaluation" in said.stdout
    assert (tmp_path / "predictions-evaluation" / "report.html").is_file()
    assert sorted(path.name for path in predictions.iterdir()) == [
        f"case{index}.nii.gz" for index in range(3)
    ]
    here = command(
        "evaluate", ".", "--labels", "../labels", "--names", ",".join(NAMES), cwd=predictions
    )
    assert here.returncode == 0, here.stderr
    assert len(list(predictions.iterdir())) == 3


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("predictions",), ["predictions is not a run folder", "with --labels"]),
        (("predictions", "--names", "a,b"), ["--names is for a folder of masks", "--labels"]),
        (("predictions", "--missing-as-empty"), ["--missing-as-empty is for a folder of masks"]),
        (("predictions", "--labels", "labels", "--split", "val"), ["--split is of runs"]),
        (("predictions", "--labels", "labels", "--device", "cpu"), ["--device is of runs"]),
        (("predictions", "--labels", "labels"), ["case case0", "--names background,NAME"]),
        (("predictions", "--labels", "none"), ["there is no folder none"]),
        (("predictions", "--labels", "empty"), ["empty holds no image"]),
        (("predictions", "--labels", "labels", "--out", "labels"), ["which is only read"]),
    ],
)
def test_mistakes(tmp_path: Path, arguments, parts):
    write_volumes(tmp_path, cases=1)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert_one_sentence(command("evaluate", *arguments, cwd=tmp_path), *parts)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_table_of_pandas_has_a_row_per_case_class_and_metric(tmp_path: Path, monkeypatch):
    summary = msa2net.evaluate(*write_volumes(tmp_path), NAMES, out=tmp_path / "out")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(Msa2NetError, match="pandas, which is not installed; install it with"):
        summary.to_dataframe()
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=Table))
    table = summary.to_dataframe()
    assert table.columns == ["case", "class", "group", "outcome", "metric", "value"]
    by_place = {(row["case"], row["class"], row["metric"]): row["value"] for row in table.rows}
    metrics = {metric for _, _, metric in by_place}
    assert {"dice", "hd95_mm", "dice_transunet"} <= metrics
    assert len(table.rows) == len(by_place) == 3 * 2 * len(metrics)
    rows = read_cases_csv(tmp_path / "out" / "cases.csv")
    assert all(by_place[row["case"], row["class"], m] == row[m] for row in rows for m in metrics)
    with pytest.raises(Msa2NetError, match="holds no cases; read them from the cases.csv"):
        read_summary(tmp_path / "out" / "summary.json").to_dataframe()


class Table:
    """As much of pandas as is used."""

    def __init__(self, rows: list[dict], columns: list[str]):
        self.rows, self.columns = rows, columns

    def astype(self, types: dict[str, type]):
        assert types == {"value": float}
        return self
