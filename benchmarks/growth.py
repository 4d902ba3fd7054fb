"""How the cost of each part grows with what a user may change, as a table.

    python benchmarks/growth.py [--only prediction,processes] [--repeats 5] [--rounds 3]
        [--threads 2] [--out FILE.json]

One thing changes at a time: the side of the network's input, the number of slices, their side, the
number of classes, the number of processes. Networks are untrained. Prediction is
`prediction_memory.py` and training `msa2net train`, each in a process of its own, for their memory
and their threads; everything else is timed here after a call that is not counted. CPU only.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from end_to_end import CONFIG, draw

from msa2net.benchmark import parts
from msa2net.benchmark.run import machine
from msa2net.benchmark.settings import settings_for
from msa2net.benchmark.timing import measure
from msa2net.cli.console import keep_touched_memory
from msa2net.files import read_json, write_json

CPU = torch.device("cpu")
HERE = Path(__file__).parent
NETWORK = "msa2net_pico"
BATCH = 4
ROUNDS = 3
"""Of prediction and training, each over all values: a slow minute is not all one value's."""

Row = dict[str, Any]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="parts, separated by commas", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if unknown := set(options.only.split(",")) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}; use {', '.join(PARTS)}")
    torch.set_num_threads(options.threads)
    keep_touched_memory()
    about = machine(settings_for(CPU))
    print(about)
    rows: list[Row] = []
    print("| part | what changes | time | memory |", "|---|---|---|---|", sep="\n")
    for part in options.only.split(","):
        for row in PARTS[part](options):
            rows.append(row)
            print(line(row), flush=True)
        if options.out:
            write_json(options.out, {"machine": about, "command": sys.argv[1:], "rows": rows})


def line(row: Row) -> str:
    """Return a row of a Markdown table."""
    low, high = min(row["times"]), max(row["times"])
    memory = f"{row['memory_mb']:.0f} MB" if "memory_mb" in row else ""
    time = f"{statistics.median(row['times']):.3g} ({low:.3g}–{high:.3g}) ms"
    return f"| {row['part']} | {row['value']} {row['by']} | {time} | {memory} |"


def network(options: argparse.Namespace) -> Iterator[Row]:
    """Forward pass of a slice by the side of the network's input."""
    for side in (128, 256, 512):
        settings = replace(settings_for(CPU, model=NETWORK), image_size=side)
        image_BChw, _ = parts.draw_batch(settings, BATCH)
        call = parts.forward_call(settings, parts.build_model(settings), image_BChw)
        yield timed(options, f"{NETWORK}, a slice", "pixels a side", side, call, BATCH)


def augmentation(options: argparse.Namespace) -> Iterator[Row]:
    """A sample by the side of the network's input."""
    for side in (128, 256, 512):
        sample = parts.augment_call(replace(settings_for(CPU), image_size=side))
        call = repeated(sample, 50)
        yield timed(options, "augmentation, a sample", "pixels a side", side, call, 50)


def loss(options: argparse.Namespace) -> Iterator[Row]:
    """Boundary-DoU, forward and backward, by the number of classes."""
    for classes in (2, 9, 36, 144):
        settings = settings_for(CPU)
        _, label_Bhw = parts.draw_batch(settings, BATCH)
        logits_BKhw = torch.randn(BATCH, classes, *label_Bhw.shape[1:])
        call = parts.loss_call(logits_BKhw, label_Bhw % classes)
        yield timed(options, "Boundary-DoU, a slice of 224²", "classes", classes, call, BATCH)


def evaluation(options: argparse.Namespace) -> Iterator[Row]:
    """All scores with distances of a volume by the number of its slices."""
    for slices in (32, 64, 128):
        case = parts.draw_volume(replace(settings_for(CPU), slices=slices, side=256))
        call = parts.evaluate_call(case)
        yield timed(options, "scores of 256² slices, a slice", "slices", slices, call, slices)


def timed(
    options: argparse.Namespace,
    part: str,
    by: str,
    value: int,
    call: Callable[[], object],
    count: int,
) -> Row:
    """Time a call that does something `count` times, in milliseconds each."""
    seconds = measure(call, options.repeats, CPU).seconds
    times = [1e3 * one / count for one in seconds]
    return {"part": part, "by": by, "value": value, "times": times}


def repeated(call: Callable[[], object], count: int) -> Callable[[], object]:
    """Return a call of calls."""
    return lambda: [call() for _ in range(count)]


def prediction(options: argparse.Namespace) -> Iterator[Row]:
    """Time a slice and memory of a series: by its slices, their side, and classes."""
    usual = {"slices": 64, "size": 256, "classes": 9}
    changes: list[dict[str, int]] = [{}]
    changes += [{"slices": count} for count in (256, 1024)]
    changes += [{"size": side} for side in (128, 512)]
    changes += [{"classes": count} for count in (2, 36, 144)]
    found: list[list[Row]] = [[] for _ in changes]
    for _ in range(options.rounds):
        for changed, runs in zip(changes, found, strict=True):
            runs.append(predicted(options.threads, usual | changed))
    for changed, runs in zip(changes, found, strict=True):
        yield {
            "part": "prediction, a slice",
            "by": "slices of {size}² in {classes} classes".format_map(usual | changed),
            "value": (usual | changed)["slices"],
            "times": [one["per_slice_ms"] for one in runs],
            "memory_mb": statistics.median(
                one["peak_mb"] - one["image_mb"] - one["labels_mb"] for one in runs
            ),
        }


def predicted(threads: int, changes: dict[str, int]) -> Row:
    """Run `prediction_memory.py` in a process of its own."""
    with TemporaryDirectory() as name:
        out = Path(name) / "found.json"
        settings = [f"--{key}={value}" for key, value in changes.items()]
        run([HERE / "prediction_memory.py", *settings, f"--threads={threads}", f"--out={out}"])
        found: Row = read_json(out)
    return found


def processes(options: argparse.Namespace) -> Iterator[Row]:
    """Training by the number of processes, one thread each."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "Synapse", 64)
        found: dict[int, list[float]] = {1: [], 2: []}
        for number in range(options.rounds):
            for count, seconds in found.items():
                seconds.append(trained(folder, folder / f"run-{count}-{number}", count))
    for count, seconds in found.items():
        yield {
            "part": f"training of {NETWORK} at 128², a slice",
            "by": "processes",
            "value": count,
            "times": [1e3 * one for one in seconds],
        }


def trained(folder: Path, out: Path, count: int) -> float:
    """Train two epochs with `count` processes; return the seconds a slice of the second one."""
    settings = [
        f"data.root={folder / 'Synapse'}",
        f"data.prepared={folder / 'prepared'}",
        f"model.name={NETWORK}",
        "model.pretrained=false",
        "image_size=128",
        "train.epochs=2",
        "train.batch_size=8",
        "train.workers=0",
        "train.validate_every=3",
        f"train.devices={count}",
    ]
    changes = [word for setting in settings for word in ("--set", setting)]
    run(["-m", "msa2net", "train", CONFIG, "--out", out, "--device", "cpu", *changes])
    with (out / "timing.csv").open(newline="") as file:
        return 1 / float(list(csv.DictReader(file))[-1]["images_per_second"])


def run(words: list[Any]) -> None:
    """Run Python quietly, one thread a process unless the program chooses."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)}\n{result.stdout}{result.stderr}")


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "network": network,
    "augmentation": augmentation,
    "loss": loss,
    "evaluation": evaluation,
    "prediction": prediction,
    "processes": processes,
}


if __name__ == "__main__":
    main()
