"""Run folders that were damaged or forged: refused on opening, in one sentence, before any mask."""

import json
import shutil
from pathlib import Path
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file, save_file

from msa2net import Predictor, export_onnx
from msa2net.errors import Msa2NetError, WeightsError
from msa2net.inference.run_folder import load_run, read_facts, save_run
from msa2net.models.weights import read_state_dict
from msa2net.training.finetune import read_source
from prediction_runs import write_run

RANGE = {"low": -1.0, "centre": 0.0, "high": 1.0}
USUAL = {
    "train_cases": 9,
    "val_cases": 1,
    "ranges": {"size:mm3:liver": RANGE},
    "limits": {"size": 2},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def change(run: Path, changes: dict) -> None:
    """Set entries of `model.json` by their dotted names."""
    content = json.loads((run / "model.json").read_text())
    for name, value in changes.items():
        *outer, last = name.split(".")
        place = content
        for key in outer:
            place = place[key]
        place[last] = value
    (run / "model.json").write_text(json.dumps(content))


def refused(run: Path, words: str) -> None:
    """See that a run is refused, in one sentence."""
    with pytest.raises(Msa2NetError, match=words) as caught:
        Predictor.load(run, "cpu")
    assert "\n" not in str(caught.value)


def size(side: object) -> dict:
    return {"network.image_size": side, "preprocessing.image_size": side}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label_names": ["a", "b"]}, ".a, b. must be 3 different names"),
        ({"label_names": []}, ".none. must be 3"),
        ({"label_names": ["a", "b", "b"]}, "must be 3 different names"),
        ({"label_names": ["a", "b", ""]}, "label_names.2 is '': string must have at least 1"),
        ({"network.num_classes": 10**9}, "num_classes is 1000000000: must be less than"),
        ({"network.in_channels": 10**9}, "in_channels is 1000000000"),
        ({"network.in_channels": 2}, "takes 2 channels and preprocessing gives it 1"),
        (size([10**6, 10**6]), "image_size is a list .1000000, 1000000"),
        (size([32]), "image_size"),
        ({"preprocessing.image_size": [64, 64]}, "32×32 pixels and preprocessing gives it 64×64"),
        ({"network.encoder": "swinv2_cr_giant_224"}, "does not fit this network"),
        ({"network.encoder": "../x"}, "timm knows no model"),
        ({"network.name": "other"}, "no network is called 'other'"),
        ({"preprocessing.std": 0}, "std is 0"),
        ({"preprocessing.std": 1e-300}, "std is 1e-300"),
        ({"preprocessing.crop": 0}, "crop is 0"),
        ({"preprocessing.low": float("nan")}, "low is nan"),
        ({"preprocessing.low": 2000.0}, "must lie below high"),
        ({"preprocessing.intensity": "percentile"}, "no percentiles"),
        ({"preprocessing.pixel_mm": [0.5, float("inf")]}, "pixel_mm.1 is inf"),
        ({"training": {"flips": 3}}, "flips"),
        ({"reference_ranges": USUAL | {"thumbnail": [0.0]}}, "1 pixels are no thumbnail of 16×16"),
        ({"reference_ranges": USUAL | {"temperature": 0}}, "temperature is 0"),
        ({"reference_ranges": USUAL | {"limits": {"size": -1}}}, "limits.size is -1"),
        (
            {"reference_ranges": USUAL | {"ranges": {"size:mm3:x": RANGE | {"low": 0.0}}}},
            "below centre",
        ),
        (
            {"reference_ranges": USUAL | {"ranges": {"confidence:all:": RANGE}}},
            "has a range and no limit",
        ),
        (
            {"reference_ranges": USUAL | {"ranges": {"size:mm3:x": RANGE | {"centre": 1e9}}}},
            "centre is 1000",
        ),
        ({"weights_sha256": ["abc"]}, "weights_sha256.0 is 'abc'"),
        ({"schema_version": "two"}, "schema_version is 'two'"),
    ],
)
def test_a_forged_model_json_is_refused(run: Path, changes: dict, words: str):
    change(run, changes)
    refused(run, words)


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "null", '{"network": [], "network": 1}'])
def test_a_model_json_that_is_none_is_refused(run: Path, content: str):
    (run / "model.json").write_text(content)
    refused(run, "model.json is (not valid JSON|damaged)")


