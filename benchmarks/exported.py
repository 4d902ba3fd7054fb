"""Exported networks beside the run folders they were made of: size, time and memory.

    python benchmarks/exported.py [--networks msa2net_pico,msa2net] [--batches 1,16] [--repeats 7]
        [--threads 1] [--out FILE.json]

Untrained networks with nine classes, at their own sizes. Everything is measured in a process of its
own: exporting, then, once for torch and once for onnxruntime, opening the file and segmenting
batches of noise at the network's size; the first pass of a batch is not counted. Memory is the
highest resident set of the process, libraries included, and where no time can be told from others'
(a shared machine), the processor's seconds say more than the clock's. Linux only.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from msa2net.files import write_json


def main() -> None:
    """Measure every network and print a table; or, asked to by itself, one part of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default="msa2net_pico,msa2net")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", choices=("export", "torch", "onnxruntime"), help="for itself")
    parser.add_argument("--run", type=Path, help="for itself")
    options = parser.parse_args()
    batches = [int(batch) for batch in options.batches.split(",")]
    if options.part == "export":
        print(json.dumps(export(options.run, options.networks)))
        return
    if options.part:
        found = apply(options.part, options.run, batches, options.repeats, options.threads)
        print(json.dumps(found))
        return
    results = {}
    for name in options.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(name, Path(folder) / name)
        show(name, results[name])
    if options.out:
        names = ("torch", "onnx", "onnxscript", "onnxruntime")
        about = {"python": sys.version} | {package: version(package) for package in names}
        asked = {"repeats": options.repeats, "threads": options.threads}
        write_json(options.out, about | asked | {"networks": results})


def measure(name: str, run: Path) -> dict[str, dict[str, float]]:
    """Measure one network, each part in a process of its own."""
    results = {}
    for part in ("export", "torch", "onnxruntime"):
        words = [*sys.argv[1:], "--networks", name, "--part", part, "--run", str(run)]
        done = subprocess.run(
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
        )
        results[part] = json.loads(done.stdout.splitlines()[-1])
    return results


def export(run: Path, name: str) -> dict[str, float]:
    """Write a run folder and export it."""
    import torch

    from msa2net.config import NetworkConfig
    from msa2net.data.preprocessing import Preprocessing
    from msa2net.export.onnx import export_onnx
    from msa2net.inference.run_folder import ModelMetadata, save_run
    from msa2net.models.registry import create_model, find_model

    side = find_model(name).image_size
    network = NetworkConfig(
        name=name, encoder=None, num_classes=9, in_channels=1, image_size=(side, side)
    )
    facts = ModelMetadata(
        network=network,
        label_names=("background", *(f"class {k}" for k in range(1, 9))),
        preprocessing=Preprocessing(channels=1, image_size=(side, side)),
    )
    torch.manual_seed(0)
    save_run(run, create_model(**network.model_dump()), facts)
    clock, processor = time.perf_counter(), time.process_time()
    exported = export_onnx(run)
    return {
        "seconds": time.perf_counter() - clock,
        "cpu_seconds": time.process_time() - processor,
        "peak_mb": peak_mb(),
        "file_mb": exported.files[0].stat().st_size / 1e6,
        "weights_mb": (run / "model.safetensors").stat().st_size / 1e6,
        "equal_labels": exported.equal_labels,
        "largest_difference": exported.largest_difference,
    }


def apply(part: str, run: Path, batches: list[int], repeats: int, threads: int) -> dict[str, float]:
    """Open the network and segment batches of noise; times in seconds."""
    import numpy as np

    clock, processor = time.perf_counter(), time.process_time()
    if part == "torch":
        import torch

        from msa2net.inference.predictor import Predictor

        torch.set_num_threads(threads)
        predictor = Predictor.load(run, "cpu")
    else:
        from msa2net.inference.onnx_backend import OnnxPredictor

        predictor = OnnxPredictor.load(run / "model.onnx", threads=threads)
    found = {
        "open_seconds": time.perf_counter() - clock,
        "open_cpu_seconds": time.process_time() - processor,
        "open_mb": peak_mb(),
    }
    group = predictor._engine.groups[0]
    size = predictor.preprocessing.image_size
    for batch in batches:
        unit_BChw = np.random.default_rng(0).random((batch, 1, *size), np.float32)
        group.probabilities(unit_BChw, batch, "resize", 0.5)
        clocks, processors = [], []
        for _ in range(repeats):
            clock, processor = time.perf_counter(), time.process_time()
            group.probabilities(unit_BChw, batch, "resize", 0.5)
            clocks.append((time.perf_counter() - clock) / batch)
            processors.append((time.process_time() - processor) / batch)
        for kind, seconds in (("", clocks), ("cpu_", processors)):
            found[f"{kind}slice_seconds_{batch}"] = statistics.median(seconds)
            found[f"{kind}slice_seconds_{batch}_range"] = [min(seconds), max(seconds)]
        found[f"peak_mb_{batch}"] = peak_mb()
    return found


def show(name: str, result: dict[str, dict[str, float]]) -> None:
    """Print what was measured of one network."""
    made = result["export"]
    print(
        "{name}: exported in {seconds:.0f} s ({cpu_seconds:.0f} s of one processor, {peak_mb:.0f} "
        "MB), {file_mb:.1f} MB beside {weights_mb:.1f} MB".format(name=name, **made)
    )
    for part in ("torch", "onnxruntime"):
        row = result[part]
        batches = [key.removeprefix("peak_mb_") for key in row if key.startswith("peak_mb_")]
        slices = "; ".join(
            "batch {}: {:.0f} ms a slice ({:.0f} to {:.0f}), processor {:.0f} ms, {:.0f} MB".format(
                batch,
                1e3 * row[f"slice_seconds_{batch}"],
                *(1e3 * end for end in row[f"slice_seconds_{batch}_range"]),
                1e3 * row[f"cpu_slice_seconds_{batch}"],
                row[f"peak_mb_{batch}"],
            )
            for batch in batches
        )
        print(
            f"  {part}: opened in {row['open_seconds']:.1f} s (processor "
            f"{row['open_cpu_seconds']:.1f} s), {row['open_mb']:.0f} MB; {slices}"
        )


def peak_mb() -> float:
    """Return the highest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
