"""From rows (case × class) to the scores under one protocol, and rows to and from cases.csv."""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from msa2net.errors import DataError
from msa2net.files import write_text
from msa2net.metrics.aggregation import class_intervals, class_metrics
from msa2net.metrics.bootstrap import LEVEL, METHOD, RESAMPLES
from msa2net.metrics.hypothesis_tests import WORST, worst_cases
from msa2net.metrics.protocol import (
    DISTANCES_MM,
    DISTANCES_VOXELS,
    PROTOCOLS,
    RENAMED,
    UNITS,
    CaseRow,
    FailedDistance,
    Outcome,
    Protocol,
    get_protocol,
    outcome,
)
from msa2net.metrics.schema import IntervalMethod, ProtocolScores, WorstCase, sum_of_counts
from msa2net.renamed import current_columns
from msa2net.text import csv_text, listed, plain_cell

COLUMNS: tuple[str, ...] = tuple(CaseRow.__annotations__)
_TEXTS = ("case", "class", "group", "outcome", "outcome_transunet", "flags")
_COUNTS = ("tp", "fp", "fn", "tn")
_FAILED = ("missed", "false_positive")
_MAY_BE_INFINITE = (*DISTANCES_MM, *DISTANCES_VOXELS)  # where a class failed; see FAILED_DISTANCES
# Columns that every table has had. The others came later, some at a time: of an older table their
# cells are empty, as if they had not been computed.
_FIRST_COLUMNS = (
    *("case", "class", "outcome", "tp", "fp", "fn", "tn", "dice", "iou", "sensitivity"),
    *("specificity", "precision", "accuracy", "dice_transunet"),
)


def summarise(
    rows: Sequence[CaseRow],
    label_names: Sequence[str],
    protocol: Protocol | str,
    *,
    intervals: bool = True,
    seed: int = 0,
) -> ProtocolScores:
    """Sum the rows of one split up under one protocol.

    The order of the rows does not change the result, not even in the last digit.

    Args:
        rows: every case of the split with every class, once.
        label_names: one name per class, background first.
        protocol: a protocol or its name; `standard` is for rows in which a failure's distance
            is the image's diagonal, see `standard_protocol` for others.
        intervals: with the 95 % intervals. 17 metrics of 8 classes in 520 cases take 0.5 s on one
            core, 0.03 s without: what is called often does without.
        seed: of the intervals' bootstrap.

    Raises:
        ConfigError: no such protocol.
        DataError: a class is unknown, a case comes twice or lacks a class, or distances of
            failures were not scored as the protocol's rules say.
    """
    if isinstance(protocol, str):
        protocol = get_protocol(protocol)
    by_class = _by_class(rows, label_names)
    _check_failed_distances(rows, protocol)
    of_classes, of_means = class_intervals(by_class, protocol, seed) if intervals else ({}, {})
    classes = class_metrics(by_class, protocol, of_classes)
    values = {metric: [own[metric] for own in classes.values()] for metric in protocol.metrics}
    means = {
        metric: [value.mean for value in own if value.mean is not None]
        for metric, own in values.items()
    }
    return ProtocolScores(
        title=protocol.title,
        unit=UNITS[protocol.aggregation],
        rules=protocol.rules,
        classes=classes,
        mean={metric: _mean(own) for metric, own in means.items()},
        mean_over={metric: len(own) for metric, own in means.items()},
        mean_counts={metric: sum_of_counts(own) for metric, own in values.items()},
        mean_interval={metric: interval.ends for metric, interval in of_means.items()},
        mean_warning={metric: interval.warning for metric, interval in of_means.items()},
    )


