"""Exported networks: the same answers without torch, and one sentence where there are none."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from PIL import Image

import commands
import resumed
from commands import assert_one_sentence
from msa2net.config import NetworkConfig
from msa2net.data.case import Case
from msa2net.data.io.readers import read_image
from msa2net.data.io.writers import write_png
from msa2net.data.phantom import abdomen, skin_lesion
from msa2net.data.phantom.files import write_phantom
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, DataError, WeightsError
from msa2net.export import onnx as export
from msa2net.export.onnx import comparison_images, export_onnx
from msa2net.files import sha256
from msa2net.inference.onnx_backend import (
    CHECKSUM_KEY,
    MODEL_KEY,
    NO_CHECKSUM,
    NOTICE_KEY,
    SCHEMA_KEY,
    WEIGHTS_KEY,
    OnnxPredictor,
)
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import ModelMetadata, read_facts, save_run
from msa2net.models.registry import MODELS, create_model
from msa2net.quality.monitor import QualityMonitor
from onnx_runs import NAMES, SIZE, USUAL, write_run

PICTURES = "isic2018/ISIC2018_Task1-2_Training_Input"


@pytest.fixture(scope="module")
def exported(exported_run: Path) -> OnnxPredictor:
    return OnnxPredictor.load(exported_run / "model.onnx", threads=1)


@pytest.fixture(scope="module")
def eager(exported_run: Path) -> Predictor:
    return Predictor.load(exported_run, "cpu")


@pytest.fixture
def copy(exported_run: Path, tmp_path: Path) -> Path:
    return shutil.copy(exported_run / "model.onnx", tmp_path / "copy.onnx")


@pytest.fixture
def traced(exported_run: Path, monkeypatch):
    """Give what tracing gave before, changed by a test; nothing is traced anew."""
    model = onnx_ir.load(exported_run / "model.onnx")
    monkeypatch.setattr(export, "_trace", lambda *_: model)
    return model


def equal_share(one, other) -> float:
    pairs = list(zip(one, other, strict=True))
    assert all(a.labels.shape == b.labels.shape for a, b in pairs)
    same = [(a.labels == b.labels).reshape(-1) for a, b in pairs]
    return float(np.concatenate(same).mean())


def on_disk(folder: Path) -> dict[str, str]:
    return {str(path): sha256(path) for path in folder.rglob("*") if path.is_file()}


# --- the same answers


def test_real_pictures_get_the_same_labels(exported, eager, real_data: Path):
    pictures = sorted((real_data / PICTURES).glob("*.jpg"))[::260]
    assert len(pictures) == 10
    cases = [read_image(path) for path in pictures]
    found, expected = list(exported.segment(cases)), list(eager.segment(cases))
    assert equal_share(found, expected) >= 0.9999
    shares = [float(segmentation.labels.mean()) for segmentation in expected]
    assert 0.05 < float(np.mean(shares)) < 0.95  # there is something to agree upon


def test_a_volume_gets_the_same_labels_however_it_lies(exported, eager):
    case = abdomen(0, shape=(19, 96, 128))
    assert case.geometry.affine is not None
    found, expected = exported(case), eager(case)
    assert equal_share([found], [expected]) >= 0.9999
    assert found.geometry is case.geometry
    assert found.label_names == NAMES
    assert 0.01 < expected.labels.mean() < 0.99


def test_drawn_pictures_get_the_same_labels(exported, eager):
    cases = [skin_lesion(index, shape=(90, 120)) for index in range(3)]
    assert equal_share(exported.segment(cases), eager.segment(cases)) >= 0.9999


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_one_file_takes_batches_of_any_size(batch, exported_run: Path, eager):
    apply = OnnxPredictor.load(exported_run / "model.onnx", batch, threads=1)
    assert apply.batch_slices == batch
    seen = []
    network = apply._engine.groups[0]
    run = network.logits
    network.logits = lambda image_BChw: seen.append(len(image_BChw)) or run(image_BChw)
    volume_ZHW = abdomen(1, shape=(10, 64, 64)).image[0]
    assert equal_share([apply(volume_ZHW)], [eager(volume_ZHW)]) >= 0.9999
    assert seen == [batch] * (10 // batch)


def test_an_array_with_spacing_is_a_volume_in_space(exported, tmp_path: Path):
    volume_ZHW = abdomen(2, shape=(8, 64, 64)).image[0]
    segmentation = exported(volume_ZHW, spacing_mm=(5.0, 1.5, 2.0))
    assert segmentation.geometry.spacing_mm == (5.0, 1.5, 2.0)
    file = nibabel.load(segmentation.save(tmp_path / "mask.nii.gz"))
    assert sorted(np.linalg.norm(file.affine[:3, :3], axis=0)) == pytest.approx([1.5, 2.0, 5.0])


def test_the_published_way_back_is_there_too(exported, eager):
    case = abdomen(3, shape=(8, 70, 90))
    ((_, found),) = exported.segment_both_ways([case])
    ((_, expected),) = eager.segment_both_ways([case])
    assert equal_share([found], [expected]) >= 0.9999


def test_what_is_usual_is_judged_alike(exported, eager):
    """All features, those of confidences among them, and the flags they lead to."""
    cases = [abdomen(0, shape=(8, 64, 80)), skin_lesion(0, shape=(90, 120))]
    assert exported.reference_ranges == eager.reference_ranges == USUAL
    features, assessments = [], []
    for apply in (exported, eager):
        monitors = QualityMonitor(None), QualityMonitor(apply.reference_ranges)
        monitors[0].temperature = USUAL.temperature
        for monitor in monitors:
            for _ in apply.segment(cases, monitor):
                pass
        features.append(monitors[0].features)
        assessments.append(monitors[1].assessments)
    for case in cases:
        found, expected = features[0][case.id], features[1][case.id]
        assert "confidence:entropy:" in found
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
        assert assessments[0][case.id].flags == assessments[1][case.id].flags
    flags = assessments[0][cases[0].id].text
    assert "it has 8 slices, typical 1" in flags
    assert "low confidence in lesion" in flags


# --- without torch

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "lightning", "monai"}:
            raise ModuleNotFoundError(f"{name} is not to be imported", name=name)

sys.meta_path.insert(0, Blocked())
"""

