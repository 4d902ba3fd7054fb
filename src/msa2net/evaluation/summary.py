"""The content of summary.json, of a run or of two folders, and the files of an evaluation."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from msa2net.errors import DataError
from msa2net.evaluation.examples import write_examples
from msa2net.evaluation.schema import Notes, Summary
from msa2net.evaluation.tables.console import markdown_table
from msa2net.evaluation.tables.latex import latex_table
from msa2net.files import clean_temporaries, read_json, write_text
from msa2net.locks import alone_in
from msa2net.metrics import (
    PUBLISHED,
    CaseRow,
    FailedDistance,
    Protocol,
    get_protocol,
    interval_facts,
    standard_protocol,
    summarise,
    summarise_groups,
    worst_of_classes,
    write_cases_csv,
)
from msa2net.metrics.protocol import RENAMED
from msa2net.parsing import first_mistake
from msa2net.text import all_printable

SCHEMA = 2  # 1 had no spread and intervals, hashes, worst cases; and it was always of a run
SEED = 0  # of the intervals' bootstrap
BOTH = "both"  # protocols: the standard one and the published one of this kind of image

Layout = TypeVar("Layout", bound=BaseModel)

_SCORES = ("protocols", "groups")  # the only parts that can hold infinite figures


class Hashes(TypedDict):
    """SHA-256 of what was scored, as hexadecimal digits; None for what there is not.

    Of a run: `predictions` and `labels` over case id, shape and label array of every case,
    `weights` the file's. Of folders: over the name and the file of every case. `split` is over
    the names of the cases.
    """

    predictions: str
    labels: str
    weights: str | None
    split: str


class About(TypedDict):
    """What a summary says besides its scores: where they come from."""

    source: Literal["run", "folders"]
    split: str | None
    model: dict[str, Any] | None
    data: dict[str, Any]
    versions: dict[str, str]
    selection: str | None
    flattering: bool
    note: str | None
    hashes: Hashes
    reference: dict[str, Any] | None


class LabelsHash:
    """A fingerprint of label arrays, taken case by case."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, case_id: str, labels: NDArray[np.uint8]) -> None:
        """Take in one case; the order of the cases matters."""
        self._hash.update(json.dumps([case_id, list(labels.shape)]).encode())
        self._hash.update(np.ascontiguousarray(labels, np.uint8).data)

    def hexdigest(self) -> str:
        """Return 64 hexadecimal digits."""
        return self._hash.hexdigest()


def hash_of_names(names: Iterable[str]) -> str:
    """Return the fingerprint of a set of names, such as a split's cases; order is nothing."""
    return hashlib.sha256(json.dumps(sorted(names)).encode()).hexdigest()


def hash_of_files(digests: Mapping[str, str]) -> str:
    """Return the fingerprint of files, by their names and SHA-256; order is nothing."""
    return hashlib.sha256(json.dumps(sorted(digests.items())).encode()).hexdigest()


def protocols_of(
    image_kind: str, failed_distance: FailedDistance, chosen: str = BOTH
) -> list[Protocol]:
    """Look up the protocols of an evaluation.

    Args:
        image_kind: photograph or volume.
        failed_distance: see `standard_protocol`.
        chosen: a protocol's name, or `both`.

    Raises:
        ConfigError: no such protocol or way to count a failure's distance.
    """
    names = ("standard", PUBLISHED[image_kind]) if chosen == BOTH else (chosen,)
    standard = standard_protocol(failed_distance)
    return [standard if name == standard.name else get_protocol(name) for name in names]


def build_summary(
    rows: list[CaseRow],
    label_names: Sequence[str],
    image_kind: str,
    protocols: Sequence[Protocol],
    failed_distance: FailedDistance,
    about: About,
) -> dict[str, Any]:
    """Make the content of summary.json; distances in it may be infinite, see `write_evaluation`.

    Raises:
        DataError: rows that do not belong together, see `summarise`.
    """
    return {
        "schema": SCHEMA,
        "source": about["source"],
        "split": about["split"],
        "cases": len({row["case"] for row in rows}),
        "label_names": list(label_names),
        "image_kind": image_kind,
        "model": about["model"],
        "data": about["data"],
        "versions": about["versions"],
        "hashes": about["hashes"],
        "selection": about["selection"],
        "flattering": about["flattering"],
        "note": about["note"],
        "failed_distance": failed_distance,
        "intervals": interval_facts(SEED),
        "protocols": {p.name: summarise(rows, label_names, p, seed=SEED) for p in protocols},
        "worst": worst_of_classes(rows, label_names),
        "groups": _groups(rows, label_names, protocols),
        "reference": about["reference"],
    }