def summarise_groups(
    rows: Sequence[CaseRow],
    label_names: Sequence[str],
    protocol: Protocol | str,
    *,
    intervals: bool = True,
    seed: int = 0,
) -> dict[str, ProtocolScores]:
    """Sum up every group of cases for itself, under one protocol.

    Args:
        rows: as for `summarise`; a case's rows share one group.
        label_names: one name per class, background first.
        protocol: a protocol or its name.
        intervals: as for `summarise`.
        seed: as for `summarise`.

    Returns:
        Group → its cases' scores, as from `summarise`; in the order in which groups first appear.
        Cases without a group ("") are in none: {} if that is all of them.

    Raises:
        ConfigError: no such protocol.
        DataError: as `summarise`, of any group.
    """
    if isinstance(protocol, str):
        protocol = get_protocol(protocol)
    by_group: dict[str, list[CaseRow]] = {}
    for row in rows:
        if row["group"]:
            by_group.setdefault(row["group"], []).append(row)
    return {
        group: summarise(own, label_names, protocol, intervals=intervals, seed=seed)
        for group, own in by_group.items()
    }


def interval_method(seed: int = 0) -> IntervalMethod:
    """Return what the intervals of `summarise` with this seed are made with."""
    return IntervalMethod(level=LEVEL, resamples=RESAMPLES, seed=seed, method=METHOD)


def worst_of_classes(
    rows: Sequence[CaseRow], label_names: Sequence[str], count: int = WORST
) -> dict[str, list[WorstCase]]:
    """Name the worst cases of every class by Dice, standard protocol.

    Args:
        rows: as for `summarise`.
        label_names: one name per class, background first.
        count: how many at most; cases with the class in neither mask have no Dice and are not
            among them.

    Returns:
        Class → its worst cases, worst first, equals in the order of their names.

    Raises:
        DataError: as `summarise`.
    """
    worst: dict[str, list[WorstCase]] = {}
    for label, of_class in _by_class(rows, label_names).items():
        outcomes = {row["case"]: row["outcome"] for row in of_class}
        found = worst_cases({row["case"]: row["dice"] for row in of_class}, "higher", count)
        worst[label] = [
            WorstCase(case=case, dice=dice, outcome=outcomes[case]) for case, dice in found
        ]
    return worst


def mean_dice(rows: Sequence[CaseRow]) -> float | None:
    """Return the mean Dice over cases, then classes, by the standard protocol.

    It chooses checkpoints. Missed and false positive count 0; both empty is left out; a class that
    is nowhere applicable is left out of the mean over classes; None if no class is left, also for
    no rows.

    Raises:
        DataError: a case comes twice or lacks a class that another case has.
    """
    label_names = ["", *dict.fromkeys(row["class"] for row in rows)]
    # Whichever way the rows count the distances of failures, they are not looked at.
    only_dice = replace(PROTOCOLS["standard"], metrics=("dice",), failed_distance=None)
    return summarise(rows, label_names, only_dice, intervals=False).mean["dice"]


def write_cases_csv(path: Path, rows: Iterable[CaseRow]) -> None:
    """Write rows as cases.csv; floats in full, so that reading gives equal rows of printable text.

    Raises:
        DataError: the file cannot be written.
    """
    write_text(path, csv_text(COLUMNS, cast("Iterable[Mapping[str, object]]", rows)))


