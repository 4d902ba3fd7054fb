"""Scoring masks against labels: any two folders of NIfTI volumes or pictures.

Cases are worked on side by side in threads: unpacking, hashing, numpy and the distances' trees all
leave the interpreter to others.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msa2net.data.display import display_image
from msa2net.data.geometry import Geometry, require_same_grid
from msa2net.data.io.nifti import is_nifti
from msa2net.data.io.readers import read_path
from msa2net.data.labels import IGNORE, doubt_of_255
from msa2net.errors import MORE_MEMORY, ConfigError, DataError, memory_guard
from msa2net.evaluation.examples import (
    PER_RANK,
    example_name,
    example_slices,
    pack_example,
    rank_cases,
)
from msa2net.evaluation.label_maps import (
    LabelMappings,
    class_indices,
    read_values,
    resolve_label_mappings,
)
from msa2net.evaluation.matching import Pair, image_kind, match_files
from msa2net.evaluation.schema import Hashes, LeftOut, Origin, ScoredData, Summary
from msa2net.evaluation.summary import (
    BOTH,
    build_summary,
    hash_of_files,
    hash_of_names,
    protocols_of,
    write_evaluation,
)
from msa2net.files import sha256, usable_cores
from msa2net.metrics.protocol import BACK, CaseRow, FailedDistance, Protocol
from msa2net.metrics.scoring import case_rows
from msa2net.metrics.systematic_errors import (
    Pattern,
    case_error_pattern,
    describe_systematic_errors,
)
from msa2net.text import listed

NameProgress = Callable[[Iterable[str], int], Iterable[str]]

_AS_GIVEN = "nothing is resampled: the masks are scored as they are"


class _Masks(NamedTuple):
    """A case's arrays on one grid, class indices of the labels: (Z, H, W)."""

    prediction: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    geometry: Geometry


class _Scored(NamedTuple):
    """What is kept of a case: small."""

    rows: list[CaseRow]
    pattern: Pattern
    prediction_sha256: str | None
    label_sha256: str
    label_values: frozenset[int]  # 1 and 255, if they are in it


@memory_guard("scoring masks", f"lower --workers (workers in Python), or {MORE_MEMORY}")
def evaluate(
    predictions: str | Path,
    labels: str | Path,
    label_names: Sequence[str] | None = None,
    *,
    protocol: str = BOTH,
    failed_distance: FailedDistance = "diagonal",
    missing_as_empty: bool = False,
    common: bool = False,
    images: str | Path | None = None,
    out: str | Path | None = None,
    workers: int | None = None,
    progress: NameProgress | None = None,
) -> Summary:
    """Score a folder of masks against a folder of labels, NIfTI volumes or pictures.

    They are matched by name, see `match_files`. A mask must lie on its label's grid, by half a
    voxel; nothing is resampled. Millimetres are those of the label's header.

    Args:
        predictions: folder of masks. Classes are told by name where it names them: `labels.txt`
            in it, as `predict` writes, or nnU-Net's `dataset.json` in it or beside it.
        labels: folder of labels, whose names, found alike, are those of the result. If only one
            folder names classes, that holds for both; if none does, masks must be black and white.
            What 255 means: see `resolve_label_mappings`.
        label_names: one name per class, background first, for folders that have none.
        protocol: a name of `msa2net.metrics.protocol.PROTOCOLS`, or `both`: standard and published.
        failed_distance: what a distance counts where a class failed, see `standard_protocol`.
        missing_as_empty: score a label without prediction as if nothing had been found there.
        common: score the cases that both folders have; the result says what was left out.
        images: folder of the images, same stems or nnU-Net's `NAME_0000`: shown with examples.
        out: folder to write all files into, when all is scored; None writes nothing.
        workers: cases in memory at the same time; by default one a processor core that we may use.
        progress: wraps the names of the cases and their number, to show a bar.

    Returns:
        The scores and where they come from, also as a pandas table; see `Summary`.

    Raises:
        ConfigError: wrong arguments, `out` in a folder that is read, or too little memory.
        DataError: names, grids or values do not fit, or a file is damaged; the first ends it.
    """
    predictions, labels = Path(predictions), Path(labels)
    images, out = (None if path is None else Path(path) for path in (images, out))
    _check_arguments(workers, common, missing_as_empty)
    _check_out(out, (predictions, labels, images))
    pairs, left_out = match_files(
        predictions, labels, images, missing_as_empty=missing_as_empty, common=common
    )
    kind = image_kind(pairs)
    protocols = [_as_given(p) for p in protocols_of(kind, failed_distance, protocol)]
    masks = (pair.label for pair in pairs)
    codings = resolve_label_mappings(predictions, labels, label_names, masks)
    scored = dict(_score_all(pairs, codings, failed_distance, workers, progress))
    rows = [row for case in scored.values() for row in case.rows]
    origin = _origin(predictions, labels, scored, codings, protocols, left_out, pairs)
    summary = build_summary(rows, codings.label_names, kind, protocols, failed_distance, origin)
    if out is not None:
        write_evaluation(out, summary, _examples(pairs, rows, codings, kind))
    return summary


