"""Every block of code in README and docs runs."""

import re
import shlex
import shutil
from pathlib import Path
from unittest import mock

import nibabel
import numpy as np
import onnx_ir
import pytest
import torch
import yaml

import commands
import msa2net
from golden_weights import published_state
from msa2net.cli.paper import evaluate_as_published, train_as_published
from msa2net.config import DataConfig
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared.prepare import prepare
from msa2net.models.registry import MODELS
from paths import GOLDEN, ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (f"{path.name}:{number}", code)
        for path in DOCUMENTS
        for number, (found, code) in enumerate(BLOCK.findall(path.read_text()))
        if found == language
    ]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, exported_run) -> Path:
    """What the documents' Python blocks expect around them: a run, an image, raw data."""
    root = tmp_path_factory.mktemp("documents")
    write_phantom("isic2018", root / "data" / "isic2018", cases=6)
    images = root / "data" / "isic2018" / "ISIC2018_Task1-2_Training_Input"
    shutil.copy(images / "ISIC_0000000.jpg", root / "photo.jpg")
    (root / "folder").mkdir()
    shutil.copy(images / "ISIC_0000001.jpg", root / "folder" / "other.jpg")
    write_phantom("images", root / "data" / "mine", cases=6)
    write_phantom("btcv", root / "data" / "RawData", cases=5)
    write_phantom("synapse", root / "data" / "Synapse", cases=5)
    write_phantom("acdc", root / "data" / "acdc", cases=6)
    write_phantom("nnunet", root / "data" / "mine-nnunet", cases=5)
    shutil.copy(next((root / "data" / "RawData" / "img").iterdir()), root / "scan.nii.gz")
    for folder in (root / "their-masks", root / "data" / "labels"):
        folder.mkdir()
        labels = np.random.default_rng(0).integers(0, 3, (8, 8, 4), np.uint8)
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), folder / "patient.nii.gz")
    prepare(DataConfig(format="btcv", root=root / "data/RawData", prepared=root / "prepared/btcv"))
    shutil.copy(exported_run / "model.onnx", root / "lesions.onnx")
    torch.save(published_state(GOLDEN / "github_manifest.json"), root / "synapse.pth")
    (root / "configs").mkdir()
    for path in (ROOT / "configs").glob("*.yaml"):
        settings = yaml.safe_load(path.read_text())
        settings["image_size"] = 32
        settings["model"] = {"name": "msa2net", "encoder": "test_maxvit"}
        settings["train"] |= {"epochs": 1, "batch_size": 2, "workers": 0, "validate_every": 1}
        (root / "configs" / path.name).write_text(yaml.safe_dump(settings))
    return root


@pytest.mark.parametrize(("where", "code"), blocks("python"), ids=lambda value: value[:20])
def test_python_blocks_run(where: str, code: str, workplace: Path, monkeypatch):
    monkeypatch.chdir(workplace)
    with mock.patch.dict(MODELS):  # documents may add to it
        exec(compile(code, where, "exec"), {"msa2net": msa2net})


def shell_lines() -> list[tuple[str, list[str]]]:
    lines = []
    for where, code in blocks("bash"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                lines.append((where, words))
    return lines


@pytest.mark.parametrize(("where", "words"), shell_lines(), ids=lambda value: str(value)[:60])
def test_shell_lines_run(
    where: str, words: list[str], workplace: Path, exported_run: Path, monkeypatch
):
    """`msa2net` lines run for real, in miniature, and `make` targets exist."""
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:])
        return
    if words[:2] == ["pip", "install"]:
        return  # test_package.py installs
    if words[0] == "python":
        small = ["--network=msa2net_pico", "--img_size=32", "--no-pretrained", "--max_epochs=1"]
        training = words[1] == "train.py"
        entry = train_as_published if training else evaluate_as_published
        result = commands.script(entry, *words[2:], *(small if training else ()), cwd=workplace)
        assert result.returncode == 0, f"{where}: {words}: {result.stderr}"
        return
    assert words[0] == "msa2net", f"{where}: {words}"
    command = words[1:]
    if words[1] == "train":  # the settings named in the document, on the smallest network
        small = ["model.encoder=test_maxvit", "image_size=32", "train.max_steps=1"]
        if "--resume" not in words:  # a run that goes on has its settings, and is kept
            command += [word for setting in small for word in ("--set", setting)]
            command += ["--overwrite"]
    if words[1] == "export":  # of a network that was traced once for all tests
        traced = onnx_ir.load(exported_run / "model.onnx")
        monkeypatch.setattr("msa2net.export.onnx._trace", lambda *_: traced)
        command = ["export", str(exported_run), *words[3:], "--overwrite"]
    result = commands.msa2net(*command, cwd=workplace)
    assert result.returncode == 0, f"{where}: {words}: {result.stderr}"


def test_there_is_something_to_run():
    assert blocks("python")
    assert blocks("bash")


def test_links_between_documents_lead_somewhere():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
