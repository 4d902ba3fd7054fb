"""Evaluations of the same cases compared, case by case: differences, intervals, tests, wins.

The test is Wilcoxon's signed-rank test on the differences of a class, two-sided. Cases with equal
scores are left out of it (Wilcoxon's own way; Pratt's would rank them), so its n may be smaller
than the number of pairs. p values are corrected by Holm's method over all classes and, with more
than two evaluations, over all comparisons with the reference.

The result is made of entries: `n` pairs, in every figure; `only_reference`, `only_other`,
`neither` (cases with an applicable score on one side or none, in no figure); `infinite` (pairs
with an infinite score: there is no mean then); `reference_mean`, `other_mean`; `mean_difference`
(other minus reference, also where less is better) with its BCa `interval`, None where there is
none; `wins`, `ties`, `losses` of the other; `differing` (n less ties); `ranks_favour` (other,
reference or None); `p`, and after Holm's correction `p_holm` and `smallest_p_holm`, the smallest
that so many differing pairs can reach; `verdict`, and `words` for it. Signed figures (volume
difference) are compared by their magnitude.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from msa2net.errors import ConfigError, DataError
from msa2net.metrics.bootstrap import FEW, RESAMPLES, mean_interval
from msa2net.metrics.hypothesis_tests import (
    Better,
    doubled_ranks,
    holm,
    signed_rank_p,
    which_is_better,
)
from msa2net.metrics.protocol import CaseRow, Protocol, get_protocol
from msa2net.text import count_noun, listed

Verdict: TypeAlias = Literal[
    "better", "worse", "contradictory", "not shown", "same", "too few", "no pairs"
]

ALPHA = 0.05
FEWEST = 6  # pairs; with five, p is at least 2/2^5 = 0.0625
_NAMED = 8  # cases named in an error
_Pair: TypeAlias = tuple[float | None, float | None]


def compare(
    *evaluations: Sequence[CaseRow],
    names: Sequence[str] | None = None,
    metric: str = "dice",
    protocol: Protocol | str = "standard",
    common: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare evaluations with the first of them, over the same cases.

    The order of the cases changes nothing; swapping two evaluations turns the sign of differences
    and intervals, makes wins losses and leaves p as it is.

    Args:
        evaluations: the rows of each, two or more.
        names: what to call them; A, B, … if not given.
        metric: one of the protocol's.
        protocol: a protocol with one score a case, or its name.
        common: compare the cases that all have; otherwise a case that one lacks is an error.
        seed: of the bootstrap.

    Returns:
        `metric`, `protocol`, `better` (which way), `names`, `cases` (their number), `left_out`
        (the cases that not all have), `seed`, `resamples`, `notes` (sentences that belong to
        the figures) and `comparisons`, one for every evaluation but the first: `reference`,
        `other`, `classes` (class → entry) and `mean` (an entry of each case's mean over the
        classes that have a pair in it; None for a single class). Entries: see this file's top.

    Raises:
        ConfigError: no such metric, no scores of single cases, or names that do not fit.
        DataError: evaluations differ in their cases (without `common`), classes or truth; a
            case comes twice; a metric has no value at all.
    """
    protocol = get_protocol(protocol) if isinstance(protocol, str) else protocol
    column, better = _column(metric, protocol)
    names = _checked_names(names, len(evaluations))
    tables = [_table(*one, column, better) for one in zip(names, evaluations, strict=True)]
    _check_classes(tables)
    cases, left_out = _shared_cases(tables, common)
    _check_truth(tables, cases)
    reference, *others = tables
    comparisons = [_compare_two(reference, other, cases, better, seed) for other in others]
    _judge(comparisons, better)
    return {
        "metric": metric,
        "protocol": protocol.name,
        "better": better,
        "names": list(names),
        "cases": len(cases),
        "left_out": left_out,
        "seed": seed,
        "resamples": RESAMPLES,
        "comparisons": comparisons,
        "notes": _notes(comparisons, left_out, better),
    }


