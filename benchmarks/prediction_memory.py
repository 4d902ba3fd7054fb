"""How much memory and time predicting one long series takes, above what the network itself takes.

    python benchmarks/prediction_memory.py [--slices 1000] [--size 512] [--batch 16]
        [--classes 9] [--mode resize] [--percentile] [--threads N] [--out FILE.json]

A phantom abdomen of a few distinct slices is repeated to the length asked for and written as
int16, then segmented from the memory map by an untrained `msa2net_pico` at 256².
Memory is the highest resident set of this process less that after building the network, so the
pages of the map, which the system takes back when it needs them, are counted too. Linux only.
"""

import argparse
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from msa2net.data.case import Case, Geometry
from msa2net.data.phantom import abdomen
from msa2net.data.preprocessing import Preprocessing
from msa2net.files import write_json
from msa2net.inference.predictor import Predictor
from msa2net.models.registry import create_model

DISTINCT = 8
SPACING_MM = (1.0, 0.8, 0.8)


def main() -> None:
    """Measure once and print a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, help="slices at once; chosen for the device if absent")
    parser.add_argument("--classes", type=int, default=9, help="background included")
    parser.add_argument("--mode", choices=("resize", "sliding"), default="resize")
    parser.add_argument("--percentile", action="store_true", help="scale by the case's percentiles")
    parser.add_argument("--threads", type=int, help="of torch; its own choice if absent")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "series.npy"
        write_series(path, options.slices, options.size)
        predictor = build_predictor(
            options.classes, options.mode, options.percentile, options.batch
        )
        image_ZHW = np.load(path, mmap_mode="r")
        case = Case("series", image_ZHW[None], geometry=Geometry.from_spacing(SPACING_MM))
        result = measure(predictor, case)
    print(
        "{slices} slices of {size}², {mode}, batch {batch}: {peak_mb:.0f} MB above the network's "
        "{model_mb:.0f} MB, of which {image_mb:.0f} MB image and {labels_mb:.0f} MB labels; "
        "{seconds:.0f} s, {per_slice_ms:.0f} ms a slice".format(
            slices=options.slices, size=options.size, mode=options.mode, **result
        )
    )
    if options.out:
        about = {"torch": version("torch"), "python": sys.version, "machine": platform.machine()}
        asked = {key: value for key, value in vars(options).items() if key != "out"}
        write_json(options.out, about | asked | result)


def write_series(path: Path, slices: int, size: int) -> None:
    """Write (slices, size, size) int16: a phantom's slices, up and down again."""
    phantom_ZHW = abdomen(0, shape=(DISTINCT, size, size)).image[0]
    order = [*range(DISTINCT), *reversed(range(DISTINCT))]
    series_ZHW = np.lib.format.open_memmap(path, "w+", np.int16, (slices, size, size))
    for index in range(slices):
        series_ZHW[index] = phantom_ZHW[order[index % len(order)]]
    series_ZHW.flush()


def build_predictor(classes: int, mode: str, percentile: bool, batch: int | None) -> Predictor:
    """Build an untrained network with the intensities of an abdominal CT."""
    torch.manual_seed(0)
    scale = {"intensity": "percentile", "low": 0.5, "high": 99.5}
    preprocessing = Preprocessing(
        channels=1,
        image_size=(256, 256),
        orientation="LPS",
        **(scale if percentile else {"low": -125.0, "high": 275.0}),
    )
    model = create_model("msa2net_pico", num_classes=classes, in_channels=1, image_size=256)
    names = ["background", *(f"structure {number}" for number in range(1, classes))]
    return Predictor(model.eval(), preprocessing, names, batch, mode=mode)


def measure(predictor: Predictor, case: Case) -> dict[str, float]:
    """Segment once; memory in MB, time in seconds."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest resident set so far
    before_mb, started = memory_mb("VmRSS"), time.perf_counter()
    segmentation = predictor(case)
    seconds = time.perf_counter() - started
    slices = len(segmentation.labels)
    return {
        "batch": predictor.batch_slices,
        "model_mb": before_mb,
        "peak_mb": memory_mb("VmHWM") - before_mb,
        "image_mb": case.image.nbytes / 1e6,
        "labels_mb": segmentation.labels.nbytes / 1e6,
        "seconds": seconds,
        "per_slice_ms": 1e3 * seconds / slices,
    }


def memory_mb(name: str) -> float:
    """Return a line of Linux's /proc/self/status in MB: VmRSS is now, VmHWM the highest."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
