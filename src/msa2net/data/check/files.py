"""Checks whether all that `dataset.json` names is on disk, once, and there is room to train."""

import hashlib
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from msa2net.data.check.findings import WHOLE, Finding, Level
from msa2net.data.io.validation import format_bytes, format_shape
from msa2net.data.prepared.slice_files import sliced
from msa2net.data.prepared.store import Store, StoredCase, image_path, label_path, open_array
from msa2net.errors import DataError
from msa2net.text import listed

_AGAIN = "prepare the data again"


def check_arrays(store: Store, row: StoredCase) -> Iterator[Finding]:
    """Compare the two stored arrays of a case with what `dataset.json` says; all are errors."""
    for name, path, shape, kinds in (
        ("image", image_path(store.root, row.id), row.shape, "uif"),
        ("label", label_path(store.root, row.id), row.shape[1:], "u"),
    ):
        try:
            open_array(path, shape, kinds)
        except DataError as error:
            detail = str(error).replace(str(path), path.name)[:120]
            yield Finding(
                "error", row.id, f"the stored {name} is missing or damaged", _AGAIN, detail
            )


def check_sources(row: StoredCase) -> Iterator[Finding]:
    """Find which of a case's source files were changed (warning) or are gone (note) by now."""
    changed, gone = [], []
    for file in row.files:
        path = Path(file["path"])
        try:
            status = path.stat()
        except OSError:
            gone.append(path.name)
            continue
        if (status.st_size, status.st_mtime_ns) != (file["bytes"], file["mtime_ns"]):
            changed.append(path.name)
    if changed:
        what = "source files were changed after the data were prepared"
        yield Finding("warning", row.id, what, _AGAIN, listed(changed, 1))
    if gone:
        what = "source files are no longer where they were"
        advice = "put them back before the data are prepared again"
        yield Finding("note", row.id, what, advice, listed(gone, 1))


def check_duplicates(store: Store, rows: Sequence[StoredCase]) -> Iterator[Finding]:
    """Find equal images: in test and elsewhere an error, otherwise a warning.

    Statistics of `dataset.json` are compared first, and the voxels of those that agree. Labels are
    left aside: empty ones are equal and mean no harm.
    """
    for alike in _groups(rows, [_fingerprint(row) for row in rows]):
        voxels = [_voxel_hash(store, row) for row in alike] if len(alike) > 1 else [""]
        for same in _groups(alike, voxels):
            yield from (_duplicate(same[0], other) for other in same[1:])


def _duplicate(one: StoredCase, other: StoredCase) -> Finding:
    splits = {one.split, other.split}
    source, other_source = (row.files[0]["sha256"] if row.files else "" for row in (one, other))
    kind = "the same file" if source == other_source else "the same image in different files"
    level: Level
    if len(splits) == 1:
        level, where, so = "warning", "one split", ""
    elif "test" in splits:
        level, where, so = "error", "different splits", ", or the reported scores are flattered"
    else:
        level, where, so = "warning", "train and val", ", or validation flatters"
    return Finding(
        level,
        f"{one.id} and {other.id}",
        f"two cases of {where} are {kind}",
        f"remove one of the two{so}",
        " and ".join(dict.fromkeys((one.split, other.split))),
    )


def _groups(rows: Sequence[StoredCase], keys: Sequence[object]) -> list[list[StoredCase]]:
    groups: dict[object, list[StoredCase]] = {}
    for row, key in zip(rows, keys, strict=True):
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _fingerprint(row: StoredCase) -> object:
    """Return what equal images agree in, whatever the type of their numbers."""
    return row.shape, tuple(
        (channel.minimum, channel.maximum, f"{channel.mean:.6g}") for channel in row.intensity
    )


def _voxel_hash(store: Store, row: StoredCase) -> str:
    digest = hashlib.sha256()
    for channel_ZHW in store.case(row.id, strict=False).image:
        for slice_HW in channel_ZHW:
            number_HW = slice_HW.astype(np.float64) + 0.0  # no negative zeros
            digest.update(number_HW.tobytes())
    return digest.hexdigest()


def check_room(
    store: Store, trainings: Sequence[Sequence[StoredCase]], image_size: tuple[int, int]
) -> Iterator[Finding]:
    """Find what training needs on disk, an error if it is not there, and the largest case.

    Each case's slices are written once, whatever the fold: images (C, h, w) of two bytes, labels
    (h, w) of one.

    Args:
        store: the data set.
        trainings: its cases with their splits, once for each fold.
        image_size: of the network, (h, w).
    """
    counts = {row.id: row.shape[1] for rows in trainings for row in rows if row.split == "train"}
    there = sliced(store, image_size)
    missing = sum(count for case_id, count in counts.items() if case_id not in there)
    total = sum(counts.values())
    needed = (missing or total) * (2 * store.channels + 1) * math.prod(image_size)
    free = shutil.disk_usage(store.root).free
    folds = f" in {len(trainings)} folds" if len(trainings) > 1 else ""
    detail = f"{format_bytes(needed)} for {missing} slices{folds}, {format_bytes(free)} are free"
    size = format_shape(image_size)
    if total and not missing:
        what = f"the training slices at {size} are beside the prepared data already"
        yield Finding("note", WHOLE, what, "nothing to do", format_bytes(needed))
    elif needed > free:
        what = f"the disk has no room for training slices at {size}"
        advice = "free some space, or move the prepared data to a larger disk"
        yield Finding("error", WHOLE, what, advice, detail)
    elif missing:
        what = f"the first training at {size} will write its slices beside the prepared data"
        yield Finding("note", WHOLE, what, "keep that much free", detail)
    rows = trainings[0]
    if rows:
        held = {row.id: _case_bytes(store, row) for row in rows}
        largest = max(held, key=lambda case_id: held[case_id])
        what = "this case needs the most memory, for image and label together"
        advice = "have several times that free for evaluation and prediction"
        yield Finding("note", largest, what, advice, format_bytes(held[largest]))


def _case_bytes(store: Store, row: StoredCase) -> int:
    case = store.case(row.id, strict=False)
    assert case.label is not None
    return case.image.nbytes + case.label.nbytes
