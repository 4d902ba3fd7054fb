"""Scoring a run on one split of its data, under every protocol, with pictures to look at."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from msa2net.config import Config, DataConfig, load_config
from msa2net.data.case import Case, Segmentation
from msa2net.data.display import display_image
from msa2net.data.prepare import open_prepared, prepare
from msa2net.data.store import INDEX, Store
from msa2net.errors import DataError
from msa2net.evaluation.reference import reference_for
from msa2net.evaluation.tables import markdown_table
from msa2net.files import atomic_path, sha256, write_json, write_text
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import CONFIG_FILE, WEIGHTS_FILE, read_facts, software_versions
from msa2net.metrics import (
    PUBLISHED,
    CaseRow,
    case_rows,
    mean_dice,
    summarise,
    summarise_groups,
    write_cases_csv,
)

CaseProgress = Callable[[Iterable[Case], int], Iterable[Case]]

MAX_EXAMPLE_SLICES = 24

_WEIGHTS = {
    "best on val": "Weights: the best on the validation split.",
    "best on test": "Weights: the best on the TEST split of their own data.",
    "last": "Weights: the last of the training.",
}


def evaluate_run(
    run: str | Path,
    *,
    split: str = "test",
    data: DataConfig | None = None,
    device: str = "auto",
    progress: CaseProgress | None = None,
) -> dict[str, Any]:
    """Score a run on a split of the data it was trained on, or of other data.

    Writes `evaluation/` in the run folder: `cases.csv` (one row per case and class),
    `summary.json`, `table.md`, and the worst, median and best cases under `examples/`.

    Args:
        run: a run folder of `train`.
        split: train, val or test.
        data: other data with the same classes; they are prepared if that was not done. An
            imported network, which has no `config.yaml`, needs this.
        device: cpu, cuda, mps or auto.
        progress: wraps the cases and their number, to show a bar.

    Returns:
        The content of `summary.json`.

    Raises:
        WeightsError: not a run folder.
        DataError: the prepared data are not there.
    """
    run = Path(run)
    facts = read_facts(run)
    store = _data_of_run(run) if data is None else prepare(data)
    if store.label_names != facts.label_names:
        raise DataError(
            f"{store.root} has the classes {', '.join(store.label_names)} and this network was "
            f"trained on {', '.join(facts.label_names)}; prepare data with these classes there"
        )
    predictor = Predictor.load(run, device, _batch_slices(run))
    ids = store.ids(split)
    rows = score_cases(predictor, store, ids, progress)
    summary = _summarise_run(run, split, predictor, store, rows)
    out = run / "evaluation"
    write_cases_csv(out / "cases.csv", rows)
    write_json(out / "summary.json", summary)
    write_text(out / "table.md", markdown_table(summary))
    _write_examples(predictor, store, rows, out / "examples")
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


def _summarise_run(
    run: Path, split: str, predictor: Predictor, store: Store, rows: list[CaseRow]
) -> dict[str, Any]:
    facts = read_facts(run)
    shown = ("standard", PUBLISHED[store.kind])
    same_data = store.hash == facts.data.get("hash")
    flattering, selection = _selection(facts.training, split, same_data)
    return {
        "schema": 1,
        "split": split,
        "cases": len({row["case"] for row in rows}),
        "label_names": list(store.label_names),
        "image_kind": store.kind,
        "model": {
            "name": facts.network.name,
            "parameters": sum(p.numel() for p in predictor.model.parameters()),
            "weights_sha256": sha256(run / WEIGHTS_FILE),
        },
        "data": {
            "format": store.format,
            "hash": store.hash,
            "same_as_training": same_data,
        },
        "versions": software_versions(),
        "selection": selection,
        "flattering": flattering,
        "protocols": {name: summarise(rows, store.label_names, name) for name in shown},
        "groups": _summarise_groups(rows, store.label_names, shown),
        # The paper's table is of eight organs; BTCV's own thirteen do not compare with it.
        "reference": None if store.encoding == "btcv" else reference_for(store.format),
    }


def _selection(training: dict[str, Any], split: str, same_data: bool) -> tuple[bool, str | None]:
    """Say what the scored cases had to do with the weights, and whether that flatters."""
    weights = training.get("weights")
    if same_data and split in training.get("trained_on", ()):
        return True, "These very cases were trained on: their scores say nothing about others."
    if same_data and weights == f"best on {split}":
        chosen = "TEST split, as the paper did" if split == "test" else "validation split"
        return True, f"The weights were chosen by the {chosen}, on these very cases."
    return False, _WEIGHTS.get(str(weights))


def _summarise_groups(
    rows: list[CaseRow], label_names: tuple[str, ...], protocols: tuple[str, ...]
) -> dict[str, Any]:
    by_protocol = {name: summarise_groups(rows, label_names, name) for name in protocols}
    cases_of = {row["case"]: row["group"] for row in rows}
    return {
        group: {
            "cases": sum(of_case == group for of_case in cases_of.values()),
            "protocols": {name: groups[group] for name, groups in by_protocol.items()},
        }
        for group in by_protocol["standard"]
    }


def score_cases(
    predictor: Predictor, store: Store, ids: list[str], progress: CaseProgress | None = None
) -> list[CaseRow]:
    """Segment cases and score them under every protocol; one row per case and class.

    Volumes are brought back to their own grid in both ways, ours and the published one, from one
    pass through the network.
    """
    cases: Iterable[Case] = (store.case(case_id) for case_id in ids)
    if progress is not None:
        cases = progress(cases, len(ids))
    volumes = store.kind == "volume"
    found = (
        predictor.segment_both_ways(cases)
        if volumes
        else ((segmentation, None) for segmentation in predictor.segment(cases))
    )
    rows: list[CaseRow] = []
    for case_id, (segmentation, published) in zip(ids, found, strict=True):
        truth = store.case(case_id).label
        assert truth is not None
        rows += case_rows(
            case_id,
            segmentation.labels,
            truth,
            store.label_names,
            published=None if published is None else published.labels,
            spacing_mm=segmentation.geometry.spacing_mm,
            distances=volumes,
            group=store.row(case_id).group,
        )
    return rows


def _write_examples(predictor: Predictor, store: Store, rows: list[CaseRow], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    count = 2 if store.kind == "photograph" else 1
    ranked = rank_cases(rows, count)
    cases = [store.case(case_id) for case_id in ranked]
    for case, segmentation in zip(cases, predictor.segment(cases), strict=True):
        _write_example(predictor, case, segmentation, folder / f"{ranked[case.id]}-{case.id}.npz")


def rank_cases(rows: list[CaseRow], count: int) -> dict[str, str]:
    """Choose the worst, median and best cases by mean Dice; returns id → rank.

    Cases without any applicable Dice are left out; no case is chosen twice.
    """
    by_case: dict[str, list[CaseRow]] = {}
    for row in rows:
        by_case.setdefault(row["case"], []).append(row)
    dice = {case_id: mean_dice(own) for case_id, own in by_case.items()}
    scored = {case_id: value for case_id, value in dice.items() if value is not None}
    order = sorted(scored, key=lambda case_id: (scored[case_id], case_id))
    middle = max(0, (len(order) - count) // 2)
    chosen = dict.fromkeys(order[:count], "worst")
    for rank, ids in (("best", order[-count:]), ("median", order[middle : middle + count])):
        for case_id in ids:
            chosen.setdefault(case_id, rank)
    return chosen


def _write_example(
    predictor: Predictor, case: Case, segmentation: Segmentation, path: Path
) -> None:
    assert case.label is not None
    chosen = example_slices(case.label, segmentation.labels)
    low, high = predictor.preprocessing.intensity_range(case.image)
    colour = case.image.dtype == np.uint8
    pictures = display_image(
        case.image[:, chosen], None if colour else low, None if colour else high
    )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            image=pictures,
            truth=case.label[chosen],
            prediction=segmentation.labels[chosen],
        )


def example_slices(truth_ZHW: Any, prediction_ZHW: Any) -> list[int]:
    """Choose at most `MAX_EXAMPLE_SLICES`, evenly over the slices that hold any label."""
    labelled = np.flatnonzero(
        (truth_ZHW > 0).any(axis=(1, 2)) | (prediction_ZHW > 0).any(axis=(1, 2))
    )
    if not labelled.size:
        return [truth_ZHW.shape[0] // 2]
    count = min(MAX_EXAMPLE_SLICES, len(labelled))
    return [
        int(index)
        for index in labelled[np.linspace(0, len(labelled) - 1, count).round().astype(int)]
    ]
