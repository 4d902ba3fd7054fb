"""Commands killed at each of their file operations; a script, whose process is warm and forks.

`python kills.py FOLDER COMMAND … [--every N] [--at N,N,…]` runs each command of `COMMANDS` once
undisturbed, then once for each operation on a file: a fork of this process is killed just before
that operation, another repeats the command or resumes it, and what is there then is compared with
the undisturbed outcome. It prints a line of JSON a command.

Operations are what Python reports of itself (opening for writing, renaming, removing, making and
removing folders, permissions, truncating), and syncing: there half of the file is cut off, as if
the kill had come in the middle of writing it. What safetensors does by itself is not seen by
Python; the temporary file that it is killed over is made before it begins.
"""

import argparse
import io
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import safetensors.torch
import torch
from PIL import Image

import onnx_runs
import prediction_runs
import resumed
from msa2net.config import Config, DataConfig, dump_config, load_config
from msa2net.data.phantom.files import write_phantom
from msa2net.data.prepared.prepare import prepare
from msa2net.data.prepared.slice_files import build_slices
from msa2net.data.preprocessing import Preprocessing
from msa2net.evaluation.compare import compare_evaluations, write_comparison
from msa2net.evaluation.folders import evaluate
from msa2net.evaluation.run import evaluate_run
from msa2net.export import onnx as export
from msa2net.inference.run_folder import EXPORT_FILE
from msa2net.prediction.run import predict_files
from msa2net.report.html import write_report
from msa2net.training.checkpoint import Checkpoints

CASES = 7
PATIENCE_S = 120

_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


# Commands: what is there before, and what is done, first or again ---------------------------------


def lesions(work: Path) -> None:
    write_phantom("isic2018", work / "raw", cases=CASES)


def config(work: Path, **changes: Any) -> Config:
    text = resumed.SETTINGS.replace("ROOT", str(work / "raw"))
    path = work.parent / "settings.yaml"
    path.write_text(text.replace("PREPARED", str(work / "prepared")))
    return load_config(path, [f"{key}={value}" for key, value in changes.items()])


def train(work: Path, again: bool) -> None:
    """Train; killed, it goes on where there is something to go on from."""
    run = work / "run"
    resume = bool(Checkpoints(run).paths())
    overwrite = again and not resume
    resumed.train(work, run, resume=resume, overwrite=overwrite, config=config(work))


def trained(work: Path) -> None:
    lesions(work)
    resumed.train(work, work / "run", config=config(work, **{"train.seed": 5}))
    (work / "run" / EXPORT_FILE).write_text("exported from these weights")
    (work / "run" / ".tmpA5cYww").write_text("of safetensors, killed in an earlier version")


def overwrite(work: Path, again: bool) -> None:
    resumed.train(work, work / "run", overwrite=True, config=config(work))


def resume(work: Path, again: bool) -> None:
    """Resume a training that is finished."""
    resumed.train(work, work / "run", resume=True, config=config(work, **{"train.seed": 5}))


def data_of(work: Path) -> DataConfig:
    return DataConfig(format="isic2018", root=work / "raw", prepared=work / "prepared")


def prepare_data(work: Path, again: bool) -> None:
    prepare(data_of(work), workers=2)


def prepared(work: Path) -> None:
    """Data that were prepared and sliced, of which one changed."""
    lesions(work)
    store = prepare(data_of(work))
    build_slices(store, Preprocessing(channels=3, image_size=(32, 32)), ("train", "val"))
    changed = Path(store.cases[1].files[0]["path"])
    Image.fromarray(255 - np.asarray(Image.open(changed))).save(changed, quality=95)


def pictures(work: Path) -> None:
    names = prediction_runs.NAMES
    prediction_runs.write_run(work / "network", channels=3, names=names)
    prediction_runs.write_run(work / "other", channels=3, names=names, seed=1)
    (work / "in").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        picture = rng.integers(0, 255, (24 + number, 33, 3), np.uint8)
        Image.fromarray(picture).save(work / "in" / f"p{number}.png")
    (work / "in" / "p1.png").write_bytes(b"damaged")


