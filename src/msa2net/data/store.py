"""The prepared data set: one pair of memory-mapped arrays a case, and `dataset.json`.

Layout:
    dataset.json             what is in it and where it came from
    cases/<id>.image.npy     (C, Z, H, W), the file's own units and type
    cases/<id>.label.npy     (Z, H, W) uint8
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Case, Geometry
from msa2net.data.splits import SPLITS
from msa2net.errors import DataError
from msa2net.files import read_json, write_json

INDEX = "dataset.json"
SCHEMA = 1


@dataclass(frozen=True)
class StoredCase:
    """One row of `dataset.json`.

    `files` remembers path, size, modification time and SHA-256 of every source file; `recipe` is
    what the stored arrays depend on besides the files.
    """

    id: str
    split: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, float, float] | None
    affine: list[list[float]] | None
    files: list[dict[str, Any]]
    recipe: str


@dataclass(frozen=True)
class Store:
    """A prepared data set on disk."""

    root: Path
    format: str
    kind: str
    label_names: tuple[str, ...]
    channels: int
    intensity: str
    low: float
    high: float
    cases: tuple[StoredCase, ...]
    encoding: str | None = None  # of abdominal labels, see `labels`

    @property
    def hash(self) -> str:
        """Return a fingerprint of the contents: ids, splits, source files, class names."""
        facts = [
            self.format,
            list(self.label_names),
            [
                [case.id, case.split, case.recipe, [f["sha256"] for f in case.files]]
                for case in self.cases
            ],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def ids(self, split: str) -> list[str]:
        """List the cases of a split.

        Raises:
            DataError: no such split, or nobody in it.
        """
        ids = [case.id for case in self.cases if case.split == split]
        if not ids:
            hint = (
                f"add cases to {split}, for example in splits/{split}.txt beside the raw data"
                if split in SPLITS
                else f"splits are {', '.join(SPLITS)}"
            )
            raise DataError(f"{self.root} has no case in split '{split}'; {hint}")
        return ids

    def case(self, case_id: str) -> Case:
        """Open one case; its arrays are memory-mapped and read-only."""
        row = next(case for case in self.cases if case.id == case_id)
        geometry = Geometry(row.spacing_mm, None if row.affine is None else np.array(row.affine))
        return Case(
            id=case_id,
            image=_open_array(image_path(self.root, case_id)),
            label=_open_array(label_path(self.root, case_id)),
            geometry=geometry,
            source=Path(row.files[0]["path"]) if row.files else None,
        )


def image_path(root: Path, case_id: str) -> Path:
    """Return where a case's image is stored."""
    return root / "cases" / f"{case_id}.image.npy"


def label_path(root: Path, case_id: str) -> Path:
    """Return where a case's label is stored."""
    return root / "cases" / f"{case_id}.label.npy"


def open_store(root: Path, *, complete: bool = True) -> Store:
    """Open a prepared data set.

    Args:
        root: folder with `dataset.json`.
        complete: refuse one whose preparation was interrupted.

    Raises:
        DataError: not one, damaged, unfinished, or of another version.
    """
    path = root / INDEX
    content = read_json(path)
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise DataError(
            f"{path} has schema {schema}, this version reads {SCHEMA}; prepare the data again"
        )
    if complete and not content.get("complete"):
        raise DataError(
            f"the preparation of {root} was interrupted or met files it could not use; "
            "prepare the data again"
        )
    try:
        del content["schema"], content["hash"], content["complete"]
        cases = tuple(_stored_case(row) for row in content.pop("cases"))
        label_names = tuple(content.pop("label_names"))
        return Store(root=root, label_names=label_names, cases=cases, **content)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); prepare the data again") from error


def write_index(store: Store, *, complete: bool) -> None:
    """Write `dataset.json`, unless it says the same already (the folder may be read-only)."""
    content = {"schema": SCHEMA, "complete": complete, "hash": store.hash} | asdict(store)
    del content["root"]
    path = store.root / INDEX
    as_read_back = json.loads(json.dumps(content))
    if not path.is_file() or read_json(path) != as_read_back:
        write_json(path, content)


def _stored_case(row: dict[str, Any]) -> StoredCase:
    spacing = row["spacing_mm"]
    return StoredCase(
        **row
        | {"shape": tuple(row["shape"]), "spacing_mm": None if spacing is None else tuple(spacing)}
    )


def _open_array(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is missing or damaged ({error}); delete it and prepare the data again"
        ) from error
