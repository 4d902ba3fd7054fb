"""Who counts what: every empty-mask case of every protocol, sums over cases, and cases.csv."""

import json
import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golden_masks import GOLDEN_CASES, golden_masks
from msa2net.errors import ConfigError, DataError
from msa2net.metrics import summary as module
from msa2net.metrics import surface
from msa2net.metrics.bootstrap import interval_warning, mean_interval
from msa2net.metrics.hypothesis_tests import applicable_scores, spread
from msa2net.metrics.protocol import (
    FAILED_DISTANCES,
    PROTOCOLS,
    PUBLISHED,
    differing_rules,
    get_protocol,
    outcome,
    standard_protocol,
    transunet_dice,
)
from msa2net.metrics.schema import IntervalMethod, WorstCase
from msa2net.metrics.scoring import case_rows
from msa2net.metrics.summary import (
    COLUMNS,
    interval_method,
    mean_dice,
    read_cases_csv,
    summarise_groups,
    worst_of_classes,
    write_cases_csv,
)
from msa2net.text import all_printable

NAMES = ("background", "lesion")
ABC = ("background", "a", "b", "c")
SPREAD = ("mean", "sd", "lower_quartile", "median", "upper_quartile")
# Ten pixels a case: the pixels of the truth, then those of the prediction
SITUATIONS = {
    "half": ([0, 1, 2, 3], [2, 3, 4, 5]),
    "missed": ([0, 1], []),
    "false positive": ([], [0, 1, 2]),
    "both empty": ([], []),
}


MM = ("hd_mm", "hd95_mm", "hd95_directed_max_mm", "assd_mm", "surface_dice_2mm")
VOXELS = (
    *("hd_voxels", "hd95_voxels", "hd95_directed_max_voxels", "assd_voxels"),
    "surface_dice_2voxels",
)
UNJUDGED = {"flags": "", "anomaly_score": None}
NO_DISTANCES = dict.fromkeys([*MM, *VOXELS, "hd95_voxels_transunet"])


def summarise(rows, label_names, protocol, **options):
    """Return the scores as plain values; without intervals, what is about them is left out."""
    scores = module.summarise(rows, label_names, protocol, **options).model_dump()
    if not options.get("intervals", True):
        del scores["mean_interval"], scores["mean_warning"]
        for value in (value for of in scores["classes"].values() for value in of.values()):
            assert (value.pop("interval"), value.pop("warning")) == (None, None)
    return scores


def lesion(case, true, predicted, **options):
    truth, prediction = np.zeros((2, 1, 2, 5), dtype=np.uint8)
    truth.ravel()[true] = 1
    prediction.ravel()[predicted] = 1
    return case_rows(case, prediction, truth, NAMES, **options)


def became(outcome):
    return {"outcome": outcome, "outcome_transunet": outcome}


def four_cases(**options):
    return [row for name, masks in SITUATIONS.items() for row in lesion(name, *masks, **options)]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((5, 2, 3), "scored"),
        ((0, 2, 3), "scored"),  # both hold the class, in different places
        ((0, 0, 3), "missed"),
        ((0, 2, 0), "false_positive"),
        ((0, 0, 0), "absent"),
    ],
)
def test_outcome(counts, expected):
    assert outcome(*counts) == expected


def test_row_of_every_situation_by_hand():
    half, missed, false_positive, absent = four_cases()
    assert half == {
        **{"case": "half", "class": "lesion", "group": "", **became("scored"), **UNJUDGED},
        **{"tp": 2, "fp": 2, "fn": 2, "tn": 4},
        **{"dice": 0.5, "iou": 2 / 6, "sensitivity": 0.5, "specificity": 4 / 6},
        **{"precision": 0.5, "accuracy": 0.6, "dice_transunet": 0.5},
        "volume_difference_percent": 0.0,
        **NO_DISTANCES,
    }
    assert missed == {
        **{"case": "missed", "class": "lesion", "group": "", **became("missed"), **UNJUDGED},
        **{"tp": 0, "fp": 0, "fn": 2, "tn": 8},
        **{"dice": 0.0, "iou": 0.0, "sensitivity": 0.0, "specificity": 1.0},
        **{"precision": None, "accuracy": 0.8, "dice_transunet": 0.0},
        "volume_difference_percent": -100.0,
        **NO_DISTANCES,
    }
    assert false_positive == {
        **{"case": "false positive", "class": "lesion", "group": ""},
        **{**became("false_positive"), **UNJUDGED},
        **{"tp": 0, "fp": 3, "fn": 0, "tn": 7},
        **{"dice": 0.0, "iou": 0.0, "sensitivity": None, "specificity": 0.7},
        **{"precision": 0.0, "accuracy": 0.7, "dice_transunet": 1.0},
        "volume_difference_percent": None,
        **NO_DISTANCES,
    }
    assert absent == {
        **{"case": "both empty", "class": "lesion", "group": "", **became("absent"), **UNJUDGED},
        **{"tp": 0, "fp": 0, "fn": 0, "tn": 10},
        **{"dice": None, "iou": None, "sensitivity": None, "specificity": 1.0},
        **{"precision": None, "accuracy": 1.0, "dice_transunet": 0.0},
        "volume_difference_percent": None,
        **NO_DISTANCES,
    }


def test_columns_are_the_documented_ones():
    documented = (
        "case,class,group,outcome,outcome_transunet,flags,anomaly_score,tp,fp,fn,tn,"
        "dice,iou,sensitivity,specificity,precision,accuracy,"
        "volume_difference_percent,dice_transunet,"
        "hd_mm,hd95_mm,hd95_directed_max_mm,assd_mm,surface_dice_2mm,"
        "hd_voxels,hd95_voxels,hd95_directed_max_voxels,assd_voxels,surface_dice_2voxels,"
        "hd95_voxels_transunet"
    )
    assert ",".join(COLUMNS) == documented
    assert all(tuple(row) == COLUMNS for row in four_cases())


