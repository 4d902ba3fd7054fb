"""The prepared data set: one pair of memory-mapped arrays a case, and `dataset.json`.

Layout:
    dataset.json             what is in it and where it came from
    cases/<id>.image.npy     (C, Z, H, W), the file's own units and type
    cases/<id>.label.npy     (Z, H, W) uint8
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from msa2net.config import DataConfig
from msa2net.data.case import Case, Geometry, Segmentation
from msa2net.data.io.validation import format_shape
from msa2net.data.labels import IGNORE, doubt_of_255
from msa2net.data.prepared.intensity_statistics import ChannelStatistics
from msa2net.data.prepared.schema import StoreIndex, with_geometry
from msa2net.data.prepared.splits import SPLITS, resplit
from msa2net.errors import DataError, is_out_of_memory
from msa2net.files import read_json, write_json
from msa2net.parsing import first_mistake
from msa2net.text import listed

INDEX, CASES = "dataset.json", "cases"
TOOK_255 = f" {IGNORE}=1"
"""In a recipe: masks of two classes held no 1, so 255 is the second class."""

FAILURES, _MAX_FAILURES = "failures", 100
"""In an index: case id → why the case could not be prepared."""

ORIENTATION = "exif_orientation"
"""In what is said of a file: how the camera turned a picture, if it did."""

SCHEMA = 2  # 1 had neither patients, groups, statistics nor the files' own layouts


@dataclass(frozen=True)
class StoredCase:
    """One row of `dataset.json`.

    Attributes:
        id: unique in the data set.
        patient: whose image it is; cases of one patient never part. "" if it was not recorded.
        group: what its scores are also averaged by, such as a phase of the heart; "" if nothing.
        split: train, val or test.
        shape: (C, Z, H, W) of the stored image.
        geometry: what `Geometry.to_json` gives: the way back into the source file's grid.
        intensity: one description a channel.
        voxels: label value → number of voxels, values as text as JSON has it.
        files: path, size, modification time and SHA-256 of every source file, and `ORIENTATION`.
        recipe: what the stored arrays depend on besides the files.
    """

    id: str
    split: str
    shape: tuple[int, ...]
    geometry: dict[str, Any]
    files: list[dict[str, Any]]
    recipe: str
    patient: str
    group: str = ""
    intensity: tuple[ChannelStatistics, ...] = ()
    voxels: dict[str, int] = field(default_factory=dict)

    @property
    def turned_alone(self) -> int:
        """Return the EXIF orientation of the image where its mask has none such; else 1."""
        image, *masks = (int(file.get(ORIENTATION, 1)) for file in self.files or [{}])
        return 1 if image in masks else image

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Distance between voxel centres along (Z, H, W); None if unknown."""
        return Geometry.from_json(self.geometry).spacing_mm


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
            hint = f"splits are {', '.join(SPLITS)}"
            if split in SPLITS:
                hint = (
                    f"of its {len(self.cases)} cases, name some in splits/{split}.txt beside the "
                    "raw data; fewer than 3 patients cannot be split at all"
                )
            raise DataError(f"{self.root} has no case in split '{split}'; {hint}")
        return ids

    def row(self, case_id: str) -> StoredCase:
        """Return what `dataset.json` says of a case.

        Raises:
            DataError: there is no such case.
        """
        for case in self.cases:
            if case.id == case_id:
                return case
        raise DataError(f"{self.root} has no case '{case_id}'")

    def case(self, case_id: str, *, strict: bool = True) -> Case:
        """Open one case; its arrays are memory-mapped and read-only.

        Args:
            case_id: which.
            strict: refuse labels that are no class.

        Raises:
            DataError: there is no such case, or its arrays are missing or damaged.
        """
        row = self.row(case_id)
        try:
            image_CZHW, label_ZHW = _open_arrays(self.root, row)
        except DataError as error:
            raise DataError(f"{error}; prepare the data again") from error
        if strict:
            self._check_labels(case_id, label_ZHW)
        return Case(
            id=case_id,
            image=image_CZHW,
            label=label_ZHW,
            geometry=Geometry.from_json(row.geometry),
            source=Path(row.files[0]["path"]) if row.files else None,
        )

    def _check_labels(self, case_id: str, label_ZHW: NDArray[np.uint8]) -> None:
        if label_ZHW.max() < (classes := len(self.label_names)):
            return
        strange = [v for v in np.unique(label_ZHW).tolist() if v >= classes and v != IGNORE]
        if strange:
            raise DataError(
                f"{label_path(self.root, case_id)} holds {listed(strange)}, and the classes are "
                f"counted 0 to {classes - 1}; delete it and prepare the data again"
            )

    def ground_truth(self, case_id: str) -> Segmentation:
        """Open a case's label; saved, it lies in the source file's own grid again."""
        case = self.case(case_id)
        assert case.label is not None
        return Segmentation(case_id, case.label, self.label_names, case.geometry)


def stored_faults(root: Path, rows: Iterable[StoredCase]) -> list[str]:
    """Say which stored arrays are missing, cut short, or not those that `dataset.json` describes.

    Headers and sizes are read, voxels are not.
    """
    faults = []
    for row in rows:
        try:
            _open_arrays(root, row)
        except DataError as error:
            faults.append(str(error))
    return faults


def only_ignored(rows: Iterable[StoredCase]) -> bool:
    """Return whether 255 is all that the labels hold besides background."""
    values = {value for row in rows for value in row.voxels}
    return str(IGNORE) in values and values <= {"0", str(IGNORE)}