@dataclass(frozen=True)
class _Table:
    """One evaluation: scores (None: not applicable) and truth pixels by class, then case."""

    name: str
    scores: dict[str, dict[str, float | None]]
    truth: dict[str, dict[str, int]]

    @property
    def cases(self) -> set[str]:
        return {case for of_class in self.scores.values() for case in of_class}


def _column(metric: str, protocol: Protocol) -> tuple[str, Better]:
    """Return the column of the rows that holds the metric, and which way it is better."""
    if protocol.aggregation == "pooled":
        raise ConfigError(
            f"the protocol {protocol.name!r} pools the pixels of all cases, so no case has a score "
            "to pair; use standard"
        )
    if metric not in protocol.metrics:
        raise ConfigError(
            f"the protocol {protocol.name!r} has no metric {metric!r}; choose from "
            f"{', '.join(protocol.metrics)}"
        )
    return metric + protocol.suffix, which_is_better(metric)


def _checked_names(names: Sequence[str] | None, count: int) -> Sequence[str]:
    if not 2 <= count <= 26:
        raise ConfigError(f"there are {count} evaluations; give from 2 to 26 of them")
    if names is None:
        return [chr(ord("A") + index) for index in range(count)]
    if len(names) != count or len(set(names)) != count:
        raise ConfigError(
            f"the names of {count} evaluations are {listed(names)}; give as many, each once"
        )
    return names


def _table(name: str, rows: Sequence[CaseRow], column: str, better: Better) -> _Table:
    scores: dict[str, dict[str, float | None]] = {}
    truth: dict[str, dict[str, int]] = {}
    for row in rows:
        case, label = row["case"], row["class"]
        of_class = scores.setdefault(label, {})
        if case in of_class:
            raise DataError(
                f"{name} has case {case} twice for class {label!r}; evaluate again to get a table "
                "in which each comes once"
            )
        value = cast("float | None", row.get(column))
        value = None if value is None or math.isnan(value) else value
        of_class[case] = value if value is None or better != "nearer 0" else abs(value)
        truth.setdefault(label, {})[case] = row["tp"] + row["fn"]
    if all(value is None for of_class in scores.values() for value in of_class.values()):
        raise DataError(
            f"{name} has no case with a value of {column}; choose another metric, or evaluate "
            "again if it was not computed then"
        )
    return _Table(name, scores, truth)


def _check_classes(tables: Sequence[_Table]) -> None:
    """Stop unless all evaluations have the same classes, and each case has all of them."""
    first = tables[0]
    for table in tables:
        if table.scores.keys() != first.scores.keys():
            raise DataError(
                f"{first.name} has the classes {', '.join(first.scores)} and {table.name} has "
                f"{', '.join(table.scores)}; compare evaluations with the same label names"
            )
        for label, of_class in table.scores.items():
            lacking = sorted(table.cases - of_class.keys())
            if lacking:
                raise DataError(
                    f"{table.name} lacks class {label!r} of {listed(lacking, _NAMED)}; evaluate "
                    "again to get a whole table"
                )


def _shared_cases(tables: Sequence[_Table], common: bool) -> tuple[list[str], list[str]]:
    """Return the cases that all have, and those that not all have; both sorted."""
    of_each = [table.cases for table in tables]
    shared, everywhere = set.intersection(*of_each), set.union(*of_each)
    partial = sorted(everywhere - shared)
    if partial and not common:
        lacking = [
            f"{table.name} lacks {listed(sorted(everywhere - cases), _NAMED)}"
            for table, cases in zip(tables, of_each, strict=True)
            if everywhere - cases
        ]
        raise DataError(
            f"the evaluations are not of the same cases: {'; '.join(lacking)}; evaluate the same "
            "split of the same data, or compare the cases that all have with --common"
        )
    if not shared:
        raise DataError(
            f"{' and '.join(table.name for table in tables)} have no case in common; evaluate the "
            "same split of the same data"
        )
    return sorted(shared), partial


