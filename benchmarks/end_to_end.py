"""The reference recipe's training beside ours: from files on disk to updated weights.

    python benchmarks/end_to_end.py [--device cuda] [--batch 24] [--workers 8] [--compile]
        [--network msa2net] [--slices 480] [--epochs 3] [--only ours] [--data FOLDER]
        [--set SETTING=VALUE] [--out FILE.json]

Slices of 512² in TransUNet's layout, drawn from a phantom, become images of 224². The reference
reads, augments and resizes each in a loader's worker and takes a float32 step. Ours is `train` with
the same network, loss and optimiser, its own augmentation, and `train.compile` if asked for; the
first epoch, in which it compiles, is not counted, nor is the writing of checkpoints. Nor is the
reference's first step of an epoch, which waits for its workers to start; ours wait, and it counts.
Both get the same number of workers. At the end the same step is repeated on one batch, without
loaders and loop around it; on a GPU a profile says of both how much of the time it is busy, and
with what. Of a compiled step it is told, too, how many bytes its kernels read and write, as the
compiler counts.
"""

import argparse
import logging
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import lightning as L
import numpy as np
import reference_recipe as reference
import torch
from torch._inductor import metrics
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader, Dataset

from msa2net.benchmark import parts
from msa2net.benchmark.run import TRAINING_PASSES, machine
from msa2net.benchmark.settings import settings_for
from msa2net.benchmark.timing import matrix_ceiling
from msa2net.config import load_config
from msa2net.data.phantom import abdomen
from msa2net.files import write_json
from msa2net.inference.run_folder import choose_device
from msa2net.models.registry import create_model
from msa2net.training.run import train

CONFIG = Path(__file__).parent.parent / "configs" / "synapse-paper.yaml"
CASES = 4
SIZE = 224
PROFILED, REPEATED = 5, 20  # steps
LARGEST = 25  # kernels that are named
PASSES = 3  # of the reference


def main() -> None:
    """Draw the data, train both ways, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--network", default="msa2net")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--slices", type=int, default=480)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", choices=("reference", "ours"))
    parser.add_argument("--data", type=Path, help="where the drawn data are kept")
    parser.add_argument("--set", action="append", default=[], help="a setting of ours")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.slices < 2 * options.batch or options.epochs < 2:
        parser.error("two epochs of two steps are the least: use more --slices or --epochs")
    device = choose_device(options.device)
    settings = settings_for(device, model=options.network, batch=options.batch)
    result: dict[str, Any] = {"machine": machine(settings), "command": sys.argv[1:]}
    print(result["machine"])
    with TemporaryDirectory() as name:
        folder = options.data or Path(name)
        draw(folder / "Synapse", options.slices)
        for who, run in (("ours", ours), ("reference", reference_steps)):
            if options.only in (None, who):
                result[who] = run(options, folder, device)
                print(f"{who}: {result[who]}", flush=True)
            if options.out:
                write_json(options.out, result)
    if options.only is None:
        result["ratio"] = rate(result["ours"]) / rate(result["reference"])
        print(f"ratio {result['ratio']:.1f}")
    if "ours" in result:
        result["ours"]["ceiling"] = ceiling_share(settings, rate(result["ours"]))
        print(f"ours: {result['ours']['ceiling']}")
    if options.out:
        write_json(options.out, result)


def draw(root: Path, slices: int) -> None:
    """Write training slices and one small test volume, unless they are there."""
    if root.exists():
        return
    case = abdomen(0, shape=(8, 512, 512))
    assert case.label is not None
    unit_ZHW = (case.image[0].astype(np.float32) - parts.CT_LOW) / (parts.CT_HIGH - parts.CT_LOW)
    unit_ZHW = unit_ZHW.clip(0, 1)
    (root / "train_npz").mkdir(parents=True)
    (root / "test_vol_h5").mkdir()
    for index in range(slices):
        case_number, z = divmod(index, slices // CASES)
        np.savez(
            root / "train_npz" / f"case{5 + case_number:04}_slice{z:03}.npz",
            image=unit_ZHW[index % 8],
            label=case.label[index % 8],
        )
    with h5py.File(root / "test_vol_h5" / "case0001.npy.h5", "w") as file:
        file["image"], file["label"] = unit_ZHW, case.label


def rate(found: dict[str, Any]) -> float:
    """Return images a second."""
    return float(found["images_per_second"])


def ceiling_share(settings: Any, images_per_second: float) -> dict[str, float]:
    """Return what part of the device's matrix products a second the training reached."""
    each = TRAINING_PASSES * parts.multiply_adds(settings)
    dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    ceiling = matrix_ceiling(settings.device, dtype)
    return {
        "multiply_adds_an_image": each,
        "ceiling": ceiling,
        "share": images_per_second * each / ceiling,
    }