def took_255_as_foreground(rows: Iterable[StoredCase]) -> bool:
    """Return whether 255 was taken for the second of two classes."""
    return any(row.recipe.endswith(TOOK_255) for row in rows)


def stored_doubt_of_255(store: Store) -> tuple[str, bool]:
    """Return `doubt_of_255` of labels of two classes whose data set does not declare 255."""
    held = {
        row.files[-1]["path"] if row.files else row.id: {int(value) for value in row.voxels}
        for row in store.cases
    }
    if len(store.label_names) != 2 or took_255_as_foreground(store.cases):
        return "", False
    return doubt_of_255(held, store.label_names[1])


def image_path(root: Path, case_id: str) -> Path:
    """Return where a case's image is stored."""
    return root / CASES / f"{case_id}.image.npy"


def label_path(root: Path, case_id: str) -> Path:
    """Return where a case's label is stored."""
    return root / CASES / f"{case_id}.label.npy"


def open_store(root: Path, *, complete: bool = True) -> Store:
    """Open a prepared data set.

    Args:
        root: folder with `dataset.json`.
        complete: refuse one whose preparation was interrupted.

    Raises:
        DataError: not one, damaged, unfinished, or of another version.
    """
    path = root / INDEX
    try:
        content = read_json(path) if path.is_file() else None
    except DataError as error:
        raise DataError(f"{error}, and prepare the data again") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; msa2net prepare makes prepared data")
    if not isinstance(content, dict) or schema is None:
        raise DataError(
            f"{root} is not prepared data (nnU-Net's dataset.json is another); make some of it "
            f"with msa2net prepare FORMAT {root} OUT"
        )
    if schema not in range(1, SCHEMA + 1):
        raise DataError(
            f"{path} has schema {schema}, this version reads 1 to {SCHEMA}; install a newer "
            "msa2net, or delete it and prepare the data again"
        )
    if complete and not content.get("complete"):
        why = f": msa2net check {root} names them" if content.get(FAILURES) else ", or still runs"
        raise DataError(
            f"the preparation of {root} was interrupted, met files it could not use{why}; prepare "
            "the data again"
        )
    for name in ("schema", "hash", "complete", FAILURES):
        content.pop(name, None)
    try:
        if isinstance(rows := content.get("cases"), list):
            content["cases"] = [with_geometry(row) for row in rows]
        index = StoreIndex.model_validate(content)
    except (AttributeError, KeyError, TypeError) as error:  # of what is no row at all
        raise DataError(f"{path} is damaged; delete it and prepare the data again") from error
    except ValidationError as error:
        raise DataError(
            f"{path} is damaged: {first_mistake(error)}; delete it and prepare the data again"
        ) from error
    cases = tuple(
        StoredCase(**dict(row) | {"files": [f.model_dump(exclude_unset=True) for f in row.files]})
        for row in index.cases
    )
    return Store(root=root, **dict(index) | {"cases": cases})


def read_failures(root: Path) -> dict[str, str] | None:
    """Return what `write_index` kept of the cases that failed; None if the data are complete.

    Raises:
        DataError: the index cannot be read.
    """
    content = read_json(root / INDEX)
    if content.get("complete"):
        return None
    failures = content.get(FAILURES)
    return {str(k): str(v) for k, v in failures.items()} if isinstance(failures, dict) else {}


def with_splits(store: Store, data: DataConfig) -> Store:
    """Return the data set split as the settings ask for, see `resplit`; nothing on disk changes.

    Raises:
        DataError: the settings cannot be met.
    """
    splits = resplit(
        {case.id: case.split for case in store.cases},
        {case.id: case.patient for case in store.cases},
        data,
    )
    cases = tuple(replace(case, split=splits[case.id]) for case in store.cases)
    return replace(store, cases=cases)


def write_index(
    store: Store, *, complete: bool, failures: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write `dataset.json`, unless it says the same already (the folder may be read-only).

    Args:
        store: what it says.
        complete: whether all cases are in it.
        failures: case id → why the case could not be prepared; the first hundred are kept.
    """
    content = {"schema": SCHEMA, "complete": complete, "hash": store.hash} | asdict(store)
    del content["root"]
    if failures:
        content[FAILURES] = dict(islice(failures.items(), _MAX_FAILURES))
    path = store.root / INDEX
    as_read_back = json.loads(json.dumps(content))
    if not path.is_file() or read_json(path) != as_read_back:
        write_json(path, content)


def _open_arrays(root: Path, row: StoredCase) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Map a case's image (C, Z, H, W) and label (Z, H, W) into memory.

    Raises:
        DataError: one is missing, or another.
    """
    image_CZHW = open_array(image_path(root, row.id), row.shape, "iuf")
    return image_CZHW, open_array(label_path(root, row.id), row.shape[1:], "u")


def open_array(path: Path, shape: tuple[int, ...], kinds: str) -> NDArray[Any]:
    """Map an array of a shape, whose numbers are of one of these kinds (see `numpy.dtype.kind`).

    Raises:
        DataError: it is another, or none.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except Exception as error:  # NumPy parses how a file begins as Python, which fails in many ways
        if is_out_of_memory(error) and not isinstance(error, MemoryError):
            raise  # a map takes no memory, but a parser that is driven too deep says so
        reason = " ".join(str(error).split()) or "damaged"
    else:
        size = 1 if kinds == "u" else array.itemsize
        if array.shape == shape and array.dtype.kind in kinds and array.itemsize == size:
            return array
        reason = (
            f"it is {array.dtype} of {format_shape(array.shape)}, {format_shape(shape)} is expected"
        )
    raise DataError(f"{path} is damaged ({reason})")
