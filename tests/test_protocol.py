"""Who counts what: every empty-mask case of every protocol, sums over cases, and cases.csv."""

import json
import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msa2net.errors import ConfigError, DataError
from msa2net.metrics import (
    PROTOCOLS,
    PUBLISHED,
    case_rows,
    get_protocol,
    mean_dice,
    outcome,
    read_cases_csv,
    summarise,
    summarise_groups,
    transunet_dice,
    write_cases_csv,
)
from msa2net.metrics.protocol import differing_rules
from msa2net.metrics.summary import COLUMNS
from test_metrics_overlap import GOLDEN_CASES, golden_masks

NAMES = ("background", "lesion")
ABC = ("background", "a", "b", "c")
# Ten pixels a case: the pixels of the truth, then those of the prediction
SITUATIONS = {
    "half": ([0, 1, 2, 3], [2, 3, 4, 5]),
    "missed": ([0, 1], []),
    "false positive": ([], [0, 1, 2]),
    "both empty": ([], []),
}


NO_DISTANCES = {"hd95_mm": None, "hd95_voxels": None, "hd95_voxels_transunet": None}


def lesion(case, true, predicted, **options):
    truth, prediction = np.zeros((2, 1, 2, 5), dtype=np.uint8)
    truth.ravel()[true] = 1
    prediction.ravel()[predicted] = 1
    return case_rows(case, prediction, truth, NAMES, **options)


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
        **{"case": "half", "class": "lesion", "group": "", "outcome": "scored"},
        **{"tp": 2, "fp": 2, "fn": 2, "tn": 4},
        **{"dice": 0.5, "iou": 2 / 6, "sensitivity": 0.5, "specificity": 4 / 6},
        **{"precision": 0.5, "accuracy": 0.6, "dice_transunet": 0.5},
        **NO_DISTANCES,
    }
    assert missed == {
        **{"case": "missed", "class": "lesion", "group": "", "outcome": "missed"},
        **{"tp": 0, "fp": 0, "fn": 2, "tn": 8},
        **{"dice": 0.0, "iou": 0.0, "sensitivity": 0.0, "specificity": 1.0},
        **{"precision": None, "accuracy": 0.8, "dice_transunet": 0.0},
        **NO_DISTANCES,
    }
    assert false_positive == {
        **{"case": "false positive", "class": "lesion", "group": "", "outcome": "false_positive"},
        **{"tp": 0, "fp": 3, "fn": 0, "tn": 7},
        **{"dice": 0.0, "iou": 0.0, "sensitivity": None, "specificity": 0.7},
        **{"precision": 0.0, "accuracy": 0.7, "dice_transunet": 1.0},
        **NO_DISTANCES,
    }
    assert absent == {
        **{"case": "both empty", "class": "lesion", "group": "", "outcome": "absent"},
        **{"tp": 0, "fp": 0, "fn": 0, "tn": 10},
        **{"dice": None, "iou": None, "sensitivity": None, "specificity": 1.0},
        **{"precision": None, "accuracy": 1.0, "dice_transunet": 0.0},
        **NO_DISTANCES,
    }


def test_columns_are_the_documented_ones():
    documented = (
        "case,class,group,outcome,tp,fp,fn,tn,dice,iou,sensitivity,specificity,precision,accuracy,"
        "dice_transunet,hd95_mm,hd95_voxels,hd95_voxels_transunet"
    )
    assert ",".join(COLUMNS) == documented
    assert all(tuple(row) == COLUMNS for row in four_cases())


def test_standard_summary_by_hand():
    summary = summarise(four_cases(), NAMES, "standard")
    failures = {"missed": 1, "false_positives": 1}
    figures = summary["classes"]["lesion"]
    assert figures["dice"] == {
        **{"mean": 0.5 / 3, "median": 0.0, "n": 3, "not_applicable": 1, **failures}
    }
    assert figures["sensitivity"] == {
        **{"mean": 0.25, "median": 0.25, "n": 2, "not_applicable": 2, **failures}
    }
    assert figures["precision"] == {
        **{"mean": 0.25, "median": 0.25, "n": 2, "not_applicable": 2, **failures}
    }
    assert figures["accuracy"]["mean"] == pytest.approx((0.6 + 0.8 + 0.7 + 1) / 4, abs=1e-15)
    assert figures["accuracy"]["n"] == 4
    assert summary["mean"]["dice"] == figures["dice"]["mean"] == mean_dice(four_cases())
    assert summary["mean_over"]["dice"] == 1


