"""Sets of small files of every kind that is read, and how each is read."""

import contextlib
import hashlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_mutations as m
import numpy as np
import onnx
import torch
from fuzz_inputs import (
    BYTES,
    JSON,
    PICTURE,
    SIZE,
    TEXT,
    Kind,
    dicom,
    each_file,
    only,
    pictures,
    raw_data,
    read_files,
    volumes,
    write_files,
)
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

from msa2net.config import Config, NetworkConfig, load_config
from msa2net.data.preprocessing import Preprocessing
from msa2net.evaluation.folders import evaluate
from msa2net.evaluation.summary import read_summary
from msa2net.export.onnx import _stamp
from msa2net.inference.onnx_backend import (
    CHECKSUM_KEY,
    DATA_FILE_KEY,
    MODEL_KEY,
    NO_CHECKSUM,
    SCHEMA_KEY,
    OnnxPredictor,
)
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import ModelMetadata, save_run
from msa2net.models.registry import create_model
from msa2net.models.weights import check_entries, read_state_dict
from msa2net.prediction.records import read_record, write_tables
from msa2net.prediction.run import predict_files
from msa2net.report.html import write_report
from msa2net.training.checkpoint import DIGITS, Checkpoints
from msa2net.training.checkpoint_state import check_optimizer_state
from msa2net.training.progress import Progress
from msa2net.training.resume import check_same_training
from msa2net.training.task import with_own_options

NAMES = ("background", "lesion")


def make_kinds(folder: Path) -> list[Kind]:
    """Make all kinds, in a folder that may go afterwards."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    makers: tuple[Callable[[Path], list[Kind]], ...] = (
        pictures, volumes, dicom, raw_data, _settings, _runs, _checkpoints, _results, _exported,
    )  # fmt: skip
    kinds: list[Kind] = []
    for number, make in enumerate(makers):
        own = folder / str(number)
        own.mkdir()
        kinds += make(own)
    assert [kind.name for kind in kinds] == list(KINDS)
    for kind in kinds:  # as they are, all must be read
        where = folder / "whole" / kind.name
        write_files(where, kind.files)
        kind.read(where)
    return kinds


KINDS = (
    "png", "jpeg", "nifti", "npz", "hdf5", "dicom", "dicom-rle", "dicom-j2k", "dicom-deflate",
    "nnunet", "images", "prepared", "yaml", "set", "model.json", "weights", "older-weights", "pth",
    "checkpoint", "evaluation", "example", "records", "onnx", "onnx-words",
)  # fmt: skip


SETTINGS = """image_size: [64, 96]
data: {format: phantom, prepared: p, split_ratios: [0.7, 0.1, 0.2]}
model:
  name: msa2net_pico
