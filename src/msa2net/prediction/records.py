"""What is remembered of every predicted image, so that nothing is done twice or taken for another.

A file an image in `records/`: which networks and options made its outputs, from what, and the
outputs' hashes. It is written just before the outputs come to their places, so outputs without a
record that fits were never made here.
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from msa2net.data.case import Segmentation
from msa2net.errors import ConfigError, DataError, WeightsError
from msa2net.files import WEIGHTS_FILE, read_json, remove, sha256, write_text
from msa2net.inference.run_folder import ModelMetadata, read_facts
from msa2net.locks import alone_in
from msa2net.options import InferenceOptions, PredictionPrecision
from msa2net.parsing import first_mistake
from msa2net.renamed import current_keys
from msa2net.text import csv_text

FOLDER = "records"
STRUCTURE_COLUMNS = ("case", "structure", "voxels", "volume_ml", "area_mm2")
KIND, SCHEMA = "record", 4
"""1 had no precision and flags, 2 no warnings, 3 no overlap; defaults are what was so then."""


class Maker(BaseModel):
    """Networks and options: what decides a mask, besides the image.

    Attributes:
        weights: SHA-256 of each network's file.
        networks: SHA-256 of what `model.json` says of its layout, preprocessing and classes.
        mode: resize or sliding.
        flips: whether outputs were averaged with those for mirrored images.
        precision: float32 or bfloat16.
        overlap: of sliding windows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: tuple[str, ...]
    networks: tuple[str, ...]
    mode: str
    flips: bool
    precision: PredictionPrecision = InferenceOptions.precision
    overlap: float = InferenceOptions.overlap

    @classmethod
    def of_runs(cls, runs: Sequence[Path], options: InferenceOptions) -> "Maker":
        """Describe run folders.

        Raises:
            WeightsError: not a run folder.
        """
        return cls(
            weights=tuple(_hash_weights(run) for run in runs),
            networks=tuple(_hash_facts(read_facts(run)) for run in runs),
            mode=options.mode,
            flips=options.flips,
            precision=options.precision,
            overlap=options.overlap,
        )

    @classmethod
    def of_exported(cls, file: Path, facts: ModelMetadata) -> "Maker":
        """Describe an exported network; its file holds the weights and what it says of them."""
        return cls(
            weights=(sha256(file),), networks=(_hash_facts(facts),), mode="resize", flips=False
        )

    def difference(self, other: "Maker") -> str:
        """Say in words what differs; "" if nothing does."""
        if (self.weights, self.networks) != (other.weights, other.networks):
            return "by another network"
        if self.mode != other.mode:
            return f"with --{other.mode}" if other.mode == "sliding" else "without --sliding"
        if self.mode == "sliding" and self.overlap != other.overlap:
            return f"with windows that overlap by {other.overlap:g}"
        if self.flips != other.flips:
            return "with --flips" if other.flips else "without --flips"
        if self.precision != other.precision:
            return f"with{'out' * (other.precision == 'float32')} --bfloat16"
        return ""


