"""Whatever stops a training says which case, file, module or setting it was about."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import lightning as L
import nibabel as nib
import numpy as np
import pytest
import torch
from torch import nn

import commands
import resumed
from msa2net.compat import checkpoint_block
from msa2net.config import TrainConfig
from msa2net.data.loading.augment import Augmentation
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared.slice_files import SampleError, SliceArrays, error_context
from msa2net.data.prepared.store import image_path
from msa2net.errors import ConfigError, DataError, is_out_of_memory, memory_guard
from msa2net.inference.predictor import Predictor
from msa2net.losses import create_loss
from msa2net.training import memory, nonfinite
from msa2net.training.checkpoint import Checkpoints
from msa2net.training.nonfinite import LossWatch, NonFiniteLossError, Step
from prediction_runs import write_run

CASES = 13  # as in test_resume.py: 4 batches of 2 an epoch


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("failures")
    write_phantom("isic2018", root / "raw", cases=CASES)
    return root


@pytest.fixture(scope="module")
def whole(workplace: Path) -> Path:
    """The run that nothing stopped."""
    resumed.train(workplace, workplace / "whole")
    return workplace / "whole"


def assert_goes_on(workplace: Path, run: Path, whole: Path) -> None:
    """What was there before the failure was kept, whole, and leads to the very same end."""
    checkpoints = Checkpoints(run)
    assert checkpoints.load()[1] == []
    resumed.train(workplace, run, resume=True)
    assert (run / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert resumed.equal(resumed.states(run), resumed.states(whole))
    assert not [path for path in run.rglob("*") if path.name.startswith(".msa2net")]


# Samples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_named_with_its_case(workplace: Path, tmp_path: Path, workers: int):
    """The slices of the last case are gone while others can still be read."""
    write_phantom("isic2018", tmp_path / "raw", cases=CASES)
    config = resumed.settings(tmp_path, **{"train.workers": workers})

    cut_short: list[str] = []

    class CutShort(L.Callback):
        def on_train_start(self, trainer, pl_module) -> None:
            arrays = trainer.datamodule.dataset.arrays
            path = arrays.path(len(arrays.origin) - 1)
            os.truncate(path, path.stat().st_size - 10)
            cut_short.append(arrays.origin[-1][0])

    with pytest.raises(DataError) as stopped:
        resumed.train(tmp_path, tmp_path / "run", config=config, callbacks=[CutShort()])
    sentence = str(stopped.value)
    assert "\n" not in sentence
    assert sentence.startswith("case ISIC_00000")
    assert ", slice 0: " in sentence
    assert ".npy was cut short; start again" in sentence
    assert f"case {cut_short[0]}, " in sentence


@pytest.mark.parametrize("workers", [0, 2])
def test_any_exception_of_a_worker_names_case_and_file(
    workplace: Path, tmp_path: Path, monkeypatch, workers: int
):
    def broken(*_) -> None:
        raise ZeroDivisionError("one\nof a kind")

    monkeypatch.setattr(Augmentation, "__call__", broken)
    config = resumed.settings(workplace, **{"train.workers": workers})
    with pytest.raises(SampleError) as stopped:
        resumed.train(workplace, tmp_path / "run", config=config)
    sentence = str(stopped.value)
    assert sentence.startswith("case ISIC_")
    assert sentence.endswith(".npy: ZeroDivisionError: one of a kind")


def test_the_command_says_it_in_one_sentence(workplace: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(SliceArrays, "__getitem__", mock.Mock(side_effect=OSError("lost")))
    path = tmp_path / "small.yaml"
    resumed.settings(workplace, **{})
    path.write_text(next(workplace.glob("settings-*.yaml")).read_text())
    failed = commands.msa2net(
        "train", path, "--out", "run", "--set", "train.workers=1", cwd=tmp_path
    )
    commands.assert_one_sentence(failed, "error: case ISIC_", ".npy: OSError: lost")


def test_a_validation_case_that_is_gone_is_named(tmp_path: Path):
    write_phantom("isic2018", tmp_path / "raw", cases=CASES)

    class Remove(L.Callback):
        def on_validation_start(self, trainer, pl_module) -> None:
            for case_id in trainer.datamodule.store.ids("val"):
                image_path(trainer.datamodule.store.root, case_id).unlink()

    with pytest.raises(SampleError, match=r"case ISIC_\d+: .*image.npy is missing; prepare the"):
        resumed.train(
            tmp_path, tmp_path / "run", config=resumed.settings(tmp_path), callbacks=[Remove()]
        )


def test_a_case_that_cannot_be_resized_is_named(tmp_path: Path, monkeypatch):
    write_phantom("isic2018", tmp_path / "raw", cases=CASES)
    monkeypatch.setattr(
        "msa2net.data.preprocessing.Preprocessing.unit_slices",
        mock.Mock(side_effect=FloatingPointError("overflow")),
    )
    with pytest.raises(SampleError, match=r"case ISIC_\d+, file .*npy: FloatingPointError: over"):
        resumed.train(tmp_path, tmp_path / "run", config=resumed.settings(tmp_path))


def test_loading_without_memory_says_which_setting():
    with (
        pytest.raises(SampleError, match=r"case c1: not enough memory .* lower train.workers"),
        error_context("c1", Path("f.npy")),
    ):
        raise MemoryError


def test_a_worker_that_was_killed_is_one_sentence(workplace: Path, tmp_path: Path, monkeypatch):
    """As the system does when memory runs out."""

    def killed(*_) -> None:
        assert torch.utils.data.get_worker_info() is not None
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(Augmentation, "__call__", killed)
    config = resumed.settings(workplace, **{"train.workers": 2})
    with pytest.raises(ConfigError, match=r"one of the 2 processes that load .*train.workers"):
        resumed.train(workplace, tmp_path / "run", config=config)


# A loss that is no longer a number ----------------------------------------------------------------


class Poison(L.Callback):
    """Makes one weight NaN before a step, and remembers that step's cases."""

    def __init__(self, step: int, weight: str) -> None:
        self.step, self.weight, self.cases, self.seen = step, weight, [], 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.seen += 1
        if self.seen == self.step:
            self.cases = list(batch["case"])
            with torch.no_grad():
                pl_module.model.get_parameter(self.weight)[0] = torch.nan