def write_evaluation(
    folder: Path,
    summary: dict[str, Any],
    rows: list[CaseRow],
    examples: Mapping[str, bytes],
) -> None:
    """Write cases.csv, table.md, table.tex, examples/ and, when all else is there, summary.json.

    Args:
        folder: made if it is not there; an earlier evaluation in it is replaced file by file.
        summary: from `build_summary`. JSON knows no infinity: it is written as "Infinity".
        rows: for cases.csv.
        examples: name of the file → content, from `pack_example`.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    content = {**summary, **{part: _without_infinity(summary[part]) for part in _SCORES}}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    markdown, latex = markdown_table(summary), latex_table(summary)
    with alone_in(folder, wait=True):
        clean_temporaries(folder, "examples")
        # The old one is not of the tables that are beside it from now on.
        (folder / "summary.json").unlink(missing_ok=True)
        write_examples(folder / "examples", examples)
        write_cases_csv(folder / "cases.csv", rows)
        write_text(folder / "table.md", markdown)
        write_text(folder / "table.tex", latex)
        write_text(folder / "summary.json", text)


def read_summary(path: Path) -> dict[str, Any]:
    """Read a summary.json of any schema; "Infinity" is a number again, and keys are today's.

    Raises:
        DataError: missing, no JSON, or no summary.
    """
    content = _read_content(path)
    _check_layout(content, path, Summary)
    return {
        **content,
        **{part: _with_infinity(content[part]) for part in _SCORES if part in content},
    }


def read_layout(path: Path) -> Summary:
    """Read a summary.json as `read_summary` does, as a checked object.

    Raises:
        DataError: missing, no JSON, or no summary.
    """
    return _check_layout(all_printable(_read_content(path)), path, Summary)


def read_notes(path: Path) -> dict[str, Any]:
    """Read what of a summary.json must be known where its scores are compared with others.

    Raises:
        DataError: missing, no JSON, or no summary.
    """
    return _check_layout(all_printable(read_json(path)), path, Notes).model_dump()


def _read_content(path: Path) -> dict[str, Any]:
    content = read_json(path)
    schema = content.get("schema") if isinstance(content, dict) else None
    if not isinstance(schema, int) or schema not in range(1, SCHEMA + 1):
        raise DataError(
            f"{path} has schema {schema} and this version reads "
            f"{' and '.join(map(str, range(1, SCHEMA + 1)))}; evaluate again with the version that "
            "reads it"
        )
    return as_named_today(content)


def _check_layout(content: Any, path: Path, layout: type[Layout]) -> Layout:
    try:
        return layout.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path} is damaged: {first_mistake(error)}; evaluate again") from error


def as_named_today(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a summary.json with older names of metrics and rules replaced."""
    return {**content, **{part: _renamed(content[part]) for part in _SCORES if part in content}}


def _groups(
    rows: list[CaseRow], label_names: Sequence[str], protocols: Sequence[Protocol]
) -> dict[str, Any]:
    by_protocol = {p.name: summarise_groups(rows, label_names, p, seed=SEED) for p in protocols}
    cases_of = {row["case"]: row["group"] for row in rows}
    return {
        group: {
            "cases": sum(of_case == group for of_case in cases_of.values()),
            "protocols": {name: groups[group] for name, groups in by_protocol.items()},
        }
        for group in next(iter(by_protocol.values()))
    }


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {RENAMED.get(key, key): _renamed(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_renamed(own) for own in value]
    return RENAMED.get(value, value) if isinstance(value, str) else value


def _without_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinity(own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinity(own) for own in value]
    if isinstance(value, float) and math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _with_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_infinity(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_with_infinity(own) for own in value]
    return float(value) if value in ("Infinity", "-Infinity") else value
