"""A training in miniature that can be cut off anywhere; as a script, one that kills itself.

`python resumed.py FOLDER RUN MOMENT COUNT …` trains in FOLDER and sends itself SIGKILL at the
COUNT-th moment of the kind MOMENT; with `slowly` it only takes its time, to be killed from outside.
Of several such runs each is a fork of this process, which has imported everything and computed
nothing; it prints how each ended.
"""

import json
import os
import signal
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import lightning as L
import torch
from torch import nn

from msa2net.config import Config, NetworkConfig, NetworkOptions, load_config
from msa2net.models.base import Network
from msa2net.models.registry import MODELS
from msa2net.training import run as training
from msa2net.training import session
from msa2net.training.checkpoint import Checkpoints

SETTINGS = """
image_size: 32
batch_slices: 4
model: {name: msa2net, encoder: test_maxvit}
data: {format: isic2018, root: ROOT, prepared: PREPARED, fit: stretch}
augment: {horizontal_flip: 0.5, affine: 0.5, brightness: 0.2, noise_std: 0.05}
train: {epochs: 2, batch_size: 2, learning_rate: 0.02, weight_decay: 0.01, checkpoint_minutes: 1e-9}
"""


class TinyNetwork(Network):
    """Has what a checkpoint can get wrong: running statistics and dropout; and two levels."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__((32, 32), widths=(6, 6))
        self.first = nn.Conv2d(in_channels, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Conv2d(6, num_classes, 3, padding=1)

    def decode(self, image_BCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = torch.relu(self.norm(self.first(image_BCHW)))
        return nn.functional.avg_pool2d(x, 2), self.dropout(x)


def tiny_network(network: NetworkConfig, _: NetworkOptions) -> nn.Module:
    return TinyNetwork(network.in_channels, network.num_classes)


def msa2net_is(build):
    """Within it, the network called msa2net is what `build` makes."""
    return mock.patch.dict(MODELS, msa2net=replace(MODELS["msa2net"], build=build))


def settings(folder: Path, **changes) -> Config:
    """Return the settings of a training on the lesions in `folder/raw`."""
    text = SETTINGS.replace("ROOT", str(folder / "raw")).replace(
        "PREPARED", str(folder / "prepared")
    )
    path = folder / f"settings-{os.getpid()}.yaml"
    path.write_text(text)
    return load_config(path, [f"{key}={value}" for key, value in changes.items()])


def train(folder: Path, run: Path, *, tiny: bool = True, resume: bool = False, **options):
    """Train on the CPU; a checkpoint after every batch unless the settings say otherwise."""
    config = options.pop("config", None) or settings(folder)
    with (
        msa2net_is(tiny_network) if tiny else nullcontext(),
        mock.patch("msa2net.training.recorder.SAVING_SHARE", float("inf")),
    ):
        return training.train(config, run, device="cpu", resume=resume, **options)


class Moments(L.Callback):
    """Calls `act(kind)` wherever a training can end: in and between steps, while it validates."""

    def __init__(self, act) -> None:
        self.act = act

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.act("epoch")

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.act("step")

    def on_after_backward(self, trainer, pl_module) -> None:
        self.act("step")

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.act("step")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.act("step")

    def on_validation_batch_end(self, *_) -> None:
        self.act("validation")

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        self.act("validation")

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self.act("epoch")


def writing(act):
    """Call `act` in the middle of writing a checkpoint, and around its renaming."""
    save, replace, keep = torch.save, Path.replace, session.save_run

    def half_saved(state, file) -> None:
        save(state, file)
        whole = file.tell()
        file.truncate(whole // 2)
        file.flush()
        act("saving")
        file.seek(0)
        save(state, file)

    def replaced(path: Path, target: Path) -> Path:
        if target.suffix != ".ckpt":
            return replace(path, target)
        act("renaming")
        result = replace(path, target)
        act("renaming")
        return result

    def kept(*arguments) -> None:
        act("keeping")
        keep(*arguments)

    return (
        mock.patch.object(torch, "save", half_saved),
        mock.patch.object(Path, "replace", replaced),
        mock.patch.object(session, "save_run", kept),
    )


def states(run: Path) -> dict:
    """Return everything in the last checkpoint that time does not change."""
    content = torch.load(Checkpoints(run).paths()[0], weights_only=True)
    for name in ("seconds", "timing", "train_seconds", "waiting_seconds", "validation_seconds"):
        del content["progress"][name]
    return {"states": content["states"], "progress": content["progress"]}


def equal(one, two) -> bool:
    """Compare nested states bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


def train_and_die(folder: Path, run: Path, moment: str, count: int) -> None:
    slowly, left = moment == "slowly", [count]

    def act(kind: str) -> None:
        if slowly:
            time.sleep(0.03)
        elif kind == moment:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    for patch in writing(act):
        patch.start()
    changes = {"train.epochs": 4} if slowly else {}
    train(
        folder,
        run,
        tiny=slowly,
        resume=bool(Checkpoints(run).paths()),
        overwrite=run.exists() and not Checkpoints(run).paths(),
        config=settings(folder, **changes),
        callbacks=[Moments(act)],
    )


def main() -> None:
    folder, runs = Path(sys.argv[1]), sys.argv[2:]
    if len(runs) == 3:
        sys.stdout.write("training\n")
        sys.stdout.flush()
        train_and_die(folder, Path(runs[0]), runs[1], int(runs[2]))
        return
    for run, moment, count in zip(runs[::3], runs[1::3], runs[2::3], strict=True):
        child = os.fork()
        if child == 0:
            train_and_die(folder, Path(run), moment, int(count))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


class CutOffError(Exception):
    """What stands for a kill inside this process: nothing of ours catches it."""


def assert_same_run(run: Path, whole: Path) -> None:
    """Everything but times is equal: weights, tables, facts, optimiser, schedule."""
    for name in ("metrics.csv", "model.safetensors"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    one, two = (json.loads((path / "model.json").read_text()) for path in (run, whole))
    del one["training"]["seconds"], two["training"]["seconds"]
    assert one == two
    assert equal(states(run), states(whole))
    assert not [path for path in run.rglob("*") if path.name.startswith(".msa2net")]
    assert len(list((run / "checkpoints").iterdir())) == 2


def cut_off(workplace: Path, run: Path, count: int, **options) -> bool:
    """Train until the `count`-th moment; False if the training ended before."""
    left = [count]

    def act(kind: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise CutOffError(kind)

    with ExitStack() as stack:
        for patch in writing(act):
            stack.enter_context(patch)
        try:
            train(workplace, run, callbacks=[Moments(act)], **options)
        except CutOffError:
            return True
    return False


if __name__ == "__main__":
    main()
