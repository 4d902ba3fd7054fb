"""Whether flags find the cases to look at first: a run's own clean cases, and the same spoilt.

    python benchmarks/flags.py RUN [--split test] [--spoilt 10] [--out flags.json]

Of the clean split: the share that is flagged (at most 5 % is meant to be), Dice of the most
suspicious fifth beside the rest, and the rank correlation of anomaly score and Dice. Then the first
cases are spoilt in every way of `spoil.py`, and the share that is flagged is printed. A
run without limits in its model.json (of an older version) gets them first.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
from scipy import stats
from spoil import SPOILERS

from msa2net.config import load_config
from msa2net.data.prepared.prepare import prepare
from msa2net.data.prepared.store import Store
from msa2net.errors import Msa2NetError
from msa2net.evaluation.run import score_cases
from msa2net.inference.predictor import Predictor
from msa2net.inference.run_folder import read_facts
from msa2net.metrics.calibration import expected_calibration_error
from msa2net.quality.flags import CaseAssessment
from msa2net.quality.monitor import QualityMonitor
from msa2net.training.fit_quality import write_reference_ranges


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--spoilt", type=int, default=10, help="cases that are spoilt in each way")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--again", action="store_true", help="set the limits anew")
    parser.add_argument("--out", type=Path, help="a JSON file with all numbers")
    options = parser.parse_args()
    config = load_config(options.run / "config.yaml")
    store = prepare(config.data)
    predictor = Predictor.load(options.run, options.device, config.batch_slices)
    if predictor.reference_ranges is None or options.again:
        predictor = with_limits(options.run, predictor, store, options, config.batch_slices)
    found = clean(predictor, store, options.split)
    found["spoilt"] = spoilt(predictor, store, options.split, options.spoilt)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def with_limits(
    run: Path, predictor: Predictor, store: Store, options: argparse.Namespace, batch: int
) -> Predictor:
    """Set the limits of a run."""
    started = time.monotonic()
    trained_on = tuple(read_facts(run).training.get("trained_on", ("train",)))
    write_reference_ranges(run, predictor, batch, store, trained_on, again=True)
    print(f"limits set in {time.monotonic() - started:.1f} s")
    return Predictor.load(run, options.device, batch)


def clean(predictor: Predictor, store: Store, split: str) -> dict:
    """Score a split as it is."""
    reference, ids = predictor.reference_ranges, store.ids(split)
    seconds = {}
    monitor = QualityMonitor(reference, calibration=True)
    for name, asked in (("without flags", None), ("with flags", QualityMonitor(reference))):
        started = time.process_time()  # of all threads, whatever else the machine does
        for _ in predictor.segment((store.case(one) for one in ids), asked):
            pass
        seconds[name] = round(time.process_time() - started, 2)
    rows = score_cases(predictor, store, ids, monitor=monitor)
    dice: dict[str, list[float]] = {}
    for row in rows:
        if row["dice"] is not None:
            dice.setdefault(row["case"], []).append(row["dice"])
    mean = {case: float(np.mean(values)) for case, values in dice.items()}
    assessments = monitor.assessments
    flagged = [case for case in ids if assessments[case].flags]
    order = sorted(mean, key=lambda case: -assessments[case].anomaly_score)
    fifth = order[: round(len(order) / 5)]
    rest = order[len(fifth) :]
    reasons = Counter(name for case in flagged for name in assessments[case].criteria)
    correlation = stats.spearmanr(
        [assessments[c].anomaly_score for c in order], [mean[c] for c in order]
    )
    errors = [expected_calibration_error(table) for table in monitor.tables_2B3]
    found = {
        "cases": len(ids),
        "flagged": len(flagged),
        "flagged_share": len(flagged) / len(ids),
        "reasons": dict(reasons),
        "dice": float(np.mean(list(mean.values()))),
        "dice_flagged": float(np.mean([mean[c] for c in flagged if c in mean] or [np.nan])),
        "dice_suspicious_fifth": float(np.mean([mean[case] for case in fifth])),
        "dice_rest": float(np.mean([mean[case] for case in rest])),
        "worst_tenth_in_fifth": worst_found(mean, fifth),
        "spearman": float(correlation.statistic),
        "temperature": reference.temperature,
        "calibration_error": errors,
        "cpu_seconds": seconds,
    }
    for name, value in found.items():
        print(f"{name}: {value}")
    for case in sorted(flagged, key=lambda case: -assessments[case].anomaly_score)[:10]:
        shown = f"{mean[case]:.3f}" if case in mean else "-"
        own = assessments[case]
        print(f"  {case}  Dice {shown}  {own.anomaly_score:.2f}  {own.text}")
    return found


def worst_found(dice: dict[str, float], fifth: list[str]) -> float:
    """Return the share of the tenth with the lowest Dice that is in the suspicious fifth."""
    worst = sorted(dice, key=dice.get)[: max(1, round(len(dice) / 10))]
    return len(set(worst) & set(fifth)) / len(worst)


def spoilt(predictor: Predictor, store: Store, split: str, count: int) -> dict[str, float]:
    """Spoil the first cases in every way; return the share that is flagged."""
    shares = {}
    for way, spoil in SPOILERS.items():
        assessments: list[CaseAssessment] = []
        refused = 0
        for number, case_id in enumerate(store.ids(split)[:count]):
            monitor = QualityMonitor(predictor.reference_ranges)
            case = spoil(store.case(case_id), np.random.default_rng(number))
            try:
                next(predictor.segment([case], monitor))
            except Msa2NetError:
                refused += 1
            else:
                assessments += monitor.assessments.values()
        noticed = sum(bool(assessment.flags) for assessment in assessments)
        shares[way] = (noticed + refused) / max(1, len(assessments) + refused)
        example = next((assessment.text for assessment in assessments if assessment.flags), "")
        print(f"{way}: {noticed} of {len(assessments)} flagged, {refused} refused  {example}")
    return shares


if __name__ == "__main__":
    main()
