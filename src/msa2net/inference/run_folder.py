"""A run folder's network: `model.json` and `model.safetensors`, written and read.

Torch is imported where it is used: exported networks carry the facts too, and go without it.
"""

import platform
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from msa2net.config import NetworkConfig
from msa2net.config.types import Name
from msa2net.data.io.validation import format_shape
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import ConfigError, DataError, WeightsError, is_out_of_memory, memory_guard
from msa2net.files import (
    EVALUATIONS,
    MODEL_FILE,
    WEIGHTS_FILE,
    clean_temporaries,
    leftover_temporaries,
    put_in_place,
    read_json,
    remove,
    sha256,
    staging,
    write_text,
)
from msa2net.locks import alone_in
from msa2net.parsing import first_mistake
from msa2net.quality.reference_ranges import ReferenceRanges
from msa2net.renamed import current_keys
from msa2net.text import listed


class TrainingMetadata(BaseModel):
    """`ModelMetadata.training`, which `train` writes as a plain dict; what else is there is left.

    Attributes:
        best_epoch: whose weights were kept, counted from 1.
        val_dice, test_dice: of that epoch, on the split that chose it; None if none did.
        val_dice_by_class, test_dice_by_class: likewise; None of a class that no case has.
        weights: how they were chosen: best on val, best on test, last.
        averaged: they are the moving average.
        trained_on: the splits whose cases were trained on.
        flips: the directions in which samples were mirrored.
        epochs: planned.
        epochs_run: done when the training ended, or when weights were kept if it was cut off.
        finished: whether the training came to its end; None of older versions.
        seconds: of training until then.
        precision: what `auto` came to.
        warnings: what speaks against a training that came to nothing.
        imported_from: file name of published weights.
        sha256: of that file.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", protected_namespaces=(), allow_inf_nan=False
    )

    best_epoch: int | None = None
    val_dice: float | None = None
    test_dice: float | None = None
    val_dice_by_class: dict[str, float | None] = {}
    test_dice_by_class: dict[str, float | None] = {}
    weights: str | None = None
    averaged: bool = False
    trained_on: tuple[str, ...] = ()
    flips: tuple[str, ...] = ()
    epochs: int | None = None
    epochs_run: int | None = None
    finished: bool | None = None
    seconds: float | None = None
    precision: str | None = None
    seed: int | None = None
    device: str | None = None
    warnings: tuple[str, ...] = ()
    imported_from: str | None = None
    sha256: str | None = None


if TYPE_CHECKING:
    import torch
    from torch import nn

SCHEMA = 2  # 1 had no networks of five levels
EXPORT_FILE, EXPORT_DATA = "model.onnx", ".data"  # the ending of its weights, if they lie apart
EXPORT_FILES = (EXPORT_FILE, EXPORT_FILE + EXPORT_DATA)
_EXAMPLES = tuple(f"{folder}/examples" for folder in EVALUATIONS.values())
WRITTEN_BELOW = ("checkpoints", *EVALUATIONS.values(), *_EXAMPLES, "logs", "prediction")

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class ModelMetadata(BaseModel):
    """Everything a network needs besides its weights; the content of `model.json`.

    Attributes:
        schema_version: of this file's layout.
        network: how to rebuild it.
        label_names: one name per class, background first.
        preprocessing: how images become its inputs.
        data: format and hash of the data it was trained on.
        training: what is known of its training, for people.
        reference_ranges: of its training's cases, and the limits beyond which others are flagged;
            None of older and of imported networks, and while a training is under way.
        weights_sha256: of the weight file that this belongs to. Two while one file takes another's
            place, so that a kill in between leaves a network that loads; none of older folders.
        versions: of the software that wrote it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = SCHEMA
    network: NetworkConfig
    label_names: tuple[Name, ...]
    preprocessing: Preprocessing
    data: dict[str, str] = {}
    training: dict[str, Any] = {}
    reference_ranges: ReferenceRanges | None = None
    weights_sha256: tuple[Sha256, ...] = Field((), max_length=2)
    versions: dict[str, str] = {}

    @field_validator("training")
    @classmethod
    def _is_known_of_training(cls, training: dict[str, Any]) -> dict[str, Any]:
        TrainingMetadata.model_validate(training)
        return training

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        network, preprocessing, names = self.network, self.preprocessing, self.label_names
        if len(names) != network.num_classes or len(set(names)) < len(names):
            raise ValueError(
                f"label_names ({listed(names) or 'none'}) must be {network.num_classes} different "
                "names, one a class"
            )
        if network.in_channels != preprocessing.channels:
            raise ValueError(
                f"the network takes {network.in_channels} channels and preprocessing gives it "
                f"{preprocessing.channels}"
            )
        if network.image_size != preprocessing.image_size:
            raise ValueError(
                f"the network takes {format_shape(network.image_size)} pixels and preprocessing "
                f"gives it {format_shape(preprocessing.image_size)}"
            )
        return self