def test_standard_summary_by_hand():
    summary = summarise(four_cases(), NAMES, "standard", intervals=False)
    failures = {"missed": 1, "false_positives": 1}
    figures = summary["classes"]["lesion"]
    assert figures["dice"] == {  # of 0.5, 0 and 0
        **{"mean": 0.5 / 3, "sd": pytest.approx(math.sqrt(1 / 12), abs=1e-16)},
        **{"lower_quartile": 0.0, "median": 0.0, "upper_quartile": 0.25},
        **{"n": 3, "not_applicable": 1, **failures},
    }
    halves = {  # of 0.5 and 0
        **{"mean": 0.25, "sd": math.sqrt(1 / 8)},
        **{"lower_quartile": 0.125, "median": 0.25, "upper_quartile": 0.375},
        **{"n": 2, "not_applicable": 2, **failures},
    }
    assert figures["sensitivity"] == figures["precision"] == halves
    assert figures["accuracy"]["mean"] == pytest.approx((0.6 + 0.8 + 0.7 + 1) / 4, abs=1e-15)
    assert figures["accuracy"]["n"] == 4
    assert figures["volume_difference_percent"] == {  # of 0 and -100
        **{"mean": -50.0, "sd": math.sqrt(5000)},
        **{"lower_quartile": -75.0, "median": -50.0, "upper_quartile": -25.0},
        **{"n": 2, "not_applicable": 2, **failures},
    }
    assert summary["mean"]["dice"] == figures["dice"]["mean"] == mean_dice(four_cases())
    assert summary["mean_over"]["dice"] == 1


def test_transunet_summary_by_hand():
    summary = summarise(four_cases(), NAMES, PROTOCOLS["transunet"], intervals=False)
    assert summary["classes"] == {
        "lesion": {
            "dice": {  # of 0.5, 0, 1 and 0
                **{"mean": 1.5 / 4, "sd": pytest.approx(math.sqrt(0.6875 / 3), abs=1e-15)},
                **{"lower_quartile": 0.0, "median": 0.25, "upper_quartile": 0.625},
                **{"n": 4, "not_applicable": 0, "missed": 1, "false_positives": 1},
            },
            "hd95_voxels": {  # not computed: no value, but still said to be there
                **dict.fromkeys(SPREAD),
                **{"n": 0, "not_applicable": 4, "missed": 1, "false_positives": 1},
            },
        }
    }
    assert summary["mean"] == {"dice": 0.375, "hd95_voxels": None}
    assert summary["mean_over"] == {"dice": 1, "hd95_voxels": 0}
    failures = {"missed": 1, "false_positives": 1}
    assert summary["mean_counts"] == {
        "dice": {"n": 4, "not_applicable": 0, **failures},
        "hd95_voxels": {"n": 0, "not_applicable": 4, **failures},
    }


def test_isic_summary_by_hand():
    summary = summarise(four_cases(), NAMES, "isic", intervals=False)
    # tp 2, fp 2 + 3, fn 2 + 2, tn 4 + 8 + 7 + 10: all forty pixels are in it
    by_hand = {
        "dice": 4 / 13,
        "iou": 2 / 11,
        "sensitivity": 2 / 6,
        "specificity": 29 / 34,
        "accuracy": 31 / 40,
    }
    assert summary["mean"] == by_hand
    for metric, value in by_hand.items():
        assert summary["classes"]["lesion"][metric] == {
            **dict.fromkeys(SPREAD),  # of pixels pooled there is none
            **{"mean": value, "n": 4, "not_applicable": 0, "missed": 1, "false_positives": 1},
        }


def test_every_summary_is_plain_json_with_the_documented_keys():
    for name, protocol in PROTOCOLS.items():
        summary = summarise(four_cases(), NAMES, name)
        as_json = json.dumps(summary, allow_nan=False)
        assert module.ProtocolScores.model_validate_json(as_json).model_dump() == summary
        without = {"title", "unit", "rules", "classes", "mean", "mean_over", "mean_counts"}
        assert set(summary) == without | {"mean_interval", "mean_warning"}
        counts = {"n", "not_applicable", "missed", "false_positives"}
        assert set(summary["classes"]["lesion"]["dice"]) == {
            *(*SPREAD, *counts, "interval", "warning")
        }
        plain = summarise(four_cases(), NAMES, name, intervals=False)
        assert set(plain) == without
        assert set(plain["classes"]["lesion"]["dice"]) == {*SPREAD, *counts}
        assert summary["rules"] == protocol.rules
        assert tuple(summary["classes"]["lesion"]) == tuple(summary["mean"]) == protocol.metrics


def test_nothing_applicable_is_none_and_is_counted():
    rows = lesion("a", [], []) + lesion("b", [], [])
    standard = summarise(rows, NAMES, "standard")
    pooled = summarise(rows, NAMES, "isic")
    for summary in (standard, pooled):
        figure = summary["classes"]["lesion"]["dice"]
        assert (figure["mean"], figure["n"], figure["not_applicable"]) == (None, 0, 2)
        assert summary["mean"]["dice"] is None
        assert summary["mean_over"]["dice"] == 0
        assert summary["classes"]["lesion"]["specificity"]["mean"] == 1.0
    assert summarise(rows, NAMES, "transunet")["mean"]["dice"] == 0.0
    assert mean_dice(rows) is None


