"""Each layout from raw files to masks: prepare, check, train, evaluate, predict, by commands."""

import csv
import json
from pathlib import Path
from unittest import mock

import h5py
import nibabel
import numpy as np
import pytest

from commands import assert_one_sentence, msa2net
from msa2net.data.io.nifti import read_nifti_image, read_nifti_label
from msa2net.data.labels import convert, label_names
from msa2net.data.phantom import files
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared.store import open_store
from msa2net.errors import DataError
from msa2net.inference.predictor import Predictor

CONFIG = """
image_size: 32
model: {{name: msa2net, encoder: test_maxvit}}
data: {{format: {format}, prepared: prepared}}
augment: {{affine: 0.5}}
train: {{epochs: 2, batch_size: 8, learning_rate: 0.003}}
"""
CASES = {"acdc": 6, "btcv": 5, "synapse": 5, "nnunet": 5, "isic2018": 8}
INPUTS = {
    "acdc": "raw/training/patient001",
    "btcv": "raw/img",
    "synapse": "scans",
    "nnunet": "raw/imagesTr",
    "isic2018": "raw/ISIC2018_Task1-2_Training_Input",
}


@pytest.fixture(scope="module", params=CASES)
def finished(request, tmp_path_factory) -> tuple[str, Path, dict[str, str]]:
    """Everything done once, by commands; what each said."""
    format = request.param
    root = tmp_path_factory.mktemp(format)
    with mock.patch.object(files, "ABDOMEN_SHAPE", (12, 64, 64)):
        write_phantom(format, root / "raw", cases=CASES[format])
        if format == "synapse":  # its own files are for training; people predict on scans
            write_phantom("btcv", root / "btcv", cases=3, seed=9)
    if format == "synapse":
        (root / "scans").mkdir()
        for path in (root / "btcv" / "img").iterdir():
            path.rename(root / "scans" / path.name)
    (root / "small.yaml").write_text(CONFIG.format(format=format))
    said = {}
    for step in (
        (
            "prepare",
            format,
            "raw",
            "prepared",
            *(["--labels", "samed"] if format == "btcv" else []),
        ),
        ("check", "prepared", "--image-size", "32"),
        ("train", "small.yaml", "--device", "cpu"),
        ("evaluate", "runs/small"),
        ("predict", "runs/small", INPUTS[format], "--out", "masks"),
    ):
        result = msa2net(*step, cwd=root)
        assert result.returncode == 0, f"{step}: {result.stderr}\n{result.stdout}"
        said[step[0]] = result.stdout
    return format, root, said


def test_both_protocols_are_printed(finished):
    format, root, said = finished
    assert "next: msa2net check prepared" in said["prepare"]
    summary = json.loads((root / "runs/small/evaluation/summary.json").read_text())
    if format == "isic2018":
        assert summary["protocols"].keys() == {"standard", "isic"}
        return
    assert "HD95" in said["evaluate"]
    assert summary["protocols"].keys() == {"standard", "transunet"}
    rows = list(csv.DictReader((root / "runs/small/evaluation/cases.csv").open()))
    scored = [row for row in rows if row["outcome"] == "scored"]
    assert all(float(row["hd95_voxels"]) >= 0 for row in scored)
    assert all(float(row["hd95_mm"]) > 0 for row in scored if float(row["hd95_voxels"]) > 0)
    assert all(row["hd95_voxels_transunet"] for row in rows)
    # Two training epochs of this size teach little, but the two ways back never agree everywhere.
    assert any(row["dice"] != row["dice_transunet"] for row in scored) or not scored


def test_flags_and_the_model_card(finished):
    """Two epochs teach little, but what is usual is known, and every table has its columns."""
    _, root, said = finished
    run, masks = root / "runs/small", root / "masks"
    usual = json.loads((run / "model.json").read_text())["reference_ranges"]
    assert usual["val_cases"] >= 1
    assert usual["temperature"] > 0
    rows = list(csv.DictReader((run / "evaluation/cases.csv").open()))
    verdicts = {row["case"]: (float(row["anomaly_score"]), row["flags"]) for row in rows}
    assert all((anomaly_score > 1) == bool(why) for anomaly_score, why in verdicts.values())
    assessments = json.loads((run / "evaluation/summary.json").read_text())["assessments"]
    assert assessments["flagged"] == sum(bool(why) for _, why in verdicts.values())
    pixels = sum(share for _, _, share in assessments["after"]["points"])
    assert pixels == pytest.approx(1)
    assert 0 <= assessments["after"]["error"] <= 1
    assert "Look at these first" in (run / "report.html").read_text()
    card = (run / "MODEL_CARD.md").read_text()
    assert "Research use only; not a medical device." in card
    assert "| class" in card  # it was scored since
    assert str(root) not in card
    assert not [case for case in verdicts if case in card]
    flags = list(csv.DictReader((masks / "flags.csv").open()))
    scores = [float(row["anomaly_score"]) for row in flags]
    assert scores == sorted(scores, reverse=True)
    shown = {row["case"]: row["flags"] for row in flags}
    structures = list(csv.DictReader((masks / "structures.csv").open()))
    assert {row["case"] for row in structures} == shown.keys()
    assert list(structures[0]) == ["case", "structure", "voxels", "volume_ml", "area_mm2"]
    first = [line for line in said["predict"].splitlines() if line == "look at these first:"]
    assert bool(first) == any(shown.values())