@dataclass(frozen=True)
class LoadedRun:
    """A network from a run folder, on its device, in evaluation mode."""

    model: "nn.Module"
    facts: ModelMetadata

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
    for path in leftover_temporaries(run):  # in a folder of ours they are ours
        remove(path)


def save_run(run: Path, model: "nn.Module", facts: ModelMetadata) -> None:
    """Write `model.safetensors`, then `model.json` with its checksum; each is replaced whole.

    A network that was exported here from other weights goes first. A kill in between leaves a
    network that loads: until the new `model.json` is there, the old one names both weights.

    Raises:
        DataError: a file cannot be written, or the exported network not removed.
    """
    from msa2net.models.weights import save_weights

    with staging(run) as staged:
        save_weights(model, staged / WEIGHTS_FILE)
        digest = sha256(staged / WEIGHTS_FILE)
        before = _facts_before(run)
        if before is None or before.weights_sha256 != (digest,):
            _remove_exported(run)
        if before is not None and before.weights_sha256:
            both = (*before.weights_sha256, digest)
            write_facts(run, before.model_copy(update={"weights_sha256": both}))
        put_in_place(staged / WEIGHTS_FILE, run / WEIGHTS_FILE)
    write_facts(run, facts.model_copy(update={"weights_sha256": (digest,)}))


def _facts_before(run: Path) -> ModelMetadata | None:
    """Return what `model.json` says before it is replaced, with the one checksum that holds."""
    try:
        facts = read_facts(run)
    except WeightsError:  # there is none, or none that could be loaded
        return None
    weights = run / WEIGHTS_FILE
    if len(facts.weights_sha256) == 1 or not weights.is_file():
        return facts
    return facts.model_copy(update={"weights_sha256": (sha256(weights),)})


def _remove_exported(run: Path) -> None:
    for name in EXPORT_FILES:
        try:
            (run / name).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"cannot remove {run / name}, which was exported from earlier weights: "
                f"{error.strerror or error}; delete it"
            ) from error


def write_facts(run: Path, facts: ModelMetadata) -> None:
    """Write `model.json`, all of it or nothing."""
    write_text(run / MODEL_FILE, facts.model_dump_json(indent=2) + "\n")


def read_facts(run: Path) -> ModelMetadata:
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


def parse_facts(content: Any, origin: str) -> ModelMetadata:
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
        return ModelMetadata.model_validate(current_keys(MODEL_FILE, content))
    except (ConfigError, ValidationError) as error:
        mistake = first_mistake(error) if isinstance(error, ValidationError) else error
        raise WeightsError(f"{origin} is damaged: {mistake}; restore it, or train again") from error


@memory_guard("loading a network")
def load_run(run: Path, device: str = "auto") -> LoadedRun:
    """Rebuild a run folder's network and load its weights.

    Raises:
        WeightsError: not a run folder, or its weights are damaged or do not fit.
        ConfigError: no such device, or memory is too small.
    """
    from msa2net.models.registry import build_network
    from msa2net.models.weights import check_entries, load_weights, read_state_dict

    facts = read_facts(run)
    target = choose_device(device)
    weights = run / WEIGHTS_FILE
    with ThreadPoolExecutor(1) as beside:  # building a network takes longer than its checksum
        checked = beside.submit(check_weights, run, facts)
        if facts.network.encoder is not None:  # of any size: what is in the file tells which
            shapes = _shapes(facts.network)
            check_entries(shapes, read_state_dict(weights), origin=str(weights), values=False)
        model = build_network(facts.network)
        checked.result()
    load_weights(model, weights)
    return LoadedRun(model.to(target).eval(), facts)


def check_weights(run: Path, facts: ModelMetadata) -> None:
    """Compare a run folder's weights with the checksum in `model.json`; older ones have none.

    Raises:
        WeightsError: the weights are missing, or are not those that were written with it.
    """
    path = run / WEIGHTS_FILE
    if not path.is_file():
        raise WeightsError(f"no weight file at {path}")
    if not facts.weights_sha256:
        return
    try:
        found = sha256(path)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    # A training may have replaced both since `facts` was read.
    if found not in facts.weights_sha256 and found not in read_facts(run).weights_sha256:
        raise WeightsError(
            f"{path} is not the file that was written with {MODEL_FILE}: its checksum is another, "
            "so it is damaged, or of another network; restore both files from a copy, or train "
            "again"
        )


def _shapes(network: NetworkConfig) -> Mapping[str, "torch.Tensor"]:
    """Return a network's entries without the memory that their numbers would take."""
    import torch

    from msa2net.models.registry import build_network

    with torch.device("meta"):
        return build_network(network).state_dict()


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