APPLIED = """
import numpy as np
from msa2net import Case, OnnxPredictor

apply = OnnxPredictor.load("model.onnx", threads=1)
apply("picture.png").save("picture-mask.png")
apply("volume.nii.gz").save("volume-mask.nii.gz")
array = np.load("array.npy")
np.save("array-labels.npy", apply(array, spacing_mm=(2.0, 1.0, 1.0)).labels)
np.save("case-labels.npy", apply(Case("case", array[None])).labels)
"""

COMMANDS = """
from msa2net.cli import main

for line in (
    "predict model.onnx picture.png volume.nii.gz --out masks --threads 1",
    "predict run picture.png --out other-masks",
):
    sys.argv[1:] = line.split()
    try:
        main()
    except SystemExit as leaving:
        print("left with", leaving.code)
"""


def test_no_torch_is_needed(exported_run: Path, eager, tmp_path: Path):
    """In a process in which importing torch, torchvision, timm, lightning or monai fails."""
    shutil.copy(exported_run / "model.onnx", tmp_path)
    shutil.copytree(exported_run, tmp_path / "run")
    write_png(skin_lesion(0).image[:, 0].transpose(1, 2, 0), tmp_path / "picture.png")
    array_ZHW = abdomen(0, shape=(8, 64, 80)).image[0]
    # A scan that lies otherwise than the training: its slices run along another axis of the file.
    turned = nibabel.Nifti1Image(array_ZHW, np.diag([1.5, -1.0, -1.0, 1.0])[[2, 1, 0, 3]])
    nibabel.save(turned, tmp_path / "volume.nii.gz")
    np.save(tmp_path / "array.npy", array_ZHW)
    environment = os.environ | {"LOCAL_RANK": "0"}
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + APPLIED + COMMANDS],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "left with 0" in done.stdout
    assert "left with 2" in done.stdout
    assert "this needs torch, which is not installed" in done.stderr
    flags = (tmp_path / "masks" / "flags.csv").read_text()
    assert "it has 8 slices, typical 1" in flags
    assert flags.count("low confidence in lesion") == 2
    picture, volume = eager(tmp_path / "picture.png"), eager(tmp_path / "volume.nii.gz")
    volume.save(tmp_path / "expected.nii.gz")
    expected = nibabel.load(tmp_path / "expected.nii.gz")
    for folder in (".", "masks"):
        suffix = "-mask" if folder == "." else ""
        mask = np.asarray(Image.open(tmp_path / folder / f"picture{suffix}.png"))
        assert np.mean(mask == 255 * picture.labels[0]) >= 0.9999
        found = nibabel.load(tmp_path / folder / f"volume{suffix}.nii.gz")
        assert np.array_equal(found.affine, expected.affine)
        assert np.mean(np.asarray(found.dataobj) == np.asarray(expected.dataobj)) >= 0.9999
    for name in ("array", "case"):
        labels_ZHW = np.load(tmp_path / f"{name}-labels.npy")
        assert np.mean(labels_ZHW == eager(array_ZHW).labels) >= 0.9999
    assert (tmp_path / "masks/overlays/picture.jpg").is_file()
    assert "structure" in (tmp_path / "masks/structures.csv").read_text()


