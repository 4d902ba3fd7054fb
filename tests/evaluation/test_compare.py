"""Comparing evaluations: by hand, against scipy, laws, and what a person at the terminal reads."""

import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from commands import assert_one_sentence, msa2net
from drawn_summaries import random_volumes
from msa2net.errors import ConfigError, DataError
from msa2net.evaluation.compare import compare_evaluations, console_comparison, markdown_comparison
from msa2net.files import write_json
from msa2net.metrics.bootstrap import mean_interval
from msa2net.metrics.comparison import compare
from msa2net.metrics.hypothesis_tests import holm, signed_rank_p
from msa2net.metrics.scoring import case_rows
from msa2net.metrics.summary import COLUMNS, write_cases_csv

TIED = [0.0] * 6


def row(case, label, value, column="dice", truth=10):
    counts = {"outcome": "scored", "group": "", "tp": 5, "fp": 1, "fn": truth - 5, "tn": 20}
    return dict.fromkeys(COLUMNS) | {"case": case, "class": label, column: value} | counts


def table(column="dice", **classes):
    """Rows of an evaluation: class → the scores of case 0, 1, …"""
    return [
        row(f"case{i:02}", label, score, column)
        for label, scores in classes.items()
        for i, score in enumerate(scores)
    ]


def entry_of(reference, other, **options):
    """The entry of the only class."""
    column = options.get("metric", "dice")
    rows = [table(column, lesion=reference), table(column, lesion=other)]
    return compare(*rows, **options)["comparisons"][0]["classes"]["lesion"]


# --- by hand ---------------------------------------------------------------------------------


def test_six_wins_by_hand():
    entry = entry_of([0.5] * 6, [0.625, 0.75, 0.5625, 0.875, 1, 0.6875])
    assert (entry["n"], entry["wins"], entry["ties"], entry["losses"]) == (6, 6, 0, 0)
    assert (entry["reference_mean"], entry["other_mean"]) == (0.5, 0.75)
    assert entry["mean_difference"] == 0.25
    assert 0.0625 < entry["interval"][0] < 0.25 < entry["interval"][1] < 0.5
    assert entry["p"] == entry["p_holm"] == entry["smallest_p_holm"] == 2 / 64
    assert (entry["verdict"], entry["words"]) == ("better", "B is better")


def test_losses_and_a_difference_that_is_not_shown():
    worse = entry_of([0.5] * 6, [0.4, 0.3, 0.2, 0.1, 0.45, 0])
    assert (worse["wins"], worse["losses"], worse["words"]) == (0, 6, "B is worse")
    mixed = entry_of([0.5] * 6, [0.4, 0.62, 0.2, 0.9, 0.45, 0.7])
    assert (mixed["wins"], mixed["losses"]) == (3, 3)
    assert mixed["words"] == "no difference shown, which does not show that there is none"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ([0.6] * 5, "5 pairs are too few to tell: corrected p is 0.062 at least"),
        ([0.6], "1 pair is too few to tell: corrected p is 1 at least"),
        ([0.5] * 5, "the same in 5 cases, too few to tell"),
        ([0.5] * 6, "the same in all 6 cases"),
        (
            [0.5] * 6 + [0.6],
            "only 1 of 7 pairs differs, too few to tell: corrected p is 1 at least",
        ),
        (
            [0.5, 0.5, 0.6, 0.6, 0.7, 0.7],
            "only 4 of 6 pairs differ, too few to tell: corrected p is 0.12 at least",
        ),
    ],
)
def test_too_few_to_tell_is_said(other, words):
    entry = entry_of([0.5] * len(other), other)
    assert entry["words"] == words
    assert entry["verdict"] == ("same" if "all" in words else "too few")


def test_more_classes_need_more_pairs():
    """Six pairs can tell of one class (2/64), not of two (4/64); seven can."""
    for n, verdict in ((6, "too few"), (7, "better")):
        worse, better = [0.5] * n, [0.6 + i / 100 for i in range(n)]
        result = compare(table(a=worse, b=worse), table(a=better, b=better))
        for entry in result["comparisons"][0]["classes"].values():
            assert entry["p_holm"] == entry["smallest_p_holm"] == 4 / 2**n
            assert entry["verdict"] == verdict
        mean = result["comparisons"][0]["mean"]  # a question of its own
        assert (mean["p_holm"], mean["verdict"]) == (2 / 2**n, "better")