def test_a_loss_that_is_no_number_is_traced_at_once(workplace: Path, tmp_path: Path, whole: Path):
    run, poison = tmp_path / "run", Poison(6, "norm.weight")
    with pytest.raises(NonFiniteLossError) as stopped:
        resumed.train(workplace, run, callbacks=[poison])
    sentence = str(stopped.value)
    assert "became nan in epoch 2, step 6, with " + ", ".join(poison.cases) in sentence
    assert "the first module with values that are not finite is norm;" in sentence
    assert f"the checkpoint before is kept, details are in {run / 'nonfinite.json'}" in sentence
    report = json.loads((run / "nonfinite.json").read_text())
    assert [row["case"] for row in report["batch"]] == poison.cases
    assert report["first_module"] == "norm"
    assert report["module_type"] == "BatchNorm2d"
    assert report["inputs_finite"] is True
    assert report["output_shape"] == [2, 6, 32, 32]
    assert report["output_nan"] == 2 * 32 * 32  # one channel of six
    assert report["parameters_not_finite"] == ["norm.weight"]
    assert (report["epoch"], report["step"], report["loss"]) == (2, 6, "nan")
    assert Checkpoints(run).paths()[0].name.startswith("epoch00001-step00000005-")
    assert_goes_on(workplace, run, whole)
    assert not (run / "nonfinite.json").exists()


class Chancy(nn.Module):
    """Fails by the draw, as an overflow behind dropout does."""

    def forward(self, x):
        return x / 0 if torch.rand(()) < 0.2 else x


