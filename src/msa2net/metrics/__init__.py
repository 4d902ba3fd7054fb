"""Scores as pure functions on numpy arrays; never imports torch."""

from msa2net.metrics.overlap import (
    accuracy,
    confusion_counts,
    dice,
    iou,
    overlap_metrics,
    precision,
    sensitivity,
    specificity,
)
from msa2net.metrics.protocol import (
    PROTOCOLS,
    PUBLISHED,
    CaseRow,
    Protocol,
    case_rows,
    get_protocol,
    outcome,
    transunet_dice,
)
from msa2net.metrics.summary import mean_dice, read_cases_csv, summarise, write_cases_csv

__all__ = [
    "PROTOCOLS",
    "PUBLISHED",
    "CaseRow",
    "Protocol",
    "accuracy",
    "case_rows",
    "confusion_counts",
    "dice",
    "get_protocol",
    "iou",
    "mean_dice",
    "outcome",
    "overlap_metrics",
    "precision",
    "read_cases_csv",
    "sensitivity",
    "specificity",
    "summarise",
    "transunet_dice",
    "write_cases_csv",
]