def test_a_folder_of_masks_goes_on_with_the_same_network_only(
    exported_run: Path, copy: Path, tmp_path: Path
):
    write_png(skin_lesion(0).image[0, 0], tmp_path / "grey.png")
    start = ["predict", copy, "grey.png", "--out", "masks", "--threads", "1"]
    assert commands.msa2net(*start, cwd=tmp_path).returncode == 0
    again = commands.msa2net(*start, "--resume", cwd=tmp_path)
    assert "1 were done already" in again.stdout
    other = commands.msa2net(
        "predict", exported_run, "grey.png", "--out", "masks", "--resume", cwd=tmp_path
    )
    assert_one_sentence(other, "by another network")
    for options in (["--flips"], ["--sliding"], ["--with", exported_run]):
        refused = commands.msa2net(*start, "--overwrite", *options, cwd=tmp_path)
        assert_one_sentence(refused, "an exported network predicts by itself")
    refused = commands.msa2net(*start, "--overwrite", "--device", "cuda", cwd=tmp_path)
    assert_one_sentence(refused, "computes on the CPU")


# --- what the file says


def test_the_file_says_how_it_is_applied(exported_run: Path, exported):
    model = onnx.load(exported_run / "model.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    facts = read_facts(exported_run)
    assert exported.facts == facts
    said = json.loads(metadata[MODEL_KEY])
    assert said["preprocessing"] == facts.preprocessing.model_dump(mode="json")
    assert said["label_names"] == list(NAMES)
    assert metadata[SCHEMA_KEY] == "1"
    assert metadata[WEIGHTS_KEY] == sha256(exported_run / "model.safetensors")
    assert "Research use only" in metadata[NOTICE_KEY]
    assert "Research use only" in model.doc_string
    (image,), (logits,) = model.graph.input, model.graph.output
    sides = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (image, logits)
    ]
    assert (image.name, logits.name) == ("image", "logits")
    assert sides == [["batch", 3, *SIZE], ["batch", 2, *SIZE]]
    onnx.checker.check_model(model, full_check=True)


def test_the_file_says_nothing_of_the_machine_it_was_made_on(exported_run: Path):
    content = (exported_run / "model.onnx").read_bytes()
    for word in (str(Path(export.__file__).parents[2]), str(exported_run), ".py"):
        assert word.encode() not in content


# --- refused


def perturb(model, factor: float) -> None:
    """Multiply the largest of a network's weights, in ONNX's form."""
    value = max(model.graph.initializers.values(), key=lambda value: value.const_value.size)
    weights = value.const_value.numpy() * np.float32(factor)
    value.const_value = onnx_ir.tensor(weights, name=value.name)


