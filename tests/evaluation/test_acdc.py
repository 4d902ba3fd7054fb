"""The 40 test volumes of ACDC against their own labels, and against labels spoilt on purpose."""

import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

import msa2net
from msa2net.config import DataConfig
from msa2net.data.formats.registry import open_source
from msa2net.metrics.schema import ProtocolScores
from msa2net.report.html import write_report

RIGHT, MYOCARDIUM, LEFT = 1, 2, 3
STRUCTURES = ("right ventricle", "myocardium", "left ventricle")


@pytest.fixture(scope="module")
def truth(request, tmp_path_factory) -> Path:
    """The labels as NIfTI files, the numbers of voxels and diagonals noted on the way."""
    source = open_source(
        DataConfig(
            format="acdc",
            root=request.getfixturevalue("real_data") / "acdc",
            prepared=Path("not-written"),
        )
    )
    folder = tmp_path_factory.mktemp("acdc") / "labels"
    for case in source.cases:
        if case.split == "test":
            save(folder / f"{case.id}.nii.gz", case.read().label)
    return folder


def save(path: Path, labels_ZHW: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels_ZHW.transpose(2, 1, 0), np.eye(4)), path)


def spoilt(truth: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    folder = truth.parent / name
    for path in sorted(truth.iterdir()):
        labels_WHZ = np.asarray(nibabel.load(path).dataobj)
        save(folder / path.name, change(labels_WHZ.transpose(2, 1, 0)))
    return folder


def evaluated(predictions: Path, truth: Path) -> tuple[ProtocolScores, ProtocolScores, str]:
    """Return the two protocols and the text of the report."""
    out = predictions.parent / f"{predictions.name}-scores"
    summary = msa2net.evaluate(predictions, truth, ("background", *STRUCTURES), out=out)
    page = write_report(out).read_text(encoding="utf-8")
    words = re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]+>", " ", page, flags=re.S)
    assert summary.cases == 40
    return (*(summary.protocols[p] for p in ("standard", "transunet")), " ".join(words.split()))


def dice(protocol: ProtocolScores) -> list[float]:
    return [protocol.classes[name]["dice"].mean for name in STRUCTURES]


def test_their_own_labels_are_perfect(truth: Path):
    standard, transunet, words = evaluated(truth, truth)
    for protocol in (standard, transunet):
        assert dice(protocol) == [1, 1, 1]
        for name in STRUCTURES:
            assert protocol.classes[name]["hd95_voxels"].mean == 0
            assert protocol.classes[name]["dice"].n == 40
    others = ("iou", "sensitivity", "specificity", "precision", "accuracy", "surface_dice_2voxels")
    for metric in others:
        assert standard.mean[metric] == 1, metric
    for metric in ("hd_voxels", "assd_voxels", "volume_difference_percent"):
        assert standard.mean[metric] == 0, metric
    assert "missed: 0, false positives: 0" in words
    for wrong in ("same side", "hold another", "No prediction", "Every prediction"):
        assert wrong not in words


def test_one_structure_erased(truth: Path):
    """Missed everywhere: 0 by both; its distance is the diagonal honestly, 0 as published."""
    erased = spoilt(truth, "erased", lambda a: np.where(a == MYOCARDIUM, 0, a).astype(np.uint8))
    standard, transunet, words = evaluated(erased, truth)
    assert dice(standard) == dice(transunet) == [1, 0, 1]
    assert standard.classes["myocardium"]["dice"].missed == 40
    shapes = [nibabel.load(path).shape for path in truth.iterdir()]
    diagonals = [np.linalg.norm(np.array(shape) - 1) for shape in shapes]
    found = standard.classes["myocardium"]["hd95_voxels"].mean
    assert found == pytest.approx(np.mean(diagonals))
    assert transunet.classes["myocardium"]["hd95_voxels"].mean == 0
    assert "missed: 40, false positives: 0" in words
    assert "No prediction shows myocardium: it is missed in all 40 cases that hold it." in words


def test_two_structures_swapped(truth: Path):
    """Neither missed nor a false positive, for both are there: only in the wrong place."""
    other = np.array([0, LEFT, MYOCARDIUM, RIGHT], np.uint8)
    standard, transunet, words = evaluated(spoilt(truth, "swapped", lambda a: other[a]), truth)
    assert dice(standard) == dice(transunet) == [0, 1, 0]
    for name in ("right ventricle", "left ventricle"):
        assert standard.classes[name]["hd95_voxels"].mean > 10
    assert "missed: 0, false positives: 0" in words
    assert (
        "predictions hold another: right ventricle is called left ventricle (100% of its voxels), "
        "left ventricle is called right ventricle (100% of its voxels); their numbers look "
        "exchanged"
    ) in words


def test_shifted_by_two_voxels(truth: Path):
    shifted = spoilt(truth, "shifted", lambda a: np.roll(a, 2, axis=2))
    standard, transunet, words = evaluated(shifted, truth)
    assert dice(standard) == dice(transunet)
    assert all(0.6 < value < 0.97 for value in dice(standard))
    for name in STRUCTURES:
        values = standard.classes[name]
        assert 0 < values["hd95_voxels"].mean <= values["hd_voxels"].mean <= 2
        assert values["surface_dice_2voxels"].mean == 1  # no further than two voxels
        assert values["volume_difference_percent"].mean == 0
    assert "to the same side of their labels, in voxels (median): 2.0 along the columns;" in words


def test_empty_masks(truth: Path):
    standard, transunet, words = evaluated(spoilt(truth, "empty", np.zeros_like), truth)
    assert dice(standard) == dice(transunet) == [0, 0, 0]
    assert transunet.mean["hd95_voxels"] == 0  # the published rule: as if perfect
    assert standard.mean["hd95_voxels"] > 200
    assert standard.mean["precision"] is None  # nothing was predicted
    assert "missed: 120, false positives: 0" in words
    assert "Every prediction is empty: all 40 masks are background throughout." in words