def test_ranks_and_mean_can_contradict_each_other():
    # Twelve ranks: the one loss is the largest, 12 against 66.
    other = [0.5 + i / 100 for i in range(1, 12)] + [0.5 - 0.9]
    entry = entry_of([0.5] * 12, other)
    assert entry["p"] < 0.05
    assert entry["mean_difference"] < 0
    assert entry["verdict"] == "contradictory"
    assert entry["words"] == "B is better by ranks but worse in the mean: look at cases"
    assert entry_of(other, [0.5] * 12)["words"].startswith("B is worse by ranks but better")


def test_a_score_on_one_side_only_is_counted_and_said():
    first = [0.5, None, 0.5, None, math.nan, 0.5, 0.5]
    second = [0.6, 0.6, None, None, 0.6, 0.6, 0.6]
    result = compare(table(lesion=first), table(lesion=second), names=["one", "two"])
    entry = result["comparisons"][0]["classes"]["lesion"]
    counts = [entry[key] for key in ("n", "only_reference", "only_other", "neither")]
    assert counts == [3, 1, 2, 1]
    assert entry["reference_mean"] == 0.5
    expected = (
        "lesion, two against one: 1 scored in one only and 2 scored in two only; not applicable"
    )
    assert any(note.startswith(expected) for note in result["notes"])


def test_a_class_without_pairs():
    result = compare(table(a=[0.5] * 6, b=[None] * 6), table(a=[0.6] * 6, b=[0.1] * 6))
    entry = result["comparisons"][0]["classes"]["b"]
    assert entry["words"] == "no case has a score on both sides"
    figures = ("reference_mean", "mean_difference", "interval", "p", "p_holm", "smallest_p_holm")
    assert [entry[key] for key in figures] == [None] * 6
    # So it is no test that others must be corrected for, and in no mean.
    assert result["comparisons"][0]["classes"]["a"]["p_holm"] == 2 / 64
    assert result["comparisons"][0]["mean"]["other_mean"] == pytest.approx(0.6, abs=1e-15)


def test_the_mean_over_classes_is_of_like_with_like():
    first = table(a=[0.5, 0.5], b=[0.9, None])
    second = table(a=[0.6, 0.7], b=[0.5, 0.1])
    mean = compare(first, second)["comparisons"][0]["mean"]
    assert mean["reference_mean"] == pytest.approx((0.7 + 0.5) / 2, abs=1e-15)
    assert mean["other_mean"] == pytest.approx((0.55 + 0.7) / 2, abs=1e-15)
    assert mean["mean_difference"] == pytest.approx((-0.15 + 0.2) / 2, abs=1e-15)
    assert compare(table(a=[0.5]), table(a=[0.6]))["comparisons"][0]["mean"] is None


def test_less_is_better_for_distances():
    entry = entry_of([5.0] * 6, [4, 3, 2, 1, 4.5, 0], metric="hd95_mm")
    assert entry["mean_difference"] < 0
    assert (entry["wins"], entry["losses"], entry["words"]) == (6, 0, "B is better")
    assert entry["ranks_favour"] == "other"


def test_infinite_distances_have_ranks_and_no_mean():
    inf = math.inf
    first, second = [5, 5, 5, 5, 5, 5, inf], [inf, inf, 6, 7, 8, 9, inf]
    column = "hd95_mm"
    result = compare(table(column, a=first), table(column, a=second), metric=column)
    entry = result["comparisons"][0]["classes"]["a"]
    assert entry["p"] == 2 / 64  # seven pairs, of which one is equal
    assert (entry["wins"], entry["ties"], entry["losses"], entry["infinite"]) == (0, 1, 6, 3)
    figures = ("reference_mean", "other_mean", "mean_difference", "interval")
    assert [entry[key] for key in figures] == [None] * 4
    assert entry["words"] == "B is worse"
    assert any("no mean, since 3 of 7 pairs hold an infinite" in note for note in result["notes"])


def test_signed_figures_are_compared_by_magnitude():
    column = "volume_difference_percent"
    entry = entry_of([-30.0] * 6, [1, -2, 3, -4, 5, -6], metric=column)
    assert (entry["reference_mean"], entry["other_mean"]) == (30, 3.5)
    assert entry["words"] == "B is better"