def _check_truth(tables: Sequence[_Table], cases: Sequence[str]) -> None:
    """Stop where a case's truth differs in size: cases of other data can have the same names."""
    first = tables[0]
    for table in tables[1:]:
        for label, truth in first.truth.items():
            for case in cases:
                here, there = truth[case], table.truth[label][case]
                if here != there:
                    raise DataError(
                        f"case {case} has {here} pixels of {label!r} in the truth of {first.name} "
                        f"and {there} in that of {table.name}, so these are different labels or "
                        "grids; evaluate both on the same data"
                    )


def _compare_two(
    reference: _Table, other: _Table, cases: Sequence[str], better: Better, seed: int
) -> dict[str, Any]:
    pairs: dict[str, list[_Pair]] = {
        label: [(of_class[case], other.scores[label][case]) for case in cases]
        for label, of_class in reference.scores.items()
    }
    means = [_mean_pair(of_case) for of_case in zip(*pairs.values(), strict=True)]
    return {
        "reference": reference.name,
        "other": other.name,
        "classes": {label: _entry(of_class, better, seed) for label, of_class in pairs.items()},
        "mean": _entry(means, better, seed) if len(pairs) > 1 else None,
    }


def _mean_pair(pairs: Sequence[_Pair]) -> _Pair:
    """Average one case over the classes that have a score on both sides, so like with like."""
    both = _both(pairs)
    if not both:
        return None, None
    return fmean(a for a, _ in both), fmean(b for _, b in both)


def _both(pairs: Sequence[_Pair]) -> list[tuple[float, float]]:
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def _entry(pairs: Sequence[_Pair], better: Better, seed: int) -> dict[str, Any]:
    both = _both(pairs)
    # Two infinite distances are as bad as each other, though their difference is not a number.
    differences = np.array([0.0 if a == b else b - a for a, b in both])
    infinite = sum(not (math.isfinite(a) and math.isfinite(b)) for a, b in both)
    averaged = both if not infinite else []
    interval = mean_interval(differences, seed) if averaged else None
    gains = differences if better == "higher" else -differences
    wins, losses = int(np.count_nonzero(gains > 0)), int(np.count_nonzero(gains < 0))
    return {
        "n": len(both),
        "only_reference": sum(a is not None and b is None for a, b in pairs),
        "only_other": sum(a is None and b is not None for a, b in pairs),
        "neither": sum(a is None and b is None for a, b in pairs),
        "infinite": infinite,
        "reference_mean": fmean(a for a, _ in averaged) if averaged else None,
        "other_mean": fmean(b for _, b in averaged) if averaged else None,
        "mean_difference": fmean(differences) if averaged else None,
        "interval": None if interval is None else list(interval),
        "wins": wins,
        "ties": len(both) - wins - losses,
        "losses": losses,
        "differing": wins + losses,
        "ranks_favour": _ranks_favour(gains),
        "p": signed_rank_p(differences) if both else None,
    }


def _ranks_favour(gains: NDArray[np.float64]) -> str | None:
    signed = gains[gains != 0]
    balance = int((np.sign(signed) * doubled_ranks(signed)).sum()) if signed.size else 0
    return None if balance == 0 else "other" if balance > 0 else "reference"


def _judge(comparisons: Sequence[dict[str, Any]], better: Better) -> None:
    """Complete the entries by what depends on all of them: corrected p values and verdicts."""
    _correct([entry for one in comparisons for entry in one["classes"].values()])
    _correct([one["mean"] for one in comparisons if one["mean"]])
    for one in comparisons:
        for entry in (*one["classes"].values(), one["mean"]):
            if entry:
                entry["verdict"] = _verdict(entry, better)
                entry["words"] = _words(entry, one["other"])


def _correct(entries: Sequence[dict[str, Any]]) -> None:
    """Add `p_holm` and `smallest_p_holm` to the entries of one family of tests."""
    tested = [entry for entry in entries if entry["p"] is not None]
    # One of 2^n ways to give n differences their signs is all up, one all down: p ≥ 2/2^n. Holm's
    # correction only falls if a p does, so that of the smallest is the smallest.
    least = [2.0 ** (1 - entry["differing"]) if entry["differing"] else 1.0 for entry in tested]
    corrected = holm([entry["p"] for entry in tested])
    for entry in entries:
        entry["p_holm"] = entry["smallest_p_holm"] = None
    for entry, p, smallest in zip(tested, corrected, holm(least), strict=True):
        entry["p_holm"], entry["smallest_p_holm"] = p, smallest