def test_transunet_summary_by_hand():
    summary = summarise(four_cases(), NAMES, PROTOCOLS["transunet"])
    assert summary["classes"] == {
        "lesion": {
            "dice": {
                **{"mean": (0.5 + 0 + 1 + 0) / 4, "median": 0.25, "n": 4},
                **{"not_applicable": 0, "missed": 1, "false_positives": 1},
            },
            "hd95_voxels": {  # not computed: no value, but still said to be there
                **{"mean": None, "median": None, "n": 0},
                **{"not_applicable": 4, "missed": 1, "false_positives": 1},
            },
        }
    }
    assert summary["mean"] == {"dice": 0.375, "hd95_voxels": None}
    assert summary["mean_over"] == {"dice": 1, "hd95_voxels": 0}


def test_isic_summary_by_hand():
    summary = summarise(four_cases(), NAMES, "isic")
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
            **{"mean": value, "median": None, "n": 4, "not_applicable": 0},
            **{"missed": 1, "false_positives": 1},
        }


def test_every_summary_is_plain_json_with_the_documented_keys():
    for name, protocol in PROTOCOLS.items():
        summary = summarise(four_cases(), NAMES, name)
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary
        assert set(summary) == {"title", "unit", "rules", "classes", "mean", "mean_over"}
        assert summary["rules"] == [list(rule) for rule in protocol.rules]
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


def test_no_cases():
    for name in PROTOCOLS:
        summary = summarise([], NAMES, name)
        assert summary["classes"]["lesion"]["dice"] == {
            **{"mean": None, "median": None, "n": 0, "not_applicable": 0},
            **{"missed": 0, "false_positives": 0},
        }
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
    # The image's diagonal: one row and four columns on; the grid is (1, 2, 5).
    for failed in (missed, false_positive):
        assert failed["hd95_voxels"] == math.sqrt(1 + 16)
        assert failed["hd95_mm"] == math.sqrt(9 + 4)
        assert failed["hd95_voxels_transunet"] == 0.0
    assert absent["hd95_mm"] is absent["hd95_voxels"] is None
    assert absent["hd95_voxels_transunet"] == 0.0
    assert {row["group"] for row in (half, missed, false_positive, absent)} == {"early"}
    without = [row | NO_DISTANCES | {"group": ""} for row in (half, missed, false_positive, absent)]
    assert without == four_cases()  # nothing else depends on them


def test_summary_of_distances_by_hand():
    rows = four_cases(distances=True)
    assert {row["hd95_mm"] for row in rows} == {None}  # no spacing, no millimetres
    standard = summarise(rows, NAMES, "standard")
    figure = standard["classes"]["lesion"]["hd95_voxels"]
    assert figure["mean"] == pytest.approx((1 + 2 * math.sqrt(17)) / 3, abs=1e-12)
    assert (figure["n"], figure["not_applicable"]) == (3, 1)
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
    if row["outcome"] == "scored":
        assert row["hd95_voxels"] == row["hd95_voxels_transunet"]
        assert row["hd95_mm"] == pytest.approx(stored["medpy"]["hd95_mm"], abs=1e-9)


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
    assert mixed[1]["outcome"] == "scored"
    assert (mixed[1]["dice_transunet"], mixed[1]["hd95_voxels_transunet"]) == (0.0, 0.0)


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
        assert groups["systole"] == summarise([rows[0], rows[2]], NAMES, name)
        assert groups["diastole"] == summarise([rows[1]], NAMES, PROTOCOLS[name])
    assert summarise_groups(rows, NAMES, "standard")["systole"]["mean"]["dice"] == 0.5
    assert summarise_groups(four_cases(), NAMES, "standard") == {}
    with pytest.raises(ConfigError, match="there is no protocol 'isik'"):
        summarise_groups([], NAMES, "isik")


def test_rules_about_distances_stand_in_both_volume_protocols():
    about = [
        {s: rule for s, rule in PROTOCOLS[name].rules if s.startswith("distance: ")}
        for name in ("standard", "transunet")
    ]
    assert list(about[0]) == list(about[1])
    assert len(about[0]) == 5
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