def test_the_protocol_s_own_column_is_used():
    first = [r | {"dice_transunet": 0.5} for r in table(a=[0.9] * 6)]
    second = [r | {"dice_transunet": 0.75} for r in table(a=[0.1] * 6)]
    entry = compare(first, second, protocol="transunet")["comparisons"][0]["classes"]["a"]
    assert (entry["reference_mean"], entry["other_mean"]) == (0.5, 0.75)


# --- an independent implementation -----------------------------------------------------------


@pytest.fixture(scope="module")
def three():
    """Three evaluations of 24 cases in three classes: the second a little better, the third not."""
    rng = np.random.default_rng(0)
    base = {label: rng.beta(8, 2, 24) for label in ("liver", "spleen", "gallbladder")}
    return [
        table(**{label: list(v + rng.normal(gain, 0.02, 24)) for label, v in base.items()})
        for gain in (0, 0.02, 0)
    ]


def scores_of(rows, label):
    return np.array([r["dice"] for r in rows if r["class"] == label])


def test_agrees_with_scipy(three):
    result = compare(*three)
    for one, rows in zip(result["comparisons"], three[1:], strict=True):
        for label, entry in one["classes"].items():
            differences = scores_of(rows, label) - scores_of(three[0], label)
            assert entry["p"] == pytest.approx(
                stats.wilcoxon(differences, method="exact").pvalue, rel=1e-9
            )
            assert entry["mean_difference"] == pytest.approx(differences.mean(), abs=1e-14)
            theirs = stats.bootstrap(
                (differences,), np.mean, method="BCa", n_resamples=10_000, random_state=1
            ).confidence_interval
            # As in test_metrics_statistics.py, with half the draws: 4·.052 standard errors.
            allowed = 0.21 * differences.std() / math.sqrt(24)
            np.testing.assert_allclose(entry["interval"], theirs, atol=allowed)


def test_holm_runs_over_classes_and_comparisons(three):
    result = compare(*three)
    assert [one["other"] for one in result["comparisons"]] == ["B", "C"]
    assert {one["reference"] for one in result["comparisons"]} == {"A"}
    entries = [entry for one in result["comparisons"] for entry in one["classes"].values()]
    assert len(entries) == 6
    assert [entry["p_holm"] for entry in entries] == holm([entry["p"] for entry in entries])
    means = [one["mean"] for one in result["comparisons"]]
    assert [mean["p_holm"] for mean in means] == holm([mean["p"] for mean in means])
    assert means[0]["verdict"] == "better"
    assert means[1]["verdict"] == "not shown"
    assert any("over 6 tests of classes" in note for note in result["notes"])


# --- laws ------------------------------------------------------------------------------------

maybe_score = st.one_of(st.none(), st.integers(0, 100).map(lambda i: i / 100))
four_scores = st.tuples(maybe_score, maybe_score, maybe_score, maybe_score)


@settings(max_examples=25)
@given(st.lists(four_scores, min_size=1, max_size=9), st.randoms())
def test_swapping_and_shuffling(cases, random):
    a1, a2, b1, b2 = map(list, zip(*cases, strict=True))
    first, second = table(x=[0.5, *a1], y=[0.5, *a2]), table(x=[0.5, *b1], y=[0.5, *b2])
    result = compare(first, second)
    there = result["comparisons"][0]
    back = compare(second, first)["comparisons"][0]
    pairs = [(there["classes"][label], back["classes"][label]) for label in ("x", "y")]
    for one, other in [*pairs, (there["mean"], back["mean"])]:
        for key in ("n", "neither", "ties", "differing", "p", "p_holm", "smallest_p_holm"):
            assert one[key] == other[key]
        for key, swapped in (
            ("wins", "losses"),
            ("only_reference", "only_other"),
            ("reference_mean", "other_mean"),
        ):
            assert (one[key], one[swapped]) == (other[swapped], other[key])
        assert one["mean_difference"] == -other["mean_difference"]
        assert (one["interval"] is None) == (other["interval"] is None)
        if one["interval"]:
            low, high = other["interval"]
            assert one["interval"] == pytest.approx([-high, -low], abs=1e-9)
    shuffled = [r for label in "xy" for r in shuffle(random, first, label)]
    assert compare(shuffled, second) == result


