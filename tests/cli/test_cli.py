"""The command line as a person meets it: exit codes, sentences, files."""

import errno
import logging
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from commands import assert_one_sentence, msa2net, script
from golden_weights import published_state
from msa2net import __version__
from msa2net.cli import run_command
from msa2net.cli.console import print_error, say, set_up
from msa2net.config import NetworkConfig
from msa2net.data.phantom.files import write_phantom
from msa2net.data.preprocessing import Preprocessing
from msa2net.inference.run_folder import ModelMetadata, read_facts, save_run
from msa2net.models.registry import create_model

CONFIG = """
image_size: 32
model: {name: msa2net, encoder: test_maxvit}
data: {format: isic2018, root: raw, prepared: prepared}
train: {epochs: 1, batch_size: 4, learning_rate: 0.01}
"""


def process(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, as a person does."""
    return subprocess.run(
        [sys.executable, "-m", "msa2net", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder with an untrained network, for commands that need one."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    network = NetworkConfig(
        name="msa2net", encoder="test_maxvit", num_classes=2, in_channels=3, image_size=(32, 32)
    )
    facts = ModelMetadata(
        network=network,
        label_names=("background", "lesion"),
        preprocessing=Preprocessing(channels=3, image_size=(32, 32)),
    )
    save_run(folder, create_model(**network.model_dump()), facts)
    return folder


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    for name in ("a.png", "b.jpg", "c.tif"):
        Image.fromarray(noise).save(folder / name)
    return folder


def test_train_evaluate_predict(tmp_path: Path):
    """The main job from raw files to masks, by commands alone."""
    (tmp_path / "small.yaml").write_text(CONFIG)
    steps = [
        ("phantom", "raw", "--format", "isic2018", "--cases", "8"),
        ("prepare", "isic2018", "raw", "prepared"),
        ("train", "small.yaml", "--device", "cpu", "--threads", "1"),
        ("evaluate", "runs/small"),
        ("predict", "runs/small", "raw/ISIC2018_Task1-2_Training_Input", "--out", "masks"),
    ]
    said = []
    for step in steps:
        result = process(*step, cwd=tmp_path)
        assert result.returncode == 0, f"{step}: {result.stderr}"
        assert result.stderr == ""
        said.append(result.stdout)
    assert "8 cases (5 train, 1 val, 2 test cases)" in said[1]
    assert "next: msa2net evaluate runs/small" in said[2]
    for expected in ("lesion", "standard", "isic", "as printed in the paper", "report.html"):
        assert expected in said[3]
    assert "8 of 8 images segmented" in said[4]
    assert "Research use only" in said[2]
    assert (tmp_path / "runs/small/report.html").is_file()
    masks = sorted((tmp_path / "masks").glob("*.png"))
    assert len(masks) == 8
    assert Image.open(masks[0]).size == (256, 256)
    assert len(list((tmp_path / "masks" / "overlays").glob("*.jpg"))) == 8


def test_predicted_masks_have_each_image_s_own_size(run: Path, photographs: Path, tmp_path: Path):
    Image.new("RGB", (3000, 2000), (200, 150, 120)).save(tmp_path / "large.jpg")
    result = msa2net("predict", run, photographs, "large.jpg", "--out", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    sizes = {p.stem: Image.open(p).size for p in (tmp_path / "out").glob("*.png")}
    assert sizes == {"a": (60, 40), "b": (60, 40), "c": (60, 40), "large": (3000, 2000)}
    assert Image.open(tmp_path / "out/overlays/large.jpg").size == (3000, 2000)
    assert set(np.unique(Image.open(tmp_path / "out/a.png"))) <= {0, 255}


def test_a_volume_s_mask_lies_in_the_volume_s_space(run: Path, photographs: Path, tmp_path: Path):
    """Axes in another order and direction: the mask comes back on the file's own grid."""
    affine = np.array([[0, 0, -2.5, 40], [-0.8, 0, 0, 9], [0, 0.7, 0, -3], [0, 0, 0, 1.0]])
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 6)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, affine), photographs / "scan.nii.gz")
    result = msa2net("predict", run, photographs, "--out", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "4 of 4 images segmented" in result.stdout
    mask = nibabel.load(tmp_path / "out" / "scan.nii.gz")
    assert mask.shape == values.shape
    np.testing.assert_allclose(mask.affine, affine, atol=1e-5)
    assert mask.get_data_dtype() == np.uint8
    assert (tmp_path / "out" / "overlays" / "scan.jpg").is_file()


def test_a_broken_image_is_skipped_and_leaves_no_mask(run: Path, photographs: Path, tmp_path: Path):
    msa2net("predict", run, photographs, "--out", "out", cwd=tmp_path)
    (photographs / "b.jpg").write_bytes((photographs / "b.jpg").read_bytes()[:300])
    again = msa2net("predict", run, photographs, "--out", "out", cwd=tmp_path)
    assert_one_sentence(again, "out/a.png exists already", "--overwrite")
    result = msa2net("predict", run, photographs, "--out", "out", "--overwrite", cwd=tmp_path)
    assert_one_sentence(result, "b.jpg", "truncated")
    assert "2 of 3 images segmented" in result.stdout
    assert sorted(p.name for p in (tmp_path / "out").glob("*.png")) == ["a.png", "c.png"]
    assert not (tmp_path / "out/overlays/b.jpg").exists()


def test_masks_never_overwrite_their_images(run: Path, photographs: Path, tmp_path: Path):
    before = (photographs / "a.png").read_bytes()
    result = msa2net(
        "predict", run, photographs / "a.png", "--out", photographs, "--overwrite", cwd=tmp_path
    )
    assert_one_sentence(result, "a.png is itself an input")
    assert (photographs / "a.png").read_bytes() == before


def test_two_images_of_one_name_are_refused(run: Path, photographs: Path, tmp_path: Path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    result = msa2net("predict", run, photographs, "a.png", "--out", "out", cwd=tmp_path)
    assert_one_sentence(result, "a.png would both be written as a; predict them into different")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("train", "none.yaml"), ["cannot read the configuration none.yaml"]),
        (("train", "small.yaml", "--set", "train.epoch=3"), ["did you mean 'train.epochs'?"]),
        (("train", "small.yaml", "--set", "model.name=segnet"), ["no network is called 'segnet'"]),
        (("train", "small.yaml", "--set", "image_size=100"), ["multiples of 32"]),
        (("train", "small.yaml", "--set", "loss={focal: 1}"), ["no loss is called 'focal'"]),
        (("train", "small.yaml", "--set", "data.root=empty"), ["there is no folder empty"]),
        (("train", "small.yaml", "--device", "abacus"), ["there is no device 'abacus'"]),
        (("evaluate", "empty"), ["empty is not a run folder"]),
        (("predict", "empty", "x.png", "--out", "o"), ["empty is not a run folder"]),
        (("prepare", "isic2018", "empty", "p"), ["there is no folder empty"]),
        (("prepare", "btcv", "raw", "p", "--labels", "mine"), ["'labels' is 'mine'"]),
        (("prepare", "mosaic", "raw", "p"), ["there is no data format 'mosaic'"]),
        (("phantom", "p", "--format", "mosaic"), ["not written as 'mosaic'"]),
        (("phantom", "raw", "--format", "images"), ["raw is not empty"]),
        (("import-weights", "none.pth", "out"), ["no weight file at none.pth"]),
    ],
)
def test_mistakes(tmp_path: Path, arguments, parts):
    (tmp_path / "small.yaml").write_text(CONFIG)
    write_phantom("isic2018", tmp_path / "raw", cases=3)
    assert_one_sentence(msa2net(*arguments, cwd=tmp_path), *parts)
    left = {path.name for path in tmp_path.iterdir()} - {"small.yaml", "raw", "prepared"}
    assert left == set()