def _as_given(protocol: Protocol) -> Protocol:
    """Correct the rule about the way back to a case's grid: files have gone it already."""
    rules = tuple((s, _AS_GIVEN if s == BACK else rule) for s, rule in protocol.rules)
    return replace(protocol, rules=rules)


def _check_arguments(workers: int | None, common: bool, missing_as_empty: bool) -> None:
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}; it must be 1 or more")
    if common and missing_as_empty:
        raise ConfigError(
            "--common leaves out labels without a prediction and --missing-as-empty scores them; "
            "choose one of the two"
        )


def _check_out(out: Path | None, read: Sequence[Path | None]) -> None:
    if out is None:
        return
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; name a folder as --out")
    for folder in filter(None, read):
        if out.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"{out} lies in {folder}, which is only read; name another folder as --out"
            )


def _score_all(
    pairs: Sequence[Pair],
    codings: LabelMappings,
    failed_distance: FailedDistance,
    workers: int | None,
    progress: NameProgress | None,
) -> Iterator[tuple[str, _Scored]]:
    """Yield every case's id and scores, in the order of the pairs; the first error ends it."""
    names = [pair.id for pair in pairs]
    shown = names if progress is None else progress(names, len(names))
    with _pool(workers or usable_cores()) as pool:
        jobs: dict[str, Future[_Scored]] = {
            pair.id: pool.submit(_score, pair, codings, failed_distance) for pair in pairs
        }
        for name in shown:
            yield name, jobs.pop(name).result()


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Give threads; whatever ends the block, cases that were not begun are not begun any more."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="evaluate")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _score(pair: Pair, codings: LabelMappings, failed_distance: FailedDistance) -> _Scored:
    masks = _read_masks(pair, codings)
    rows = case_rows(
        pair.id,
        masks.prediction,
        masks.truth,
        codings.label_names,
        spacing_mm=masks.geometry.spacing_mm,
        distances=is_nifti(pair.label),
        failed_distance=failed_distance,
    )
    predicted = None if pair.prediction is None else sha256(pair.prediction)
    pattern = case_error_pattern(masks.prediction, masks.truth, len(codings.label_names))
    held = frozenset(value for value in (1, IGNORE) if (masks.truth == value).any())
    return _Scored(rows, pattern, predicted, sha256(pair.label), held)


def _read_masks(pair: Pair, codings: LabelMappings) -> _Masks:
    """Read a case's masks.

    Raises:
        DataError: naming the case.
    """
    try:
        truth, geometry = read_values(pair.label)
        grid = pair.label, truth.shape, geometry
        truth = class_indices(truth, codings.labels, pair.label, codings.label_names)
        if pair.prediction is None:
            return _Masks(np.zeros(truth.shape, np.uint8), truth, geometry)
        prediction, other = read_values(pair.prediction)
        require_same_grid(pair.id, grid, (pair.prediction, prediction.shape, other))
        prediction = class_indices(
            prediction, codings.predictions, pair.prediction, codings.label_names
        )
        return _Masks(prediction, truth, geometry)
    except DataError as error:
        named = f"case {pair.id}: "
        raise DataError(named + str(error).removeprefix(named)) from error