def shuffle(random, rows, label):
    own = [r for r in rows if r["class"] == label]
    return random.sample(own, len(own))


def test_an_evaluation_against_itself(three):
    for one in compare(three[1], three[1], three[1])["comparisons"]:
        for entry in (*one["classes"].values(), one["mean"]):
            assert (entry["ties"], entry["p_holm"], entry["verdict"]) == (24, 1, "same")
            assert (entry["mean_difference"], entry["interval"]) == (0, None)


def test_the_seed_decides(three):
    assert compare(*three, seed=1) == compare(*three, seed=1)
    intervals = [
        compare(*three, seed=seed)["comparisons"][0]["mean"]["interval"] for seed in (1, 2)
    ]
    assert intervals[0] != intervals[1]


def test_figures_are_those_of_the_functions(three):
    entry = compare(*three, seed=5)["comparisons"][0]["classes"]["spleen"]
    differences = scores_of(three[1], "spleen") - scores_of(three[0], "spleen")
    assert entry["interval"] == list(mean_interval(differences, 5))
    assert entry["p"] == signed_rank_p(differences)


# --- errors ----------------------------------------------------------------------------------


def test_cases_in_only_one_evaluation():
    first, second = table(a=[0.5] * 8), table(a=[0.6] * 7)
    second.append(row("extra", "a", 0.9))
    with pytest.raises(DataError) as error:
        compare(first, second, names=["one", "two"])
    assert "one lacks extra; two lacks case07; " in str(error.value)
    assert "--common" in str(error.value)
    result = compare(first, second, common=True)
    assert (result["cases"], result["left_out"]) == (7, ["case07", "extra"])
    assert result["comparisons"][0]["classes"]["a"]["n"] == 7
    assert any("have them: case07, extra." in note for note in result["notes"])
    with pytest.raises(DataError, match="no case in common"):
        compare(first, [row("extra", "a", 0.9)], common=True)
    with pytest.raises(DataError, match=r"two lacks case00, .*, case07 and 12 more;"):
        compare(table(a=[0.5] * 20), [row("extra", "a", 0.9)], names=["one", "two"])


def test_other_labels_under_the_same_names_are_refused():
    second = [row("case00", "a", 0.6, truth=11)]
    with pytest.raises(DataError, match="case case00 has 10 pixels of 'a'.*of A and 11 in.*of B"):
        compare(table(a=[0.5]), second)


@pytest.mark.parametrize(
    ("second", "options", "error", "words"),
    [
        (table(b=TIED), {}, DataError, "A has the classes a and B has b"),
        (table(a=TIED) + table(a=[0.1]), {}, DataError, "B has case case00 twice for class 'a'"),
        (table(a=TIED, b=TIED), {}, DataError, "A has the classes a and B has a, b"),
        (table(a=[None] * 6), {}, DataError, "B has no case with a value of dice"),
        ([], {}, DataError, "B has no case with a value of dice"),
        (table(a=TIED), {"metric": "hd95_mm"}, DataError, "A has no case with a value of hd95_mm"),
        (table(a=TIED), {"metric": "dise"}, ConfigError, "no metric 'dise'; choose from dice, iou"),
        (table(a=TIED), {"protocol": "isic"}, ConfigError, "pools the pixels of all cases"),
        (table(a=TIED), {"protocol": "x"}, ConfigError, "choose from standard, transunet, isic"),
        (table(a=TIED), {"names": ["x", "x"]}, ConfigError, "each once"),
        (table(a=TIED), {"names": ["x"]}, ConfigError, "give as many"),
    ],
)
def test_what_cannot_be_compared(second, options, error, words):
    with pytest.raises(error, match=words):
        compare(table(a=TIED), second, **options)


def test_a_table_cut_short_and_a_single_evaluation():
    cut = table(a=TIED, b=TIED)[:-1]
    with pytest.raises(DataError, match="A lacks class 'b' of case05; evaluate again"):
        compare(cut, cut)
    with pytest.raises(ConfigError, match="there are 1 evaluations; give from 2 to 26"):
        compare(cut)


# --- files and the command line --------------------------------------------------------------


