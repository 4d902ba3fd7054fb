"""The flags and the calibration of a run on a split."""

from collections import Counter

from msa2net.evaluation.schema import AssessmentSummary, Calibration, FlaggedCase
from msa2net.metrics.calibration import expected_calibration_error, reliability_points
from msa2net.quality.monitor import QualityMonitor
from msa2net.quality.reference_ranges import ReferenceRanges

SHOWN = 10  # flagged cases that are named; all stand in cases.csv


def summarise_assessments(
    monitor: QualityMonitor | None, usual: ReferenceRanges | None
) -> AssessmentSummary | None:
    """Sum up what a monitor saw of an evaluated split; None of a run without reference ranges."""
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
        Calibration(
            error=expected_calibration_error(table), points=tuple(reliability_points(table))
        )
        for table in monitor.tables_2B3
    )
    return AssessmentSummary(
        cases=len(monitor.assessments),
        flagged=len(flagged),
        target=usual.target,
        val_cases=usual.val_cases,
        first=tuple(
            FlaggedCase(case=case, anomaly_score=assessment.anomaly_score, flags=assessment.text)
            for case, assessment in flagged[:SHOWN]
        ),
        reasons=dict(reasons.most_common()),
        temperature=usual.temperature,
        temperature_reason=usual.temperature_reason,
        before=before,
        after=after,
    )