def _doubt_of_255(
    pairs: Sequence[Pair], scored: Mapping[str, _Scored], codings: LabelMappings
) -> str:
    """Say what speaks against ignoring 255 in the labels, see `doubt_of_255`.

    Raises:
        DataError: nobody can tell what it means.
    """
    if not codings.labels.undeclared_255:
        return ""
    held = {str(pair.label): scored[pair.id].label_values for pair in pairs}
    doubt, refused = doubt_of_255(held, codings.label_names[1])
    if refused:
        raise DataError(doubt)
    return doubt


def _origin(
    predictions: Path,
    labels: Path,
    scored: Mapping[str, _Scored],
    codings: LabelMappings,
    protocols: Sequence[Protocol],
    left_out: dict[str, LeftOut] | None,
    pairs: Sequence[Pair],
) -> Origin:
    doubt = _doubt_of_255(pairs, scored, codings)
    truths = hash_of_files({name: case.label_sha256 for name, case in scored.items()})
    found = {n: case.prediction_sha256 for n, case in scored.items() if case.prediction_sha256}
    missing = [name for name in scored if name not in found]
    patterns = describe_systematic_errors(
        [case.pattern for case in scored.values()],
        [row for case in scored.values() for row in case.rows if row["case"] not in missing],
        codings.label_names,
    )
    sentences = [*patterns, f"{doubt}."] if doubt else patterns
    return Origin(
        source="folders",
        split=None,
        model=None,
        data=ScoredData(
            format="folders",
            hash=truths,
            same_as_training=None,
            predictions=predictions.resolve().name,
            labels=labels.resolve().name,
            missing=len(missing),
            left_out=left_out,
        ),
        versions={"python": platform.python_version()}
        | {name: version(name) for name in ("msa2net", "numpy", "scipy", "nibabel", "pillow")},
        note=_note(missing, len(scored), codings.never_predicted, protocols, sentences),
        hashes=Hashes(predictions=hash_of_files(found), labels=truths, split=hash_of_names(scored)),
        reference=None,
    )


def _note(
    missing: Sequence[str],
    cases: int,
    never_predicted: Sequence[str],
    protocols: Sequence[Protocol],
    patterns: Sequence[str],
) -> str | None:
    sentences = list(patterns)
    if missing:
        sentences.append(
            f"{len(missing)} of {cases} cases have no prediction and were scored as if it were "
            f"empty: {listed(missing)}."
        )
    if never_predicted:
        sentences.append(
            f"The predictions do not know the class {listed(never_predicted)}: wherever the "
            "labels hold it, it counts as missed."
        )
    if any(protocol.name == "transunet" for protocol in protocols):
        sentences.append(
            "The figures by transunet are of the masks as they are: the published way back from "
            "the network's size to the case's grid cannot be repeated from files."
        )
    return " ".join(sentences) or None


def _examples(
    pairs: Sequence[Pair], rows: list[CaseRow], codings: LabelMappings, kind: str
) -> dict[str, bytes]:
    """Read the cases to look at once more; returns name → content of their files."""
    ranked = rank_cases(rows, PER_RANK[kind])
    packed = {}
    for pair in pairs:
        if pair.id not in ranked:
            continue
        masks = _read_masks(pair, codings)
        chosen = example_slices(masks.truth, masks.prediction)
        packed[example_name(ranked[pair.id], pair.id)] = pack_example(
            _pictures(pair, masks, chosen), masks.truth[chosen], masks.prediction[chosen]
        )
    return packed


def _pictures(pair: Pair, masks: _Masks, chosen: list[int]) -> NDArray[np.uint8]:
    """Return (Z, H, W, 3): the chosen slices of the image, or black."""
    if pair.image is None:
        return np.zeros((len(chosen), *masks.truth.shape[1:], 3), np.uint8)
    case = read_path(pair.image)
    require_same_grid(
        pair.id,
        (pair.label, masks.truth.shape, masks.geometry),
        (pair.image, case.image.shape[1:], case.geometry),
    )
    return display_image(case.image[:, chosen])
