"""`OnnxPredictor`: exported networks applied without torch, timm, lightning or monai.

Needs onnxruntime, numpy, scipy, pydantic and the readers of the file formats (Pillow, nibabel,
h5py). Slices are cut, scaled, batched and brought back by the same code as `Predictor`'s.

Axes: B slices, C channels, K classes; h, w are rows and columns of the network's input, H and W of
a case.
"""

import hashlib
import importlib
import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.io.validation import format_shape
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, DataError, WeightsError, is_out_of_memory
from msa2net.inference.backend import Backend
from msa2net.inference.engine import Engine
from msa2net.inference.onnx_file import OnnxFile, read_onnx
from msa2net.inference.predictor import Segmenter
from msa2net.inference.run_folder import ModelMetadata, parse_facts
from msa2net.inference.validation_scores import describe_networks
from msa2net.options import InferenceOptions, Mode
from msa2net.parsing import parse_json
from msa2net.quality.confidence import MemberOutputs

Float = NDArray[np.float32]

SCHEMA = 1
"""Of the metadata in an exported file."""

SCHEMA_KEY, MODEL_KEY = "msa2net.schema_version", "msa2net.model"
WEIGHTS_KEY, NOTICE_KEY = "msa2net.weights_sha256", "msa2net.notice"
DATA_FILE_KEY, CHECKSUM_KEY = "msa2net.data_file", "msa2net.checksum"
NO_CHECKSUM = "0" * 64
"""Stands where the checksum will, while it is computed."""

INPUT, OUTPUT = "image", "logits"

_PIECE = 2**20


class OnnxPredictor(Segmenter):
    """An exported network with all it takes to apply it; computes on the CPU.

    May be called from several threads. Answers are `Predictor`'s but for the last bits of sums, so
    single pixels on the edge between two classes may differ.

    Attributes:
        facts: what `model.json` of the run folder said.
        preprocessing: how images become inputs.
        label_names: one name per class, background first.
        reference_ranges: of its training's cases; None if they were not noted.
        performance: see `Segmenter`.
        warnings: see `Segmenter`.
    """

    def __init__(self, session: Any, facts: ModelMetadata, batch_slices: int | None = None) -> None:
        """Make a predictor of an open session; `load` makes one of a file.

        Raises:
            ConfigError: no slices in a batch.
        """
        networks = OnnxBackend(session, facts.preprocessing)
        options = InferenceOptions(batch_slices=batch_slices)
        engine = Engine((networks,), len(facts.label_names), options)
        super().__init__(engine, facts.label_names, facts.reference_ranges)
        self.facts = facts

    @classmethod
    def load(
        cls, file: str | Path, batch_slices: int | None = None, threads: int | None = None
    ) -> "OnnxPredictor":
        """Load a file written by `msa2net export`.

        Args:
            file: ends in `.onnx`.
            batch_slices: slices that go through the network at once, fewer where their outputs
                would take more than 64 MB; None allows 16.
            threads: on which the network computes; None lets onnxruntime take all cores.

        Raises:
            ConfigError: onnxruntime is not installed, or no slices in a batch, or no threads.
            WeightsError: missing, damaged, not exported by msa2net, or by a newer version.
        """
        file = Path(file)
        InferenceOptions(batch_slices=batch_slices, threads=threads)
        session = open_session(file, threads)
        facts = _read_facts(read_onnx(file).metadata, file)
        _check_shapes(session, facts, file)
        predictor = cls(session, facts, batch_slices)
        predictor.performance, predictor.warnings = describe_networks([(file, facts)])
        return predictor


