"""How many training slices a second one core reads at random, and what memory that takes.

    python benchmarks/slice_access.py [--size 224] [--seconds 5] [--per-case 100] [--out FILE.json]

Three data sets of 1, 4 and 16 times as many slices are written, then read in random order through
`SliceDataset`, as training does (decoded to float32, standardised; no augmentation). A machine
that has never read the files has them in no cache: the first figure of each is of the first
reading after writing, so it is of the page cache too; say what disk you have beside it.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from msa2net.config import AugmentConfig
from msa2net.data.loading.augment import Augmentation
from msa2net.data.loading.slices import SliceDataset
from msa2net.data.prepared.slice_files import SliceArrays
from msa2net.data.prepared.slice_files import write_slices as write_case
from msa2net.data.preprocessing import Preprocessing
from msa2net.files import write_json

FEWEST = 500
REPEATS = 5


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=5.0, help="per data set")
    parser.add_argument("--per-case", type=int, default=100, help="slices of a case; pictures: 1")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    print(f"{'slices':>8} {'on disk':>9} {'slices/s':>9} {'spread':>13} {'memory':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, 4, 16):
            place = Path(folder) / str(times)
            arrays = write_slices(place, FEWEST * times, options.size, options.per_case)
            results.append(measure(arrays, options.size, options.seconds))
            print(
                "{slices:8d} {disk_mb:6.0f} MB {per_second:9.0f} "
                "{slowest:6.0f}–{fastest:<6.0f} {memory_mb:6.0f} MB".format(**results[-1])
            )
    if options.out:
        write_json(options.out, {"size": options.size, "python": sys.version, "rows": results})


def write_slices(folder: Path, count: int, size: int, per_case: int) -> SliceArrays:
    """Write `count` random slices in the form of `build_slices`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def draw(slices: int) -> Iterator[tuple[bytes, bytes]]:
        for _ in range(slices):
            image_hw = rng.random((size, size), dtype=np.float32).astype(np.float16)
            yield image_hw.tobytes(), rng.integers(0, 9, (size, size), dtype=np.uint8).tobytes()

    cases = [
        (f"case{start}", f"{start}.npy", min(per_case, count - start))
        for start in range(0, count, per_case)
    ]
    for _, name, slices in cases:
        write_case(folder / name, draw(slices), (slices, 1, size, size))
    return SliceArrays(folder, cases, 1, (size, size))


def measure(arrays: SliceArrays, size: int, seconds: float) -> dict[str, float]:
    """Read slices at random for `seconds`, in `REPEATS` parts."""
    preprocessing = Preprocessing(channels=1, image_size=(size, size))
    dataset = SliceDataset(arrays, preprocessing, Augmentation(AugmentConfig()), seed=0)
    order = np.random.default_rng(1).permutation(len(dataset)).tolist()
    for index in order:  # every slice once, so that all of the data set has been touched
        dataset[0, index]
    rates = []
    for _ in range(REPEATS):
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds / REPEATS:
            dataset[0, order[done % len(order)]]
            done += 1
        rates.append(done / (time.perf_counter() - started))
    return {
        "slices": len(dataset),
        "disk_mb": len(dataset) * size * size * 3 / 1e6,
        "per_second": statistics.median(rates),
        "slowest": min(rates),
        "fastest": max(rates),
        "memory_mb": resident_mb(),
    }


def resident_mb() -> float:
    """Return the memory of this process that is in use now, in MB."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")  # only Linux tells
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1e3


if __name__ == "__main__":
    main()
