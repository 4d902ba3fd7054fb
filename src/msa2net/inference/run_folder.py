"""A run folder's network: `model.json` and `model.safetensors`, written and read.

Torch is imported where it is used: exported networks carry the facts too, and go without it.
"""

import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, DataError, WeightsError, is_out_of_memory, memory_guard
from msa2net.files import (
    clean_temporaries,
    put_in_place,
    read_json,
    remove,
    sha256,
    staging,
    strays,
    write_text,
)
from msa2net.inference.usual import Usual
from msa2net.locks import alone_in

if TYPE_CHECKING:
    import torch
    from torch import nn

SCHEMA = 2  # 1 had no networks of five levels
CONFIG_FILE, MODEL_FILE, WEIGHTS_FILE = "config.yaml", "model.json", "model.safetensors"
EXPORT_FILE, EXPORT_DATA = "model.onnx", ".data"  # the ending of its weights, if they lie apart
EXPORT_FILES = (EXPORT_FILE, EXPORT_FILE + EXPORT_DATA)
WRITTEN_BELOW = ("checkpoints", "evaluation", "evaluation/examples", "logs", "prediction")


class NetworkFacts(BaseModel):
    """The arguments of `create_model` that rebuild the network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    encoder: str | None
    num_classes: int
    in_channels: int
    image_size: tuple[int, int]
    levels: int = 4


class ModelFacts(BaseModel):
    """Everything a network needs besides its weights; the content of `model.json`.

    Attributes:
        schema_version: of this file's layout.
        network: how to rebuild it.
        label_names: one name per class, background first.
        preprocessing: how images become its inputs.
        data: format and hash of the data it was trained on.
        training: what is known of its training, for people.
        usual: what its training's cases are like, and from where on others are flagged; None of
            older and of imported networks, and while a training is under way.
        versions: of the software that wrote it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = SCHEMA
    network: NetworkFacts
    label_names: tuple[str, ...]
    preprocessing: Preprocessing
    data: dict[str, str] = {}
    training: dict[str, Any] = {}
    usual: Usual | None = None
    versions: dict[str, str] = {}


@dataclass(frozen=True)
class LoadedRun:
    """A network from a run folder, on its device, in evaluation mode."""

    model: "nn.Module"
    facts: ModelFacts

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become inputs."""
        return self.facts.preprocessing

    @property
    def label_names(self) -> tuple[str, ...]:
        """One name per class, background first."""
        return self.facts.label_names


@contextmanager
def writing_run(run: Path) -> Iterator[None]:
    """Keep other processes from writing into a run folder; what killed ones left is removed.

    Raises:
        DataError: another process holds it, which is named; or nothing can be written there.
    """
    with alone_in(run):
        clean_run(run)
        yield


def clean_run(run: Path) -> None:
    """Remove what killed processes left in a run folder that this one alone writes into."""
    clean_temporaries(run, *WRITTEN_BELOW)
    for path in strays(run):  # in a folder of ours they are ours
        remove(path)


def save_run(run: Path, model: "nn.Module", facts: ModelFacts) -> None:
    """Write `model.safetensors`, then `model.json`; each is replaced whole.

    A network that was exported here from other weights goes first.

    Raises:
        DataError: a file cannot be written, or the exported network not removed.
    """
    from msa2net.models.weights import save_weights

    with staging(run) as staged:
        save_weights(model, staged / WEIGHTS_FILE)
        if not _same_content(staged / WEIGHTS_FILE, run / WEIGHTS_FILE):
            _remove_exported(run)
            put_in_place(staged / WEIGHTS_FILE, run / WEIGHTS_FILE)
    write_facts(run, facts)


def _same_content(one: Path, other: Path) -> bool:
    return other.is_file() and sha256(one) == sha256(other)


def _remove_exported(run: Path) -> None:
    for name in EXPORT_FILES:
        try:
            (run / name).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot remove {run / name}, which was exported from earlier weights: "
                f"{error.strerror or error}; delete it"
            ) from error


def write_facts(run: Path, facts: ModelFacts) -> None:
    """Write `model.json`, all of it or nothing."""
    write_text(run / MODEL_FILE, facts.model_dump_json(indent=2) + "\n")


def read_facts(run: Path) -> ModelFacts:
    """Read `model.json`.

    Raises:
        WeightsError: this is not a run folder, or the file is damaged or newer than we are.
    """
    path = run / MODEL_FILE
    if not path.is_file():
        raise WeightsError(
            f"{run} is not a run folder: it has no {MODEL_FILE}; "
            "`msa2net train` and `msa2net import-weights` make run folders"
        )
    try:
        content = read_json(path)
    except DataError as error:  # it says which file
        raise WeightsError(str(error)) from error
    return parse_facts(content, str(path))


def parse_facts(content: Any, origin: str) -> ModelFacts:
    """Read what `model.json` holds, from wherever it was written to.

    Args:
        content: the parsed JSON.
        origin: what to call it in an error.

    Raises:
        WeightsError: it is damaged or newer than we are.
    """
    try:
        # Looked at before the rest: a newer version's fields would only seem to be damage.
        written_by = content.get("schema_version", SCHEMA) if isinstance(content, dict) else SCHEMA
        if isinstance(written_by, int) and written_by > SCHEMA:
            raise WeightsError(
                f"{origin} was written by a newer version (schema {written_by}, this one reads up "
                f"to {SCHEMA}); install a newer msa2net"
            )
        return ModelFacts.model_validate(content)
    except ValidationError as error:
        raise WeightsError(f"{origin} is damaged: {' '.join(str(error).split())}") from error


@memory_guard("loading a network")
def load_run(run: Path, device: str = "auto") -> LoadedRun:
    """Rebuild a run folder's network and load its weights.

    Raises:
        WeightsError: not a run folder, or its weights do not fit.
        ConfigError: no such device, or memory is too small.
    """
    from msa2net.models.registry import create_model
    from msa2net.models.weights import load_weights

    facts = read_facts(run)
    model = create_model(**facts.network.model_dump())
    load_weights(model, run / WEIGHTS_FILE)
    return LoadedRun(model.to(choose_device(device)).eval(), facts)


def choose_device(name: str = "auto") -> "torch.device":
    """Return the named device; auto is CUDA, then MPS, then CPU.

    Raises:
        ConfigError: unknown, or not on this machine.
    """
    import torch

    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ConfigError(f"there is no device '{name}'; use auto, cpu, cuda, cuda:1 or mps")
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        if is_out_of_memory(error):  # others fill it
            raise
        raise ConfigError(
            f"the device '{name}' cannot be used on this machine; use auto or cpu"
        ) from error
    return device


def software_versions() -> dict[str, str]:
    """Name the versions that a result depends on."""
    names = ("msa2net", "torch", "timm", "lightning", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