@pytest.mark.parametrize("seed", range(3))
def test_the_second_run_draws_the_same(workplace: Path, tmp_path: Path, seed: int, monkeypatch):
    """Otherwise it would find nothing four times out of five."""

    def network(sizes, _) -> nn.Module:
        model = resumed.TinyNetwork(sizes.in_channels, sizes.num_classes)
        model.dropout = nn.Sequential(nn.Dropout(0.2), Chancy())
        return model

    monkeypatch.setattr(resumed, "tiny_network", network)
    config = resumed.settings(workplace, **{"train.seed": seed, "train.epochs": 20})
    with pytest.raises(NonFiniteLossError, match=r"not finite is dropout\.1;"):
        resumed.train(workplace, tmp_path / "run", config=config)


def test_a_loss_at_fault_is_told_from_the_network(workplace: Path, tmp_path: Path, monkeypatch):
    class Bad(nn.Module):
        def forward(self, logits, label):
            return logits.sum() * torch.inf

    monkeypatch.setattr("msa2net.training.session.create_loss", lambda _: Bad())
    with pytest.raises(NonFiniteLossError, match="not finite is the loss itself"):
        resumed.train(workplace, tmp_path / "run")
    report = json.loads((tmp_path / "run" / "nonfinite.json").read_text())
    assert (report["step"], report["module_type"]) == (1, "Bad")


def watched(tmp_path: Path, network: nn.Module) -> tuple[LossWatch, Step]:
    good = {key: value.clone() for key, value in network.state_dict().items()}
    watch = LossWatch(
        tmp_path / "nonfinite.json",
        network,
        create_loss({"cross_entropy": 1}),
        lambda: network.load_state_dict(good),
        {},
    )
    image = torch.randn(2, 3, 8, 8)
    image[1, 0, 0, 0] = torch.inf
    batch = {
        "image": image,
        "label": torch.zeros(2, 8, 8, dtype=torch.uint8),
        "case": ["a", "b"],
        "slice": torch.tensor([0, 3]),
    }
    return watch, Step(1, 4, 7, batch)


def test_weights_that_were_spoilt_meanwhile_are_not_blamed(tmp_path: Path):
    """On a GPU a loss is looked at after its step: the checkpoint's weights show the culprit."""
    network = resumed.TinyNetwork(3, 2)
    watch, at = watched(tmp_path, network)
    with torch.no_grad():
        network.first.bias.fill_(torch.nan)
    with pytest.raises(NonFiniteLossError, match="with the weights of the last checkpoint"):
        watch._judge(float("nan"), at, updated=True)
    report = json.loads((tmp_path / "nonfinite.json").read_text())
    assert report["parameters_not_finite"] == ["first.bias"]
    assert report["found_with"] == "the last checkpoint's weights"
    assert report["inputs_finite"] is False
    assert report["first_module"] == "first"