@pytest.fixture
def runs(tmp_path: Path, three) -> Path:
    """Runs a/seed0, a/seed1, and the bare evaluation folder b/seed0."""
    for name, rows in zip(
        ("a/seed0/evaluation", "a/seed1/evaluation", "b/seed0"), three, strict=True
    ):
        write_cases_csv(tmp_path / name / "cases.csv", rows)
    return tmp_path


def test_compare_prints_a_table_and_writes_nothing(runs: Path):
    before = sorted(runs.rglob("*"))
    result = msa2net("compare", "a/seed0", "a/seed1", cwd=runs)
    assert (result.returncode, result.stderr) == (0, "")
    assert "dice by the standard protocol, 24 cases; higher is better" in result.stdout
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert lines[2:4] == ["A  seed0 (reference)", "B  seed1"]
    assert "Mean over classes: seed1 is better." in result.stdout
    assert "not about training again" in " ".join(result.stdout.split())
    assert max(map(len, lines)) <= 80
    assert sorted(runs.rglob("*")) == before


def test_compare_writes_where_it_is_told_to(runs: Path):
    folders = ("a/seed0/evaluation", "a/seed1", "b/seed0/cases.csv")
    result = msa2net("compare", *folders, "--seed", 3, "--out", "out/it", cwd=runs)
    assert (result.returncode, result.stderr) == (0, "")
    assert "comparison: out/it" in result.stdout
    written = json.loads((runs / "out/it/comparison.json").read_text())
    assert written["names"] == ["a/seed0", "a/seed1", "b/seed0"]
    assert written["schema"] == 1
    paths = [runs / folder for folder in folders]
    assert written == compare_evaluations(paths, seed=3)
    text = (runs / "out/it/comparison.md").read_text()
    assert text == markdown_comparison(written)
    assert "## C against A" in text
    assert "| A   | a/seed0 (reference) |" in text
    assert str(runs) not in text + json.dumps(written)


def test_compare_of_the_cases_that_all_have(runs: Path, three):
    write_cases_csv(runs / "c/cases.csv", [r for r in three[1] if r["case"] != "case07"])
    result = msa2net("compare", "a/seed0", "c", cwd=runs)
    assert_one_sentence(result, "c lacks case07", "--common")
    result = msa2net("compare", "a/seed0", "c", "--common", cwd=runs)
    assert result.returncode == 0
    assert "23 cases" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("a/seed0",), ("one evaluation has nothing to be compared with; give two or more",)),
        (("a/seed0", "a/seed0/evaluation"), ("seed0 is given twice",)),
        (("a/seed0", "a"), ("a holds no evaluation", "a/evaluation/cases.csv", "msa2net evaluate")),
        (("a/seed0", "no/cases.csv"), ("there is no no/cases.csv",)),
        (("a/seed0", "b/seed0", "--metric", "dise"), ("has no metric 'dise'",)),
        (("a/seed0", "b/seed0", "--protocol", "isic"), ("pools the pixels",)),
    ],
)
def test_mistakes_are_one_sentence(runs: Path, arguments, parts):
    assert_one_sentence(msa2net("compare", *arguments, cwd=runs), *parts)


def test_flattered_evaluations_are_marked(runs: Path):
    chosen = "The weights were chosen by the TEST split, as the paper did, on these very cases."
    summary = random_volumes(("background", "liver"))
    for folder, flattering, words in (
        ("a/seed1/evaluation", True, chosen),
        ("b/seed0", False, "Fine."),
    ):
        changed = summary.model_copy(update={"flattering": flattering, "selection": words})
        content = {"schema": 3, **json.loads(changed.model_dump_json())}
        write_json(runs / folder / "summary.json", content)
    notes = compare_evaluations([runs / "a/seed0", runs / "a/seed1", runs / "b/seed0"])["notes"]
    assert notes[-1] == f"Warning: a/seed1: {chosen}"
    assert not any("Fine." in note for note in notes)


