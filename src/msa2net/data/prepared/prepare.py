"""Making a prepared data set from raw files."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from msa2net.config import DataConfig
from msa2net.data.case import Case
from msa2net.data.formats.registry import open_source
from msa2net.data.formats.source import Source, SourceCase
from msa2net.data.io.readers import exif_orientation
from msa2net.data.prepared.intensity_statistics import count_labels, describe_channels
from msa2net.data.prepared.slice_files import clean_slices
from msa2net.data.prepared.store import (
    CASES,
    INDEX,
    ORIENTATION,
    TOOK_255,
    Store,
    StoredCase,
    image_path,
    label_path,
    only_ignored,
    open_store,
    stored_doubt_of_255,
    stored_faults,
    with_splits,
    write_index,
)
from msa2net.data.prepared.training_warnings import warn_before_training
from msa2net.data.preprocessing import foreign_values
from msa2net.data.resampling import reduce_image
from msa2net.errors import MORE_MEMORY, ConfigError, DataError, Msa2NetError, memory_guard
from msa2net.files import (
    atomic_path,
    clean_temporaries,
    contents,
    remove,
    sha256,
    usable_cores,
)
from msa2net.locks import alone_in
from msa2net.text import listed

Progress = Callable[[Iterable[SourceCase], int], Iterable[SourceCase]]

MAX_NAMED_FAILURES = 3
WRITE_INDEX_EVERY_S = 10.0

_log = logging.getLogger(__name__)


def prepare(
    data: DataConfig, progress: Progress | None = None, workers: int | None = None
) -> Store:
    """Bring a raw data set into the store at `data.prepared`; only what changed is done again.

    Without `data.root`, a data set that was prepared before is used as it is. Cases are read and
    written side by side; of two processes with the same target, one waits for the other.

    Args:
        data: format, source folder, target folder, how to split.
        progress: wraps the cases and their number, to show a bar.
        workers: cases in work at the same time, each of which needs memory for its arrays; by
            default one a processor core, at most 8.

    Raises:
        ConfigError: `data.prepared` holds something else.
        DataError: files that cannot be used; all are tried, what could be stored is kept, and
            the store stays marked as unfinished.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; it must be 1 or more")
    drawn = data.format == "phantom"  # has no raw files, and is finished or changed all the same
    if data.root is None and not drawn and (data.prepared / INDEX).is_file():
        store = open_prepared(data)
        if faults := stored_faults(store.root, store.cases):
            raise DataError(f"{listed(faults, 3, between='; ')}; prepare the data again")
        warn_before_training(store, undeclared_255=data.format == "images")
        return store
    if data.root is not None and data.root.resolve() == data.prepared.resolve():
        raise ConfigError(f"{data.root} holds the raw data; name another folder to prepare into")
    source = open_source(data)
    if not source.cases:
        raise DataError(f"{data.root} holds no case; are all split lists empty?")
    _refuse_foreign(data.prepared)
    with _alone(data.prepared), _Work(data, source, workers) as work:
        shown = source.cases if progress is None else progress(source.cases, len(source.cases))
        for case in shown:
            work.collect(case)
        work.finish()
    if work.failures:
        raise DataError(_failure_sentence([*work.failures.values()], len(source.cases)))
    warn_before_training(work.store(), undeclared_255=source.meaning_255 is not None)
    return with_splits(work.store(), data)