@settings(deadline=None)
@given(cases_of_three)
def test_agrees_with_loops_over_sets(cases):
    rows = rows_of(cases)
    standard, pooled, published = (
        summarise(rows, ABC, name)["classes"] for name in ("standard", "isic", "transunet")
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


@settings(deadline=None)
@given(cases_of_three, st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(cases, shuffler: random.Random):
    rows = rows_of(cases)
    shuffled = rows.copy()
    shuffler.shuffle(shuffled)
    for name in PROTOCOLS:
        assert summarise(shuffled, ABC, name) == summarise(rows, ABC, name)
    # Here the order of classes comes from the rows, so the last digit may move
    assert mean_dice(shuffled) == pytest.approx(mean_dice(rows), abs=1e-15)


@settings(deadline=None)
@given(cases_of_three, st.integers(1, 5))
def test_identical_cases_pool_to_the_score_of_one(cases, copies):
    one = rows_of(cases[:1])
    many = rows_of(cases[:1] * copies)
    pooled = summarise(many, ABC, "isic")["classes"]
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


# --- cases.csv -----------------------------------------------------------------------------


# A Case refuses a carriage return in its id, and no file name holds half a surrogate pair.
ODD_NAMES = st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), min_size=1)


@settings(deadline=None)
@given(cases_of_three, ODD_NAMES)
def test_csv_round_trip_is_exact(tmp_path_factory, cases, odd_name):
    path = tmp_path_factory.mktemp("csv") / "cases.csv"
    rows = rows_of(cases)
    odd = np.array([1, 2, 3]), np.array([1, 3, 3]), ABC
    rows += case_rows(odd_name, *odd, distances=True, spacing_mm=(0.7,), group=odd_name)
    write_cases_csv(path, rows)
    assert read_cases_csv(path) == rows


def test_csv_text(tmp_path):
    path = tmp_path / "evaluation" / "cases.csv"
    write_cases_csv(path, lesion("missed", *SITUATIONS["missed"]))
    assert path.read_bytes().decode() == (
        ",".join(COLUMNS) + "\nmissed,lesion,,missed,0,0,2,8,0.0,0.0,0.0,1.0,,0.8,0.0,,,\n"
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
GOOD = "a,lesion,early,scored,2,2,2,4,0.5,0.33,0.5,0.66,0.5,0.6,0.5,3.5,2.5,2.25"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the columns are missing"),
        ("case,dice\na,0.5\n", "the columns are case,dice, not case,class"),
        (f"{HEADER}\n{GOOD}\n{GOOD[:36]}", "line 3 has 10 cells, expected 18"),
        (f"{HEADER}\n{GOOD},1\n", "line 2 has 19 cells"),
        (f"{HEADER.replace(',group', '')}\n", "the columns are case,class,outcome"),
        (f"{HEADER}\n{GOOD.replace('2.25', 'inf')}\n", "hd95_voxels_transunet is 'inf'"),
        ('"case\nid",dice\n', "the columns are case id,dice"),
        (f"{HEADER}\n\n", "line 2 has 0 cells"),
        (f"{HEADER}\n{GOOD.replace('0.33', 'high')}\n", "line 2: iou is 'high'"),
        (f"{HEADER}\n{GOOD.replace('0.33', 'nan')}\n", "line 2: iou is 'nan'"),
        (f"{HEADER}\n{GOOD.replace('2,2,2', '2,-2,2')}\n", "line 2: fp is '-2'"),
        (f"{HEADER}\n{GOOD.replace('2,2,2', '2,2.5,2')}\n", r"line 2: fp is '2\.5'"),
        (f"{HEADER}\n{GOOD.replace('2,2,2', '2,,2')}\n", "line 2: fp is ''"),
        (f"{HEADER}\n{GOOD.replace('scored', 'missed')}\n", "'missed' but .* 'scored'"),
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
    path.write_text(f"{HEADER}\n{GOOD}\n", encoding="utf-8")
    (row,) = read_cases_csv(path)
    assert math.isclose(row["iou"], 0.33, rel_tol=0)
    assert row["group"] == "early"
    assert (row["hd95_mm"], row["hd95_voxels"], row["hd95_voxels_transunet"]) == (3.5, 2.5, 2.25)


def test_csv_from_before_distances_and_groups(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text(
        "case,class,outcome,tp,fp,fn,tn,dice,iou,sensitivity,specificity,precision,accuracy,"
        "dice_transunet\na,lesion,missed,0,0,2,8,0.0,0.0,0.0,1.0,,0.8,0.0\n"
    )
    assert read_cases_csv(path) == lesion("a", *SITUATIONS["missed"])


def test_missing_csv(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.csv"):
        read_cases_csv(tmp_path / "nowhere.csv")