@pytest.mark.parametrize("metric", ["dice", "hd95_mm"])
def test_the_widest_table_fits_a_terminal(metric):
    labels = ("portal and splenic vein", "inferior vena cava", "[bold]gall|bladder")
    rng = np.random.default_rng(0)
    scale = 1 if metric == "dice" else 1000
    rows = [
        table(metric, **{label: list(scale * rng.random(500)) for label in labels})
        for _ in range(2)
    ]
    rows[0][0][metric] = None
    console = Console(width=80, no_color=True, record=True, file=io.StringIO())
    result = compare(*rows, names=["long name " * 3, "another"], metric=metric)
    console.print(console_comparison(result))
    text = console.export_text()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert "[bold]" in text
    lines = text.splitlines()
    heading = lines[next(i for i, line in enumerate(lines) if line.startswith("──")) - 1]
    assert " ".join(heading.split()) == "class n A B B-A 95 % interval p W/T/L"
    unit = "from 0 to 1" if metric == "dice" else "in millimetres"
    legend = (
        f"A, B: mean {metric}, {unit}; B-A: mean difference, and its 95 % interval; p: Wilcoxon"
    )
    assert legend in " ".join(text.split())
    cells = [line for line in markdown_comparison(result).splitlines() if "bladder" in line]
    assert "[bold]gall\\|bladder" in cells[0]


def evaluated(folder: Path, shifts, *, failed_distance="diagonal") -> Path:
    """Write the cases.csv of a square, moved (None: missed), once for each shift."""
    truth = np.zeros((4, 8, 8), np.uint8)
    truth[1:3, 2:6, 2:6] = 1
    rows = []
    for index, shift in enumerate(shifts):
        moved = np.zeros_like(truth) if shift is None else np.roll(truth, shift, axis=2)
        options = {"distances": True, "failed_distance": failed_distance}
        rows += case_rows(f"case{index}", moved, truth, ("background", "square"), **options)
    folder.mkdir()
    write_cases_csv(folder / "cases.csv", rows)
    return folder


def test_misses_that_flatter_distances_are_said_first(tmp_path: Path):
    shifted = evaluated(tmp_path / "shifted", [1] * 8)
    empty = evaluated(tmp_path / "empty", [None] * 8)
    options = {"metric": "hd95_voxels", "protocol": "transunet"}
    result = compare_evaluations([shifted, empty], **options)
    (warning,) = result["warnings"]
    assert warning.startswith("Warning: empty missed or invented a class 8 times, which this")
    assert "as perfect" in warning
    text = markdown_comparison(result)
    assert text.index(warning) < text.index("## B against A")
    assert compare_evaluations([shifted, empty], metric="hd95_voxels")["warnings"] == []
    assert compare_evaluations([shifted, empty])["warnings"] == []  # Dice counts them as 0

    found = evaluated(tmp_path / "found", [1] * 8, failed_distance="nan")
    half = evaluated(tmp_path / "half", [0] * 4 + [None] * 4, failed_distance="nan")
    (warning,) = compare_evaluations([found, half], metric="hd95_voxels")["warnings"]
    assert "half missed or invented a class 4 times" in warning
    assert "counts not at all" in warning


@pytest.mark.parametrize("width", [80, 100, 120])
def test_names_in_a_comparison_are_whole_and_no_markup(width: int):
    names = ("background", "portal_vein_and_splenic_vein_\x1b[31m", "<b>left</b> [red]")
    evaluations = []
    for seed in (0, 1):
        rng, rows = np.random.default_rng(seed), []
        for index in range(8):
            truth = np.random.default_rng(index).integers(0, 3, 200)
            rows += case_rows(f"c{index}", truth * (rng.random(200) < 0.8), truth, names)
        evaluations.append(rows)
    result = {"warnings": ["Warning: \x1b[2J"], **compare(*evaluations, names=("a|b", "`c`"))}
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(console_comparison(result))
    shown = captured.get()
    assert max(map(len, shown.splitlines())) <= width
    assert re.search(r"portal_vein_and_ .*\nsplenic_vein_ *\n\\x1b\[31m ", shown)
    assert "<b>left</b> [red]" in shown
    markdown = markdown_comparison(result)
    assert "| &lt;b>left&lt;/b> [red] " in markdown
    assert "\x1b" not in shown + markdown
    assert r"a\|b" in markdown


def test_failures_counted_differently_are_not_compared(tmp_path: Path):
    one = evaluated(tmp_path / "one", [1, 1, 1, None])
    other = evaluated(tmp_path / "other", [1, 1, 1, None], failed_distance="inf")
    with pytest.raises(DataError, match=r"counted differently \(one as diagonal, other as inf\)"):
        compare_evaluations([one, other], metric="hd95_voxels")
    assert compare_evaluations([one, other])["comparisons"]