# The reference ------------------------------------------------------------------------------------


class PublishedSlices(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Files that are read, augmented and resized one by one."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.npz"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        with np.load(self.files[index]) as arrays:
            pair = arrays["image"], arrays["label"]
        rng = np.random.default_rng([torch.initial_seed() % 2**32, index])
        image_hw, label_hw = reference.resize(*reference.augment(*pair, rng), SIZE)
        image_Chw = (torch.from_numpy(image_hw.astype(np.float32))[None] - 0.5) / 0.5
        return image_Chw, torch.from_numpy(label_hw.astype(np.int64))


def reference_steps(
    options: argparse.Namespace, folder: Path, device: torch.device
) -> dict[str, Any]:
    """Train as published; the first epoch is not counted."""
    model = create_model(options.network, 9, 1, image_size=SIZE)
    model = model.to(device, memory_format=torch.contiguous_format).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        PublishedSlices(folder / "Synapse" / "train_npz"),
        batch_size=options.batch,
        shuffle=True,
        num_workers=options.workers,
        pin_memory=device.type == "cuda",
        drop_last=True,
    )
    seconds: list[float] = []
    for epoch in range(PASSES):
        marks = []
        for image_BChw, label_Bhw in loader:
            reference.train_step(model, optimizer, image_BChw.to(device), label_Bhw.to(device))
            marks.append(time.perf_counter())  # the step has waited for its loss
        if epoch:  # and the start of the workers, as long for 10 steps as for 1,000, is left out
            seconds += np.diff(marks).tolist()
    return summary(seconds, options.batch)


def summary(seconds: list[float], batch: int) -> dict[str, Any]:
    """Describe the seconds from step to step."""
    return {
        "images_per_second": round(batch * len(seconds) / sum(seconds), 1),
        "step_ms": round(1e3 * statistics.median(seconds), 2),
        "fastest_ms": round(1e3 * min(seconds), 2),
        "slowest_ms": round(1e3 * max(seconds), 2),
        "steps": len(seconds),
    }


# Ours ---------------------------------------------------------------------------------------------


