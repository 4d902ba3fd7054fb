"""A run folder's network as one ONNX file that says itself how it is to be applied.

Axes: B batch, C channels, K classes; h, w are rows and columns of the network's input.
"""

import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from msa2net.compat import unfuse_attention
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, WeightsError, memory_guard
from msa2net.files import MODEL_FILE, WEIGHTS_FILE, clean_temporaries, put_in_place, sha256, staging
from msa2net.inference.onnx_backend import (
    CHECKSUM_KEY,
    DATA_FILE_KEY,
    INPUT,
    MODEL_KEY,
    NO_CHECKSUM,
    NOTICE_KEY,
    OUTPUT,
    SCHEMA,
    SCHEMA_KEY,
    WEIGHTS_KEY,
    OnnxBackend,
    checksum,
    open_session,
    runtime,
    softmax,
)
from msa2net.inference.run_folder import (
    EXPORT_DATA,
    EXPORT_FILE,
    ModelMetadata,
    load_run,
    writing_run,
)
from msa2net.inference.validation_scores import describe_networks, with_scores

Float = NDArray[np.float32]

EQUAL_LABELS = 0.9999
"""The least share of pixels whose most probable class must be the same, exported and not."""

LARGEST_DIFFERENCE = 1e-3
"""The most that any probability may differ."""

NOTICE = "Research use only, not a medical device."

_LARGEST_FILE = 1_900_000_000  # bytes of weights; a protobuf message ends at 2 GiB
_BATCHES = (1, 2, 5)  # that are compared


@dataclass(frozen=True)
class Exported:
    """What was written, and how near it comes to the network it was made of.

    Attributes:
        files: the network; a second file holds the weights where they are above 1.9 GB.
        equal_labels: the share of compared pixels with the same most probable class.
        largest_difference: between any two compared probabilities.
        performance: a line on the network's validation.
        warnings: sentences that speak against the network.
    """

    files: tuple[Path, ...]
    equal_labels: float
    largest_difference: float
    performance: tuple[str, ...]
    warnings: tuple[str, ...]


@memory_guard("exporting")
def export_onnx(
    run: str | Path, out: str | Path | None = None, *, overwrite: bool = False
) -> Exported:
    """Write a run folder's network as ONNX, if its outputs are the network's.

    Its input `image` is (B, C, h, w) float32, standardised; its output `logits` (B, K, h, w); B is
    free. `model.json` travels in the metadata, so that `OnnxPredictor` needs nothing else.

    Args:
        run: folder with `model.json` and `model.safetensors`.
        out: file to write, ending in `.onnx`; None is `model.onnx` in the run folder.
        overwrite: replace a file that exists.

    Raises:
        ConfigError: onnx, onnxscript or onnxruntime are missing, the file exists or is called
            otherwise, the network holds what cannot be exported, or memory is too small.
        WeightsError: not a run folder, or the exported network's outputs differ; nothing is
            written then.
        DataError: the file cannot be written.
    """
    run = Path(run)
    out = run / EXPORT_FILE if out is None else Path(out)
    runtime()
    ir = _intermediate()
    if out.suffix.lower() != ".onnx":
        raise ConfigError(f"{out} cannot be the name of an exported network; end it in .onnx")
    if out.exists() and not overwrite:
        raise ConfigError(f"{out} exists already; name another file, or replace it (overwrite)")
    with _alone_with(out.parent):
        return _export(run, out, ir)


def _export(run: Path, out: Path, ir: Any) -> Exported:
    """Export a run into a folder that no other process writes it into; see `export_onnx`."""
    loaded = load_run(run, "cpu")
    images = comparison_images(loaded.preprocessing)
    expected = [_answer(loaded.model, image_BChw) for image_BChw in images]
    exported = _trace(loaded.model, images[1])
    _describe(exported, with_scores(loaded.facts, run), sha256(run / WEIGHTS_FILE))
    apart = _weight_bytes(exported) > _LARGEST_FILE
    with staging(out.parent) as folder:
        staged = folder / out.name
        names = [out.name + EXPORT_DATA, out.name] if apart else [out.name]
        exported.metadata_props[DATA_FILE_KEY] = names[0] if apart else ""
        ir.save(exported, staged, external_data=names[0] if apart else None)
        _stamp(staged, folder / names[0] if apart else None)
        share, difference = _compare(staged, loaded.preprocessing, images, expected)
        if not (share >= EQUAL_LABELS and difference <= LARGEST_DIFFERENCE):
            raise WeightsError(
                f"{run} was not exported: only {share:.4%} of the exported network's labels are "
                f"those of the network itself, and probabilities differ by up to {difference:.1e}; "
                "use the run folder"
            )
        for name in names:  # the network last: it is what says that all is there
            put_in_place(folder / name, out.parent / name)
    files = tuple(out.parent / name for name in reversed(names))
    return Exported(files, share, difference, *describe_networks([(run, loaded.facts)]))


