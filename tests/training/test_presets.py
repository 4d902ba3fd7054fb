"""Every preset in configs/ trains: two epochs on phantom data, and a kept loss curve.

Networks and images are made tiny; all else is the preset's own. The curves are of one thread. To
draw them anew after a change that is meant to move them: `python tests/training/test_presets.py`.
"""

import json
import sys
import tempfile
from pathlib import Path

import lightning as L
import pytest
import torch

from msa2net.config import Config, load_config
from msa2net.data.phantom.files import write_phantom
from msa2net.inference.run_folder import read_facts
from msa2net.training.run import train
from paths import GOLDEN, ROOT

CONFIGS = ROOT / "configs"
CURVES = GOLDEN / "preset_losses.json"
PRESETS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
CASES = {"isic2018": 14, "acdc": 4, "synapse": 4, "nnunet": 4}
STEPS, EXACT = 30, 5


def tiny_config(preset: str, root: Path, **changes) -> Config:
    """Return a preset made tiny; writes phantom data for its format if they are not there."""
    path = CONFIGS / f"{preset}.yaml"
    format = load_config(path).data.format
    raw = root / f"raw-{format}"
    if not raw.exists():
        write_phantom(format, raw, cases=CASES[format])
    overrides = {
        "image_size": 32,
        "batch_slices": 32,
        "model.encoder": "test_maxvit",
        "model.pretrained": False,
        "data.root": raw,
        "data.prepared": root / f"prepared-{preset}",
        "train.epochs": 2,
        "train.batch_size": 4,
        "train.workers": 0,
        "train.checkpoint_minutes": 0,
        "train.validate_every": 2,
    } | changes
    words = [
        f"{key}={json.dumps(str(v) if isinstance(v, Path) else v)}" for key, v in overrides.items()
    ]
    return load_config(path, words)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("presets")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_train(workplace: Path, tmp_path: Path, preset: str):
    config = tiny_config(preset, workplace)
    result = train(config, tmp_path / "run", device="cpu")
    assert (result.epochs, result.finished) == (2, True)
    facts = read_facts(tmp_path / "run")
    assert facts.training["weights"] == ("last" if preset == "synapse-paper" else "best on val")
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 3


class Losses(L.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.values.append(float(outputs["loss"]))


def curve(preset: str, workplace: Path, run: Path) -> list[float]:
    """Train 30 steps in one thread; the schedule is that of 30 steps."""
    changes = {"train.max_steps": STEPS, "train.epochs": 60, "train.validate_every": 99}
    config = tiny_config(preset, workplace, **changes)
    losses, threads = Losses(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(config, run, device="cpu", callbacks=[losses])
    finally:
        torch.set_num_threads(threads)
    return losses.values


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_loss_curves_are_those_that_were_kept(workplace: Path, tmp_path: Path, preset: str):
    kept = json.loads(CURVES.read_text())
    assert sorted(kept) == PRESETS
    found = curve(preset, workplace, tmp_path / "run")
    assert found[:EXACT] == pytest.approx(kept[preset][:EXACT], rel=1e-5)
    assert found == pytest.approx(kept[preset], rel=1e-3)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for preset in PRESETS:
            found[preset] = curve(preset, Path(folder), Path(folder) / f"run-{preset}")
            sys.stderr.write(f"{preset} {found[preset][0]:.4f} {found[preset][-1]:.4f}\n")
    CURVES.write_text(json.dumps(found, indent=1) + "\n")
