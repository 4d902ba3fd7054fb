"""How long HD95 of eight organs takes in a volume of 120 × 512 × 512, ours and MedPy's.

    python benchmarks/distances.py [--repeats 3] [--out FILE.json]

The volume is a synthetic abdomen, the prediction the same one moved by three voxels along two
axes. MedPy is measured when it is installed (`pip install medpy`), once, because it takes minutes;
its values are compared first.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msa2net.data.phantom import ABDOMEN_LABELS, abdomen
from msa2net.files import write_json
from msa2net.metrics.surface import class_surfaces, hd95_of_surfaces

SHAPE = (120, 512, 512)
VOXELS = (1.0, 1.0, 1.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    truth = abdomen(0, shape=SHAPE).label
    assert truth is not None
    prediction = np.roll(truth, (3, 3), axis=(1, 2))
    times, values = [], []
    for _ in range(options.repeats):
        started = time.perf_counter()
        values = ours(prediction, truth)
        times.append(time.perf_counter() - started)
    print(f"ours:  median {statistics.median(times):.2f} s, {min(times):.2f}–{max(times):.2f}")
    result = {"shape": SHAPE, "ours_s": times, "python": sys.version}
    try:
        from medpy.metric.binary import hd95
    except ImportError:
        print("MedPy is not installed, so there is nothing to compare with")
    else:
        started = time.perf_counter()
        organs = range(1, len(ABDOMEN_LABELS))
        theirs = [float(hd95(prediction == organ, truth == organ)) for organ in organs]
        seconds = time.perf_counter() - started
        apart = max(abs(one - other) for one, other in zip(values, theirs, strict=True))
        print(f"MedPy: {seconds:.1f} s, {seconds / statistics.median(times):.0f} times ours")
        print(f"largest difference between the two: {apart:.2g} voxels")
        result |= {"medpy_s": seconds, "largest_difference": apart}
    if options.out:
        write_json(options.out, result)


def ours(prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> list[float]:
    """Return HD95 in voxels of every organ."""
    classes = len(ABDOMEN_LABELS)
    pairs = zip(class_surfaces(prediction, classes), class_surfaces(truth, classes), strict=True)
    return [hd95_of_surfaces(one, other, VOXELS) for one, other in pairs]


if __name__ == "__main__":
    main()
