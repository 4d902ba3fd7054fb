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
    get_protocol,
    outcome,
    transunet_dice,
)
from msa2net.metrics.scoring import case_rows
from msa2net.metrics.summary import (
    mean_dice,
    read_cases_csv,
    summarise,
    summarise_groups,
    write_cases_csv,
)
from msa2net.metrics.surface import (
    class_surfaces,
    diagonal,
    hd95_of_surfaces,
    hd95_pooled,
    surface_distances,
    surface_voxels,
)

__all__ = [
    "PROTOCOLS",
    "PUBLISHED",
    "CaseRow",
    "Protocol",
    "accuracy",
    "case_rows",
    "class_surfaces",
    "confusion_counts",
    "diagonal",
    "dice",
    "get_protocol",
    "hd95_of_surfaces",
    "hd95_pooled",
    "iou",
    "mean_dice",
    "outcome",
    "overlap_metrics",
    "precision",
    "read_cases_csv",
    "sensitivity",
    "specificity",
    "summarise",
    "summarise_groups",
    "surface_distances",
    "surface_voxels",
    "transunet_dice",
    "write_cases_csv",
]