def test_an_unwritable_place_is_one_sentence(run: Path, photographs: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    result = msa2net("predict", run, photographs / "a.png", "--out", "file/masks", cwd=tmp_path)
    assert_one_sentence(result, "file/masks", "check that the folder is writable")


def test_a_full_disk_is_one_sentence(run: Path, photographs: Path, tmp_path: Path):
    """The file-size limit of the process stands in for a full disk: writing fails part-way."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        "from msa2net.cli import main; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, "predict", run, photographs / "a.png", "--out", "out"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert_one_sentence(result, "cannot write", "the disk has room")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_weights_become_a_run_folder(golden: Path, tmp_path: Path, prefix: str):
    state = published_state(golden / "github_manifest.json")
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "best.pth")
    result = msa2net("import-weights", "best.pth", "imported", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "recognised msa2net_github" in result.stdout
    facts = read_facts(tmp_path / "imported")
    assert facts.label_names[5] == "liver"
    assert (facts.preprocessing.low, facts.preprocessing.high) == (-125, 275)
    again = msa2net("import-weights", "best.pth", "imported", cwd=tmp_path)
    assert_one_sentence(again, "imported is not empty")


def test_own_checkpoints_with_a_surprise_are_refused_by_name(golden: Path, tmp_path: Path):
    state = published_state(golden / "github_manifest.json")
    state["total_ops"] = torch.zeros(1)
    del state["decoder_1.layer_up.norm.bias"]
    torch.save(state, tmp_path / "own.pth")
    result = msa2net("import-weights", "own.pth", "out", cwd=tmp_path)
    assert_one_sentence(result, "missing (decoder_1.layer_up.norm.bias)", "unexpected (total_ops)")
    assert not (tmp_path / "out").exists()


def test_help_names_the_weights_home(tmp_path: Path):
    assert (
        "github.com/xmindflow/MSA-2Net" in msa2net("import-weights", "--help", cwd=tmp_path).stdout
    )


def test_models_lists_sizes(tmp_path: Path):
    text = msa2net("models", cwd=tmp_path).stdout
    for expected in ("msa2net_pico", "103,340,666", "112,767,981", "93,660,877", "G"):
        assert expected in text


def test_what_the_system_refuses_anywhere_is_one_sentence(tmp_path: Path):
    """A file that is missing where ours should be is our own mistake, with its traceback."""

    def fails(number: int) -> None:
        raise OSError(number, os.strerror(number), "some/file")

    said = script(lambda: fails(errno.EACCES), cwd=tmp_path)
    assert_one_sentence(said, "some/file: Permission denied; check permissions")
    said = script(lambda: fails(errno.ENOENT), cwd=tmp_path)
    assert said.returncode == 1
    assert "Traceback" in said.stderr


COMMANDS = [
    "demo",
    "models",
    "settings",
    "phantom",
    "prepare",
    "check",
    "train",
    "evaluate",
    "compare",
]
COMMANDS += ["predict", "export", "benchmark", "import-weights"]


def test_help_names_all_commands_and_a_wrong_use_names_the_right_one(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = msa2net("--help", cwd=tmp_path).stdout
    assert re.findall(r"^  ([a-z][a-z-]+) ", text, re.MULTILINE) == COMMANDS
    assert "predict [OPTIONS] {RUN} {INPUT}..." in msa2net("predict", cwd=tmp_path).stderr


def test_phantom_prepare_and_check_count_alike(tmp_path: Path):
    """Two phases of one heart are two cases of one patient."""
    count = "6 cases of 3 patients"
    said = msa2net("phantom", "raw", "--format", "acdc", "--cases", "3", cwd=tmp_path).stdout
    assert said.startswith(f"{count} in raw, each a synthetic volume\n")
    said = msa2net("prepare", "acdc", "raw", "prepared", cwd=tmp_path).stdout
    assert said.startswith(f"{count} (2 train, 2 val, 2 test cases) in prepared\n")
    assert msa2net("check", "prepared", cwd=tmp_path).stdout.endswith(f" in {count}\n")


def test_the_version_is_told(tmp_path: Path):
    said = process("--version", cwd=tmp_path)
    assert (said.returncode, said.stdout) == (0, f"msa2net {__version__}\n")
    assert "Research use only" in process(cwd=tmp_path).stdout  # without a command, the help


def test_lines_end_between_words_on_a_terminal_and_obey_nobody(capsys, monkeypatch):
    path = "/a/very/long/path/" + "x" * 90
    text = f"  case1: it is noisier than the training images: look whether {path} is better\x1b[2J"
    say(text)
    print_error(text.strip())
    plain = capsys.readouterr()
    assert plain.out == text.replace("\x1b", r"\x1b") + "\n"
    assert plain.err == "error: " + text.strip().replace("\x1b", r"\x1b") + "\n"
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes it for a terminal
    monkeypatch.setenv("COLUMNS", "60")
    say(text)
    command = f"msa2net train {path} --resume"
    say(f"saved after 3 epochs; go on with: {command}")
    print_error("[red]:smile: " + text.strip())
    shown = capsys.readouterr()
    *lines, saved, last = shown.out.splitlines()
    assert (saved, last) == ("saved after 3 epochs; go on with:", f"  {command}")
    assert lines[0] == "  case1: it is noisier than the training images: look"
    assert lines[1:] == ["    whether", f"    {path}", r"    is better\x1b[2J"]
    assert "[red]:smile: case1: it" in shown.err
    assert "\x1b[2J" not in shown.out + shown.err


def test_help_comes_at_once(tmp_path: Path):
    """The bound is 0.3 s; the best of five keeps a busy machine from failing the test."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        result = process("--help", cwd=tmp_path)
        times.append(time.perf_counter() - started)
        assert "Research use only" in result.stdout
    assert min(times) <= 0.3


# What other libraries say -------------------------------------------------------------------------


@pytest.mark.parametrize("verbose", [False, True])
def test_other_libraries_speak_only_when_asked(verbose: bool, tmp_path: Path, monkeypatch, capfd):
    """Warnings and logs, also of threads and of workers that are started anew; ours go on."""
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)

    def speak() -> None:
        warnings.warn("a library's warning", UserWarning, stacklevel=1)
        logging.getLogger("PIL").warning("a library's log")

    def command() -> None:
        set_up(None, verbose)
        speak()
        thread = threading.Thread(target=speak)
        thread.start()
        thread.join()
        worker = "import warnings; warnings.warn('a worker warns')"
        subprocess.run([sys.executable, "-c", worker], check=True)
        warnings.warn_explicit("Zoë's date", UserWarning, "x.py", 1, module="pydicom.valuerep")
        logging.getLogger("pydicom").warning("Zoë's date")
        logging.getLogger("msa2net.data").warning("what we say")

    handler = logging.StreamHandler(sys.stderr)  # as nibabel's
    logging.getLogger("PIL").addHandler(handler)
    before = list(warnings.filters), logging.getLogger("PIL").level
    with monkeypatch.context() as patch:
        patch.setattr(sys, "warnoptions", [])
        patch.setattr(sys, "argv", ["msa2net"])
        with warnings.catch_warnings():
            warnings.resetwarnings()
            warnings.showwarning = lambda message, *_: sys.stderr.write(str(message))
            with pytest.raises(SystemExit):
                run_command(command)
    logging.getLogger("PIL").removeHandler(handler)
    told = capfd.readouterr().err
    assert "what we say" in told
    assert "Zoë" not in told
    for part in ("library's warning", "a library's log", "worker warns"):
        assert (part in told) is verbose, part
    assert (list(warnings.filters), logging.getLogger("PIL").level) == before
    assert "PYTHONWARNINGS" not in os.environ
