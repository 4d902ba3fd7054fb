"""A training's last step: what its cases are like, how sure it is of the validation cases.

The result goes to `model.json`. It follows from the weights, the data and the settings alone, so
an interrupted training comes to the same.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Case
from msa2net.data.prepared.slice_files import error_context
from msa2net.data.prepared.splits import SPLITS
from msa2net.data.prepared.store import Store, image_path
from msa2net.data.preprocessing import Preprocessing
from msa2net.files import WEIGHTS_FILE
from msa2net.inference.ensemble import trained_flips
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import check_weights, read_facts, write_facts
from msa2net.inference.torch_backend import Flip
from msa2net.metrics.calibration import calibrate, expected_calibration_error
from msa2net.models.weights import load_weights
from msa2net.quality.features import Features, mean_thumbnail, measured_slices
from msa2net.quality.fit_ranges import fit_reference_ranges
from msa2net.quality.monitor import CaseMonitor, QualityMonitor
from msa2net.quality.reference_ranges import ReferenceRanges
from msa2net.training.stopping import Looks

TRAIN_CASES = 200  # that ranges are learnt from, evenly chosen; more say the same
VAL_CASES = 400
FITTED_CASES = 64  # that the temperature is fitted to
PIXELS = 200_000  # of all these together: their probabilities are the memory it takes


def write_reference_ranges(
    run: Path,
    predictor: Predictor,
    batch_slices: int,
    store: Store,
    trained_on: tuple[str, ...],
    looks: Looks | None = None,
    *,
    again: bool = False,
) -> None:
    """Add reference ranges to a finished run's `model.json`, unless it is there for these weights.

    Args:
        run: the run folder, with weights.
        predictor: holds the network that was trained; it gets the weights that were kept.
        batch_slices: slices at once.
        store: the prepared data.
        trained_on: its splits that were trained on. The validation cases say something of others
            only if they are not among them.
        looks: wraps numbers, one for each time that a case is looked at, and how many there are:
            to show a bar, or to leave by an exception.
        again: also if it is there.
    """
    facts = read_facts(run)
    if facts.reference_ranges is not None and not again:
        return
    check_weights(run, facts)
    load_weights(predictor.model, run / WEIGHTS_FILE)
    flips = trained_flips(run, facts) if facts.training.get("flips") else ()
    ids = {split: [row.id for row in store.cases if row.split == split] for split in SPLITS}
    val = [] if "val" in trained_on else evenly_chosen(ids["val"], VAL_CASES)
    train = evenly_chosen([one for split in trained_on for one in ids[split]], TRAIN_CASES)
    reference = measure_cases(predictor, batch_slices, store, train, val, flips, looks)
    write_facts(run, facts.model_copy(update={"reference_ranges": reference}))


def measure_cases(
    predictor: Predictor,
    batch_slices: int,
    store: Store,
    train: list[str],
    val: list[str],
    flips: tuple[Flip, ...],
    looks: Looks | None = None,
) -> ReferenceRanges:
    """Return the reference ranges of cases of a training; `looks` as for the function above."""
    preprocessing, names = predictor.preprocessing, predictor.label_names
    fitted = evenly_chosen(val, FITTED_CASES)
    total = 2 * len(train) + len(fitted) + len(val)
    numbers = iter(range(total) if looks is None else looks(range(total), total))
    watches = [measure_input(case, preprocessing, names) for case in _cases(store, train, numbers)]
    thumbnail = mean_thumbnail(watch.thumbnail for watch in watches).round(4)
    train_features: list[Features] = []
    for watch, case in zip(watches, _cases(store, train, numbers), strict=True):
        assert case.label is not None
        train_features.append(watch.features(np.asarray(case.label), thumbnail))
    if not val:
        reference = fit_reference_ranges(train_features, [])
        return reference.model_copy(update={"thumbnail": thumbnail.ravel().tolist()})
    temperature, reason = _fit(predictor, _cases(store, fitted, numbers))
    mirrored = Predictor(predictor.model, preprocessing, names, batch_slices, flips=flips)
    monitor = QualityMonitor(None, calibration=True)
    monitor.temperature, monitor.thumbnail = temperature, thumbnail
    for _ in mirrored.segment(_cases(store, val, numbers), monitor):
        pass
    next(numbers, None)  # the last one is done: a bar goes
    reference = fit_reference_ranges(
        train_features, list(monitor.features.values()), monitor.errors
    )
    before, after = (expected_calibration_error(table) or 0.0 for table in monitor.tables_2B3)
    return reference.model_copy(
        update={
            "temperature": temperature,
            "temperature_reason": reason,
            "calibration_error": (round(before, 6), round(after, 6)),
            "thumbnail": thumbnail.ravel().tolist(),
        }
    )


def measure_input(
    case: Case, preprocessing: Preprocessing, label_names: tuple[str, ...]
) -> CaseMonitor:
    """Measure a case's input without any network."""
    case = preprocessing.to_plane(case)
    watch, image_CZHW = CaseMonitor(case, preprocessing, label_names), case.image
    value_range = preprocessing.intensity_range(image_CZHW)
    place = preprocessing.placement((image_CZHW.shape[2], image_CZHW.shape[3]))
    for index in sorted(measured_slices(image_CZHW.shape[1])):
        image_C1HW = image_CZHW[:, index : index + 1]
        watch.observe_input(preprocessing.unit_slices(image_C1HW, value_range, place), place)
    return watch


def evenly_chosen(ids: list[str], count: int) -> list[str]:
    """Return at most `count` of them, evenly chosen."""
    if len(ids) <= count:
        return ids
    return [ids[index] for index in np.linspace(0, len(ids) - 1, count).round().astype(int)]


def _fit(predictor: Predictor, cases: Iterable[Case]) -> tuple[float, str]:
    """Fit the temperature to pixels of validation cases; see `calibrate`."""
    monitor = QualityMonitor(None, calibration=True, pixels=PIXELS // FITTED_CASES)
    sampled: list[tuple[NDArray[np.float32], NDArray[np.uint8]]] = []
    for _ in predictor.segment(cases, monitor):  # all slices of a case are there when it comes
        scores, truth = zip(*monitor.samples, strict=True)
        sampled.append((np.concatenate(scores), np.concatenate(truth)))
        monitor.samples.clear()
    temperature, reason = calibrate(sampled)
    return round(temperature, 4), reason


def _cases(store: Store, ids: list[str], numbers: Iterator[int]) -> Iterable[Case]:
    for case_id in ids:
        next(numbers, None)
        with error_context(case_id, image_path(store.root, case_id)):
            case = store.case(case_id)
        yield case