def test_losses_on_their_way_are_looked_at_before_anything_is_kept(
    workplace: Path, tmp_path: Path, monkeypatch
):
    """As on a GPU, with a copy that never arrives by itself: nothing of it is written."""

    class Late:
        def synchronize(self) -> None: ...

        def query(self) -> bool:
            return False

    def late(watch: LossWatch, loss: torch.Tensor, at: Step) -> None:
        watch._waiting.append(nonfinite._Waiting(at, loss.detach(), Late()))

    monkeypatch.setattr(LossWatch, "look", late)
    for minutes, last in ((1e-9, "epoch00001-step00000005-"), (0, "epoch00001-step00000004-")):
        run, poison = tmp_path / f"run{minutes}", Poison(6, "norm.weight")
        config = resumed.settings(workplace, **{"train.checkpoint_minutes": minutes})
        with pytest.raises(
            NonFiniteLossError, match="step 6, .*in a second run of it everything was fin"
        ):
            resumed.train(workplace, run, config=config, callbacks=[poison])
        report = json.loads((run / "nonfinite.json").read_text())
        assert [row["case"] for row in report["batch"]] == poison.cases
        assert report["found_with"] == "the last checkpoint's weights"
        assert "norm.weight" in report["parameters_not_finite"]
        assert report["first_module"] is None
        newest = Checkpoints(run).paths()[0]
        assert newest.name.startswith(last)
        state = torch.load(newest, weights_only=True)["states"]["model"]
        assert all(value.isfinite().all() for value in state.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_loss_is_found_by_the_next_look(tmp_path: Path):
    network = resumed.TinyNetwork(3, 2).cuda()
    watch, at = watched(tmp_path, network)
    at.batch["image"], at.batch["label"] = at.batch["image"].cuda(), at.batch["label"].cuda()
    watch.look(torch.tensor(1.0, device="cuda"), at)

    def look_and_finish() -> None:  # it may have arrived at the look, or only at the finish
        watch.look(torch.tensor(float("nan"), device="cuda"), at)
        watch.finish()

    with pytest.raises(NonFiniteLossError, match="not finite is first"):
        look_and_finish()


# Memory -------------------------------------------------------------------------------------------


def test_the_estimate_by_hand():
    """A linear layer keeps its input, a ReLU its output; weights are not the sample's."""
    model = nn.Sequential(nn.Linear(10, 7), nn.ReLU())
    assert memory.bytes_per_sample(model, torch.randn(2, 10)) == 4 * (10 + 7)
    numbers = 10 * 7 + 7
    assert memory.fixed_bytes(model, "adamw") == 4 * numbers * 4  # weight, gradient, two moments
    assert memory.fixed_bytes(model, "sgd") == 4 * numbers * 3
    model.requires_grad_(False)
    assert memory.fixed_bytes(model, "adamw") == 4 * numbers


@pytest.mark.parametrize("samples", [2, 3, 5])
def test_the_estimate_is_one_of_a_sample(samples: int):
    """The same from any number of samples, four times as much for twice the side."""
    model = resumed.TinyNetwork(3, 2)
    each = memory.bytes_per_sample(model, torch.randn(samples, 3, 16, 16))
    assert each == memory.bytes_per_sample(model, torch.randn(2, 3, 16, 16))
    assert memory.bytes_per_sample(model, torch.randn(2, 3, 32, 32)) == 4 * each


def test_the_estimate_agrees_with_what_the_graph_holds():
    """Against torch's own account of the tensors that a real forward pass keeps."""
    model, image = resumed.TinyNetwork(3, 2), torch.randn(4, 3, 16, 16)
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        answer = model(image)
    own = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}
    total = sum(storage.nbytes() for key, storage in kept.items() if key not in own)
    assert answer.requires_grad
    # Batch norm keeps a mean and a deviation for each of 6 channels, whatever the batch.
    assert memory.bytes_per_sample(model, image) == (total - 2 * 6 * 4) / 4


def test_the_estimate_of_blocks_that_are_computed_twice():
    """By hand: the inputs of two blocks, and what the larger keeps inside."""
    small, large = (
        nn.Sequential(nn.Linear(n, n), nn.Sigmoid(), nn.Linear(n, n), nn.Sigmoid()) for n in (8, 32)
    )
    model = nn.Sequential(small, nn.Linear(8, 32), large)
    plain = memory.bytes_per_sample(model, torch.randn(2, 8))
    assert plain == 4 * (3 * 8 + 3 * 32)  # each input, and each sigmoid's output
    for name in ("0", "2"):
        model.register_module(name, checkpoint_block(model.get_submodule(name)))
    # Between blocks 8, 8 and 32 numbers; inside the larger two sigmoids' outputs.
    assert memory.bytes_per_sample(model, torch.randn(2, 8)) == 4 * (8 + 8 + 32 + 32 + 32)