def read_cases_csv(path: Path) -> list[CaseRow]:
    """Read rows from a cases.csv; columns that an older one did not have yet are empty.

    Raises:
        DataError: the file cannot be read, is not such a table, or one of its cells cannot be
            right; the message names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = current_columns("cases.csv", next(reader, []))
            header = tuple(RENAMED.get(column, column) for column in columns)
            if header != tuple(c for c in COLUMNS if c in header or c in _FIRST_COLUMNS):
                raise DataError(f"the columns are {_shown(header)}, not {','.join(COLUMNS)}")
            return [_parse(header, cells, reader.line_num) for cells in reader]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (DataError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not a cases.csv of `msa2net evaluate`: {error}; evaluate again to get one"
        ) from error


def _by_class(rows: Sequence[CaseRow], label_names: Sequence[str]) -> dict[str, list[CaseRow]]:
    """Group rows by class in the order of the names; each case must be in each class once."""
    by_class: dict[str, list[CaseRow]] = {name: [] for name in label_names[1:]}
    for row in rows:
        if row["class"] not in by_class:
            raise DataError(
                f"case {row['case']}: class {row['class']!r} is not among {listed(by_class)}; "
                "use the label names that the cases were scored with"
            )
        by_class[row["class"]].append(row)
    cases = dict.fromkeys(row["case"] for row in rows)
    for name, of_class in by_class.items():
        seen = Counter(row["case"] for row in of_class)
        for case in cases:
            if seen[case] != 1:
                raise DataError(
                    f"case {case} has {seen[case]} rows for class {name!r}; it must have one: "
                    "look for a case that was scored twice or a table that was cut short"
                )
    return by_class


def _check_failed_distances(rows: Sequence[CaseRow], protocol: Protocol) -> None:
    if protocol.failed_distance is None:
        return
    for row in rows:
        # The published distance has a value wherever distances were measured at all.
        if row["outcome"] not in _FAILED or row["hd95_voxels_transunet"] is None:
            continue
        way = _failed_distance(row["hd95_voxels"])
        if way != protocol.failed_distance:
            raise DataError(
                f"case {row['case']}: the distance of class {row['class']!r}, which failed, was "
                f"scored as {way!r}, but protocol {protocol.name} says {protocol.failed_distance!r}"
                f"; sum up with standard_protocol({way!r}) or score all cases alike"
            )


def failed_distances(rows: Iterable[CaseRow]) -> set[FailedDistance]:
    """Return how the distances of failures were counted in rows; empty without such distances."""
    return {
        _failed_distance(row["hd95_voxels"])
        for row in rows
        if row["outcome"] in _FAILED and row["hd95_voxels_transunet"] is not None
    }


def _failed_distance(value: float | None) -> FailedDistance:
    if value is None:
        return "nan"
    return "inf" if value == math.inf else "diagonal"


def _mean(values: list[float]) -> float | None:
    return fmean(values) if values else None  # fmean sums exactly: order cannot matter


def _parse(header: tuple[str, ...], cells: list[str], line: int) -> CaseRow:
    if len(cells) != len(header):
        raise DataError(f"line {line} has {len(cells)} cells, expected {len(header)}")
    found = dict(zip(header, cells, strict=True))
    row: dict[str, Any] = {}
    for column in COLUMNS:
        cell = found.get(column, "")
        if column in _TEXTS:
            row[column] = plain_cell(cell)
            continue
        infinite = column in _MAY_BE_INFINITE and found["outcome"] in _FAILED
        try:
            row[column] = _count(cell) if column in _COUNTS else _metric(cell, infinite)
        except ValueError as error:
            raise DataError(f"line {line}: {column} is {cell!r}") from error
    became = outcome(row["tp"], row["fp"], row["fn"])
    if row["outcome"] != became:
        raise DataError(f"line {line}: outcome is {row['outcome']!r} but the counts say {became!r}")
    published = _published_outcome(row)
    if (row["outcome_transunet"] or published) != published:
        raise DataError(
            f"line {line}: outcome_transunet is {row['outcome_transunet']!r} but the scores say "
            f"{published!r}"
        )
    row["outcome_transunet"] = published
    return cast("CaseRow", row)


def _published_outcome(row: Mapping[str, Any]) -> Outcome:
    """Tell the outcome of the published protocol's masks from its scores, as in older tables.

    The truth is that of the counts. Of what it holds, masks without a common voxel have a Dice of
    0 as a missed one has, but a distance.
    """
    dice, distance = row["dice_transunet"], row["hd95_voxels_transunet"]
    own: Outcome = row["outcome"]
    if dice is None:
        return own
    if own in ("false_positive", "absent"):
        return "false_positive" if dice else "absent"
    if dice or distance:
        return "scored"
    return own if distance is None else "missed"


def _count(cell: str) -> int:
    if not (cell.isascii() and cell.isdigit()):
        raise ValueError(cell)
    return int(cell)


def _metric(cell: str, may_be_infinite: bool) -> float | None:
    if not cell:
        return None
    value = float(cell)
    if not (math.isfinite(value) or (may_be_infinite and value == math.inf)):
        raise ValueError(cell)
    return value


def _shown(header: Sequence[str]) -> str:
    text = " ".join(",".join(header).split())
    return (text[:60] + "…" if len(text) > 60 else text) or "missing"