def _refuse_foreign(folder: Path) -> None:
    """Raise for a folder that holds something and no prepared data: it would be written beside."""
    foreign = sorted(set(contents(folder)) - {INDEX, CASES, "slices", ".lock"})
    if foreign and not (folder / INDEX).is_file():
        raise ConfigError(
            f"{folder} holds {listed(foreign)} and no prepared data; name a new or an empty folder "
            "to prepare into"
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from preparing into the same folder; they wait their turn.

    What killed processes left is removed. A folder that cannot be written needs no lock: nothing
    in it can be damaged.
    """
    with ExitStack() as stack:
        with suppress(DataError):  # whatever has to be written will say that it cannot be
            stack.enter_context(alone_in(folder, wait=True))
            clean_temporaries(folder, CASES)
            remove(folder / ".lock")  # of earlier versions
        yield


class _Work:
    """The cases in work, and the index as it grows; leaving it writes the index.

    Threads do it: unpacking, decoding, hashing and writing all leave the interpreter to others.
    At any moment the index on disk only names cases whose arrays are whole and as it says: those
    that are about to change leave it first.

    Attributes:
        failures: case id → why the case could not be used.
    """

    def __init__(self, data: DataConfig, source: Source, workers: int | None) -> None:
        self.data, self.source = data, source
        self.failures: dict[str, str] = {}
        self._workers = min(8, usable_cores()) if workers is None else workers

    def __enter__(self) -> "_Work":
        before = _stored_before(self.data, self.source)
        recipe = _recipe(self.data, self.source, before)
        self._rows = {
            case.id: _refreshed(before[case.id], case)
            for case in self.source.cases
            if case.id in before and _unchanged(self.data.prepared, before[case.id], case, recipe)
        }
        again = [
            before[one.id] for one in self.source.cases if one.id in before.keys() - self._rows
        ]
        if faults := stored_faults(self.data.prepared, again):
            _log.warning("made again from the raw data: %s", listed(faults, 3, between="; "))
        if len(self._rows) < len(self.source.cases):
            self._write(complete=False)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="prepare")
        self._jobs = {
            case.id: self._pool.submit(_store_case, self.data, self.source, case, recipe)
            for case in self.source.cases
            if case.id not in self._rows
        }
        self._write_next = time.monotonic() + WRITE_INDEX_EVERY_S
        return self

    def collect(self, case: SourceCase) -> None:
        """Wait for a case; from time to time, note down what is done in case we are killed."""
        if case.id not in self._jobs:
            return
        remedy = f"lower --workers (workers in Python), or {MORE_MEMORY}"
        try:
            with memory_guard(f"preparing case {case.id}", remedy):
                self._rows[case.id] = self._jobs[case.id].result()
        except Msa2NetError as error:
            self.failures[case.id] = str(error)
        del self._jobs[case.id]
        if time.monotonic() > self._write_next:
            self._write(complete=False)
            self._write_next = time.monotonic() + WRITE_INDEX_EVERY_S

    def finish(self) -> None:
        """When all is stored, look for a stray 1 and remove slices that no case has any more."""
        if len(self._rows) < len(self.source.cases):
            return
        doubt, refused = stored_doubt_of_255(self.store())
        if refused and self.source.meaning_255 is not None:
            stray = next(row.id for row in self._rows.values() if "1" in row.voxels)
            self.failures[stray] = doubt
        with suppress(OSError):  # a folder that cannot be written
            clean_slices(self.store())

    def store(self) -> Store:
        """Return the index of what is stored so far."""
        return _describe(
            self.data,
            self.source,
            [self._rows[case.id] for case in self.source.cases if case.id in self._rows],
        )

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for case_id, job in self._jobs.items():  # interrupted: keep what was done by then
            if job.done() and not job.cancelled() and job.exception() is None:
                self._rows[case_id] = job.result()
        self._write(complete=not self.failures and len(self._rows) == len(self.source.cases))

    def _write(self, *, complete: bool) -> None:
        store = self.store()
        if store.cases or self.failures:
            write_index(store, complete=complete, failures=self.failures)
        else:
            (store.root / INDEX).unlink(missing_ok=True)


def _refreshed(row: StoredCase, case: SourceCase) -> StoredCase:
    """Return the row of an unchanged case: split, patient and place of its files may be new."""
    files = [
        {**file, "path": str(path.resolve())}
        for file, path in zip(row.files, case.files, strict=True)
    ]
    patient = case.patient or case.id
    return replace(row, split=case.split, patient=patient, group=case.group, files=files)


def open_prepared(data: DataConfig) -> Store:
    """Open what was prepared at `data.prepared`, split as the settings say.

    Raises:
        DataError: there is none, it is unfinished, of another format or label encoding.
    """
    return with_splits(open_as_stored(data), data)


def open_as_stored(data: DataConfig, *, complete: bool = True) -> Store:
    """Open what was prepared at `data.prepared`, with the splits that are stored there.

    Raises:
        DataError: there is none, it is of another format or label encoding, or, if it must be
            complete, unfinished.
    """
    store = _of_format(open_store(data.prepared, complete=complete), data)
    if data.labels not in (None, store.encoding):
        raise DataError(
            f"{store.root} was prepared with the label encoding '{store.encoding}', not "
            f"'{data.labels}'; prepare it anew with msa2net prepare {data.format} SOURCE "
            f"{store.root} --labels {data.labels}"
        )
    return store


def _describe(data: DataConfig, source: Source, rows: list[StoredCase]) -> Store:
    return Store(
        root=data.prepared,
        format=data.format,
        kind=source.kind,
        label_names=source.label_names,
        channels=max((row.shape[0] for row in rows), default=1),
        **source.scaling._asdict(),
        cases=tuple(rows),
        encoding=source.encoding,
    )


def _failure_sentence(failures: list[str], total: int) -> str:
    if len(failures) == 1:
        return failures[0]
    named = listed(failures, MAX_NAMED_FAILURES, between="; ")
    return f"{len(failures)} of {total} cases cannot be used: {named}"


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


def _of_format(store: Store, data: DataConfig) -> Store:
    if store.format != data.format:
        raise DataError(
            f"{store.root} was prepared from the format '{store.format}', not '{data.format}'; "
            "name another folder as data.prepared"
        )
    return store


def _unchanged(root: Path, known: StoredCase, case: SourceCase, recipe: str) -> bool:
    stamps = [(path.name, *_stamp(path).values()) for path in case.files]
    stored = [(Path(f["path"]).name, f["bytes"], f["mtime_ns"]) for f in known.files]
    described = bool(known.intensity)  # not by the first version of this package
    same = described and known.recipe == recipe and stamps == stored
    return same and not stored_faults(root, [known])


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _recipe(data: DataConfig, source: Source, before: Mapping[str, StoredCase]) -> str:
    """Return what the stored arrays depend on besides the source files, as one string.

    Where all masks decide what 255 means, they are only read if any changed.
    """
    plain = _plain_recipe(data, source)
    if source.meaning_255 is None:
        return plain
    known = [before[case.id] for case in source.cases if case.id in before]
    recipes = {row.recipe for row in known}
    if recipes in ({plain}, {plain + TOOK_255}) and len(known) == len(source.cases):
        (recipe,) = recipes
        cases = zip(known, source.cases, strict=True)
        unchanged = all(_unchanged(data.prepared, row, case, recipe) for row, case in cases)
        # An earlier version ignored 255 in any data set.
        if unchanged and not (recipe == plain and only_ignored(known)):
            return recipe
    return plain + TOOK_255 * source.meaning_255.is_foreground()


def _plain_recipe(data: DataConfig, source: Source) -> str:
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
        case = reduce_image(case, data.max_side)
    assert case.label is not None
    for path, array in (
        (image_path(data.prepared, case.id), case.image),
        (label_path(data.prepared, case.id), case.label),
    ):
        with atomic_path(path) as temporary:
            np.save(temporary, array, allow_pickle=False)
    return StoredCase(
        id=case.id,
        split=source_case.split,
        shape=case.image.shape,
        geometry=case.geometry.to_json(),
        files=[_describe_file(path, source) for path in source_case.files],
        recipe=recipe,
        patient=source_case.patient or case.id,
        group=source_case.group,
        intensity=describe_channels(case.image),
        voxels={str(value): count for value, count in count_labels(case.label).items()},
    )


def _describe_file(path: Path, source: Source) -> dict[str, Any]:
    orientation = exif_orientation(path) if source.kind == "photograph" else 1
    camera = {} if orientation == 1 else {ORIENTATION: orientation}
    return {"path": str(path.resolve()), **_stamp(path), "sha256": sha256(path), **camera}


def _check_depth(case: Case, source: Source) -> None:
    """Raise for values that the window cannot be for: they would come out all white, or black."""
    if source.scaling.intensity != "fixed":
        return
    if source.kind == "photograph" and case.image.dtype != np.uint8:
        raise DataError(
            f"{case.source} holds {case.image.dtype} values and the data set's first image is "
            "8-bit; bring all images to the same depth"
        )
    if problem := foreign_values(case.image, source.scaling.low, source.scaling.high):
        raise DataError(f"{case.source}: {problem}")
