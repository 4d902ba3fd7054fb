"""What is wrong with a prepared data set, found before training spends hours on it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from msa2net.config import DataConfig
from msa2net.data.check.files import check_arrays, check_duplicates, check_room, check_sources
from msa2net.data.check.findings import LEVELS, WHOLE, Finding, Level
from msa2net.data.check.geometry import check_geometry
from msa2net.data.check.label_encoding import MAX_CASES, MIN_ORGANS, Labelled, recognise_encoding
from msa2net.data.check.organ_statistics import ORGANS
from msa2net.data.check.values import (
    check_camera,
    check_channels,
    check_classes,
    check_image,
    check_label,
    check_meaning_of_255,
    check_organ_volumes,
)
from msa2net.data.labels import ENCODINGS, IGNORE, convert
from msa2net.data.prepared.intensity_statistics import count_labels, describe_channels
from msa2net.data.prepared.splits import SPLITS
from msa2net.data.prepared.store import Store, StoredCase, read_failures, with_splits
from msa2net.errors import memory_guard

__all__ = ["LEVELS", "Finding", "Level", "check_store"]

Progress = Callable[[Iterable[StoredCase], int], Iterable[StoredCase]]

FEW_PATIENTS = 5


@memory_guard("checking the data")
def check_store(
    store: Store,
    image_size: tuple[int, int] = (224, 224),
    progress: Progress | None = None,
    data: DataConfig | None = None,
) -> list[Finding]:
    """Check a prepared data set; of the raw files only size and time are looked at.

    Args:
        store: from `open_store(…, complete=False)`.
        image_size: of the network, (h, w): training slices of this size must fit on the disk.
        progress: wraps the cases and their number, to show a bar.
        data: settings whose splits are looked at, in every fold; None: the stored splits.

    Returns:
        What was found, errors first; in the same order for the same data.

    Raises:
        DataError: the splits of `data` cannot be drawn.
        ConfigError: memory is too small.
    """
    views = _views(store, data)
    store = views[0]  # what is not of splits is the same in all
    held_out = data is None or data.hold_out
    findings = [*_check_complete(store)]
    sound: list[StoredCase] = []
    shown = store.cases if progress is None else progress(store.cases, len(store.cases))
    for stored in shown:
        findings += check_sources(stored)
        damage = [*check_arrays(store, stored)]
        findings += damage
        if not damage:
            row = _described(store, stored)
            findings += check_label(store, row)
            findings += check_channels(store, row)
            findings += check_image(store, row, store.case(row.id, strict=False).image)
            findings += check_camera(store, row)
            sound.append(row)
    findings += check_meaning_of_255(store, sound)
    wrong_names = [*check_encoding(store, sound)]
    findings += wrong_names
    if not any(finding.level == "error" for finding in wrong_names):
        for row in sound:
            findings += check_organ_volumes(store, row)
    findings += check_geometry(store, store.cases)
    rows_of = [_rows_of(view, sound) for view in views]
    findings += _of_all_views(
        [
            [
                *_check_splits(view, held_out=held_out),
                *check_classes(view, rows),
                *check_duplicates(view, rows),
            ]
            for view, rows in zip(views, rows_of, strict=True)
        ]
    )
    findings += check_room(store, rows_of, image_size)
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def _views(store: Store, data: DataConfig | None) -> list[Store]:
    """Return the data set as a training sees it, once for every fold."""
    if data is None:
        return [store]
    folds = [data.model_copy(update={"fold": fold}) for fold in range(data.folds or 1)]
    views = [with_splits(store, fold) for fold in folds]
    if data.hold_out:
        return views
    trained = {"val": "train"}
    cases = (replace(row, split=trained.get(row.split, row.split)) for row in views[0].cases)
    return [replace(views[0], cases=tuple(cases))]


def _rows_of(view: Store, rows: Sequence[StoredCase]) -> list[StoredCase]:
    split = {row.id: row.split for row in view.cases}
    return [replace(row, split=split[row.id]) for row in rows]


def _of_all_views(found: Sequence[Sequence[Finding]]) -> list[Finding]:
    """Return all findings, those that are not of all folds with their fold."""
    everywhere = [one for one in found[0] if all(one in others for others in found[1:])]
    return everywhere + [
        replace(one, where=f"fold {fold}: {one.where}")
        for fold, of_fold in enumerate(found)
        for one in of_fold
        if one not in everywhere
    ]


def _described(store: Store, row: StoredCase) -> StoredCase:
    """Return the row with statistics, which the first version of this package did not note."""
    if row.intensity and row.voxels:
        return row
    case = store.case(row.id, strict=False)
    assert case.label is not None
    voxels = {str(value): count for value, count in count_labels(case.label).items()}
    return replace(row, intensity=describe_channels(case.image), voxels=voxels)


def _check_complete(store: Store) -> Iterator[Finding]:
    failures = read_failures(store.root)
    if failures == {}:
        what = "the preparation was interrupted, or still runs"
        yield Finding("error", WHOLE, what, "prepare the data again")
    for case_id, why in (failures or {}).items():
        advice = "mend its files or move them away, and prepare the data again"
        yield Finding("error", case_id, "the case could not be prepared", advice, why)


def _check_splits(store: Store, *, held_out: bool) -> Iterator[Finding]:
    """Find empty and small splits, and patients in several.

    `held_out`: the val cases do not train; otherwise there need not be any.
    """
    for split in SPLITS if held_out else ("train", "test"):
        patients = {case.patient or case.id for case in store.cases if case.split == split}
        if not patients:
            level: Level = "warning" if split == "test" else "error"
            advice = "add cases, for example in splits/*.txt beside the raw data"
            yield Finding(level, split, "no case is in this split", advice)
        elif split != "train" and len(patients) < FEW_PATIENTS:
            what = (
                f"the split has fewer than {FEW_PATIENTS} patients, so the intervals of its scores "
                "will be wide"
            )
            advice = "add patients, or train on folds (data.folds) and score each"
            detail = f"{len(patients)} patient{'s' * (len(patients) > 1)}"
            yield Finding("note", split, what, advice, detail)
    of_patient: dict[str, set[str]] = {}
    for case in store.cases:
        if case.patient:
            of_patient.setdefault(case.patient, set()).add(case.split)
    for patient, splits in of_patient.items():
        if len(splits) > 1:
            what = "a patient's cases are in several splits, which flatters the scores"
            advice = "move all cases of a patient into one split"
            detail = " and ".join(split for split in SPLITS if split in splits)
            yield Finding("error", patient, what, advice, detail)


def check_encoding(store: Store, rows: Sequence[StoredCase]) -> Iterator[Finding]:
    """Compare the label encoding that was declared with the one the organs look like.

    Args:
        store: any; without an encoding, nothing is found.
        rows: cases whose arrays are whole and whose voxels are counted; a few are looked at.
    """
    if store.encoding is None:
        return
    # BTCV's files were converted when they were read: what they held before is in question.
    declared = "btcv" if store.format == "btcv" else store.encoding
    result = recognise_encoding(_labelled(store, rows, declared))
    if result.best == declared:
        return
    if result.best is None:
        what = f"the organs do not tell whether the labels are in the encoding '{declared}'"
        yield Finding("note", WHOLE, what, "compare some labels with the names of the classes")
        return
    value = result.telling_value(declared)
    organ = ENCODINGS[result.best][value]
    named = ENCODINGS[declared].get(value, "nothing")
    what = (
        f"labels were declared as '{declared}' but look like '{result.best}': value {value} is "
        f"{ORGANS[organ].looks}, {organ} in '{result.best}', {named} in '{declared}'"
    )
    advice = f"prepare … --labels {result.best}"
    if store.format == "btcv":
        advice = f"convert the label files from '{result.best}' to 'btcv', which this format holds"
    yield Finding("error", WHOLE, what, advice)


def _labelled(store: Store, rows: Sequence[StoredCase], declared: str) -> list[Labelled]:
    """Return a few labels in the encoding `declared`, spread over the cases with most organs."""
    assert store.encoding is not None
    known = {"0", str(IGNORE), *map(str, ENCODINGS[store.encoding])}
    usable = [row for row in rows if len(row.voxels) > MIN_ORGANS and set(row.voxels) <= known]
    labels: list[Labelled] = []
    for row in usable[:: max(1, len(usable) // MAX_CASES)][:MAX_CASES]:
        label_ZHW = store.case(row.id, strict=False).label
        assert label_ZHW is not None
        labels.append((convert(label_ZHW, store.encoding, declared), row.spacing_mm))
    return labels