def _verdict(entry: dict[str, Any], better: Better) -> Verdict:
    if not entry["n"]:
        return "no pairs"
    out_of_reach = entry["differing"] and entry["smallest_p_holm"] > ALPHA
    if entry["n"] < FEWEST or out_of_reach:
        return "too few"
    if not entry["differing"]:
        return "same"
    if entry["p_holm"] > ALPHA:
        return "not shown"
    by_ranks = 1 if entry["ranks_favour"] == "other" else -1
    by_mean = (entry["mean_difference"] or 0) * (1 if better == "higher" else -1)
    if by_mean * by_ranks < 0:
        return "contradictory"
    return "better" if by_ranks > 0 else "worse"


def _words(entry: dict[str, Any], other: str) -> str:
    verdict, n, differing = entry["verdict"], entry["n"], entry["differing"]
    if verdict == "too few":
        if not differing:
            return f"the same in {count_noun(n, 'case')}, too few to tell"
        which = f"{n} pair{' is' if n == 1 else 's are'}"
        if differing < n:
            which = f"only {differing} of {n} pairs differ{'s' if differing == 1 else ''},"
        return f"{which} too few to tell: corrected p is {entry['smallest_p_holm']:.2g} at least"
    by_ranks = "better" if entry["ranks_favour"] == "other" else "worse"
    by_mean = "worse" if by_ranks == "better" else "better"
    return {
        "no pairs": "no case has a score on both sides",
        "same": f"the same in all {n} cases",
        "not shown": "no difference shown, which does not show that there is none",
        "contradictory": f"{other} is {by_ranks} by ranks but {by_mean} in the mean: look at cases",
        "better": f"{other} is better",
        "worse": f"{other} is worse",
    }[verdict]


def _notes(
    comparisons: Sequence[dict[str, Any]], left_out: Sequence[str], better: Better
) -> list[str]:
    """Say what belongs to the figures, in sentences."""
    entries = [entry for one in comparisons for entry in one["classes"].values()]
    tests = sum(entry["p"] is not None for entry in entries)
    with_mean = ", that of the mean over the comparisons" if comparisons[0]["mean"] else ""
    notes = [
        "Intervals and p are about other cases for these same weights, not about training again, "
        "which changes scores too.",
        "p is of Wilcoxon's signed-rank test without the cases whose scores are equal, corrected "
        f"by Holm's method over {count_noun(tests, 'test')} of classes{with_mean}; "
        "intervals are of one line each and not corrected.",
    ]
    if any(0 < entry["n"] < FEW for entry in entries):
        notes.append(
            f"Below {FEW} pairs an interval is too narrow; even with {FEW}, 7 to 12 in 100 miss "
            "the true difference."
        )
    if better == "nearer 0":
        notes.append("The figure is signed; its magnitudes are compared.")
    if left_out:
        cases = listed(left_out, _NAMED)
        notes.append(f"Left out, because not all evaluations have them: {cases}.")
    for one in comparisons:
        for label, entry in one["classes"].items():
            notes += _uneven(one, label, entry)
    return notes


def _uneven(one: dict[str, Any], label: str, entry: dict[str, Any]) -> Iterable[str]:
    """Say which cases of a class are in no figure, or in no mean."""
    sides = (("only_reference", one["reference"]), ("only_other", one["other"]))
    counts = [f"{entry[key]} scored in {name} only" for key, name in sides if entry[key]]
    if counts:
        yield (
            f"{label}, {one['other']} against {one['reference']}: {' and '.join(counts)}; not "
            "applicable on the other side, so in no figure here."
        )
    if entry["infinite"]:
        yield (
            f"{label}, {one['other']} against {one['reference']}: no mean, since "
            f"{entry['infinite']} of {entry['n']} pairs hold an infinite distance; they count in "
            "p and among wins and losses."
        )
