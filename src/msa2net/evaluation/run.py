"""Scoring a run on one split of its data, under every protocol, with pictures to look at."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from msa2net.config import Config, DataConfig, load_config
from msa2net.data.case import Case
from msa2net.data.display import display_image
from msa2net.data.prepared.prepare import open_prepared, prepare
from msa2net.data.prepared.store import INDEX, Store
from msa2net.errors import DataError, memory_guard
from msa2net.evaluation.case_assessments import summarise_assessments
from msa2net.evaluation.examples import (
    PER_RANK,
    example_name,
    example_slices,
    pack_example,
    rank_cases,
)
from msa2net.evaluation.model_card import write_card
from msa2net.evaluation.published_results import reference_for
from msa2net.evaluation.schema import Hashes, Origin, ScoredData, ScoredModel, Summary
from msa2net.evaluation.summary import (
    LabelsHash,
    build_summary,
    hash_of_names,
    protocols_of,
    write_evaluation,
)
from msa2net.files import CONFIG_FILE, EVALUATIONS, WEIGHTS_FILE, sha256
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import read_facts, software_versions, writing_run
from msa2net.metrics.protocol import CaseRow, FailedDistance
from msa2net.metrics.scoring import case_rows
from msa2net.metrics.systematic_errors import (
    Pattern,
    case_error_pattern,
    describe_systematic_errors,
)
from msa2net.quality.monitor import QualityMonitor

CaseProgress = Callable[[Iterable[Case], int], Iterable[Case]]

_WEIGHTS = {
    "best on val": "Weights: the best on the validation split.",
    "best on test": "Weights: the best on the TEST split of their own data.",
    "last": "Weights: the last of the training.",
}


@memory_guard("evaluating")
def evaluate_run(
    run: str | Path,
    *,
    split: str = "test",
    data: DataConfig | None = None,
    device: str = "auto",
    failed_distance: FailedDistance = "diagonal",
    progress: CaseProgress | None = None,
) -> Summary:
    """Score a run on a split of the data it was trained on, or of other data.

    Writes `evaluation/` in the run folder, of other splits than test `evaluation-val/` and
    `evaluation-train/`: `cases.csv` (one row per case and class),
    `summary.json`, `table.md`, `table.tex`, and the worst, median and best cases under
    `examples/`. Nothing is written before everything is scored.

    Args:
        run: a run folder of `train`.
        split: train, val or test.
        data: other data with the same classes; they are prepared if that was not done. An
            imported network, which has no `config.yaml`, needs this.
        device: cpu, cuda, mps or auto.
        failed_distance: what a distance counts where a class was missed or is a false positive,
            by the standard protocol: `diagonal` of the image, `inf`, or `nan` (left out).
        progress: wraps the cases and their number, to show a bar.

    Returns:
        The scores and where they come from, also as a pandas table; see `Summary`.

    Raises:
        ConfigError: no such way to count a failure's distance, or memory is too small.
        WeightsError: not a run folder.
        DataError: the prepared data are not there, or another process writes into the run.
    """
    run = Path(run)
    read_facts(run)  # says if it is no run folder
    with writing_run(run):
        return _evaluate(run, split, data, device, failed_distance, progress)


def _evaluate(
    run: Path,
    split: str,
    data: DataConfig | None,
    device: str,
    failed_distance: FailedDistance,
    progress: CaseProgress | None,
) -> Summary:
    """Score a run that no other process writes into; see `evaluate_run`."""
    facts = read_facts(run)
    store = _data_of_run(run) if data is None else prepare(data)
    if store.label_names != facts.label_names:
        raise DataError(
            f"{store.root} has the classes {', '.join(store.label_names)} and this network was "
            f"trained on {', '.join(facts.label_names)}; prepare data with these classes there"
        )
    protocols = protocols_of(store.kind, failed_distance)
    predictor = Predictor.load(run, device, _batch_slices(run))
    ids = store.ids(split)
    hashes = {"predictions": LabelsHash(), "labels": LabelsHash()}
    patterns: list[Pattern] = []
    monitor = (
        QualityMonitor(facts.reference_ranges, calibration=True)
        if facts.reference_ranges is not None
        else None
    )
    rows = score_cases(predictor, store, ids, progress, failed_distance, hashes, patterns, monitor)
    origin = _origin(run, split, predictor, store, hashes).model_copy(
        update={
            "note": " ".join(describe_systematic_errors(patterns, rows, store.label_names)) or None,
            "assessments": summarise_assessments(monitor, facts.reference_ranges),
        }
    )
    summary = build_summary(rows, store.label_names, store.kind, protocols, failed_distance, origin)
    write_evaluation(run / EVALUATIONS[split], summary, _examples(predictor, store, rows))
    write_card(run)
    return summary


def _data_of_run(run: Path) -> Store:
    if not (run / CONFIG_FILE).is_file():
        raise DataError(
            f"{run} was not trained here and names no data of its own; use test.py for Synapse, "
            "or evaluate_run(…, data=…) in Python"
        )
    data = load_config(run / CONFIG_FILE).data
    if not (data.prepared / INDEX).is_file():
        raise DataError(
            f"the data of this run are no longer at {data.prepared}; make them again with "
            f"msa2net prepare {data.format} {data.root or 'SOURCE'} {data.prepared}"
        )
    return open_prepared(data)


def _batch_slices(run: Path) -> int:
    if (run / CONFIG_FILE).is_file():
        return load_config(run / CONFIG_FILE).batch_slices
    return Config.model_fields["batch_slices"].get_default()


def _origin(
    run: Path, split: str, predictor: Predictor, store: Store, hashes: dict[str, LabelsHash]
) -> Origin:
    facts = read_facts(run)
    same_data = store.hash == facts.data.get("hash")
    flattering, selection = _selection(facts.training, split, same_data)
    weights = sha256(run / WEIGHTS_FILE)
    return Origin(
        source="run",
        split=split,
        model=ScoredModel(
            name=facts.network.name,
            parameters=sum(p.numel() for p in predictor.model.parameters()),
            weights_sha256=weights,
        ),
        data=ScoredData(format=store.format, hash=store.hash, same_as_training=same_data),
        versions=software_versions(),
        selection=selection,
        flattering=flattering,
        hashes=Hashes(
            predictions=hashes["predictions"].hexdigest(),
            labels=hashes["labels"].hexdigest(),
            weights=weights,
            split=hash_of_names(store.ids(split)),
        ),
        # The paper's table is of eight organs; BTCV's own thirteen do not compare with it.
        reference=None if store.encoding == "btcv" else reference_for(store.format),
    )


def _selection(training: dict[str, Any], split: str, same_data: bool) -> tuple[bool, str | None]:
    """Say what the scored cases had to do with the weights, and whether that flatters."""
    weights = training.get("weights")
    if same_data and split in training.get("trained_on", ()):
        return True, "These very cases were trained on: their scores say nothing about others."
    if same_data and weights == f"best on {split}":
        chosen = "TEST split, as the paper did" if split == "test" else "validation split"
        return True, f"The weights were chosen by the {chosen}, on these very cases."
    return False, _WEIGHTS.get(str(weights))


def score_cases(
    predictor: Predictor,
    store: Store,
    ids: list[str],
    progress: CaseProgress | None = None,
    failed_distance: FailedDistance = "diagonal",
    hashes: Mapping[str, LabelsHash] | None = None,
    patterns: list[Pattern] | None = None,
    monitor: QualityMonitor | None = None,
) -> list[CaseRow]:
    """Segment cases and score them under every protocol; one row per case and class.

    Volumes are brought back to their own grid in both ways, ours and the published one, from one
    pass through the network. `predictions` and `labels` of `hashes` take in every case, and
    `patterns` what may be the same in all of them; what `monitor` finds stands in the rows.
    """
    cases: Iterable[Case] = (store.case(case_id) for case_id in ids)
    if progress is not None:
        cases = progress(cases, len(ids))
    volumes = store.kind == "volume"
    found = (
        predictor.segment_both_ways(cases, monitor)
        if volumes
        else ((segmentation, None) for segmentation in predictor.segment(cases, monitor))
    )
    rows: list[CaseRow] = []
    for case_id, (segmentation, published) in zip(ids, found, strict=True):
        truth = store.case(case_id).label
        assert truth is not None
        if hashes is not None:
            hashes["predictions"].add(case_id, segmentation.labels)
            hashes["labels"].add(case_id, truth)
        if patterns is not None:
            patterns.append(case_error_pattern(segmentation.labels, truth, len(store.label_names)))
        assessment = None if monitor is None else monitor.assessments[case_id]
        rows += case_rows(
            case_id,
            segmentation.labels,
            truth,
            store.label_names,
            published=None if published is None else published.labels,
            spacing_mm=segmentation.geometry.spacing_mm,
            distances=volumes,
            failed_distance=failed_distance,
            group=store.row(case_id).group,
            flags="" if assessment is None else assessment.text,
            anomaly_score=None if assessment is None else assessment.anomaly_score,
        )
    return rows


def _examples(predictor: Predictor, store: Store, rows: list[CaseRow]) -> dict[str, bytes]:
    """Segment the cases to look at once more; returns name → content of their files."""
    ranked = rank_cases(rows, PER_RANK[store.kind])
    cases = [store.case(case_id) for case_id in ranked]
    packed = {}
    for case, segmentation in zip(cases, predictor.segment(cases), strict=True):
        assert case.label is not None
        chosen = example_slices(case.label, segmentation.labels)
        pictures = display_image(case.image[:, chosen], *_window(predictor, case))
        packed[example_name(ranked[case.id], case.id)] = pack_example(
            pictures, np.asarray(case.label[chosen]), segmentation.labels[chosen]
        )
    return packed


def _window(predictor: Predictor, case: Case) -> tuple[ArrayLike | None, ArrayLike | None]:
    if case.image.dtype == np.uint8:
        return None, None
    return predictor.preprocessing.intensity_range(case.image)
