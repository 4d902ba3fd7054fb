"""The prepared data set: one pair of memory-mapped arrays a case, and `dataset.json`.

Layout:
    dataset.json             what is in it and where it came from
    cases/<id>.image.npy     (C, Z, H, W), the file's own units and type
    cases/<id>.label.npy     (Z, H, W) uint8
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from msa2net.config import DataConfig
from msa2net.data.case import Case, Geometry
from msa2net.data.formats import open_source
from msa2net.data.formats.source import Source, SourceCase
from msa2net.data.preprocessing import nearest_index
from msa2net.data.splits import SPLITS
from msa2net.errors import DataError
from msa2net.files import atomic_path, read_json, sha256, write_json

SCHEMA = 1

Progress = Callable[[Iterable[SourceCase], int], Iterable[SourceCase]]


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
            raise DataError(
                f"{self.root} has no case in split '{split}'; splits are {', '.join(SPLITS)}"
            )
        return ids

    def case(self, case_id: str) -> Case:
        """Open one case; its arrays are memory-mapped and read-only."""
        row = next(case for case in self.cases if case.id == case_id)
        geometry = Geometry(row.spacing_mm, None if row.affine is None else np.array(row.affine))
        return Case(
            id=case_id,
            image=_open_array(self.root / "cases" / f"{case_id}.image.npy"),
            label=_open_array(self.root / "cases" / f"{case_id}.label.npy"),
            geometry=geometry,
            source=Path(row.files[0]["path"]) if row.files else None,
        )


def open_store(root: Path) -> Store:
    """Open a prepared data set.

    Raises:
        DataError: not one, or written by a newer version.
    """
    path = root / "dataset.json"
    content = read_json(path)
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise DataError(
            f"{path} has schema {schema}, this version reads {SCHEMA}; prepare the data again"
        )
    del content["schema"], content["hash"]
    cases = tuple(_stored_case(row) for row in content.pop("cases"))
    label_names = tuple(content.pop("label_names"))
    return Store(root=root, label_names=label_names, cases=cases, **content)


def _stored_case(row: dict[str, Any]) -> StoredCase:
    spacing = row["spacing_mm"]
    return StoredCase(
        **row
        | {"shape": tuple(row["shape"]), "spacing_mm": None if spacing is None else tuple(spacing)}
    )


def prepare(data: DataConfig, progress: Progress | None = None) -> Store:
    """Bring a raw data set into the store at `data.prepared`; only what changed is done again.

    Args:
        data: format, source folder, target folder.
        progress: wraps the cases and their number, to show a bar.

    Raises:
        DataError: a file that cannot be used; the store is left as it was before that case.
    """
    source = open_source(data)
    before = _stored_before(data.prepared)
    rows: list[StoredCase] = []
    cases = source.cases if progress is None else progress(source.cases, len(source.cases))
    for case in cases:
        known = before.get(case.id)
        recipe = _recipe(data, source)
        if known is not None and _unchanged(known, case, recipe):
            rows.append(replace(known, split=case.split))
        else:
            rows.append(_store_case(data, case, recipe))
    store = Store(
        root=data.prepared,
        format=data.format,
        kind=source.kind,
        label_names=source.label_names,
        channels=max(row.shape[0] for row in rows),
        intensity=source.intensity,
        low=source.low,
        high=source.high,
        cases=tuple(rows),
    )
    content = asdict(store)
    del content["root"]
    write_json(data.prepared / "dataset.json", {"schema": SCHEMA, "hash": store.hash} | content)
    return store


def _recipe(data: DataConfig, source: Source) -> str:
    """Name what the stored arrays depend on besides the source files."""
    if source.kind == "photograph":
        return f"max_side={data.max_side} classes={len(source.label_names)}"
    return f"shape={'x'.join(str(side) for side in data.phantom_shape)}"


def _stored_before(root: Path) -> dict[str, StoredCase]:
    if not (root / "dataset.json").is_file():
        return {}
    return {case.id: case for case in open_store(root).cases}


def _unchanged(known: StoredCase, case: SourceCase, recipe: str) -> bool:
    stamps = [(str(path), *_stamp(path)) for path in case.files]
    stored = [(entry["path"], entry["bytes"], entry["mtime_ns"]) for entry in known.files]
    return known.recipe == recipe and stamps == stored


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _store_case(data: DataConfig, source_case: SourceCase, recipe: str) -> StoredCase:
    case = reduce_photograph(source_case.read(), data.max_side)
    assert case.label is not None
    folder = data.prepared / "cases"
    for name, array in (("image", case.image), ("label", case.label)):
        with atomic_path(folder / f"{case.id}.{name}.npy") as temporary:
            np.save(temporary, array, allow_pickle=False)
    affine = case.geometry.affine
    files = [
        {
            "path": str(path),
            **dict(zip(("bytes", "mtime_ns"), _stamp(path), strict=True)),
            "sha256": sha256(path),
        }
        for path in source_case.files
    ]
    return StoredCase(
        id=case.id,
        split=source_case.split,
        shape=case.image.shape,
        spacing_mm=case.geometry.spacing_mm,
        affine=None if affine is None else affine.tolist(),
        files=files,
        recipe=recipe,
    )


def reduce_photograph(case: Case, max_side: int) -> Case:
    """Shrink a picture whose longer side is above `max_side`; volumes are left alone."""
    _, depth, height, width = case.image.shape
    factor = max_side / max(height, width)
    if depth > 1 or factor >= 1:
        return case
    size = max(1, round(height * factor)), max(1, round(width * factor))
    image_CHW = np.stack([_reduce(channel, size) for channel in case.image[:, 0]])
    label = case.label
    if label is not None:
        label = label[:, nearest_index(height, size[0])][:, :, nearest_index(width, size[1])]
    return replace(case, image=image_CHW[:, None], label=label)


def _reduce(channel_HW: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    picture = Image.fromarray(channel_HW)
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BOX, reducing_gap=None))


def _open_array(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is missing or damaged ({error}); delete it and prepare the data again"
        ) from error