class Record(BaseModel):
    """One image.

    Attributes:
        schema_version: of this file's layout.
        made_by: see `Maker`.
        source: file or folder, as it was given.
        fingerprint: of the image's files.
        outputs: path in the folder → SHA-256; empty if it failed.
        dicom_seg: kind of the DICOM segmentation; none if there is none.
        structures: rows of `structures.csv`.
        flags, anomaly_score: why to look at it first, see `quality/flags.py`; None where the
            network has no reference ranges.
        warnings: what spoke against the networks, see `Segmenter`.
        error: why there are no outputs; "" if there are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: int = SCHEMA
    made_by: Maker
    source: str
    fingerprint: str
    outputs: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = {}
    dicom_seg: str = "none"
    structures: tuple[dict[str, str], ...] = ()
    flags: str = ""
    anomaly_score: float | None = None
    warnings: tuple[str, ...] = ()
    error: str = ""

    @field_validator("outputs")
    @classmethod
    def _lie_in_the_folder(cls, outputs: dict[str, str]) -> dict[str, str]:
        for name in outputs:
            path = PurePath(name)
            if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
                raise ValueError(f"'{name}' is no path in a folder of predictions")
        return outputs

    @field_validator("structures")
    @classmethod
    def _fit_the_table(cls, rows: tuple[dict[str, str], ...]) -> tuple[dict[str, str], ...]:
        for row in rows:
            if foreign := row.keys() - set(STRUCTURE_COLUMNS):
                raise ValueError(f"'{min(foreign)}' is no column of a table of structures")
        return rows

    def intact(self, out: Path, names: Sequence[str]) -> bool:
        """Tell whether these outputs are in their places as they were written."""
        return all(name in self.outputs and self.owns(out, name) for name in names)

    def owns(self, out: Path, name: str) -> bool:
        """Tell whether an output is there and is what was written then."""
        path = out / name
        return path.is_file() and self.outputs.get(name) == sha256(path)


def record_path(out: Path, name: str) -> Path:
    """Return where an image's record is."""
    return out / FOLDER / f"{name}.json"


def read_record(out: Path, name: str) -> Record | None:
    """Read an image's record; None if there is none.

    Raises:
        DataError: it is damaged, or newer than we are.
    """
    path = record_path(out, name)
    if not path.is_file():
        return None
    content = read_json(path)
    version = content.get("schema_version", SCHEMA) if isinstance(content, dict) else SCHEMA
    if version not in range(1, SCHEMA + 1):
        raise DataError(
            f"{path} was written by another version of msa2net; predict with that one, or into "
            "another --out"
        )
    try:
        return Record.model_validate(current_keys(KIND, content))
    except (ConfigError, ValidationError) as error:
        mistake = first_mistake(error) if isinstance(error, ValidationError) else error
        raise DataError(
            f"{path} is damaged ({mistake}); choose another --out, or replace what is "
            "there with --overwrite"
        ) from error


def write_record(out: Path, name: str, record: Record) -> None:
    """Write an image's record, all of it or nothing."""
    write_text(record_path(out, name), record.model_dump_json(indent=1) + "\n")


def all_records(out: Path) -> Iterator[tuple[str, Record | DataError]]:
    """Yield the records of a folder, by name; of one that cannot be read, why."""
    for path in sorted((out / FOLDER).glob("[!.]*.json")):
        try:
            record = read_record(out, path.stem)
        except DataError as error:
            yield path.stem, error
        else:
            if record is not None:
                yield path.stem, record


def hash_outputs(paths: Mapping[str, Path]) -> dict[str, str]:
    """Return name → SHA-256 of the files."""
    return {name: sha256(path) for name, path in paths.items()}


def _hash_weights(run: Path) -> str:
    path = run / WEIGHTS_FILE
    try:
        return sha256(path) if path.is_file() else ""  # loading says what is missing
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error


def _hash_facts(facts: ModelMetadata) -> str:
    content: dict[str, Any] = facts.model_dump(mode="json")
    deciding = {key: content[key] for key in ("network", "label_names", "preprocessing")}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


STRUCTURES_FILE, FLAGS_FILE, FAILURES_FILE = "structures.csv", "flags.csv", "failures.csv"
TABLES = (STRUCTURES_FILE, FLAGS_FILE, FAILURES_FILE)
FLAG_COLUMNS = ("case", "anomaly_score", "flags")
FAILURE_COLUMNS = ("case", "source", "error")


