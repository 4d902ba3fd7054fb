"""The summary of a run or of two folders: built, written with its tables, and read again."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from msa2net.errors import ConfigError, DataError, WeightsError
from msa2net.evaluation.examples import write_examples
from msa2net.evaluation.schema import GroupScores, Origin, Summary
from msa2net.evaluation.tables.console import markdown_table
from msa2net.evaluation.tables.latex import latex_table
from msa2net.files import MODEL_FILE, clean_temporaries, read_json, write_text
from msa2net.locks import alone_in
from msa2net.metrics.protocol import (
    PUBLISHED,
    RENAMED,
    CaseRow,
    FailedDistance,
    Protocol,
    get_protocol,
    standard_protocol,
)
from msa2net.metrics.summary import (
    interval_method,
    summarise,
    summarise_groups,
    worst_of_classes,
    write_cases_csv,
)
from msa2net.parsing import first_mistake
from msa2net.renamed import current_keys
from msa2net.text import all_printable

# 1 had no spread and intervals, hashes, worst cases, and it was always of a run; in 2 keys were
# left out where there was nothing to say.
SCHEMA = 3
EARLIER_WEIGHTS = (
    "These scores are of earlier weights of this run, which was trained further since; evaluate it "
    "again."
)
SEED = 0  # of the intervals' bootstrap
BOTH = "both"  # protocols: the standard one and the published one of this kind of image


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
    rows: Sequence[CaseRow],
    label_names: Sequence[str],
    image_kind: str,
    protocols: Sequence[Protocol],
    failed_distance: FailedDistance,
    origin: Origin,
) -> Summary:
    """Sum up an evaluation's rows under every protocol.

    Raises:
        DataError: rows that do not belong together, see `summarise`.
    """
    return Summary(
        **dict(origin),
        cases=len({row["case"] for row in rows}),
        label_names=tuple(label_names),
        image_kind=image_kind,
        failed_distance=failed_distance,
        intervals=interval_method(SEED),
        protocols={p.name: summarise(rows, label_names, p, seed=SEED) for p in protocols},
        worst={label: tuple(own) for label, own in worst_of_classes(rows, label_names).items()},
        groups=_groups(rows, label_names, protocols),
    ).with_rows(rows)


def write_evaluation(folder: Path, summary: Summary, examples: Mapping[str, bytes]) -> None:
    """Write cases.csv, table.md, table.tex, examples/ and, when all else is there, summary.json.

    Args:
        folder: made if it is not there; an earlier evaluation in it is replaced file by file.
        summary: from `build_summary`. JSON knows no infinity: it is written as "Infinity".
        examples: name of the file → content, from `pack_example`.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    content = {"schema": SCHEMA, **json.loads(summary.model_dump_json())}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    markdown, latex = markdown_table(summary), latex_table(summary)
    with alone_in(folder, wait=True):
        clean_temporaries(folder, "examples")
        # The old one is not of the tables that are beside it from now on.
        (folder / "summary.json").unlink(missing_ok=True)
        write_examples(folder / "examples", examples)
        write_cases_csv(folder / "cases.csv", summary.rows)
        write_text(folder / "table.md", markdown)
        write_text(folder / "table.tex", latex)
        write_text(folder / "summary.json", text)


def read_summary(path: Path) -> Summary:
    """Read a summary.json of any schema, with its names as they are today and printable.

    One in a run folder is compared with the run's weights: `selection` says if they are others by
    now, since the run was trained further.

    Raises:
        DataError: missing, no JSON, or no summary.
    """
    content = read_json(path)
    schema = content.get("schema") if isinstance(content, dict) else None
    if not isinstance(schema, int) or schema not in range(1, SCHEMA + 1):
        raise DataError(
            f"{path} has schema {schema} and this version reads 1 to {SCHEMA}; evaluate again with "
            "the version that reads it"
        )
    try:
        summary = Summary.model_validate(
            _renamed(current_keys("summary.json", all_printable(content)))
        )
    except (ConfigError, ValidationError) as error:
        mistake = first_mistake(error) if isinstance(error, ValidationError) else error
        raise DataError(f"{path} is damaged: {mistake}; evaluate again") from error
    if _is_of_earlier_weights(summary, path.parent.parent):
        return summary.model_copy(update={"flattering": True, "selection": EARLIER_WEIGHTS})
    return summary


def _is_of_earlier_weights(summary: Summary, run: Path) -> bool:
    if summary.model is None or not (run / MODEL_FILE).is_file():
        return False
    from msa2net.inference.run_folder import read_facts

    try:
        weights = read_facts(run).weights_sha256
    except WeightsError:  # whoever applies the network hears of that
        return False
    return bool(weights) and summary.model.weights_sha256 not in weights


def _groups(
    rows: Sequence[CaseRow], label_names: Sequence[str], protocols: Sequence[Protocol]
) -> dict[str, GroupScores]:
    by_protocol = {p.name: summarise_groups(rows, label_names, p, seed=SEED) for p in protocols}
    cases_of = {row["case"]: row["group"] for row in rows}
    return {
        group: GroupScores(
            cases=sum(of_case == group for of_case in cases_of.values()),
            protocols={name: groups[group] for name, groups in by_protocol.items()},
        )
        for group in next(iter(by_protocol.values()))
    }


def _renamed(value: Any) -> Any:
    """Return parsed JSON with older names of metrics and rules replaced."""
    if isinstance(value, dict):
        return {RENAMED.get(key, key): _renamed(own) for key, own in value.items()}
    if isinstance(value, list):
        return [_renamed(own) for own in value]
    return RENAMED.get(value, value) if isinstance(value, str) else value