augment: &a {affine: 0.5, scale: [0.8, 1.25]}
loss: {dice: 1.0, cross_entropy: 0.5}
train: {epochs: 1, batch_size: 2, learning_rate: 0.001, max_time: 1-06:00:00}
"""


def _settings(folder: Path) -> list[Kind]:
    (folder / "base.yaml").write_text(SETTINGS)
    config = load_config(folder / "base.yaml")
    as_json = json.dumps(config.model_dump(mode="json")).encode()
    files = {"c.yaml": SETTINGS.encode(), "j.yaml": as_json}
    words = [
        "train.epochs=5",
        "augment.scale=[0.5, 2.0]",
        "loss={dice: 1}",
        "train.max_time=11:30:00",
    ]
    base = {"base.yaml": SETTINGS.encode()} | {f"{n}.txt": w.encode() for n, w in enumerate(words)}

    def read_set(at: Path) -> None:
        texts = [(at / f"{n}.txt").read_bytes().decode(errors="surrogateescape") for n in range(4)]
        load_config(at / "base.yaml", [text.replace("\0", "") for text in texts])

    return [
        Kind(
            "yaml", files, {"c.yaml": TEXT, "j.yaml": JSON}, lambda at: each_file(at, load_config)
        ),
        Kind("set", base, {name: TEXT for name in base if name != "base.yaml"}, read_set),
    ]  # fmt: skip


def _facts() -> ModelMetadata:
    return ModelMetadata(
        network=NetworkConfig(
            name="msa2net", encoder="test_maxvit", num_classes=2, in_channels=3, image_size=SIZE
        ),
        label_names=NAMES,
        preprocessing=Preprocessing(channels=3, image_size=SIZE, fit="stretch"),
        training={"flips": ["horizontal"], "epochs": 3, "val_dice": 0.8, "trained_on": ["train"]},
    )


def _runs(folder: Path) -> list[Kind]:
    facts = _facts()
    model = create_model(**facts.network.model_dump())
    save_run(folder / "run", model, facts)
    files = only(read_files(folder / "run"), ["model.json", "model.safetensors"])
    older = json.loads(files["model.json"])
    del older["weights_sha256"]
    buffer = io.BytesIO()
    torch.save({"state_dict": nn.Linear(3, 2).state_dict()}, buffer)

    def predict(at: Path) -> None:
        Predictor.load(at, "cpu", flips=True)(PICTURE)

    weights = {"model.safetensors": (*BYTES, m.within_safetensors)}
    return [
        Kind("model.json", files, {"model.json": JSON}, predict),
        Kind("weights", files, weights, predict, must_be_whole=True),
        Kind(
            "older-weights", files | {"model.json": json.dumps(older).encode()}, weights, predict
        ),
        Kind(
            "pth", {"w.pth": buffer.getvalue()}, {"w.pth": (*BYTES, m.within_zip, _torch_tree)},
            lambda at: read_state_dict(at / "w.pth"),
        ),
    ]  # fmt: skip


def _torch_tree(content: bytes, rng: random.Random) -> bytes:
    value = torch.load(io.BytesIO(content), weights_only=True)
    m.spoil_tree(value, rng)
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _checkpoints(folder: Path) -> list[Kind]:
    network = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    (folder / "c.yaml").write_text(SETTINGS)
    facts: dict[str, Any] = {
        "config": load_config(folder / "c.yaml").model_dump(mode="json"),
        "data": {"format": "phantom", "hash": "0", "classes": ["a", "b"], "cases": ["train a"]},
        "precision": "32-true", "device": "cpu", "processes": 1, "versions": {"torch": "2"},
        "sampling": 2,
    }  # fmt: skip
    progress = Progress(1, 1, 3, [0.5], [{"epoch": 1, "val_dice": 0.5}], [{"epoch": 1}], 0.5)
    progress.kept = {"best_epoch": 1}
    states = {"model": network.state_dict(), "optimizer": optimizer.state_dict()}
    states |= {"schedule": schedule.state_dict(), "precision": {}}
    state = {"progress": progress.state(), "states": states, "steps_per_epoch": 2}
    Checkpoints(folder).save(facts | state, 1, 3)
    content = Checkpoints(folder).paths()[0].read_bytes()

    def read(at: Path) -> None:
        file = at / "checkpoints" / "last"
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:DIGITS]
        file.rename(file.with_name(f"epoch00001-step00000003-{digest}.ckpt"))
        found, _ = Checkpoints(at).load()
        own = Progress.from_state(found["progress"])
        check_same_training(found, facts, own, True)
        own.waiting_share()
        own.no_longer_gains(Config.model_validate(facts["config"]).train)
        own.write_tables(at)
        saved = found["states"]
        check_entries(network.state_dict(), saved["model"], origin="it", values=False)
        network.load_state_dict(saved["model"])
        check_optimizer_state(saved["optimizer"], optimizer)
        optimizer.load_state_dict(with_own_options(saved["optimizer"], optimizer))
        schedule.load_state_dict(saved["schedule"])

    name = "checkpoints/last"
    mutations = (*BYTES, m.within_zip, _torch_tree, _torch_tree)
    return [Kind("checkpoint", {name: content}, {name: mutations}, read)]


def _results(folder: Path) -> list[Kind]:
    mask = (PICTURE[..., 0] > 128).astype(np.uint8) * 255
    for part in ("predictions", "labels", "images"):
        (folder / part).mkdir()
        for index in range(3):
            drawn = PICTURE if part == "images" else np.roll(mask, index * (part == "labels"), 0)
            Image.fromarray(drawn).save(folder / part / f"p{index}.png")
    out = folder / "evaluation"
    evaluate(
        folder / "predictions", folder / "labels", NAMES, images=folder / "images", out=out,
        workers=1,
    )  # fmt: skip
    save_run(folder / "run", create_model(**_facts().network.model_dump()), _facts())
    predict_files(folder / "run", [folder / "images"], folder / "masks", device="cpu")
    files = read_files(out)
    example = next(name for name in files if name.endswith(".npz"))
    tables = {"summary.json": JSON, "cases.csv": TEXT}
    masks = read_files(folder / "masks")
    records = {name: JSON for name in masks if name.startswith("records/") and "/p" in name}

    def report(at: Path) -> None:
        write_report(at, at / "page.html")
        read_summary(at / "summary.json")

    def read_records(at: Path) -> None:
        problems = write_tables(at)
        for name in records:
            read_record(at, Path(name).stem)
        assert not problems

    archive = (*BYTES, m.within_zip, m.within_zip)
    return [
        Kind("evaluation", files, tables, report),
        Kind("example", files, {example: archive}, report),
        Kind("records", masks, records, read_records),
    ]


def _exported(folder: Path) -> list[Kind]:
    """A network of one convolution, since exporting a real one takes half a minute."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, *SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2, *SIZE])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2, 3, 1, 1], [0.1, -0.2, 0.3, 0.2, 0.1, 0])
    node = helper.make_node("Conv", ["image", "w"], ["logits"])
    graph = helper.make_graph([node], "g", [image], [logits], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    said = {
        SCHEMA_KEY: "1", MODEL_KEY: _facts().model_dump_json(), DATA_FILE_KEY: "",
        CHECKSUM_KEY: NO_CHECKSUM,
    }  # fmt: skip

    def stamped(own: onnx.ModelProto, path: Path) -> bytes:
        onnx.save(own, path)
        with contextlib.suppress(ValueError):  # without a place for it
            _stamp(path, None)
        return path.read_bytes()

    def words(content: bytes, rng: random.Random) -> bytes:
        own = onnx.load_from_string(content)
        entry = rng.choice(list(own.metadata_props))
        if entry.key == CHECKSUM_KEY:
            entry.value = rng.choice(("", "x" * 64, "²" * 64, "0" * 63))
        else:
            change = rng.choice(JSON) if entry.key == MODEL_KEY else m.tokens
            entry.value = change(entry.value.encode(), rng).decode(errors="replace")
        for other in own.metadata_props:
            if other.key == CHECKSUM_KEY and other is not entry:
                other.value = NO_CHECKSUM
        return stamped(own, folder / f"{rng.random()}.onnx")

    def predict(at: Path) -> None:
        OnnxPredictor.load(at / "n.onnx", threads=1)(PICTURE)

    helper.set_model_props(model, said)
    files = {"n.onnx": stamped(model, folder / "n.onnx")}
    return [
        Kind("onnx", files, {"n.onnx": BYTES}, predict, must_be_whole=True),
        Kind("onnx-words", files, {"n.onnx": (words,)}, predict),
    ]