def structure_rows(segmentation: Segmentation, at_once: int = 2**24) -> tuple[dict[str, str], ...]:
    """Measure every class but the background, also those that were not found.

    Args:
        segmentation: what was found.
        at_once: voxels that are counted at once: counting takes 8 times the size of what it counts.

    Returns:
        Rows by `STRUCTURE_COLUMNS`: voxels (of a picture its pixels), the volume in mL where the
        voxels' size is known, and of a single slice the area in mm² as well. What is not known is
        left empty.
    """
    classes = len(segmentation.label_names)
    voxels = np.zeros(classes, np.int64)
    for labels_HW in segmentation.labels:
        rows = max(1, at_once // labels_HW.shape[1])
        for y in range(0, len(labels_HW), rows):
            some = labels_HW[y : y + rows].reshape(-1)
            voxels += np.bincount(some, minlength=classes)[:classes]
    volume_mm3, area_mm2 = _voxel_mm(segmentation)
    return tuple(
        {
            "case": segmentation.id,
            "structure": name,
            "voxels": str(count),
            "volume_ml": _number(count, volume_mm3, 1000),
            "area_mm2": _number(count, area_mm2, 1),
        }
        for name, count in zip(segmentation.label_names[1:], voxels[1:].tolist(), strict=True)
    )


def write_tables(out: Path, asked_for: Collection[str] = ()) -> tuple[str, ...]:
    """Write all tables, of what exists; one without rows is removed.

    Args:
        out: the folder.
        asked_for: names of images that fail if they are not there. Of others that are not there any
            more, failures of another time are not listed.

    In `flags.csv` the most suspicious cases come first; cases predicted by networks
    without reference ranges are not in it.

    Returns:
        A sentence for each record that cannot be read: its image is in no table.

    Raises:
        DataError: they cannot be written.
    """
    if not (out / FOLDER).is_dir():
        return ()
    unread: list[str] = []
    try:
        with alone_in(out / FOLDER, wait=True):
            remove(out / FOLDER / ".lock")  # of earlier versions
            structures: list[Mapping[str, str]] = []
            flags: list[tuple[float, Mapping[str, str]]] = []
            failures: list[Mapping[str, str]] = []
            for name, record in all_records(out):
                if isinstance(record, DataError):
                    unread.append(f"{name} is in none of the tables: {record}")
                elif record.error and (name in asked_for or not _is_gone(record.source)):
                    failures.append({"case": name, "source": record.source, "error": record.error})
                elif not record.error and all(
                    (out / output).is_file() for output in record.outputs
                ):
                    structures += record.structures
                    if record.anomaly_score is not None:
                        row = {"case": name, "anomaly_score": f"{record.anomaly_score:g}"}
                        flags.append((-record.anomaly_score, row | {"flags": record.flags}))
            _write(out / STRUCTURES_FILE, STRUCTURE_COLUMNS, structures)
            _write(out / FLAGS_FILE, FLAG_COLUMNS, [row for _, row in sorted(flags, key=_first)])
            _write(out / FAILURES_FILE, FAILURE_COLUMNS, failures)
    except OSError as error:
        raise DataError(f"cannot write tables in {out}: {error.strerror or error}") from error
    return tuple(unread)


def _write(path: Path, columns: tuple[str, ...], rows: Iterable[Mapping[str, str]]) -> None:
    listed = list(rows)
    if listed:
        write_text(path, csv_text(columns, listed))
    else:
        path.unlink(missing_ok=True)


def _is_gone(source: str) -> bool:
    """Tell whether an image that failed is no longer there; what cannot be asked for is."""
    try:
        return not Path(source).exists()
    except OSError:
        return False


def _first(pair: tuple[float, Mapping[str, str]]) -> tuple[float, str]:
    return pair[0], pair[1]["case"]


def _voxel_mm(segmentation: Segmentation) -> tuple[float | None, float | None]:
    """Return a voxel's mm³ and, of a single slice, mm²; None where it is not known."""
    geometry = segmentation.geometry
    if geometry.spacing_mm is None:
        return None, None
    volume_mm3 = math.prod(geometry.spacing_mm)
    if geometry.affine is not None:  # of sheared grids the spacings' product is too much
        volume_mm3 = abs(float(np.linalg.det(geometry.affine[:3, :3])))
    single = len(segmentation.labels) == 1
    return volume_mm3, math.prod(geometry.spacing_mm[1:]) if single else None


def _number(count: int, size: float | None, per: float) -> str:
    return "" if size is None else f"{count * size / per:.6g}"