@pytest.mark.parametrize("name", ["reference_ranges", "usual"])
def test_reference_ranges_are_read_by_their_former_name_too(run: Path, name: str):
    content = json.loads((run / "model.json").read_text())
    ranges = USUAL | {"thumbnail": [0.5] * 256}
    without = {key: own for key, own in content.items() if key != "reference_ranges"}
    (run / "model.json").write_text(json.dumps(without | {name: ranges}))
    assert read_facts(run).reference_ranges is not None
    (run / "model.json").write_text(json.dumps(without | {"usual": ranges, "reference_ranges": 1}))
    refused(run, "usual is the former name of reference_ranges; remove one of them")


def flip_bits(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for at in range(len(content) // 2, len(content), 997):
        content[at] ^= 1
    file.write_bytes(content)


def test_damaged_weights_are_refused_wherever_they_are_read(run: Path, tmp_path: Path):
    flip_bits(run / "model.safetensors")
    refused(run, r"model.safetensors is not the file that was written with model.json")
    with pytest.raises(WeightsError, match="its checksum is another"):
        export_onnx(run)
    for source in (run, run / "model.safetensors"):
        with pytest.raises(WeightsError, match="its checksum is another"):
            read_source(source)
    assert not (run / "model.onnx").exists()


def whole_numbers(state: dict) -> None:
    state["head.weight"] = state["head.weight"].to(torch.int32)


def no_numbers(state: dict) -> None:
    state["head.bias"][1] = float("nan")


def endless(state: dict) -> None:
    state["encoder.backbone.stem.conv1.weight"][0] = float("inf")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (whole_numbers, "head.weight is int32, the network's is float32"),
        (no_numbers, "NaN or infinity .head.bias"),
        (endless, "NaN or infinity .encoder.backbone.stem.conv1.weight"),
    ],
)
def test_folders_of_older_versions_load_if_their_weights_are_numbers(run: Path, damage, words):
    change(run, {"weights_sha256": []})
    assert load_run(run, "cpu").facts.weights_sha256 == ()
    state = load_file(run / "model.safetensors")
    damage(state)
    save_file(state, run / "model.safetensors")
    refused(run, words)


def test_a_kill_between_weights_and_model_json_leaves_a_network_that_loads(run: Path):
    known = load_run(run, "cpu")
    facts = known.facts.model_copy(update={"training": {"best_epoch": 2}})
    real, replaced, loaded = Path.replace, [], []

    def dies(path: Path, target: Path) -> Path:
        if len(replaced) == len(loaded):
            raise KeyboardInterrupt
        replaced.append(target.name)
        return real(path, target)

    with torch.no_grad():
        known.model.head.bias += 1  # as after any validation but the first
    with mock.patch.object(Path, "replace", dies):
        while True:  # a kill before the first renaming, before the second, …
            try:
                save_run(run, known.model, facts)
                break
            except KeyboardInterrupt:
                found = load_run(run, "cpu").model.head.bias
                loaded.append(torch.equal(found, known.model.head.bias))
                replaced.clear()
    assert replaced[-3:] == ["model.json", "model.safetensors", "model.json"]
    assert loaded == [*[False] * (len(replaced) - 1), True]
    after = load_run(run, "cpu")
    assert torch.equal(after.model.head.bias, known.model.head.bias)
    assert len(after.facts.weights_sha256) == 1
    assert after.facts.training == {"best_epoch": 2}


def test_the_export_of_the_same_weights_stays(run: Path):
    (run / "model.onnx").write_text("exported")
    loaded = load_run(run, "cpu")
    save_run(run, loaded.model, loaded.facts)
    assert (run / "model.onnx").exists()
    change(run, {"weights_sha256": []})  # of an older version
    save_run(run, loaded.model, loaded.facts)
    assert (run / "model.onnx").exists()
    with torch.no_grad():
        loaded.model.head.bias += 1
    save_run(run, loaded.model, loaded.facts)
    assert not (run / "model.onnx").exists()


def test_tensors_that_are_larger_than_their_file_are_refused(tmp_path: Path):
    """A file of a kilobyte cannot ask for gigabytes."""
    torch.save({"weight": torch.zeros(1).expand(10**10)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"entries that are not tensors \(weight\)"):
        read_state_dict(tmp_path / "w.pth")
    torch.save({"weight": torch.zeros(1, device="meta")}, tmp_path / "meta.pth")
    with pytest.raises(WeightsError):
        read_state_dict(tmp_path / "meta.pth")