@contextmanager
def _alone_with(folder: Path) -> Iterator[None]:
    """Keep other processes from a run folder; elsewhere others may write other files."""
    if (folder / MODEL_FILE).is_file():
        with writing_run(folder):
            yield
    else:
        clean_temporaries(folder)
        yield


def comparison_images(preprocessing: Preprocessing) -> list[Float]:
    """Make inputs (B, C, h, w) on which both are compared, in batches of 1, 2 and 5.

    Noise, smooth noise, a ramp, a disc on nothing, and a chequerboard, standardised.
    """
    height, width = preprocessing.image_size
    rows_hw, columns_hw = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    rng = np.random.default_rng(0)
    noise_Chw = rng.random((preprocessing.channels, height, width))
    smooth_Chw = ndimage.gaussian_filter(noise_Chw, (0, height / 32, width / 32))
    smooth_Chw -= smooth_Chw.min()
    shapes = (
        noise_Chw,
        smooth_Chw / smooth_Chw.max(),
        (columns_hw + 1) / 2,
        rows_hw**2 + columns_hw**2 < 0.3,
        (np.floor(rows_hw * 4) + np.floor(columns_hw * 4)) % 2,
    )
    unit_BChw = np.stack([np.broadcast_to(shape, noise_Chw.shape) for shape in shapes])
    image_BChw = preprocessing.standardise(unit_BChw.astype(np.float32))
    return [np.roll(image_BChw, batch, axis=0)[:batch] for batch in _BATCHES]


def _intermediate() -> Any:
    """Return the library in whose form torch exports.

    Raises:
        ConfigError: what exporting needs is not installed.
    """
    try:
        for name in ("onnx", "onnxscript"):
            importlib.import_module(name)
        return importlib.import_module("onnx_ir")
    except ImportError as error:
        raise ConfigError(
            'exporting needs onnx and onnxscript; pip install ".[onnx]" in msa2net\'s folder'
        ) from error


@torch.inference_mode()
def _answer(model: nn.Module, image_BChw: Float) -> Float:
    output: Float = model(torch.from_numpy(image_BChw)).numpy()
    return output


def _trace(model: nn.Module, example_BChw: Float) -> Any:
    """Return the network in ONNX's terms; its attention is no longer fused afterwards.

    Raises:
        ConfigError: it holds what torch cannot express in ONNX.
    """
    unfuse_attention(model)  # torch's exporter stops at timm's fused attention
    try:
        with _quiet():
            program = torch.onnx.export(
                model,
                (torch.from_numpy(example_BChw),),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            )
    except torch.onnx.OnnxExporterError as error:
        first = next(line for line in str(error).splitlines() if line.strip())
        raise ConfigError(
            f"this network cannot be exported, its encoder holds what torch cannot express in "
            f"ONNX: {first}"
        ) from error
    assert program is not None
    return program.model


def _describe(exported: Any, facts: ModelMetadata, weights_sha256: str) -> None:
    """Put what it takes to apply the network into the metadata, and nothing of this machine."""
    for function in (exported.graph, *exported.functions.values()):
        for node in function.all_nodes():
            node.metadata_props.clear()  # stack traces, with the paths of this machine
            for value in node.outputs:
                value.metadata_props.clear()
    exported.doc_string = f"MSA²Net. {NOTICE}"
    exported.metadata_props.clear()
    exported.metadata_props.update(
        {
            SCHEMA_KEY: str(SCHEMA),
            NOTICE_KEY: NOTICE,
            MODEL_KEY: facts.model_dump_json(),
            WEIGHTS_KEY: weights_sha256,
            CHECKSUM_KEY: NO_CHECKSUM,
        }
    )


def _weight_bytes(exported: Any) -> int:
    return sum(value.const_value.nbytes for value in exported.graph.initializers.values())


def _stamp(file: Path, data: Path | None) -> None:
    """Write the checksum over the zeros that stand in its place."""
    found = checksum(file, NO_CHECKSUM, data)
    content = file.read_bytes()
    with file.open("rb+") as opened:
        opened.seek(content.rindex(NO_CHECKSUM.encode()))
        opened.write(found.encode())


def _compare(
    file: Path, preprocessing: Preprocessing, images: Sequence[Float], expected: Sequence[Float]
) -> tuple[float, float]:
    """Return the share of equal labels and the largest difference of probabilities."""
    network = OnnxBackend(open_session(file), preprocessing)
    equal, difference = [], 0.0
    for image_BChw, expected_BKhw in zip(images, expected, strict=True):
        found_BKhw = network.logits(image_BChw)
        equal.append((found_BKhw.argmax(axis=1) == expected_BKhw.argmax(axis=1)).reshape(-1))
        off = np.abs(softmax(found_BKhw) - softmax(expected_BKhw)).max()
        difference = float(np.maximum(difference, off))  # NaN stays
    return float(np.concatenate(equal).mean()), difference


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's remarks on its own exporter from the screen."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