class OnnxBackend(Backend):
    """One network in an onnxruntime session; computes on the CPU."""

    def __init__(self, session: Any, preprocessing: Preprocessing) -> None:
        super().__init__(preprocessing)
        self._session = session

    def logits(self, image_BChw: Float) -> Float:
        """Return logits (B, K, h, w) for standardised images."""
        try:
            (logits_BKhw,) = self._session.run([OUTPUT], {INPUT: image_BChw})
        except Exception as error:  # onnxruntime's own classes, which are none of Python's
            if is_out_of_memory(error):
                raise RuntimeError(str(error)) from error
            raise WeightsError(
                f"the exported network cannot be computed ({_last_part(error)}); export it again"
            ) from error
        found: Float = logits_BKhw
        return found

    def probabilities(
        self,
        unit_BChw: Float,
        _batch: int,
        _mode: Mode = "resize",
        _overlap: float = 0.0,
        outputs: MemberOutputs | None = None,
    ) -> Float:
        """Return class probabilities (B, K, h, w) for resized slices; see `Backend`."""
        found_BKhw = softmax(self.logits(self.preprocessing.standardise(unit_BChw)))
        if outputs is not None:
            outputs.add(found_BKhw)
        return found_BKhw

    def largest(self, values_BkHW: Float) -> tuple[Float, NDArray[np.uint8]]:
        """Return the largest values (B, H, W), and as uint8 which they are, the first of equals."""
        return values_BkHW.max(axis=1), values_BkHW.argmax(axis=1).astype(np.uint8)

    def as_array(self, labels_BHW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return labels as they are."""
        return labels_BHW


def softmax(logits_BKhw: Float) -> Float:
    """Return probabilities over K."""
    odds_BKhw: Float = np.exp(logits_BKhw - logits_BKhw.max(axis=1, keepdims=True))
    odds_BKhw /= odds_BKhw.sum(axis=1, keepdims=True)
    return odds_BKhw


def runtime() -> Any:
    """Return onnxruntime.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise ConfigError(
            'exported networks need onnxruntime; pip install ".[onnx]" in msa2net\'s folder, or '
            "pip install onnxruntime where torch is not wanted"
        ) from error


def open_session(file: Path, threads: int | None = None) -> Any:
    """Open an exported network, and see that it is as it was exported.

    Raises:
        ConfigError: onnxruntime is not installed.
        WeightsError: missing, damaged, not exported by msa2net, or by a newer version.
    """
    onnxruntime = runtime()
    if not file.is_file():
        raise WeightsError(f"there is no file {file}; msa2net export makes one of a run folder")
    _check(read_onnx(file), file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would print becomes our sentence
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes, which are none of Python's
        if is_out_of_memory(error):
            raise
        raise WeightsError(
            f"{file} cannot be opened as an ONNX network, it may be damaged ({_last_part(error)}); "
            "copy or export it again"
        ) from error


def _last_part(error: Exception) -> str:
    """Return what is of use in a message of onnxruntime."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rsplit(" : ", 1)[-1]


def checksum(file: Path, stated: str, data: Path | None = None) -> str:
    """Return the SHA-256 of an exported file, with the checksum it states itself read as zeros.

    Args:
        file: ends in `.onnx`.
        stated: the checksum in it.
        data: the file with its weights, where they are kept apart.

    Raises:
        WeightsError: a file is missing, or the checksum is not in it.
    """
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as m:
            at = m.rfind(stated.encode())
            if at < 0:
                raise WeightsError(f"{file} is damaged; copy or export it again")
            digest = hashlib.sha256()
            for start in range(0, at, _PIECE):
                digest.update(m[start : min(at, start + _PIECE)])
            digest.update(NO_CHECKSUM.encode() + m[at + len(stated) :])
        if data is not None:
            with data.open("rb") as opened:
                while piece := opened.read(_PIECE):
                    digest.update(piece)
    except OSError as error:
        raise WeightsError(f"cannot read {error.filename}: {error.strerror}") from error
    return digest.hexdigest()


def _check(content: OnnxFile, file: Path) -> None:
    """Refuse what was not exported by us, or was changed since.

    Raises:
        WeightsError: saying which.
    """
    metadata = content.metadata
    version = metadata.get(SCHEMA_KEY, "")
    if not re.fullmatch("[0-9]{1,9}", version):
        raise WeightsError(
            f"{file} was not exported by msa2net, so nothing says how images become its inputs; "
            "export a run folder with msa2net export"
        )
    if int(version) > SCHEMA:
        raise WeightsError(
            f"{file} was exported by a newer version (schema {version}, this one reads up to "
            f"{SCHEMA}); install a newer msa2net"
        )
    stated, apart = metadata.get(CHECKSUM_KEY, ""), metadata.get(DATA_FILE_KEY, "")
    is_beside = apart == Path(apart).name and "\0" not in apart  # also "", where all is in one
    if content.outside - {apart} or not is_beside:
        other = min(content.outside - {apart}, default=apart)
        raise WeightsError(
            f"{file} has weights in '{other}', which its checksum is not of; export it again"
        )
    data = file.parent / apart if apart else None
    if not re.fullmatch("[0-9a-f]{64}", stated) or checksum(file, stated, data) != stated:
        raise WeightsError(
            f"{file} is not as it was exported: its checksum does not fit; copy or export it again"
        )


def _read_facts(metadata: Mapping[str, str], file: Path) -> ModelMetadata:
    """Read what `model.json` of the run folder said."""
    try:
        content = parse_json(metadata.get(MODEL_KEY, "").encode(), f"what {file} says of itself")
    except DataError as error:
        raise WeightsError(str(error)) from error
    return parse_facts(content, str(file))


def _check_shapes(session: Any, facts: ModelMetadata, file: Path) -> None:
    """Refuse a network that does not take and give what is said of it."""
    network = facts.network
    taken = [network.in_channels, *network.image_size]
    given = [network.num_classes, *network.image_size]
    for what, values, name, shape in (
        ("takes", session.get_inputs(), INPUT, taken),
        ("gives", session.get_outputs(), OUTPUT, given),
    ):
        if len(values) != 1 or values[0].name != name or values[0].type != "tensor(float)":
            raise WeightsError(f"{file} {what} something other than '{name}'; export it again")
        if values[0].shape[1:] != shape:
            raise WeightsError(
                f"{file} {what} {format_shape(values[0].shape[1:])}, and it says of itself "
                f"{format_shape(shape)}; export it again"
            )