def test_intervals_of_the_summary_are_those_of_the_rows():
    rows = many_rows()
    for name in ("standard", "transunet"):
        summary = summarise(rows, ABC, name, seed=4)
        column = "dice" if name == "standard" else "dice_transunet"
        for label in ABC[1:]:
            scores = [row[column] for row in rows if row["class"] == label]
            figure = summary["classes"][label]["dice"]
            known = applicable_scores(scores)
            # 1e-12: drawn together with others, sums are taken in another order
            assert figure["interval"] == pytest.approx(mean_interval(known, 4), abs=1e-12)
            own = {**spread(scores), "warning": interval_warning(known)}
            assert own.items() <= figure.items()
        low, high = summary["mean_interval"]["dice"]
        assert low < summary["mean"]["dice"] < high
        assert summary["mean_warning"]["dice"] is None
    summary_of_seed_4 = summarise(rows, ABC, "standard", seed=4)
    assert summary_of_seed_4 == summarise(rows, ABC, "standard", seed=4)
    other = summarise(rows, ABC, "standard", seed=5)
    assert other["mean_interval"]["dice"] != summary_of_seed_4["mean_interval"]["dice"]


def many_rows():
    """Forty cases with three classes, of which `c` is in every other case only."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(40):
        truth = rng.integers(0, 3, 200)
        if i % 2 == 0:
            truth[:20] = 3
        wrong = rng.random(200) < rng.beta(2, 8)
        prediction = np.where(wrong, np.roll(truth, 1), truth)
        rows += case_rows(f"case{i}", prediction, truth, ABC)
    return rows


def test_interval_of_a_pooled_figure():
    rows = many_rows()
    summary = summarise(rows, ABC, "isic")
    for label in ABC[1:]:
        for metric in PROTOCOLS["isic"].metrics:
            figure = summary["classes"][label][metric]
            low, high = figure["interval"]
            assert low < figure["mean"] < high
            assert figure["warning"] is None
    # Two cases, found and missed: twice the one, both, or twice the other.
    two = lesion("a", [0, 1], [0, 1]) + lesion("b", [0, 1], [])
    figures = summarise(two, NAMES, "isic")["classes"]["lesion"]
    assert figures["dice"]["interval"] == (0, 1)
    assert figures["sensitivity"]["interval"] == (0, 1)
    assert figures["accuracy"]["interval"] == (0.8, 1)
    assert figures["specificity"]["interval"] is None  # 1 in both
    assert "leaving out any one case changes nothing" in figures["specificity"]["warning"]
    assert "n = 2 is below 20" in figures["dice"]["warning"]


def test_what_is_called_often_draws_nothing(monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr("msa2net.metrics.summary.class_intervals", refuse)
    assert mean_dice(four_cases()) == 0.5 / 3
    assert summarise(four_cases(), NAMES, "standard", intervals=False)
    assert summarise_groups(four_cases(group="g"), NAMES, "standard", intervals=False)
    with pytest.raises(AssertionError):
        summarise(four_cases(), NAMES, "standard")


def test_worst_of_classes_by_hand():
    full = np.array([1, 1, 2, 2])
    names = ("background", "x", "y")
    rows = case_rows("a", full, full, names)
    rows += case_rows("c", np.array([1, 1, 0, 0]), full, names)
    rows += case_rows("b", np.array([1, 0, 2, 0]), np.array([1, 1, 0, 0]), names)
    assert worst_of_classes(rows, names) == {
        "x": [
            WorstCase(case="b", dice=2 / 3, outcome="scored"),
            WorstCase(case="a", dice=1.0, outcome="scored"),
            WorstCase(case="c", dice=1.0, outcome="scored"),
        ],
        "y": [
            WorstCase(case="b", dice=0.0, outcome="false_positive"),
            WorstCase(case="c", dice=0.0, outcome="missed"),
            WorstCase(case="a", dice=1.0, outcome="scored"),
        ],
    }
    assert worst_of_classes(rows, names, 1)["y"] == worst_of_classes(rows, names)["y"][:1]
    assert worst_of_classes(lesion("a", [], []), NAMES) == {"lesion": []}
    many = [row for i in range(9) for row in lesion(f"case{i}", range(5), range(i))]
    assert [one.case for one in worst_of_classes(many, NAMES)["lesion"]] == [
        *("case0", "case1", "case2", "case3", "case8"),
    ]


def test_facts_about_intervals():
    method = "BCa bootstrap over cases"
    assert interval_method(3) == IntervalMethod(level=0.95, resamples=10_000, seed=3, method=method)


def test_no_cases():
    for name in PROTOCOLS:
        summary = summarise([], NAMES, name)
        nothing = {"interval": None, "warning": "no interval: no applicable case"}
        assert summary["classes"]["lesion"]["dice"] == {
            **dict.fromkeys(SPREAD),
            **{"n": 0, "not_applicable": 0, "missed": 0, "false_positives": 0},
            **nothing,
        }
        assert summary["mean_interval"]["dice"] is None
        assert summary["mean_warning"]["dice"] == nothing["warning"]
    assert mean_dice([]) is None


def test_mean_over_classes_weighs_classes_alike():
    names = ("background", "large", "rare", "nowhere")
    full = np.array([1, 1, 2, 2])
    rows = case_rows("a", full, full, names)  # Dice 1 and 1
    rows += case_rows("b", np.array([1, 1, 0, 0]), np.array([1, 1, 2, 2]), names)  # 1 and 0
    rows += case_rows("c", np.array([1, 1, 0, 0]), np.array([1, 1, 0, 0]), names)  # 1 and none
    summary = summarise(rows, names, "standard")
    assert summary["mean"]["dice"] == (1 + 0.5) / 2 == mean_dice(rows)
    assert summary["mean_over"]["dice"] == 2  # "nowhere" has no figure, and that is said
    assert summary["mean_over"]["accuracy"] == 3
    # Of three cases times three classes four were found, one was missed and four are nowhere.
    counts = {"n": 5, "not_applicable": 4, "missed": 1, "false_positives": 0}
    assert summary["mean_counts"]["dice"] == counts
    assert summary["mean_counts"]["precision"] == counts | {"n": 4, "not_applicable": 5}


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_published_rule_agrees_with_the_reference(name):
    prediction, truth = golden_masks(name)
    (row,) = case_rows(name, prediction, truth, NAMES)
    # one division of the same two integers: equal to one rounding of float64
    expected = pytest.approx(GOLDEN_CASES[name]["transunet_dice"], rel=2.3e-16, abs=0)
    assert row["dice_transunet"] == expected
    assert transunet_dice(row["tp"], row["fp"], row["fn"]) == expected


# --- distances and groups --------------------------------------------------------------------


def test_distances_of_every_situation_by_hand():
    # Two rows of five voxels, 3 mm apart, of 0.5 mm. Truth (0, 0)–(0, 3); prediction (0, 2),
    # (0, 3), (0, 4), (1, 0): there 0, 0, 1 and 1 voxels; back (0, 0) 1, (0, 1) 1, 0 and 0.
    # Of four times 0 and four times 1, the 95th percentile is 1; in mm the distances are
    # 0, 0, 0.5, 3 and 1 (to (0, 2)), 0.5, 0, 0: rank 0.95·7 = 6.65 between 1 and 3.
    half, missed, false_positive, absent = four_cases(
        distances=True, spacing_mm=(9, 3, 0.5), group="early"
    )
    assert half["hd95_voxels"] == half["hd95_voxels_transunet"] == 1
    assert half["hd95_mm"] == pytest.approx(1 + 0.65 * 2, abs=1e-12)
    # There 0, 0, 0.5 and 3, rank 0.95·3 = 2.85; back the largest is 1.
    assert half["hd95_directed_max_mm"] == pytest.approx(0.5 + 0.85 * 2.5, abs=1e-12)
    assert (half["hd_mm"], half["assd_mm"], half["surface_dice_2mm"]) == (3, 5 / 8, 7 / 8)
    assert [half[column] for column in VOXELS] == [1, 1, 1, 0.5, 1]
    # The image's diagonal: one row and four columns on; the grid is (1, 2, 5).
    for failed in (missed, false_positive):
        assert [failed[column] for column in VOXELS] == [math.sqrt(1 + 16)] * 4 + [0]
        assert [failed[column] for column in MM] == [math.sqrt(9 + 4)] * 4 + [0]
        assert failed["hd95_voxels_transunet"] == 0.0
    assert {absent[column] for column in (*MM, *VOXELS)} == {None}
    assert absent["hd95_voxels_transunet"] == 0.0
    assert {row["group"] for row in (half, missed, false_positive, absent)} == {"early"}
    without = [row | NO_DISTANCES | {"group": ""} for row in (half, missed, false_positive, absent)]
    assert without == four_cases()  # nothing else depends on them


def test_summary_of_distances_by_hand():
    rows = four_cases(distances=True)
    # no spacing, no millimetres
    assert {row[column] for row in rows for column in MM} == {None}
    standard = summarise(rows, NAMES, "standard")
    figure = standard["classes"]["lesion"]["hd95_voxels"]
    assert figure["mean"] == pytest.approx((1 + 2 * math.sqrt(17)) / 3, abs=1e-12)
    assert (figure["n"], figure["not_applicable"]) == (3, 1)
    dice = standard["classes"]["lesion"]["surface_dice_2voxels"]
    assert (dice["mean"], dice["n"]) == (1 / 3, 3)
    assert standard["mean"]["hd95_mm"] is None
    assert standard["mean_over"]["hd95_mm"] == 0
    transunet = summarise(rows, NAMES, "transunet")["classes"]["lesion"]["hd95_voxels"]
    assert (transunet["mean"], transunet["n"], transunet["not_applicable"]) == (0.25, 4, 0)


@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_published_distance_agrees_with_the_reference(name):
    prediction, truth = golden_masks(name)
    options = {"distances": True, "spacing_mm": (2.5, 0.8, 1.1)}
    (row,) = case_rows(name, prediction, truth, NAMES, **options)
    stored = GOLDEN_CASES[name]
    # 1e-9: the same distances, rounded along another way
    assert row["hd95_voxels_transunet"] == pytest.approx(stored["transunet_hd95_voxel"], abs=1e-9)
    if row["outcome"] == "scored" and 1 not in truth.shape:  # one slice: see the standard rules
        assert row["hd95_voxels"] == row["hd95_voxels_transunet"]
        for column in ("hd_mm", "hd95_mm", "assd_mm"):
            assert row[column] == pytest.approx(stored["medpy"][column], abs=1e-9), column
        for unit, stored_as in (("voxels", "voxel"), ("mm", "mm")) if "monai" in stored else ():
            # float32: why this much, test_metrics_surface.py says
            expected = pytest.approx(stored["monai"][f"hd95_{stored_as}"], rel=2e-7, abs=9e-6)
            assert row[f"hd95_directed_max_{unit}"] == expected


def test_every_direction_is_measured_once_a_unit(monkeypatch):
    measured = []

    def counted(first, second, spacing):
        measured.append(tuple(spacing))
        return original(first, second, spacing)

    original = surface.surface_distances
    monkeypatch.setattr(surface, "surface_distances", counted)
    masks = np.array([[0, 1, 1, 2]]), np.array([[0, 1, 2, 2]])
    case_rows("a", *masks, ("background", "x", "y"), distances=True, spacing_mm=(3, 2))
    assert sorted(measured) == [(1, 1)] * 4 + [(3, 2)] * 4  # two classes, there and back


# --- what the distance of a failure counts ---------------------------------------------------


def test_failed_distance_by_hand():
    options = {"distances": True, "spacing_mm": (9, 3, 0.5)}
    for way, expected in {"diagonal": math.sqrt(13), "inf": math.inf, "nan": None}.items():
        half, missed, false_positive, absent = four_cases(**options, failed_distance=way)
        for failed in (missed, false_positive):
            assert [failed[column] for column in MM] == [expected] * 4 + [0]
        # Only failures are concerned, and only these columns of them.
        assert [half, absent] == four_cases(**options)[::3]
        for failed, usual in zip((missed, false_positive), four_cases(**options)[1:3], strict=True):
            assert failed | NO_DISTANCES == usual | NO_DISTANCES
            for column in ("surface_dice_2voxels", "hd95_voxels_transunet"):
                assert failed[column] == usual[column] == 0


@pytest.mark.parametrize(
    ("way", "mean", "n", "not_applicable"),
    [("diagonal", (1 + 2 * math.sqrt(17)) / 3, 3, 1), ("inf", math.inf, 3, 1), ("nan", 1, 1, 3)],
)
def test_failed_distance_in_the_summary(way, mean, n, not_applicable):
    rows = four_cases(distances=True, failed_distance=way, group="g")
    protocol = standard_protocol(way)
    summary = summarise(rows, NAMES, protocol)
    counts = {"n": n, "not_applicable": not_applicable, "missed": 1, "false_positives": 1}
    for column in ("hd_voxels", "hd95_voxels", "hd95_directed_max_voxels"):
        figure = summary["classes"]["lesion"][column]
        assert figure["mean"] == summary["mean"][column] == pytest.approx(mean, rel=1e-15)
        assert {name: figure[name] for name in counts} == summary["mean_counts"][column] == counts
    # A failure is in the Dice of the surfaces, whatever its distance counts.
    assert summary["classes"]["lesion"]["surface_dice_2voxels"]["n"] == 3
    assert dict(summary["rules"])["distance: missed or false positive"] == FAILED_DISTANCES[way]
    assert summarise_groups(rows, NAMES, protocol)["g"].model_dump() == summary
    assert mean_dice(rows) == 0.5 / 3


def test_the_rules_must_say_how_failures_were_scored():
    standard = PROTOCOLS["standard"]
    assert standard_protocol() == standard_protocol("diagonal") == standard
    for way in FAILED_DISTANCES:
        rows = four_cases(distances=True, failed_distance=way)
        for other in {*FAILED_DISTANCES} - {way}:
            with pytest.raises(DataError, match=rf"case missed: .* 'lesion'.*{way}.*{other}"):
                summarise(rows, NAMES, standard_protocol(other))
            # Where nothing failed, or nothing was measured, nothing can be wrong.
            assert summarise([rows[0], rows[3]], NAMES, standard_protocol(other))
        assert summarise(four_cases(failed_distance=way), NAMES, standard_protocol(way))
        assert summarise(rows, NAMES, "transunet")["mean"]["hd95_voxels"] == 0.25
    with pytest.raises(ConfigError, match="'zero'; choose from diagonal, inf, nan"):
        standard_protocol("zero")
    with pytest.raises(ConfigError, match="'zero'; choose from diagonal, inf, nan"):
        four_cases(failed_distance="zero")


def test_infinity_stands_in_the_table_of_cases(tmp_path):
    path = tmp_path / "cases.csv"
    for way in FAILED_DISTANCES:
        rows = four_cases(distances=True, spacing_mm=(1, 1, 1), failed_distance=way)
        write_cases_csv(path, rows)
        assert read_cases_csv(path) == rows
        assert (",inf," in path.read_text()) == (way == "inf")


def test_published_labels_change_the_published_columns_only():
    rng = np.random.default_rng(0)
    truth, prediction, published = rng.integers(0, 4, (3, 3, 6, 7))
    published[published == 2] = 0
    options = {"distances": True, "spacing_mm": (2, 1, 1)}
    mixed = case_rows("a", prediction, truth, ABC, published=published, **options)
    of_prediction = case_rows("a", prediction, truth, ABC, **options)
    of_published = case_rows("a", published, truth, ABC, **options)
    for row, ours, theirs in zip(mixed, of_prediction, of_published, strict=True):
        assert row["dice_transunet"] != ours["dice_transunet"]
        for column in COLUMNS:
            source = theirs if column.endswith("_transunet") else ours
            assert row[column] == source[column], column
    # What the published path missed counts as it does there, though `outcome` says scored.
    assert (mixed[1]["outcome"], mixed[1]["outcome_transunet"]) == ("scored", "missed")
    assert (mixed[1]["dice_transunet"], mixed[1]["hd95_voxels_transunet"]) == (0.0, 0.0)
    for name, rows in (("standard", of_prediction), ("transunet", of_published)):
        assert summarise(mixed, ABC, name) == summarise(rows, ABC, name)


@given(st.lists(st.tuples(*[st.lists(st.integers(0, 2), min_size=5, max_size=5)] * 3), max_size=4))
def test_every_protocol_counts_the_masks_that_it_scores(tmp_path_factory, cases):
    names, rows, of_published = ABC[:3], [], []
    for index, masks in enumerate(cases):
        prediction, truth, published = (np.array([[mask]], np.uint8) for mask in masks)
        about = {"label_names": names, "distances": True}
        rows += case_rows(f"{index}", prediction, truth, published=published, **about)
        of_published += case_rows(f"{index}", published, truth, published=published, **about)
    figures = summarise(rows, names, "transunet", intervals=False)
    assert figures == summarise(of_published, names, "transunet", intervals=False)
    # A table from before this column says it by its scores.
    path = tmp_path_factory.mktemp("csv") / "cases.csv"
    write_cases_csv(path, rows)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("".join(",".join(line[:4] + line[5:]) + "\n" for line in lines))
    assert read_cases_csv(path) == rows


def test_older_names_of_columns_are_read(tmp_path):
    path = tmp_path / "cases.csv"
    rows = four_cases(distances=True, spacing_mm=(1, 1, 1))
    write_cases_csv(path, rows)
    path.write_text(path.read_text().replace("hd95_directed_max_", "hd95_directed_"))
    assert "hd95_directed_mm,assd_mm" in path.read_text()
    assert read_cases_csv(path) == rows


def test_ignored_voxels_are_outside_both_masks():
    truth, prediction = np.zeros((2, 1, 9), dtype=np.uint8)
    truth[0, 0] = prediction[0, [0, 8]] = 1
    assert case_rows("a", prediction, truth, NAMES, distances=True)[0]["hd95_voxels"] > 7
    truth[0, 8] = 255  # the far voxel no longer counts
    (row,) = case_rows("a", prediction, truth, NAMES, published=prediction, distances=True)
    assert row["hd95_voxels"] == row["hd95_voxels_transunet"] == 0
    truth[0, 0] = 255  # and now there is nothing left
    (row,) = case_rows("a", prediction, truth, NAMES, distances=True)
    assert row["outcome"] == "absent"
    assert row["hd95_voxels"] is None


def test_wrong_distance_arguments_name_the_case():
    masks = np.ones((2, 3), dtype=int), np.ones((2, 3), dtype=int), NAMES
    with pytest.raises(DataError, match=r"case img7: the spacing is \(1, 1, 1\); .* 2 axes"):
        case_rows("img7", *masks, distances=True, spacing_mm=(1, 1, 1))
    with pytest.raises(DataError, match=r"case img7, published path: .* shape \(3, 2\)"):
        case_rows("img7", *masks, published=masks[0].T)


def test_groups_are_summed_up_for_themselves():
    rows = lesion("a1", [0, 1], [0, 1], group="systole") + lesion("a2", [0], [1], group="diastole")
    rows += lesion("b1", [0, 1], [], group="systole") + lesion("loose", [0], [0])
    for name in PROTOCOLS:
        groups = summarise_groups(rows, NAMES, name)
        assert list(groups) == ["systole", "diastole"]  # as they come first
        assert groups["systole"].model_dump() == summarise([rows[0], rows[2]], NAMES, name)
        assert groups["diastole"].model_dump() == summarise([rows[1]], NAMES, PROTOCOLS[name])
    assert summarise_groups(rows, NAMES, "standard")["systole"].mean["dice"] == 0.5
    assert summarise_groups(four_cases(), NAMES, "standard") == {}
    with pytest.raises(ConfigError, match="there is no protocol 'isik'"):
        summarise_groups([], NAMES, "isik")


def test_rules_about_distances_stand_in_both_volume_protocols():
    about = [
        {s: rule for s, rule in PROTOCOLS[name].rules if s.startswith("distance: ")}
        for name in ("standard", "transunet")
    ]
    further = {f"distance: {m}" for m in ("hd", "hd95_directed_max", "assd", "surface_dice")}
    assert [situation for situation in about[0] if situation not in further] == list(about[1])
    assert len(about[1]) == 6
    assert further < {*about[0]}
    rules = [PROTOCOLS[name].rules for name in ("standard", "transunet")]
    situations = [row[0] for row in differing_rules(rules)]
    assert {"distance: both empty", "distance: missed or false positive"} <= {*situations}
    assert "back to the case's own grid" in situations
    without = [row[0] for row in differing_rules(rules, distances=False)]
    assert without == [s for s in situations if not s.startswith("distance: ")]


cases_of_three = st.lists(
    st.tuples(*[st.lists(st.sampled_from([0, 1, 2, 3]), min_size=6, max_size=6)] * 2),
    min_size=1,
    max_size=6,
)


def rows_of(cases):
    return [
        row
        for i, (prediction, truth) in enumerate(cases)
        for row in case_rows(f"case{i}", np.array(prediction), np.array(truth), ABC)
    ]


@given(cases_of_three)
def test_agrees_with_loops_over_sets(cases):
    rows = rows_of(cases)
    standard, pooled, published = (
        summarise(rows, ABC, name, intervals=False)["classes"]
        for name in ("standard", "isic", "transunet")
    )
    for k, name in enumerate(ABC[1:], 1):
        dices, by_rule, both, either = [], [], 0, 0
        for prediction, truth in cases:
            p = {i for i, v in enumerate(prediction) if v == k}
            t = {i for i, v in enumerate(truth) if v == k}
            both, either = both + len(p & t), either + len(p) + len(t)
            if p or t:
                dices.append(2 * len(p & t) / (len(p) + len(t)))
            by_rule.append(dices[-1] if p and t else float(bool(p)))
        # 1e-15: a plain sum of at most six numbers up to 1 against an exact one
        expected = statistics.mean(dices) if dices else None
        assert standard[name]["dice"]["mean"] == pytest.approx(expected, abs=1e-15)
        assert standard[name]["dice"]["n"] == len(dices)
        assert published[name]["dice"]["mean"] == pytest.approx(
            sum(by_rule) / len(cases), abs=1e-15
        )
        assert pooled[name]["dice"]["mean"] == (2 * both / either if either else None)


@settings(max_examples=25)  # with intervals, so that they are held to it too
@given(cases_of_three, st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(cases, shuffler: random.Random):
    rows = rows_of(cases)
    shuffled = rows.copy()
    shuffler.shuffle(shuffled)
    for name in PROTOCOLS:
        assert summarise(shuffled, ABC, name) == summarise(rows, ABC, name)
    # Here the order of classes comes from the rows, so the last digit may move
    assert mean_dice(shuffled) == pytest.approx(mean_dice(rows), abs=1e-15)


@given(cases_of_three, st.integers(1, 5))
def test_identical_cases_pool_to_the_score_of_one(cases, copies):
    one = rows_of(cases[:1])
    many = rows_of(cases[:1] * copies)
    pooled = summarise(many, ABC, "isic", intervals=False)["classes"]
    for row in one:
        for metric in PROTOCOLS["isic"].metrics:
            assert pooled[row["class"]][metric]["mean"] == row[metric]


def test_pooled_and_per_case_differ_when_sizes_do():
    small_missed = lesion("a", [0], [])
    large_found = lesion("b", range(8), range(8))
    rows = small_missed + large_found
    assert summarise(rows, NAMES, "standard")["mean"]["dice"] == 0.5
    assert summarise(rows, NAMES, "isic")["mean"]["dice"] == 16 / 17


def test_ignored_pixels_are_in_no_column():
    truth = np.array([1, 1, 0, 255, 255])
    (row,) = case_rows("a", np.array([1, 0, 0, 1, 0]), truth, NAMES)
    assert (row["tp"], row["fp"], row["fn"], row["tn"]) == (1, 0, 1, 1)
    (row,) = case_rows("b", np.array([1, 1]), np.array([255, 255]), NAMES)
    assert row["outcome"] == "absent"
    assert row["accuracy"] is None


def test_errors_name_the_case_and_what_to_do():
    with pytest.raises(DataError, match=r"case img7: the truth .* 2 \(1 pixel\)"):
        case_rows("img7", np.array([0, 1]), np.array([0, 2]), NAMES)
    with pytest.raises(ConfigError, match="at least one class"):
        case_rows("a", np.array([0]), np.array([0]), ("background",))
    with pytest.raises(ConfigError, match="each name once"):
        case_rows("a", np.array([0]), np.array([0]), ("background", "x", "x"))
    with pytest.raises(ConfigError, match="'isik'; choose from standard, transunet, isic"):
        summarise([], NAMES, "isik")


def test_rows_must_be_whole():
    rows = four_cases()
    with pytest.raises(DataError, match="case half has 2 rows for class 'lesion'"):
        summarise([*rows, rows[0]], NAMES, "standard")
    with pytest.raises(DataError, match="class 'lesion' is not among"):
        summarise(rows, ("background", "liver"), "standard")
    two = case_rows("a", np.array([1, 2]), np.array([1, 2]), ("background", "x", "y"))
    two += case_rows("b", np.array([1, 2]), np.array([1, 2]), ("background", "x", "y"))
    with pytest.raises(DataError, match="case b has 0 rows for class 'y'"):
        mean_dice(two[:-1])


def test_protocol_table_is_consistent():
    assert set(PUBLISHED.values()) < set(PROTOCOLS)
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert get_protocol(name) is protocol
        situations = [situation for situation, _ in protocol.rules]
        assert len(set(situations)) == len(situations)
        assert situations[0] == "both empty"
        if protocol.aggregation == "per_case":
            assert {metric + protocol.suffix for metric in protocol.metrics} <= set(COLUMNS)
        assert f"outcome{protocol.suffix}" in COLUMNS


# --- cases.csv -----------------------------------------------------------------------------


ODD_NAMES = st.text(min_size=1) | st.text("'=+-@,\"\n1", min_size=1)


@given(cases_of_three, ODD_NAMES)
def test_csv_round_trip_is_exact(tmp_path_factory, cases, odd_name):
    path = tmp_path_factory.mktemp("csv") / "cases.csv"
    rows = rows_of(cases)
    odd = np.array([1, 2, 3]), np.array([1, 3, 3]), ABC  # 2 is a false positive
    rows += case_rows(odd_name, *odd, distances=True, spacing_mm=(0.7,), group=odd_name)
    write_cases_csv(path, rows)
    assert read_cases_csv(path) == all_printable(rows)


def test_names_are_no_formulas_and_break_no_line(tmp_path):
    path = tmp_path / "cases.csv"
    names = ["=1+1", "+A1", "@SUM(A1)", "-cmd|' /C calc'!A0", "'=x", "-5", "a\rb", "\x1b[31mred"]
    write_cases_csv(path, [row for name in names for row in lesion(name, [0], [1])])
    cells = [line.split(",")[0] for line in path.read_text().splitlines()[1:]]
    assert cells[:6] == ["'=1+1", "'+A1", "'@SUM(A1)", "'-cmd|' /C calc'!A0", "''=x", "-5"]
    assert cells[6:] == [r"a\rb", r"\x1b[31mred"]
    assert [row["case"] for row in read_cases_csv(path)] == [*names[:6], *cells[6:]]


def test_csv_text(tmp_path):
    path = tmp_path / "evaluation" / "cases.csv"
    write_cases_csv(path, lesion("missed", *SITUATIONS["missed"]))
    assert path.read_bytes().decode() == (
        ",".join(COLUMNS)
        + "\nmissed,lesion,,missed,missed,,,0,0,2,8,0.0,0.0,0.0,1.0,,0.8,-100.0,0.0,,,,,,,,,,,\n"
    )


def test_csv_without_rows(tmp_path):
    write_cases_csv(tmp_path / "cases.csv", [])
    assert read_cases_csv(tmp_path / "cases.csv") == []


def test_csv_saved_by_a_spreadsheet(tmp_path):
    path = tmp_path / "cases.csv"
    write_cases_csv(path, four_cases())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_cases_csv(path) == four_cases()


HEADER = ",".join(COLUMNS)
GOOD = (
    "a,lesion,early,scored,scored,,0.1,2,2,2,4,0.5,0.33,0.5,0.66,0.5,0.6,12.5,0.5,"
    "9.5,3.5,3.75,1.5,0.875,8.5,2.5,2.75,1.25,0.75,2.25"
)
MISSED = (
    "a,lesion,early,missed,missed,'no lesion',9,0,0,2,4,0,0,0,1,,0.66,-100,0,"
    "inf,inf,inf,inf,0,inf,inf,inf,inf,0,0"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the columns are missing"),
        ("case,dice\na,0.5\n", "the columns are case,dice, not case,class"),
        (f"{HEADER}\n{GOOD}\n{GOOD[:48]}", "line 3 has 13 cells, expected 30"),
        (f"{HEADER}\n{GOOD},1\n", "line 2 has 31 cells"),
        (f"{HEADER.replace(',class', '')}\n", "the columns are case,group,outcome"),
        (f"{HEADER.replace(',group', ',group,group')}\n", "the columns are case,class,group,g"),
        (f"{HEADER.replace('class,group', 'group,class')}\n", "the columns are case,group,cla"),
        (f"{HEADER},nsd\n", "the columns are case,class,group"),
        (f"{HEADER}\n{GOOD.replace('2.25', 'inf')}\n", "hd95_voxels_transunet is 'inf'"),
        (f"{HEADER}\n{GOOD.replace('9.5', 'inf')}\n", "line 2: hd_mm is 'inf'"),  # was found
        (f"{HEADER}\n{MISSED.replace('inf', '-inf', 1)}\n", "line 2: hd_mm is '-inf'"),
        (f"{HEADER}\n{MISSED.replace('inf', 'nan', 1)}\n", "line 2: hd_mm is 'nan'"),
        (f"{HEADER}\n{MISSED.replace('-100', 'inf')}\n", "volume_difference_percent is 'inf'"),
        (f"{HEADER}\n{MISSED.replace('inf,0', 'inf,inf', 1)}\n", "surface_dice_2mm is 'inf'"),
        ('"case\nid",dice\n', "the columns are case id,dice"),
        (f"{HEADER}\n\n", "line 2 has 0 cells"),
        (f"{HEADER}\n{GOOD.replace('0.33', 'high')}\n", "line 2: iou is 'high'"),
        (f"{HEADER}\n{GOOD.replace('0.33', 'nan')}\n", "line 2: iou is 'nan'"),
        (f"{HEADER}\n{GOOD.replace('2,2,2', '2,-2,2')}\n", "line 2: fp is '-2'"),
        (f"{HEADER}\n{GOOD.replace('2,2,2', '2,2.5,2')}\n", r"line 2: fp is '2\.5'"),
        (f"{HEADER}\n{GOOD.replace('2,2,2', '2,,2')}\n", "line 2: fp is ''"),
        (f"{HEADER}\n{GOOD.replace('scored', 'missed', 1)}\n", "'missed' but .* 'scored'"),
        (
            f"{HEADER}\n{GOOD.replace('scored,,', 'missed,,')}\n",
            "outcome_transunet is 'missed' but .* 'scored'",
        ),
        (f'{HEADER}\n"{GOOD}\n', "unexpected end of data"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "can't decode"),
    ],
)
def test_broken_csv_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "cases.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        read_cases_csv(path)
    assert str(path) in str(caught.value)
    assert "evaluate again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_good_line_is_read(tmp_path):  # so that each broken one above is broken by its change
    path = tmp_path / "cases.csv"
    path.write_text(f"{HEADER}\n{GOOD}\n{MISSED}\n", encoding="utf-8")
    row, missed = read_cases_csv(path)
    assert math.isclose(row["iou"], 0.33, rel_tol=0)
    assert row["group"] == "early"
    assert (row["flags"], row["anomaly_score"]) == ("", 0.1)
    assert (missed["flags"], missed["anomaly_score"]) == ("'no lesion'", 9)
    assert [row[column] for column in MM] == [9.5, 3.5, 3.75, 1.5, 0.875]
    assert [row[column] for column in VOXELS] == [8.5, 2.5, 2.75, 1.25, 0.75]
    assert (row["volume_difference_percent"], row["hd95_voxels_transunet"]) == (12.5, 2.25)
    assert [missed[column] for column in MM] == [math.inf] * 4 + [0]


def test_csv_from_before_distances_and_groups(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text(
        "case,class,outcome,tp,fp,fn,tn,dice,iou,sensitivity,specificity,precision,accuracy,"
        "dice_transunet\na,lesion,missed,0,0,2,8,0.0,0.0,0.0,1.0,,0.8,0.0\n"
    )
    (expected,) = lesion("a", *SITUATIONS["missed"])
    assert read_cases_csv(path) == [expected | {"volume_difference_percent": None}]


def test_csv_from_before_further_distances(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text(
        "case,class,group,outcome,tp,fp,fn,tn,dice,iou,sensitivity,specificity,precision,accuracy,"
        "dice_transunet,hd95_mm,hd95_voxels,hd95_voxels_transunet\n"
        "a,lesion,g,missed,0,0,2,8,0.0,0.0,0.0,1.0,,0.8,0.0,3.605551275463989,4.123105625617661,0.0\n"
    )
    options = {"distances": True, "spacing_mm": (9, 3, 0.5), "group": "g"}
    (expected,) = lesion("a", *SITUATIONS["missed"], **options)
    (row,) = rows = read_cases_csv(path)
    new = {column for column in COLUMNS if row[column] is None} - {"precision", "anomaly_score"}
    assert new == {"volume_difference_percent", *MM, *VOXELS} - {"hd95_mm", "hd95_voxels"}
    assert row == expected | dict.fromkeys(new)
    # It can still be summed up, under the only way of counting failures there was.
    summary = summarise(rows, NAMES, "standard")
    assert summary["mean"]["hd95_mm"] == math.sqrt(13)
    assert summary["mean_counts"]["hd_mm"]["n"] == 0


def test_missing_csv(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.csv"):
        read_cases_csv(tmp_path / "nowhere.csv")


def test_a_volume_of_one_slice_is_measured_as_a_picture():
    """In 3-D every voxel of a single slice is surface, and a shift would hardly be seen."""
    truth = np.zeros((1, 40, 40), np.uint8)
    truth[0, 5:25, 5:25] = 1
    prediction = np.roll(truth, 2, axis=2)
    spacing = (9.0, 1.5, 0.5)
    kwargs = {"label_names": ("background", "square"), "distances": True}
    (row,) = case_rows("one", prediction, truth, spacing_mm=spacing, **kwargs)
    (flat,) = case_rows("one", prediction[0], truth[0], spacing_mm=spacing[1:], **kwargs)
    assert row["hd_voxels"] == 2
    assert row["hd_mm"] == 1  # two columns of 0.5 mm
    assert row["hd95_voxels_transunet"] < row["hd95_voxels"]
    del row["hd95_voxels_transunet"], flat["hd95_voxels_transunet"]
    assert row == flat
    with pytest.raises(DataError, match="one positive number for each of the 3 axes"):
        case_rows("one", prediction, truth, spacing_mm=(9.0, 1.5, 0.5, 1.0), **kwargs)
