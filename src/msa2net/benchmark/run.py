"""All measurements of `msa2net benchmark`, one after another."""

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from msa2net.benchmark import parts
from msa2net.benchmark.settings import Settings
from msa2net.benchmark.timing import Timing, matrix_ceiling, measure
from msa2net.inference.torch_backend import computing_in
from msa2net.training.gradient_checkpointing import checkpoint_blocks
from msa2net.training.memory import SAMPLES, training_bytes

IN_A_ROW = 50  # samples in a row, where a single one is too short to be timed
TRAINING_PASSES = 3  # a training step counts as three forward passes


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        part: what was measured.
        detail: on what.
        timing: of `count` units together.
        count: units in one repeat.
        unit: image, sample, volume …
        multiply_adds: in one repeat; None if nobody counted.
        share: of the device's measured matrix-product ceiling.
    """

    part: str
    detail: str
    timing: Timing
    count: int = 1
    unit: str = ""
    multiply_adds: int | None = None
    share: float | None = None

    @property
    def per_second(self) -> float:
        """Units a second, by the median."""
        return self.count / self.timing.median


def benchmark(settings: Settings) -> Iterator[Row]:
    """Yield one row after another, as they are measured."""
    yield from _network(settings)
    yield from _data(settings)
    yield from _volume(settings)
    yield Row("command line", "msa2net --help", _timed(settings.on(_CPU), parts.start_call), 1, "")


_CPU = torch.device("cpu")


def _network(settings: Settings) -> Iterator[Row]:
    dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    ceiling = matrix_ceiling(settings.device, dtype)
    each = parts.multiply_adds(settings)
    model = parts.build_model(settings)
    image_BChw, label_BHW = parts.draw_batch(settings, settings.batch)
    for part, count, passes in (
        ("forward", 1, 1),
        ("forward", settings.batch, 1),
        ("training step", settings.batch, TRAINING_PASSES),
    ):
        images_BChw, labels_BHW = image_BChw[:count], label_BHW[:count]
        if passes == 1:
            call = parts.forward_call(settings, model, images_BChw)
        else:
            call = parts.step_call(settings, model, images_BChw, labels_BHW)
        timing, total = _timed(settings, call), passes * count * each
        share = total / timing.median / ceiling
        yield Row(part, f"batch {count}", timing, count, "image", total, share)
    logits_BKhw = torch.randn(
        settings.batch, settings.classes, *label_BHW.shape[1:], device=settings.device
    )
    detail = f"batch {settings.batch}, {settings.classes} classes"
    call = parts.loss_call(logits_BKhw, label_BHW, compile=settings.compiles_training)
    timing = _timed(settings, call)
    yield Row("Boundary-DoU", detail, timing, settings.batch, "image")
    timing = _timed(settings, lambda: logits_BKhw.softmax(1))
    yield Row("softmax alone", "the loss's floor", timing, settings.batch, "image")


def _data(settings: Settings) -> Iterator[Row]:
    size = f"{settings.image_size}², one thread"
    with _one_thread():
        timing = _timed(settings.on(_CPU), _often(parts.augment_call(settings)))
        yield Row("augmentation", size, timing, IN_A_ROW, "sample")
        with parts.reading_call(settings) as call:
            timing = _timed(settings.on(_CPU), _often(call))
        yield Row("store reading", size, timing, IN_A_ROW, "sample")


def _volume(settings: Settings) -> Iterator[Row]:
    case = parts.draw_volume(settings)
    shape = "×".join(map(str, case.image.shape[1:]))
    predictor = parts.build_predictor(settings, parts.build_model(settings))
    _ = predictor.batch_slices  # chosen by measuring, on a GPU
    call = parts.predict_call(predictor, case, published=False)
    yield Row("prediction", shape, _timed(settings, call), settings.slices, "slice")
    timing = _timed(settings.on(_CPU), parts.evaluate_call(case))
    yield Row("evaluation", f"{shape}, 8 organs", timing, 1, "volume")


def memory_of_training(settings: Settings, optimizer: str = "sgd") -> dict[str, float]:
    """Estimate the bytes that training needs, on the CPU, whatever the device.

    Returns:
        `batch`, `bytes` and `bytes_with_checkpointing`; see `training_bytes`.
    """
    on_cpu, batch = settings.on(_CPU), settings.batch
    model = parts.build_model(on_cpu).train()
    image_BChw, _ = parts.draw_batch(on_cpu, SAMPLES)

    def needed() -> float:
        context = computing_in(settings.precision, _CPU)
        return training_bytes(model, image_BChw, batch, optimizer, context)

    plain = needed()
    checkpoint_blocks(model)
    return {"batch": batch, "bytes": plain, "bytes_with_checkpointing": needed()}


def machine(settings: Settings) -> dict[str, Any]:
    """Describe what was measured on, without its name."""
    gpu = settings.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(settings.device) if gpu else settings.device.type,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": version("torch"),
        "python": platform.python_version(),
    }


def as_json(settings: Settings, rows: list[Row], memory: dict[str, float]) -> dict[str, Any]:
    """Return everything that was measured, for a file."""
    return {
        "machine": machine(settings),
        "settings": {**asdict(settings), "device": str(settings.device)},
        "rows": [asdict(row) | {"per_second": row.per_second} for row in rows],
        "training_memory_computed": memory,
    }


def _timed(settings: Settings, call: Callable[[], object]) -> Timing:
    return measure(call, settings.repeats, settings.device)


def _often(call: Callable[[], object]) -> Callable[[], None]:
    def calls() -> None:
        for _ in range(IN_A_ROW):
            call()

    return calls


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute as a loader's worker does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()