def predict(work: Path, again: bool) -> None:
    existing = "resume" if again else "refuse"
    predict_files(work / "network", [work / "in"], work / "out", existing=existing, batch_slices=1)


def predicted(work: Path) -> None:
    pictures(work)
    predict_files(work / "other", [work / "in"], work / "out", batch_slices=1)


def replace(work: Path, again: bool) -> None:
    """Replace another network's masks."""
    options = {"existing": "overwrite", "batch_slices": 1}
    predict_files(work / "network", [work / "in"], work / "out", **options)


def scored(work: Path) -> None:
    """A run with its data, and two folders of masks."""
    lesions(work)
    run = prediction_runs.write_run(work / "run", channels=3, names=("background", "lesion"))
    (run / "config.yaml").write_text(dump_config(config(work)))
    store = prepare(config(work).data)
    for folder in ("masks", "labels"):
        for row in store.cases:
            store.ground_truth(row.id).save(work / folder / f"{row.id}.png")
    evaluate_run(run, device="cpu", split="val")


def evaluate_both(work: Path, again: bool) -> None:
    """Evaluate a run and masks, write the report and compare."""
    evaluate_run(work / "run", device="cpu")
    write_report(work / "run")
    names = ("background", "lesion")
    evaluate(work / "masks", work / "labels", names, out=work / "masks-evaluation")
    compared = compare_evaluations([work / "run", work / "masks-evaluation"], common=True)
    write_comparison(compared, work / "comparison")


def exportable(work: Path) -> None:
    onnx_runs.write_run(work / "run")
    (work / "run" / EXPORT_FILE).write_text("exported before")


def export_run(work: Path, again: bool) -> None:
    export.export_onnx(work / "run", overwrite=True)


COMMANDS: dict[str, tuple[Callable[[Path], None], Callable[[Path, bool], None]]] = {
    "prepare": (lesions, prepare_data),
    "prepare-again": (prepared, prepare_data),
    "train": (lesions, train),
    "train-overwrite": (trained, overwrite),
    "train-resume": (trained, resume),
    "predict": (pictures, predict),
    "predict-overwrite": (predicted, replace),
    "evaluate": (scored, evaluate_both),
    "export": (exportable, export_run),
}


# Killing ------------------------------------------------------------------------------------------