def test_phases_stand_in_the_table(finished):
    format, root, said = finished
    groups = json.loads((root / "runs/small/evaluation/summary.json").read_text())["groups"]
    if format != "acdc":
        assert groups == {}
        return
    assert groups.keys() == {"end diastole", "end systole"}
    assert {group["cases"] for group in groups.values()} == {2}
    assert "end systole" in said["evaluate"]
    assert "end diastole" in (root / "runs/small/evaluation/table.md").read_text()


def test_masks_lie_in_the_space_of_their_scans(finished):
    format, root, _ = finished
    images = [path for path in (root / INPUTS[format]).iterdir() if "_gt" not in path.name]
    if format == "isic2018":
        assert len(list((root / "masks").glob("*.png"))) == len(images)
        return
    for path in images:
        if path.suffix != ".gz":
            continue
        mask = nibabel.load(root / "masks" / path.name)
        scan = nibabel.load(path)
        assert mask.shape == scan.shape[:3]
        np.testing.assert_array_equal(mask.affine, scan.affine)


def test_the_stored_labels_are_the_files_and_go_back(finished):
    _, root, _ = finished
    store = open_store(root / "prepared")
    assert not list(root.rglob(".msa2net*"))
    for row in store.cases:
        case = store.case(row.id)
        assert sum(row.voxels.values()) == case.label.size
        label = next((Path(f["path"]) for f in row.files[::-1] if "nii" in f["path"]), None)
        if label is None:
            continue
        written = store.ground_truth(row.id).save(root / "back.nii.gz")
        original = read_nifti_label(label)[0]
        if store.encoding is not None:
            original = convert(original, "btcv", store.encoding)
        assert np.array_equal(read_nifti_label(written)[0], original)
        np.testing.assert_array_equal(nibabel.load(written).affine, nibabel.load(label).affine)


def test_a_network_trained_on_published_files_takes_any_ct(finished):
    """TransUNet's files hold 0…1; the network's window is in HU all the same."""
    format, root, _ = finished
    if format != "synapse":
        return
    facts = json.loads((root / "runs/small/model.json").read_text())
    assert (facts["preprocessing"]["low"], facts["preprocessing"]["high"]) == (-125, 275)
    assert tuple(facts["label_names"]) == label_names("transunet")
    image, _ = read_nifti_image(next((root / "scans").iterdir()))
    assert image.min() < -125  # what is read has the scanner's range
    with h5py.File(next((root / "raw/test_vol_h5").iterdir())) as file:
        assert 0 <= file["image"][:].min() <= file["image"][:].max() <= 1


def test_several_channels_from_own_files_to_masks(tmp_path: Path):
    """Two MRI sequences, a file each: trained on together, and one mask for both."""
    raw, rng = tmp_path / "raw", np.random.default_rng(0)
    affine = np.diag([-1.5, 1.2, 3.0, 1.0])
    for number in range(5):
        label = np.zeros((24, 28, 6), np.uint8)
        label[6:14, 8:18, 1:5] = 1
        for channel, scale in enumerate((900.0, 0.5)):
            image = (label * scale + rng.random(label.shape) * scale / 3).astype(np.float32)
            path = raw / "imagesTr" / f"knee_{number}_{channel:04d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(image, affine), path)
        (raw / "labelsTr").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(label, affine), raw / "labelsTr" / f"knee_{number}.nii.gz")
    description = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "bone": 1}}
    description |= {"numTraining": 5, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(description))
    config = CONFIG.format(format="nnunet").replace(
        "{affine: 0.5}", "{affine: 0.5, brightness: 0.2, contrast: 0.2}"
    )
    (tmp_path / "small.yaml").write_text(config)
    for step in (
        ("prepare", "nnunet", "raw", "prepared"),
        ("train", "small.yaml", "--device", "cpu"),
        ("evaluate", "runs/small"),
        ("predict", "runs/small", "raw/imagesTr", "--out", "masks"),
    ):
        result = msa2net(*step, cwd=tmp_path)
        assert result.returncode == 0, f"{step}: {result.stderr}"
    assert "5 of 5 images" in result.stdout
    masks = sorted((tmp_path / "masks").glob("*.nii.gz"))
    assert [path.name for path in masks] == [f"knee_{number}.nii.gz" for number in range(5)]
    files = [raw / "imagesTr" / f"knee_2_{channel:04d}.nii.gz" for channel in range(2)]
    predictor = Predictor.load(tmp_path / "runs/small", "cpu")
    expected = read_nifti_label(masks[2])[0]
    assert np.array_equal(predictor(files).labels, expected)
    # One channel alone is no image for this network: refused, not repeated.
    with pytest.raises(DataError, match="1 channel and the network takes 2"):
        predictor(files[0])
    one = msa2net("predict", "runs/small", files[0], "--out", "one", cwd=tmp_path)
    assert_one_sentence(one, "takes 2 channels, knee_2_0000 to knee_2_0001")


def test_a_patient_s_folder_is_predicted_without_its_labels(finished):
    format, root, _ = finished
    if format != "acdc":
        return
    assert not list((root / "masks").glob("*_gt.nii.gz"))
    assert list((root / "masks").glob("*.nii.gz"))
