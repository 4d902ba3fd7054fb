"""How far a run's answers are to be trusted: `trust` of summary.json."""

from collections import Counter
from typing import Any

from msa2net.metrics.calibration import expected_calibration_error, reliability_points
from msa2net.quality.monitor import QualityMonitor
from msa2net.quality.reference_ranges import ReferenceRanges

SHOWN = 10  # flagged cases that are named; all stand in cases.csv


def summarise_assessments(
    monitor: QualityMonitor | None, usual: ReferenceRanges | None
) -> dict[str, Any] | None:
    """Sum up what a monitor saw of an evaluated split.

    Returns:
        None of a run that does not know what is usual. Else `flagged` and `cases`, `target` (the
        share of clean cases that may be flagged), `first` (the most suspicious flagged cases, each
        with `case`, `suspicion` and `flags`), `reasons` (criterion → cases), `val_cases` that the
        limits come from; `temperature` and `temperature_reason`, and `before` and `after` it
        `error` (expected calibration error, over all pixels the network was shown) and `points`
        (mean confidence, accuracy and share of the pixels of each bin that holds any).
    """
    if monitor is None or usual is None:
        return None
    flagged = sorted(
        (
            (case, assessment)
            for case, assessment in monitor.assessments.items()
            if assessment.flags
        ),
        key=lambda pair: (-pair[1].anomaly_score, pair[0]),
    )
    reasons = Counter(name for _, assessment in flagged for name in assessment.criteria)
    before, after = (
        {"error": expected_calibration_error(table), "points": reliability_points(table)}
        for table in monitor.tables_2B3
    )
    return {
        "cases": len(monitor.assessments),
        "flagged": len(flagged),
        "target": usual.target,
        "val_cases": usual.val_cases,
        "first": [
            {"case": case, "suspicion": assessment.anomaly_score, "flags": assessment.text}
            for case, assessment in flagged[:SHOWN]
        ],
        "reasons": dict(reasons.most_common()),
        "temperature": usual.temperature,
        "temperature_reason": usual.temperature_reason,
        "before": before,
        "after": after,
    }
