"""Dice and HD95 of eight organs in a volume of 120 × 512 × 512, ours and MedPy's in one run.

    python benchmarks/distances.py [--repeats 5] [--out FILE.json] [--without-medpy]

The volume is a synthetic abdomen, the prediction the same one moved by three voxels along two
axes. Each tool runs in a process of its own, so that its peak memory is its own; values are
compared before times are. MedPy (`pip install ".[test]"`) runs once, because it takes minutes.
Then ours alone: the same organs in ever larger volumes, and ever larger organs in the same volume,
to see what the cost grows with; and the worst case, a mask that is speckle, as an untrained network
gives it, once by the way that is chosen for it and once by trees, which are chosen for organs.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.phantom import ABDOMEN_LABELS, abdomen
from msa2net.files import write_json
from msa2net.metrics.nearest import nearest, nearest_by_tree
from msa2net.metrics.overlap import confusion_counts, overlap_metrics
from msa2net.metrics.surface import class_surfaces, hd95_of_surfaces

SHAPE = (120, 512, 512)
VOXELS = (1.0, 1.0, 1.0)
CLASSES = len(ABDOMEN_LABELS)

Labels = NDArray[np.uint8]
Scores = list[tuple[float, float]]  # Dice and HD95 in voxels, one pair an organ


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--without-medpy", action="store_true")
    options = parser.parse_args()
    mine = in_a_process(ours, options.repeats)
    print(f"ours:  {spread(mine['seconds'])}, memory above the volumes' {mine['mib']:.0f} MiB")
    result: dict[str, Any] = {"shape": SHAPE, "python": sys.version, "ours": mine}
    if not options.without_medpy:
        theirs = in_a_process(medpy, 1)
        apart = np.abs(np.subtract(mine["scores"], theirs["scores"])).max()
        ratio = theirs["seconds"][0] / statistics.median(mine["seconds"])
        print(f"MedPy: {spread(theirs['seconds'])}, memory {theirs['mib']:.0f} MiB")
        print(f"largest difference in any value: {apart:.2g}; ratio of times: {ratio:.0f}")
        result |= {"medpy": theirs, "largest_difference": float(apart), "ratio": ratio}
    print("voxels (millions), surface voxels (thousands), seconds:")
    result["growth"] = [grown(pad, size) for pad, size in ((1, 1), (2, 1), (4, 1), (1, 2))]
    result["speckle"] = speckle()
    if options.out:
        write_json(options.out, result)


def in_a_process(tool: Callable[[Labels, Labels], Scores], repeats: int) -> dict[str, Any]:
    """Run a tool in a new process; see `timed`."""
    with TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        np.save(Path(folder, "pair.npy"), pair(SHAPE))  # drawing takes more memory than scoring
        return pool.submit(timed, tool, repeats, Path(folder, "pair.npy")).result()


def timed(tool: Callable[[Labels, Labels], Scores], repeats: int, path: Path) -> dict[str, Any]:
    """Return scores, seconds of each repeat, and the peak of memory above the two volumes'."""
    prediction, truth = np.load(path)
    tool(prediction[:20, :64, :64].copy(), truth[:20, :64, :64].copy())  # imports
    before = peak_mib()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        scores = tool(prediction, truth)
        seconds.append(time.perf_counter() - started)
    return {"scores": scores, "seconds": seconds, "mib": peak_mib() - before}


def pair(shape: tuple[int, int, int]) -> tuple[Labels, Labels]:
    """Draw a prediction and its truth."""
    truth = abdomen(0, shape=shape).label
    assert truth is not None
    return np.roll(truth, (3, 3), axis=(1, 2)), truth


def ours(prediction: Labels, truth: Labels) -> Scores:
    """Score all organs at once."""
    counts = confusion_counts(prediction, truth, CLASSES)
    dice = [float(overlap_metrics(*row)["dice"]) for row in counts[1:].tolist()]
    surfaces = zip(class_surfaces(prediction, CLASSES), class_surfaces(truth, CLASSES), strict=True)
    hd95 = [hd95_of_surfaces(one, other, VOXELS) for one, other in surfaces]
    return list(zip(dice, hd95, strict=True))


def medpy(prediction: Labels, truth: Labels) -> Scores:
    """Score organ by organ, as the function that the field copies does."""
    from medpy.metric.binary import dc, hd95

    scores = []
    for organ in range(1, CLASSES):
        one, other = prediction == organ, truth == organ
        if one.any() and other.any():
            scores.append((float(dc(one, other)), float(hd95(one, other))))
    return scores


def grown(pad: int, size: int) -> tuple[float, float, float]:
    """Time ours on a volume of `pad` times the voxels, with organs `size` times as large."""
    prediction, truth = pair((60 * size, 256 * size, 256 * size))
    room = [(0, truth.shape[0] * (pad - 1)), (0, 0), (0, 0)]
    prediction, truth = np.pad(prediction, room), np.pad(truth, room)
    surface = sum(map(len, class_surfaces(truth, CLASSES)))
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        ours(prediction, truth)
        seconds.append(time.perf_counter() - started)
    row = truth.size / 1e6, surface / 1e3, statistics.median(seconds)
    print("  {:6.1f} {:6.0f} {:6.2f}".format(*row))
    return row


def speckle() -> dict[str, float]:
    """Time one speckled class against an organ, both directions, in a quarter of the volume."""
    truth = abdomen(0, shape=(60, 256, 256)).label
    assert truth is not None
    mask = np.random.default_rng(0).integers(0, CLASSES, truth.shape, np.uint8)
    liver = ABDOMEN_LABELS.index("liver")
    first, second = (class_surfaces(labels, CLASSES)[liver - 1] for labels in (mask, truth))
    seconds, values = [], []
    for way in (nearest, nearest_by_tree):
        started = time.perf_counter()
        values.append([way(*pair, np.ones(3)) for pair in ((first, second), (second, first))])
        seconds.append(time.perf_counter() - started)
    apart = max(np.abs(ours - trees).max() for ours, trees in zip(*values, strict=True))
    print(
        f"speckle, {len(first)} surface voxels to {len(second)} of the liver and back: "
        f"{seconds[0]:.2f} s; by trees alone {seconds[1]:.2f} s; largest difference {apart:.2g}"
    )
    return {"ours": seconds[0], "trees": seconds[1], "largest_difference": float(apart)}


def spread(seconds: list[float]) -> str:
    """Write a median with its spread."""
    return f"{statistics.median(seconds):.2f} s ({min(seconds):.2f}–{max(seconds):.2f})"


def peak_mib() -> float:
    """Return this process's peak of resident memory, on Linux."""
    # Not getrusage: it counts the parent's memory, of the moment between fork and exec.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
