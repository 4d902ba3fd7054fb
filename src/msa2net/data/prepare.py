"""Making a prepared data set from raw files."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from msa2net.config import DataConfig
from msa2net.data.case import Case
from msa2net.data.formats import open_source
from msa2net.data.formats.source import Source, SourceCase
from msa2net.data.preprocessing import nearest_index
from msa2net.data.store import (
    INDEX,
    Store,
    StoredCase,
    image_path,
    label_path,
    open_store,
    write_index,
)
from msa2net.errors import DataError
from msa2net.files import atomic_path, sha256

Progress = Callable[[Iterable[SourceCase], int], Iterable[SourceCase]]

MAX_NAMED_FAILURES = 3


def prepare(data: DataConfig, progress: Progress | None = None) -> Store:
    """Bring a raw data set into the store at `data.prepared`; only what changed is done again.

    Without `data.root`, a data set that was prepared before is used as it is.

    Args:
        data: format, source folder, target folder.
        progress: wraps the cases and their number, to show a bar.

    Raises:
        DataError: files that cannot be used; all are tried, what could be stored is kept, and
            the store stays marked as unfinished.
    """
    if data.root is None and (data.prepared / INDEX).is_file():
        return _as_prepared(data)
    source = open_source(data)
    if not source.cases:
        raise DataError(f"{data.root} holds no case; are all split lists empty?")
    before = _stored_before(data, source)
    rows = dict(before)
    failures: list[str] = []
    finished = False
    cases = source.cases if progress is None else progress(source.cases, len(source.cases))
    recipe = _recipe(data, source)
    try:
        for case in cases:
            known = before.get(case.id)
            try:
                if known is not None and _unchanged(data.prepared, known, case, recipe):
                    rows[case.id] = replace(known, split=case.split)
                else:
                    rows.pop(case.id, None)  # its arrays are about to change
                    rows[case.id] = _store_case(data, source, case, recipe)
            except DataError as error:
                failures.append(str(error))
        finished = not failures
    finally:
        wanted = [rows[case.id] for case in source.cases if case.id in rows]
        if wanted:
            store = _describe(data, source, wanted)
            write_index(store, complete=finished)
    if failures:
        raise DataError(_failure_sentence(failures, len(source.cases)))
    return store


def _describe(data: DataConfig, source: Source, rows: list[StoredCase]) -> Store:
    return Store(
        root=data.prepared,
        format=data.format,
        kind=source.kind,
        label_names=source.label_names,
        channels=max(row.shape[0] for row in rows),
        intensity=source.intensity,
        low=source.low,
        high=source.high,
        cases=tuple(rows),
        encoding=source.encoding,
    )


def _failure_sentence(failures: list[str], total: int) -> str:
    if len(failures) == 1:
        return failures[0]
    named = "; ".join(failures[:MAX_NAMED_FAILURES])
    more = len(failures) - MAX_NAMED_FAILURES
    rest = f"; and {more} more" if more > 0 else ""
    return f"{len(failures)} of {total} cases cannot be used: {named}{rest}"


def _stored_before(data: DataConfig, source: Source) -> dict[str, StoredCase]:
    if not (data.prepared / INDEX).is_file():
        return {}
    before = {
        case.id: case for case in _of_format(open_store(data.prepared, complete=False), data).cases
    }
    if before and not before.keys() & {case.id for case in source.cases}:
        raise DataError(
            f"{data.prepared} holds another data set (none of its cases is in {data.root}); name "
            "another folder as data.prepared"
        )
    return before


def _as_prepared(data: DataConfig) -> Store:
    """Open what was prepared earlier, if it is what the settings ask for."""
    store = _of_format(open_store(data.prepared), data)
    if data.labels not in (None, store.encoding):
        raise DataError(
            f"{store.root} was prepared with the label encoding '{store.encoding}', not "
            f"'{data.labels}'; name the raw data as data.root to prepare them anew"
        )
    return store


def _of_format(store: Store, data: DataConfig) -> Store:
    if store.format != data.format:
        raise DataError(
            f"{store.root} was prepared from the format '{store.format}', not '{data.format}'; "
            "name another folder as data.prepared"
        )
    return store


def _unchanged(root: Path, known: StoredCase, case: SourceCase, recipe: str) -> bool:
    stamps = [(path.name, *_stamp(path)) for path in case.files]
    stored = [(Path(f["path"]).name, f["bytes"], f["mtime_ns"]) for f in known.files]
    present = image_path(root, case.id).is_file() and label_path(root, case.id).is_file()
    return present and known.recipe == recipe and stamps == stored


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _recipe(data: DataConfig, source: Source) -> str:
    """Name what the stored arrays depend on besides the source files."""
    if data.format == "phantom":
        return f"shape={'x'.join(str(side) for side in data.phantom_shape)}"
    classes = f"classes={len(source.label_names)}"
    if source.kind == "photograph":
        return f"max_side={data.max_side} {classes}"
    return classes if source.encoding is None else f"{classes} encoding={source.encoding}"


def _store_case(
    data: DataConfig, source: Source, source_case: SourceCase, recipe: str
) -> StoredCase:
    case = source_case.read()
    _check_depth(case, source)
    if source.kind == "photograph":
        case = reduce_photograph(case, data.max_side)
    assert case.label is not None
    for path, array in (
        (image_path(data.prepared, case.id), case.image),
        (label_path(data.prepared, case.id), case.label),
    ):
        with atomic_path(path) as temporary:
            np.save(temporary, array, allow_pickle=False)
    affine = case.geometry.affine
    files = [
        {
            "path": str(path.resolve()),
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


def _check_depth(case: Case, source: Source) -> None:
    """Refuse a 16-bit picture in a data set scaled by 0–255: it would come out white."""
    fits = case.image.dtype == np.uint8
    if source.kind == "photograph" and source.intensity == "fixed" and not fits:
        raise DataError(
            f"{case.source} holds {case.image.dtype} values and the data set's first picture is "
            "8-bit; bring all pictures to the same depth"
        )


def reduce_photograph(case: Case, max_side: int) -> Case:
    """Shrink a picture whose longer side is above `max_side`, and its label with it."""
    _, _, height, width = case.image.shape
    factor = max_side / max(height, width)
    if factor >= 1:
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
