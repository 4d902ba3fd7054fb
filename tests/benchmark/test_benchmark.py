"""The benchmark: that it runs, counts what it says, and that optimised paths equal plain ones."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import reference_recipe as reference
import torch
from end_to_end import busy_share
from scipy import ndimage

from commands import msa2net
from msa2net.benchmark.settings import Settings, settings_for
from msa2net.benchmark.timing import Timing, matrix_ceiling, measure
from msa2net.errors import ConfigError
from msa2net.losses import create_loss

CPU = torch.device("cpu")


def test_the_command_measures_everything(tmp_path: Path):
    result = msa2net(
        "benchmark",
        "--quick",
        "--repeats",
        "1",
        "--device",
        "cpu",
        "--json",
        "b.json",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    for part in ("forward", "training step", "Boundary-DoU", "augmentation", "store reading"):
        assert part in result.stdout
    content = json.loads((tmp_path / "b.json").read_text())
    rows = {row["part"]: row for row in content["rows"]}
    assert {"prediction", "evaluation", "command line", "softmax alone"} <= set(rows)
    assert all(len(row["timing"]["seconds"]) == 1 for row in content["rows"])
    assert all(min(row["timing"]["seconds"]) > 0 for row in content["rows"])
    assert 0 < rows["training step"]["share"] < 1
    memory = content["training_memory_computed"]
    assert memory["bytes_with_checkpointing"] < memory["bytes"]
    assert content["machine"]["cores"]


def test_medians_and_spreads():
    timing = Timing((3.0, 1.0, 2.0))
    assert (timing.median, timing.spread) == (2.0, (1.0, 3.0))
    calls = []
    found = measure(lambda: calls.append(1), 4, CPU)
    assert (len(calls), len(found.seconds)) == (5, 4)


def test_memory_is_what_a_call_takes():
    found = measure(lambda: np.ones(40_000_000, dtype=np.uint8).sum(), 1, CPU)
    if found.peak_bytes is None:
        pytest.skip("this system does not count the memory of a process")
    assert found.peak_bytes > 30_000_000


KEEPING = """
import resource, numpy as np
from msa2net.cli.console import keep_touched_memory
done = keep_touched_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(100_000_000, dtype=np.uint8)
before = faults()
np.ones(100_000_000, dtype=np.uint8)
print(int(done), faults() - before)
"""


def test_memory_touched_once_is_kept():
    """100 MB, freed and taken again, cost no more page faults; a process of its own, to be sure."""
    found = subprocess.run(
        [sys.executable, "-c", KEEPING], capture_output=True, text=True, check=True
    ).stdout.split()
    if found[0] == "0":
        pytest.skip("not on glibc")
    assert int(found[1]) < 1000


def test_a_ceiling_is_positive():
    assert matrix_ceiling(CPU, torch.float32, side=128) > 1e6


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"batch": 1}, {"slices": 0}])
def test_what_cannot_be_measured_is_refused(wrong):
    with pytest.raises(ConfigError, match="cannot be measured"):
        Settings(CPU, **wrong)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("what", ["repeats", "batch", "slices"])
def test_zero_is_no_default(what: str, quick: bool):
    with pytest.raises(ConfigError, match=f"{what}=0.* cannot be measured"):
        settings_for(CPU, quick=quick, **{what: 0})


def test_a_cpu_gets_less_to_do():
    assert settings_for(CPU).slices < settings_for(torch.device("mps", 0), slices=148).slices
    assert settings_for(CPU).precision == "float32"


# Optimised paths beside the plain ones of the reference recipe ------------------------------------


def test_boundary_dou_is_the_reference_s():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 40, 30, requires_grad=True)
    target = torch.from_numpy(
        ndimage.zoom(np.random.default_rng(0).integers(0, 4, (3, 5, 4)), (1, 8, 7.5), order=0)
    )
    plain = reference.boundary_dou(logits, target)
    (expected,) = torch.autograd.grad(plain, logits)
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = logits.detach().to(memory_format=layout).requires_grad_()
        ours = create_loss({"boundary_dou": 1.0})(leaf, target)
        (found,) = torch.autograd.grad(ours, leaf)
        assert ours.item() == pytest.approx(plain.item(), abs=1e-6)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)
        assert found.is_contiguous(memory_format=layout)


def test_the_reference_predicts_what_the_published_way_does():
    from msa2net.benchmark import parts

    settings = settings_for(CPU, quick=True)
    model = parts.build_model(settings).eval()
    case = parts.draw_volume(settings)
    ours = parts.predict_call(parts.build_predictor(settings, model), case, published=True)()
    unit = np.clip((case.image[0].astype(np.float32) + 125.0) / 400.0, 0, 1)
    plain = reference.predict(model, unit, settings.image_size)
    assert (ours.labels == plain).mean() > 0.999
    assert len(np.unique(plain)) > 1


def test_the_reference_augments_image_and_label_alike():
    """Every change of place moves a label as it moves an image of the same content."""
    label = np.zeros((96, 80), dtype=np.uint8)
    label[30:60, 20:50] = 1
    for augmenter in reference.AUGMENTERS:
        image, moved = augmenter(label.astype(np.float32), label, np.random.default_rng(5))
        assert image.shape == moved.shape == label.shape
        if augmenter.__name__ in {"noise", "blur", "multiply"}:
            assert np.array_equal(moved, label)
        else:
            assert ((image > 0.5) == moved).mean() > 0.98, augmenter.__name__
    small, small_label = reference.resize(label.astype(np.float32), label, 48)
    assert small.shape[0] == small_label.shape[0] == 48


def test_a_device_is_busy_while_any_of_its_tasks_runs():
    """Two steps: tasks of two streams overlap, one lies in another, a gap lies between."""

    def task(name, start, end, device="CUDA", *, note=False):
        return SimpleNamespace(
            name=name,
            time_range=SimpleNamespace(start=start, end=end),
            device_type=SimpleNamespace(name=device),
            is_user_annotation=note,
        )

    tasks = [task("a", 0, 40), task("b", 20, 60), task("a", 30, 35), task("c", 80, 100)]
    rest = [task("x", 0, 500, "CPU"), task("y", 0, 300, note=True)]
    found = busy_share(SimpleNamespace(events=lambda: [*tasks[::-1], *rest]), steps=2)
    assert found == {
        "share": 0.8,
        "busy_ms": 0.04,
        "span_ms": 0.05,
        "tasks": 2,
        "largest": {"a": (0.0225, 1), "b": (0.02, 0.5), "c": (0.01, 0.5)},
    }