@pytest.mark.parametrize("factor", [1.05, float("nan")])
def test_a_network_that_answers_otherwise_is_refused(factor, traced, exported_run, tmp_path):
    perturb(traced, factor)
    before = on_disk(exported_run)
    with pytest.raises(WeightsError, match=r"was not exported: only .* of the exported network's"):
        export_onnx(exported_run, tmp_path / "out" / "net.onnx")
    with pytest.raises(WeightsError, match="was not exported"):
        export_onnx(exported_run, overwrite=True)
    assert on_disk(tmp_path) == {}
    assert on_disk(exported_run) == before


def test_a_network_of_other_weights_is_refused(traced, exported_run, tmp_path):
    """The traced network is another run's than that which is exported."""
    run = write_run(tmp_path / "other", seed=1)
    result = commands.msa2net("export", run, cwd=tmp_path)
    assert_one_sentence(result, "was not exported", "use the run folder")
    assert sorted(path.name for path in run.iterdir()) == ["model.json", "model.safetensors"]


def test_the_command_writes_and_says_what_was_compared(traced, exported_run, tmp_path):
    result = commands.msa2net("export", exported_run, "--out", "net.onnx", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "of labels equal" in result.stdout
    assert "Research use only" in result.stdout
    first, second = (exported_run / "model.onnx", tmp_path / "net.onnx")
    assert first.stat().st_size == second.stat().st_size
    assert_one_sentence(
        commands.msa2net("export", exported_run, "--out", "net.onnx", cwd=tmp_path),
        "net.onnx exists already", "overwrite",
    )  # fmt: skip
    again = commands.msa2net("export", exported_run, "--out", second, "--overwrite", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    refused = commands.msa2net("export", exported_run, "--format", "tflite", cwd=tmp_path)
    assert_one_sentence(refused, "tflite", "onnx")
    refused = commands.msa2net("export", exported_run, "--out", "net.pb", cwd=tmp_path)
    assert_one_sentence(refused, "net.pb", ".onnx")
    refused = commands.msa2net("export", tmp_path / "nowhere", cwd=tmp_path)
    assert_one_sentence(refused, "is not a run folder")


def test_weights_too_large_for_one_file_lie_beside_it(
    traced, exported_run, exported, tmp_path, monkeypatch
):
    monkeypatch.setattr(export, "_LARGEST_FILE", 1000)
    written = export_onnx(exported_run, tmp_path / "net.onnx")
    assert [path.name for path in written.files] == ["net.onnx", "net.onnx.data"]
    assert sorted(tmp_path.iterdir()) == sorted(written.files)
    volume_ZHW = abdomen(1, shape=(8, 64, 64)).image[0]
    found = OnnxPredictor.load(tmp_path / "net.onnx", threads=1)(volume_ZHW)
    assert np.array_equal(found.labels, exported(volume_ZHW).labels)
    data = written.files[1]
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(WeightsError, match="not as it was exported"):
        OnnxPredictor.load(tmp_path / "net.onnx")
    data.unlink()
    with pytest.raises(WeightsError, match=r"net\.onnx"):
        OnnxPredictor.load(tmp_path / "net.onnx")


def test_a_folder_that_cannot_be_written_is_one_sentence(traced, exported_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write into"):
        export_onnx(exported_run, tmp_path / "file" / "net.onnx")
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(DataError, match="cannot write into"):
        export_onnx(exported_run, tmp_path / "net.onnx", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "net.onnx"]


def test_what_torch_cannot_express_is_one_sentence(exported_run, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise torch.onnx.OnnxExporterError("\nNo decomposition of aten::odd\n\n## Long report")

    monkeypatch.setattr(torch.onnx, "export", fails)
    result = commands.msa2net("export", exported_run, "--out", "net.onnx", cwd=tmp_path)
    assert_one_sentence(result, "cannot be exported", "aten::odd")
    assert on_disk(tmp_path) == {}


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_exporting_without_a_library_is_one_sentence(library, exported_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    result = commands.msa2net("export", exported_run, "--out", "net.onnx", cwd=tmp_path)
    assert_one_sentence(result, library, "pip install")


def test_predicting_without_onnxruntime_is_one_sentence(copy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = commands.msa2net("predict", copy, "x.png", "--out", "masks", cwd=tmp_path)
    assert_one_sentence(result, "onnxruntime", "pip install")


# --- broken files


def flip_a_bit(content: bytes) -> bytes:
    """Change one weight a little, in the middle of the file: no reader of ONNX would notice."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def without(content: bytes, key: str) -> bytes:
    return content.replace(key.encode(), key[:-1].encode() + b"X")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda _: b"", "cannot be opened"),
        (lambda content: content[: len(content) // 2], "cannot be opened"),
        (lambda _: b"\x89PNG\r\n" * 1000, "cannot be opened"),
        (flip_a_bit, "not as it was exported"),
        (lambda content: without(content, SCHEMA_KEY), "was not exported by msa2net"),
        (lambda content: without(content, CHECKSUM_KEY), "not as it was exported"),
        (lambda content: without(content, MODEL_KEY), "not as it was exported"),
        (lambda content: content.replace(b'"mean":0.4', b'"mean":0.5'), "not as it was exported"),
    ],
    ids=["empty", "half", "picture", "bit", "foreign", "no checksum", "no facts", "other facts"],
)
def test_a_broken_file_is_one_sentence(spoil, sentence, copy: Path, tmp_path: Path):
    before = copy.read_bytes()
    copy.write_bytes(spoil(before))
    assert copy.read_bytes() != before
    result = commands.msa2net("predict", copy, "x.png", "--out", "masks", cwd=tmp_path)
    assert_one_sentence(result, "copy.onnx", sentence)
    assert not (tmp_path / "masks").exists()


def restamped(content: bytes, before: bytes, after: bytes) -> bytes:
    """Change what a file says of itself, to as many bytes, and its checksum with it."""
    stated = re.search(rb"msa2net.checksum\x12@([0-9a-f]{64})", content)[1]
    assert len(before) == len(after)
    assert content.count(before) == 1
    zeros = content.replace(before, after).replace(stated, NO_CHECKSUM.encode())
    found = hashlib.sha256(zeros).hexdigest().encode()
    return zeros.replace(NO_CHECKSUM.encode(), found)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (b'"std":0.6', b'"std":0.0', "std is 0.0"),
        (b'"mean":0.4', b'"mean":0.5', ""),
        (b'"num_classes":2', b'"num_classes":9', "must be 9 different names"),
        (b'{"schema_version":2', b"[" * 19, "is not valid JSON"),
        (b"msa2net.schema_version\x12\x011", b"msa2net.schema_version\x12\x01x", "not exported by"),
        (b'"in_channels":3,"image_size":[64,64]', b'"in_channels":3,"image_size":[96,96]', "96×96"),
        (b'"label_names":["background"', b'"label_names":["lesion",  1', "label_names"),
    ],
)
def test_odd_words_in_an_exported_file_are_one_sentence(copy: Path, before, after, sentence):
    copy.write_bytes(restamped(copy.read_bytes(), before, after))
    if not sentence:
        OnnxPredictor.load(copy)
        return
    with pytest.raises(WeightsError, match=sentence) as caught:
        OnnxPredictor.load(copy)
    assert "\n" not in str(caught.value)


def test_a_network_that_gives_something_else_than_it_says_is_refused(copy: Path):
    content = copy.read_bytes()
    for side in (b'"network":{', b'"preprocessing":{'):
        at = content.index(side)
        start = content.index(b'"image_size":[64,64]', at)
        content = content[:start] + b'"image_size":[32,32]' + content[start + 20 :]
    copy.write_bytes(restamped(content, b'"mean":0.4', b'"mean":0.5'))
    with pytest.raises(WeightsError, match=r"takes 3×64×64, and it says of itself 3×32×32"):
        OnnxPredictor.load(copy)


def test_weights_in_other_files_are_refused(copy: Path):
    """What lies outside of the checksum cannot change an answer."""
    model = onnx.load(copy)
    onnx.save(model, copy, save_as_external_data=True, location="other.bin", size_threshold=0)
    with pytest.raises(WeightsError, match=r"has weights in 'other.bin'"):
        OnnxPredictor.load(copy)


def test_a_file_of_the_future_is_one_sentence(traced, exported_run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "SCHEMA", 2)
    with pytest.raises(WeightsError, match=r"newer version \(schema 2"):
        export_onnx(exported_run, tmp_path / "net.onnx")


def test_no_file_is_one_sentence(tmp_path):
    with pytest.raises(WeightsError, match="there is no file"):
        OnnxPredictor.load(tmp_path / "nothing.onnx")


# --- all networks


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_network_can_be_exported(name, tmp_path):
    """Half a minute each; that it answers the same is seen to in exporting."""
    size = (64, 64)
    network = NetworkConfig(name=name, encoder=None, num_classes=3, in_channels=1, image_size=size)
    facts = ModelMetadata(
        network=network,
        label_names=("background", "a", "b"),
        preprocessing=Preprocessing(channels=1, image_size=size),
    )
    save_run(tmp_path, create_model(**network.model_dump()), facts)
    assert export_onnx(tmp_path).equal_labels >= 0.9999


# --- parts


def test_what_is_compared_is_varied_and_of_all_batches(exported_run):
    preprocessing = read_facts(exported_run).preprocessing
    images = comparison_images(preprocessing)
    assert [image.shape for image in images] == [(b, 3, *SIZE) for b in (1, 2, 5)]
    unit = [(image * preprocessing.std + preprocessing.mean) for image in images]
    assert all(image.min() >= -1e-6 and image.max() <= 1 + 1e-6 for image in unit)
    assert len({image.tobytes() for image in images[2]}) == 5


def test_memory_that_runs_out_halves_the_batch(exported_run, eager):
    from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

    apply = OnnxPredictor.load(exported_run / "model.onnx", 4, threads=1)
    session = apply._engine.groups[0]._session

    class Narrow:
        def run(self, names, feed):
            if len(feed["image"]) > 1:
                raise RuntimeException("Failed to allocate memory for requested buffer of size 1")
            return session.run(names, feed)

    apply._engine.groups[0]._session = Narrow()
    volume_ZHW = abdomen(1, shape=(8, 64, 64)).image[0]
    assert equal_share([apply(volume_ZHW)], [eager(volume_ZHW)]) >= 0.9999
    assert apply.batch_slices == 1
    with pytest.raises(ConfigError, match="a single slice"):
        apply._engine.groups[0].halved_batch_size(1)


def test_a_case_with_other_channels_is_refused(exported, exported_run: Path):
    with pytest.raises(DataError, match="2 channels and the network takes 3"):
        exported(Case("two", np.zeros((2, 1, 8, 8), np.uint8)))
    with pytest.raises(ConfigError, match="0 threads are none; use 1 or more"):
        OnnxPredictor.load(exported_run / "model.onnx", threads=0)
    with pytest.raises(ConfigError, match="a batch of 0"):
        OnnxPredictor(exported._engine.groups[0]._session, exported.facts, 0)


def test_an_exported_run_goes_on_and_is_replaced(tmp_path: Path, monkeypatch):
    """The export lies in the run folder, and is gone as soon as the weights are others."""
    write_phantom("isic2018", tmp_path / "raw", cases=13)
    tiny = replace(MODELS["msa2net"], build=resumed.tiny_network)
    monkeypatch.setitem(MODELS, "msa2net", tiny)
    run = tmp_path / "run"
    file, data = run / "model.onnx", run / "model.onnx.data"

    def train(epochs: int, **options) -> None:
        config = resumed.settings(tmp_path, **{"train.epochs": epochs, "train.keep": "last"})
        resumed.train(tmp_path, run, config=config, **options)
        assert not file.exists()
        assert not data.exists()

    train(1)
    export_onnx(run)
    exported = file.read_bytes()
    assert sha256(run / "model.safetensors").encode() in exported
    data.write_bytes(b"weights of a larger network")
    train(2, resume=True)
    assert sha256(run / "model.safetensors").encode() not in exported
    file.write_bytes(exported)
    train(1, overwrite=True)