class Stopwatch(L.Callback):
    """Notes when steps end, epoch by epoch, and looks into a few of the last epoch."""

    def __init__(self, device: torch.device, epochs: int) -> None:
        self.device, self.epochs = device, epochs
        self.marks: list[list[float]] = []
        self.found: dict[str, Any] = {}
        self._profiler: profile | None = None
        self._batch: dict[str, Any] = {}

    def on_train_epoch_start(self, *_: Any) -> None:
        """Begin a list, once the device has nothing left to do."""
        self._wait()
        self.marks.append([time.perf_counter()])

    def on_train_batch_start(
        self, trainer: L.Trainer, _: L.LightningModule, batch: Any, index: int
    ) -> None:
        """Begin to look."""
        self._batch = batch
        last = trainer.current_epoch == self.epochs - 1 and self.device.type == "cuda"
        if last and index == trainer.num_training_batches - PROFILED:
            self._wait()
            self.marks[-1][-1] = time.perf_counter()  # the step before is over only now
            self._profiler = profiler()
            self._profiler.start()

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any) -> None:
        """Note the time; the last step of an epoch is waited for."""
        last = arguments[-1] == trainer.num_training_batches - 1
        if self._profiler is None:
            if last:
                self._wait()
            self.marks[-1].append(time.perf_counter())
        elif last:
            self._wait()
            self._profiler.stop()
            self.found["profile"] = busy_share(self._profiler, PROFILED)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Repeat the step on its last batch."""
        optimizer = trainer.optimizers[0]

        def step() -> None:
            with trainer.precision_plugin.train_step_context():
                loss = pl_module.training_step(self._batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        def steps(count: int) -> float:
            began = time.perf_counter()
            for _ in range(count):
                step()
            self._wait()
            return time.perf_counter() - began

        steps(2)
        self.found["step_alone_ms"] = round(1e3 * steps(REPEATED) / REPEATED, 2)
        if self.device.type == "cuda":
            self.found["memory_allocated"] = torch.cuda.max_memory_allocated(self.device)
            self.found["memory_reserved"] = torch.cuda.max_memory_reserved(self.device)
            with profiler() as looking:
                steps(PROFILED)
            self.found["profile_alone"] = busy_share(looking, PROFILED)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def profiler() -> profile:
    """Return one of host and device."""
    return profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])


def busy_share(looking: profile, steps: int) -> dict[str, Any]:
    """Return how much of the time a GPU computed, or moved memory, from its first task to its last.

    Args:
        looking: a profile that has ended.
        steps: of the training in it.

    Returns:
        `share`, and per step `busy_ms`, `span_ms` and `tasks` (kernels, copies, fills); `largest`,
        for the names that take most time in all: milliseconds and tasks per step.
    """
    events = [
        event
        for event in looking.events()
        if event.device_type.name == "CUDA" and not event.is_user_annotation
    ]
    if not events:
        raise SystemExit("the profile shows nothing on a GPU")
    tasks = sorted((event.time_range.start, event.time_range.end) for event in events)
    busy, reached = 0.0, tasks[0][0]
    for start, end in tasks:  # several streams may overlap
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    span = reached - tasks[0][0]
    each = 1e3 * steps  # microseconds to milliseconds a step
    taken, counts = Counter[str](), Counter[str]()
    for event in events:
        taken[event.name] += event.time_range.end - event.time_range.start
        counts[event.name] += 1
    return {
        "share": busy / span,
        "busy_ms": busy / each,
        "span_ms": span / each,
        "tasks": len(tasks) / steps,
        "largest": {
            name: (time / each, counts[name] / steps) for name, time in taken.most_common(LARGEST)
        },
    }


def count_compiled_bytes() -> None:
    """Let torch's compiler add up what its kernels read and write, which it does to log it."""
    logger = logging.getLogger("torch._inductor.compile_fx.__inductor_metrics")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    metrics.reset()


def ours(options: argparse.Namespace, folder: Path, device: torch.device) -> dict[str, Any]:
    """Train with `train`; the first epoch is not counted."""
    changes = [
        f"data.root={folder / 'Synapse'}",
        f"data.prepared={folder / 'prepared'}",
        f"model.name={options.network}",
        "model.pretrained=false",
        "augment.recipe=settings",
        "augment.horizontal_flip=0.5",
        "augment.vertical_flip=0.5",
        "augment.affine=0.8",
        "augment.scale=[0.7,1.4]",
        "augment.shear_degrees=10",
        "augment.brightness=0.2",
        "augment.contrast=0.2",
        "augment.noise_std=0.02",
        "train.learning_rate=0.001",
        f"train.epochs={options.epochs}",
        f"train.batch_size={options.batch}",
        f"train.workers={options.workers}",
        f"train.compile={str(options.compile).lower()}",
        f"train.validate_every={options.epochs + 1}",
        *options.set,
    ]
    watch = Stopwatch(device, options.epochs)
    count_compiled_bytes()
    began = time.perf_counter()
    result = train(
        load_config(CONFIG, changes),
        folder / f"run-{time.time_ns()}",
        device=str(device),
        callbacks=[watch],
    )
    whole = time.perf_counter() - began
    epochs = [np.diff(marks).tolist() for marks in watch.marks]
    counted = [second for seconds in epochs[1:] for second in seconds]
    return {
        **summary(counted, options.batch),
        "first_step_seconds": round(epochs[0][0], 1),
        "training_seconds": round(whole, 1),
        "waiting_share": result.waiting_share,
        "compiled_bytes": metrics.num_bytes_accessed,  # 0 if nothing was compiled
        **watch.found,
    }


if __name__ == "__main__":
    main()