class Operations:
    """Counts a process's file operations within a folder, and kills it before one of them."""

    def __init__(self, folder: Path, kill_at: int | None) -> None:
        self.folder, self.kill_at = str(folder), kill_at
        self.names: list[str] = []
        sys.addaudithook(self._hear)
        self._sync, os.fsync = os.fsync, self._synced
        self._save, safetensors.torch.serialize_file = (
            safetensors.torch.serialize_file,
            self._serialized,
        )

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(path, int) and flags & _WRITES:
                self._count(event, path)
        elif event in _EVENTS:
            self._count(event, *arguments)

    def _count(self, event: str, path: Any, *others: Any) -> None:
        # A number instead of a path, or after it: an opened file, or the folder that it is in.
        opened = isinstance(path, int) or (
            others and isinstance(others[-1], int) and others[-1] >= 0
        )
        text = self.folder if opened else str(Path(os.fsdecode(path)).absolute())
        if not text.startswith(self.folder):
            return
        self.names.append(f"{event} {text.removeprefix(self.folder)}")
        if len(self.names) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(PATIENCE_S)

    def _synced(self, handle: int) -> None:
        if len(self.names) + 1 == self.kill_at:
            with io.open(handle, "rb+", closefd=False) as file:  # noqa: UP020
                file.truncate(os.fstat(handle).st_size // 2)
        self._count("fsync", self.folder)
        self._sync(handle)

    def _serialized(self, tensors: Any, path: Any, *others: Any, **options: Any) -> None:
        stray = Path(path).parent / ".tmpAbc123"
        stray.write_bytes(b"half")
        self._count("safetensors", stray)
        stray.unlink()
        self._save(tensors, path, *others, **options)


def forked(act: Callable[[], None], folder: Path, kill_at: int | None = None) -> dict[str, Any]:
    """Do something in a fork; tell how it ended, and its operations if it came to its end."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE_S)
        silent = os.open(os.devnull, os.O_RDWR)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        told: dict[str, Any] = {}
        try:
            operations = Operations(folder, kill_at)
            act()
            told = {"operations": operations.names}
        except BaseException:
            told = {"error": traceback.format_exc()}
        with open(writing, "w") as pipe:  # noqa: PTH123
            json.dump(told, pipe)
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:  # noqa: PTH123
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return {"killed": os.WIFSIGNALED(status), **(json.loads(text) if text else {})}


# Comparing ----------------------------------------------------------------------------------------


def outcome(work: Path) -> dict[str, Any]:
    """Return every file's content, but for times, which are left out one by one."""
    found: dict[str, Any] = {}
    for path in sorted(work.rglob("*")):
        name = str(path.relative_to(work))
        if path.is_dir():
            found[name] = "a folder"
        elif path.name == "timing.csv":
            found[name] = path.read_text().splitlines()[0]  # seconds, and images a second
        elif path.name == "model.json":
            content = json.loads(path.read_text())
            content["training"].pop("seconds", None)
            found[name] = content
        elif path.suffix == ".ckpt":
            continue  # their names hold the checksum of a content that holds seconds
        else:
            found[name] = path.read_bytes()
    if (work / "run" / "checkpoints").is_dir():
        paths = Checkpoints(work / "run").paths()
        found["checkpoints"] = [path.name[:24] for path in paths]
        found["states"] = described(resumed.states(work / "run"))
    return found


def described(value: Any) -> Any:
    """Return nested states as what compares by ==."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {str(key): described(one) for key, one in value.items()}
    return [described(one) for one in value] if isinstance(value, list | tuple) else value


def difference(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    return sorted(
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    )


@contextmanager
def cached_trace() -> Iterator[None]:
    """Let all forks have the same traced network: tracing takes long and writes nothing."""
    trace, held = export._trace, {}

    def once(model: Any, example: Any) -> Any:
        if "it" not in held:
            held["it"] = trace(model, example)
        return held["it"]

    with mock.patch.object(export, "_trace", once):
        yield


def fresh(work: Path, before: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(before, work)


def kill_everywhere(
    folder: Path, command: str, every: int = 1, at: tuple[float, ...] = ()
) -> dict[str, Any]:
    """Kill a command before each `every`-th operation, or `at` these shares of all of them."""
    make, act = COMMANDS[command]
    work, before = folder / "work", folder / f"{command}-before"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if command == "export":  # the only one that is warm by computing
        make(work)
        export_run(work, False)
        shutil.rmtree(work)
        work.mkdir()
    made = forked(lambda: make(work), work)
    assert "operations" in made, made
    shutil.copytree(work, before)
    undisturbed = forked(lambda: act(work, False), work)
    assert "operations" in undisturbed, undisturbed
    expected, operations = outcome(work), undisturbed["operations"]
    points = range(1, len(operations) + 1, every)
    if at:
        points = sorted({1 + int(share * (len(operations) - 1)) for share in at})
    wrong, kills = [], 0
    for point in points:
        fresh(work, before)
        kills += forked(lambda: act(work, False), work, point)["killed"]
        again = forked(lambda: act(work, True), work)
        differs = [again["error"]] if "error" in again else difference(outcome(work), expected)
        if differs or again["killed"]:
            wrong.append({"at": point, "operation": operations[point - 1], "differs": differs})
    left = [name for name in expected if "/." in f"/{name}"]
    shutil.rmtree(work)
    shutil.rmtree(before)
    return {
        "command": command,
        "operations": len(operations),
        "kills": kills,
        "left": left,
        "wrong": wrong,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("commands", nargs="*")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--at", type=lambda text: tuple(map(float, text.split(","))), default=())
    options = parser.parse_args()
    torch.set_num_threads(1)
    with cached_trace():
        for command in options.commands or COMMANDS:
            started = time.monotonic()
            found = kill_everywhere(options.folder, command, options.every, options.at)
            found["seconds"] = round(time.monotonic() - started, 1)
            sys.stdout.write(json.dumps(found) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