OUT_OF_MEMORY = [
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_names_an_estimate_and_the_setting(
    workplace: Path, tmp_path: Path, whole: Path, error: Exception
):
    class TooMuch(L.Callback):
        def on_train_batch_end(self, trainer, *_) -> None:
            if trainer.global_step == 3:
                raise error

    with pytest.raises(ConfigError) as stopped:
        resumed.train(workplace, tmp_path / "run", callbacks=[TooMuch()])
    sentence = str(stopped.value)
    assert sentence.startswith("not enough memory on cpu: 2 samples at once need about 0.0 GB (")
    assert "for network, gradients and optimiser" in sentence
    assert "for each sample, measured on 2" in sentence
    first, second, third = (
        sentence.index(f"train.{name}")
        for name in ("gradient_checkpointing", "accumulate", "batch_size, then go on")
    )
    assert first < second < third
    assert_goes_on(workplace, tmp_path / "run", whole)


def training_sentence(device: str, parts: tuple[int, int], measure, **settings) -> str:
    train = TrainConfig(epochs=1, batch_size=parts[0] * parts[1], learning_rate=1, **settings)
    return str(memory.training_sentence(torch.device(device), parts, 3_000_000_000, measure, train))


def test_the_sentence_adds_up():
    each = iter([2e9])
    said = training_sentence("cpu", (24, 1), lambda: next(each))
    assert "24 samples at once need about 51.0 GB (3.0 GB for network" in said
    assert "2.00 GB for each sample" in said

    def no_room() -> float:
        raise MemoryError

    said = training_sentence("cpu", (24, 1), no_room, gradient_checkpointing=True)
    assert "not even 2 samples fit beside them; choose a smaller network" in said
    assert said.endswith("begin a new run with --out")  # no checkpoint fits another network


def test_the_batch_that_would_fit_is_said(monkeypatch):
    monkeypatch.setattr(memory, "_total_bytes", lambda _: 40_000_000_000)
    said = training_sentence("cuda", (24, 1), lambda: 2e9)
    assert "turn on train.gradient_checkpointing, raise train.accumulate to 2" in said
    assert "lower train.batch_size to 16 or less (16 at once fit into the 40 GB" in said
    said = training_sentence("cuda", (24, 1), lambda: 2e9, compile=True)  # does not allow both
    assert "; turn off train.compile and turn on train.gradient_checkpointing, raise" in said


def test_what_fits_is_said_of_the_whole_batch(monkeypatch):
    """Of two processes, each in three parts: 6 × 20 samples, of which 16 fit at once."""
    monkeypatch.setattr(memory, "_total_bytes", lambda _: 40_000_000_000)
    settings = {"accumulate": 3, "gradient_checkpointing": True}
    said = training_sentence("cuda", (20, 6), lambda: 2e9, **settings)
    assert "20 samples at once need about 43.0 GB" in said
    assert "come on top); raise train.accumulate to 4, or lower train.batch_size to 96 or" in said


def test_out_of_memory_while_validating_names_another_setting(
    workplace: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(Predictor, "segment", mock.Mock(side_effect=MemoryError))
    with pytest.raises(ConfigError, match=r"while validating: 4 slices .*batch_slices below 4"):
        resumed.train(workplace, tmp_path / "run")
    alone = str(memory.validation_sentence(torch.device("cpu"), 1, 144, (512, 512)))
    assert "a single slice needs 0.15 GB" in alone
    assert "batch_slices" not in alone


def ort_exception(text: str) -> Exception:
    return pytest.importorskip("onnxruntime").capi.onnxruntime_pybind11_state.RuntimeException(text)


def array_memory_error() -> Exception:
    """NumPy's own, which has no public name: half of all there could be."""
    try:
        np.empty(2**62, np.uint8)
    except MemoryError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "error",
    [
        *OUT_OF_MEMORY,
        array_memory_error(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't "
                     "allocate memory: you tried to allocate 9 bytes. Error code 12"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("bad allocation"),
        RuntimeError("unable to mmap 9 bytes from file: Cannot allocate memory (12)"),
        ort_exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned "
                      "while running Conv node. Failed to allocate memory for requested buffer"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_lack_of_memory_is_known_by_all_its_names(error: Exception):
    assert is_out_of_memory(error)
    sentence = r"^not enough memory while trying( \(.*\))?; try less$"
    with pytest.raises(ConfigError, match=sentence), memory_guard("trying", "try less"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no room for doubt"),
        FileNotFoundError(errno.ENOENT, "No such file", "out of memory.png"),
        ValueError("out of memory"),
        KeyError("bad_alloc"),
        ConfigError("not enough memory while training; lower train.batch_size"),
    ],
    ids=repr,
)
def test_nothing_else_is_taken_for_a_lack_of_memory(error: Exception):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as same, memory_guard("trying"):
        raise error
    assert same.value is error


@pytest.mark.parametrize(
    ("place", "words", "parts"),
    [
        (
            "data.prepared.prepare._store_case",
            "prepare isic2018 RAW OUT",
            ["case ISIC_", "lower --workers"],
        ),
        ("data.check.dataset.check_arrays", "check DATA", ["while checking the data; end what"]),
        ("export.onnx._trace", "export RUN --out OUT.onnx", ["while exporting; end what else"]),
        ("evaluation.run.read_facts", "evaluate RUN", ["while evaluating; end what else"]),
        ("prediction.run.find_inputs", "predict RUN RAW --out OUT", ["while predicting; end what"]),
        (
            "data.phantom.files.write_phantom",
            "phantom OUT --format acdc",
            ["while doing this; end what else"],
        ),
    ],
)
def test_every_command_says_that_memory_ran_out(
    workplace: Path, whole: Path, tmp_path: Path, monkeypatch, place: str, words: str, parts
):
    monkeypatch.setattr(f"msa2net.{place}", mock.Mock(side_effect=MemoryError))
    places = {"RAW": workplace / "raw", "DATA": workplace / "prepared"}
    if "RUN" in words:
        places["RUN"] = write_run(tmp_path / "run")
    words = [str(places.get(word, word)) for word in words.split()]
    failed = commands.msa2net(*words, cwd=tmp_path)
    commands.assert_one_sentence(failed, "not enough memory while", *parts)


LITTLE_MEMORY = """
import json, resource, sys
import torch
from msa2net.cli import main
import msa2net.prediction.run, msa2net.evaluation.folders, msa2net.data.prepared.prepare
from msa2net.inference.predictor import Predictor

Predictor.load(sys.argv[1])(torch.zeros(1, 40, 40).numpy())  # what is loaded late is there now
for more, words in json.loads(sys.argv[2]):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limit = used + more * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    sys.argv = ["msa2net", *words]
    try:
        main()
    except SystemExit as leaving:
        print(f"exit {leaving.code}", file=sys.stderr, flush=True)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="asks Linux what is used")
def test_too_little_memory_is_a_sentence_for_each_image(tmp_path: Path):
    """Limits of the system itself: what does not fit fails alone, the rest gets its masks."""
    run = write_run(tmp_path / "run")
    sizes = {"long": (512, 512, 256), "small": (40, 40, 3), "wide": (4000, 4000, 1)}
    for folder, kind in (("images", np.int16), ("labels", np.uint8)):
        (tmp_path / folder).mkdir()
        for name, size in sizes.items():
            volume = nib.Nifti1Image(np.zeros(size, kind), np.eye(4))
            volume.to_filename(tmp_path / folder / f"{name}.nii")
    masks, labels = str(tmp_path / "masks"), str(tmp_path / "labels")
    calls = [
        (110, ["predict", str(run), str(tmp_path / "images"), "--out", masks, "--no-overlays"]),
        (50, ["evaluate", labels, "--labels", labels, "--names", "background,one,two",
              "--workers", "1", "--out", str(tmp_path / "scores")]),
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, str(run), json.dumps(calls)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    predicted, evaluated, rest = done.stderr.split("exit 2\n")
    reading, segmenting = predicted.splitlines()
    assert reading.startswith(f"error: not enough memory to read {tmp_path}/images/long.nii; end")
    assert f"{tmp_path}/images/wide.nii" in segmenting  # in the network or on the way to it
    assert "memory" in segmenting
    assert segmenting.endswith("end what else runs on this machine, or use one with more memory")
    assert sorted(path.name for path in Path(masks).glob("*.nii.gz")) == ["small.nii.gz"]
    assert f"not enough memory to read {labels}/long.nii; end what else" in evaluated
    assert len(evaluated.splitlines()) == 1
    assert not rest
    assert not (tmp_path / "scores").exists()


def test_other_errors_stay_what_they_are(workplace: Path, tmp_path: Path):
    class Ours(L.Callback):
        def on_train_batch_end(self, *_) -> None:
            raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="a mistake of ours"):
        resumed.train(workplace, tmp_path / "run", callbacks=[Ours()])


# Disk ---------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_loses_nothing(workplace: Path, tmp_path: Path, whole: Path):
    """Half of a checkpoint can be written, then no more."""
    save, calls = torch.save, []

    def full(state, file) -> None:
        calls.append(1)
        if len(calls) < 4:
            save(state, file)
            return
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = tmp_path / "run"
    with (
        mock.patch.object(torch, "save", full),
        pytest.raises(DataError, match="cannot write a checkpoint .*No space left on device; the"),
    ):
        resumed.train(workplace, run)
    names = [path.name[:23] for path in Checkpoints(run).paths()]
    assert names == ["epoch00000-step00000002", "epoch00000-step00000001"]
    assert_goes_on(workplace, run, whole)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_file_that_may_not_grow_loses_nothing(workplace: Path, tmp_path: Path, whole: Path):
    """Refused by the system itself, in the middle of torch's own writing."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Limit(L.Callback):
        def on_train_batch_start(self, trainer, *_) -> None:
            if trainer.global_step == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))

    run = tmp_path / "run"
    try:
        with pytest.raises(DataError) as stopped:
            resumed.train(workplace, run, callbacks=[Limit()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot write a checkpoint" in str(stopped.value)
    assert "the one before it is kept: make room" in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert_goes_on(workplace, run, whole)


@pytest.mark.parametrize("name", ["metrics.csv", "model.safetensors", "model.json"])
def test_a_disk_that_is_full_at_an_epoch_s_end_loses_nothing(
    workplace: Path, tmp_path: Path, whole: Path, name: str
):
    replace = Path.replace

    def full(path: Path, target: Path) -> Path:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    run = tmp_path / "run"
    with (
        mock.patch.object(Path, "replace", full),
        pytest.raises(DataError, match=f"cannot write .*{name}: No space left on device"),
    ):
        resumed.train(workplace, run)
    assert_goes_on(workplace, run, whole)


def test_a_folder_that_is_read_only_stops_before_anything_is_lost(
    workplace: Path, tmp_path: Path, whole: Path
):
    run, locked = tmp_path / "run", tmp_path / "locked"
    locked.mkdir(mode=0o555)
    if os.access(locked, os.W_OK):
        pytest.skip("root may write everywhere")

    class Lock(L.Callback):
        def on_train_batch_end(self, trainer, *_) -> None:
            if trainer.global_step == 3:
                (run / "checkpoints").chmod(0o555)

    try:
        with pytest.raises(DataError, match="cannot write a checkpoint .*Permission denied"):
            resumed.train(workplace, run, callbacks=[Lock()])
    finally:
        (run / "checkpoints").chmod(0o755)
    assert_goes_on(workplace, run, whole)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="/proc can be written by nobody")
def test_a_place_where_nobody_can_write_is_one_sentence(workplace: Path):
    with pytest.raises(DataError, match=r"cannot write into /proc/run: .*is writable"):
        resumed.train(workplace, Path("/proc/run"))
