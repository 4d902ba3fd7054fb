"""The metric values of each class under one protocol, and their intervals, from sets of rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

import numpy as np

from msa2net.metrics.bootstrap import (
    Floats,
    Interval,
    class_mean_intervals,
    interval_warning,
    mean_intervals,
    pooled_intervals,
)
from msa2net.metrics.hypothesis_tests import Spread, applicable_scores, spread
from msa2net.metrics.overlap import overlap_metrics
from msa2net.metrics.protocol import CaseRow, Protocol, applicable
from msa2net.metrics.schema import MetricValue

Rows: TypeAlias = Mapping[str, Sequence[CaseRow]]  # class → one row a case
Intervals: TypeAlias = Mapping[str, Interval]  # metric → interval

_COUNTS = ("tp", "fp", "fn", "tn")
_NO_INTERVAL = Interval(None, None)


def class_metrics(
    by_class: Rows, protocol: Protocol, intervals: Mapping[str, Intervals]
) -> dict[str, dict[str, MetricValue]]:
    """Return class → metric → value.

    Args:
        by_class: the rows of every class.
        protocol: by which they are aggregated.
        intervals: class → metric → interval, from `class_intervals`; {} without any.
    """
    return {
        label: _class_values(rows, protocol, intervals.get(label, {}))
        for label, rows in by_class.items()
    }


def class_intervals(
    by_class: Rows, protocol: Protocol, seed: int
) -> tuple[dict[str, dict[str, Interval]], dict[str, Interval]]:
    """Return class → metric → interval, and metric → interval of the mean over classes.

    The cases of all classes are the same. They are drawn in the order of their names, so that of
    the rows changes nothing.
    """
    ordered = {label: sorted(rows, key=lambda row: row["case"]) for label, rows in by_class.items()}
    find = _pooled_intervals if protocol.aggregation == "pooled" else _per_case_intervals
    of_classes, of_means = find(ordered, protocol, seed)
    metrics = protocol.metrics
    named = {
        label: dict(zip(metrics, found, strict=True))
        for label, found in zip(ordered, of_classes, strict=True)
    }
    return named, dict(zip(metrics, of_means, strict=True))


def _class_values(
    rows: Sequence[CaseRow], protocol: Protocol, intervals: Intervals
) -> dict[str, MetricValue]:
    outcomes = Counter(protocol.outcome(row) for row in rows)  # of the masks that it scores
    spreads = (
        _pooled(rows, protocol)
        if protocol.aggregation == "pooled"
        else {metric: spread(_scores(rows, metric, protocol)) for metric in protocol.metrics}
    )
    values = {}
    for metric, own in spreads.items():
        ends, warning = intervals.get(metric, _NO_INTERVAL)
        values[metric] = MetricValue(
            **own,
            missed=outcomes["missed"],
            false_positives=outcomes["false_positive"],
            interval=ends,
            warning=warning,
        )
    return values


def _pooled(rows: Sequence[CaseRow], protocol: Protocol) -> dict[str, Spread]:
    pooled = overlap_metrics(**{name: sum(_count(row, name) for row in rows) for name in _COUNTS})
    spreads: dict[str, Spread] = {}
    for metric in protocol.metrics:
        value = applicable(pooled[metric])
        n = 0 if value is None else len(rows)  # every case's pixels are in it, or none are
        spreads[metric] = {
            "n": n,
            "not_applicable": len(rows) - n,
            "mean": value,
            "sd": None,
            "lower_quartile": None,
            "median": None,
            "upper_quartile": None,
        }
    return spreads


def _per_case_intervals(
    by_class: Rows, protocol: Protocol, seed: int
) -> tuple[list[list[Interval]], list[Interval]]:
    scores = [
        [_scores(rows, metric, protocol) for metric in protocol.metrics]
        for rows in by_class.values()
    ]
    samples = [applicable_scores(column) for of_class in scores for column in of_class]
    found = [
        Interval(ends, interval_warning(values))
        for ends, values in zip(mean_intervals(samples, seed), samples, strict=True)
    ]
    step = len(protocol.metrics)
    of_classes = [found[start : start + step] for start in range(0, len(found), step)]
    if len(of_classes) == 1:
        return of_classes, of_classes[0]
    values_NCM = np.array(scores, np.float64).transpose(2, 0, 1)  # None becomes nan
    return of_classes, class_mean_intervals(values_NCM, seed)


def _pooled_intervals(
    by_class: Rows, protocol: Protocol, seed: int
) -> tuple[list[list[Interval]], list[Interval]]:
    def figures(counts: Floats) -> Floats:
        pooled = overlap_metrics(**{name: counts[..., k] for k, name in enumerate(_COUNTS)})
        return np.stack([pooled[metric] for metric in protocol.metrics], axis=-1)

    counts = [
        [[_count(row, name) for name in _COUNTS] for row in rows] for rows in by_class.values()
    ]
    shape = (len(by_class), -1, len(_COUNTS))
    return pooled_intervals(
        np.array(counts, np.float64).reshape(shape).swapaxes(0, 1), figures, seed
    )


def _scores(rows: Sequence[CaseRow], metric: str, protocol: Protocol) -> list[float | None]:
    column = metric + protocol.suffix
    return [cast("float | None", row.get(column)) for row in rows]


def _count(row: CaseRow, name: str) -> int:
    return cast("int", row.get(name))
