"""Tables for people and the paper's printed numbers."""

import copy
import json
import math
import re
from itertools import pairwise

import numpy as np
import pytest
from rich.console import Console

from drawn_summaries import ORGANS, PHASES, THIRTEEN, random_volumes, summary_of
from msa2net.evaluation.published_results import reference_for
from msa2net.evaluation.tables.console import console_table, markdown_table
from msa2net.evaluation.tables.latex import latex_table
from msa2net.metrics import (
    case_rows,
    interval_facts,
    standard_protocol,
    summarise,
)


@pytest.fixture
def photographs():
    truth, nothing = np.array([1, 1, 1, 0, 0, 0, 0, 0]), np.zeros(8, dtype=int)
    half = np.array([0, 0, 1, 1, 0, 0, 0, 0])
    cases = [(truth, truth), (half, truth), (nothing, truth), (half, nothing), (nothing, nothing)]
    return summary_of(("background", "lesion"), "photograph", "isic2018", cases)


@pytest.fixture
def volumes():  # as before there were distances, and as training sees them
    return random_volumes(ORGANS)


@pytest.fixture
def measured():
    """Volumes with distances, in two groups, of the organs with the longest names."""
    return random_volumes(THIRTEEN, distances=True, spacing_mm=(3, 0.75, 0.75), group="")


def rename_lesion(summary, name):
    summary["label_names"][1] = name
    for protocol in summary["protocols"].values():
        protocol["classes"][name] = protocol["classes"].pop("lesion")


def interval(summary, protocol, label="lesion", metric="dice"):
    low, high = summary["protocols"][protocol]["classes"][label][metric]["interval"]
    digits = 2 if metric.startswith("hd95") else 4
    return f"{low:.{digits}f}–{high:.{digits}f}"


def schema_1(summary):
    """The same summary as an older version wrote it."""
    old = copy.deepcopy(summary)
    own = [group["protocols"] for group in old.get("groups", {}).values()]
    for protocols in (old["protocols"], *own):
        for entry in protocols.values():
            del entry["mean_interval"], entry["mean_warning"]
            for figures in entry["classes"].values():
                for figure in figures.values():
                    for key in ("sd", "lower_quartile", "upper_quartile", "interval", "warning"):
                        del figure[key]
    return {key: value for key, value in old.items() if key not in ("worst", "intervals")}


def cells(table_row):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", table_row)[1:-1]]


def table_after(text, heading):
    """Return the cells of the first Markdown table after a line that starts with `heading`."""
    lines = text[text.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    end = next(i for i, line in enumerate(lines) if i > start and not line.startswith("|"))
    return [cells(line) for line in lines[start:end]]


def printed(summary, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(console_table(summary))
    return capture.get()


def test_markdown_shows_both_protocols_by_hand(photographs):
    header, _, *lines = table_after(markdown_table(photographs), "# ")
    assert header == [
        *("class", "protocol"),
        *("DSC", "95 % interval", "IoU", "SE", "SP", "ACC"),
        *("n", "missed", "false pos.", "not appl."),
    ]
    # Dice 1, 2/5, 0, 0: mean 0.35 over 4; SE 1, 1/3, 0: mean 4/9 over 3;
    # SP 1, 4/5, 1, 6/8, 1: mean 0.91 over 5; ACC 1, 5/8, 5/8, 6/8, 1: mean 0.8 over 5
    assert lines == [
        [
            *("lesion", "standard", "0.3500", interval(photographs, "standard")),
            *("0.3125", "0.4444 (3)", "0.9100 (5)", "0.8000 (5)", "4", "1", "1", "1"),
        ],
        # pooled: tp 3+1, fp 1+2, fn 2+3, tn 5+4+5+6+8
        [
            *("lesion", "isic", "0.5000", interval(photographs, "isic")),
            *("0.3333", "0.4444", "0.9032", "0.8000", "5", "1", "1", "0"),
        ],
    ]


def test_markdown_mean_rows_and_what_they_leave_out(volumes):
    text = markdown_table(volumes)
    lines = table_after(text, "# ")[2:]
    assert [line[:2] for line in lines[:4]] == [
        ["aorta", "standard"],
        ["aorta", "transunet"],
        ["gallbladder", "standard"],
        ["gallbladder", "transunet"],
    ]
    assert len(lines) == 2 * 8 + 2
    standard, transunet = lines[-2:]
    assert standard[:2] == ["**mean**", "**standard**"]
    mean = volumes["protocols"]["standard"]["mean"]["dice"]
    assert standard[2] == f"**{mean:.4f}**"
    low, high = volumes["protocols"]["standard"]["mean_interval"]["dice"]
    assert standard[3] == f"**{low:.4f}–{high:.4f}**"
    assert transunet[4:6] == ["**–**"] * 2  # transunet has Dice only
    # Four cases times eight organs: one organ nowhere, one lacking in one case but predicted.
    assert standard[-4:] == ["**28**", "**0**", "**1**", "**4**"]
    # Of the false positive there is nothing to find.
    assert standard[5] == f"**{volumes['protocols']['standard']['mean']['sensitivity']:.4f} (27)**"
    assert transunet[-4:] == ["**32**", "**0**", "**1**", "**0**"]
    assert lines[4][:5] == ["left_kidney", "standard", "–", "–", "–"]
    assert lines[4][6] == "0"
    assert "The standard means leave out classes with no applicable case: DSC over 7 of 8" in text


def test_rules_that_differ_are_those(volumes, photographs):
    header, _, *rules = table_after(markdown_table(volumes), "## Rules that differ")
    assert header == ["situation", "standard", "transunet"]
    assert rules == [
        ["both empty", "not applicable", "0"],
        ["false positive: predicted, not in the truth", "0", "1"],
        [
            "back to the case's own grid",
            "probabilities resampled linearly, then the most probable class",
            "the most probable class at the network's size, then nearest neighbour",
        ],
        ["averaged over", "applicable cases, then classes", "all cases, then classes"],
    ]
    assert len(table_after(markdown_table(photographs), "## Rules that differ")) == 2 + 5


def test_reference_is_marked_as_not_ours(photographs):
    text = markdown_table(photographs)
    heading = "## As printed in the paper, not measured here"
    header, _, *rows = table_after(text, heading)
    assert header == ["network", "DSC", "SE", "SP", "ACC"]
    assert rows[-1] == ["MSA²Net", "0.9129", "0.8840", "0.9557", "0.9640"]
    assert text.index("cannot be right") > text.index(heading)
    assert "MSA²Net" not in text[: text.index(heading)]


def test_markdown_of_a_foreign_prediction(photographs):
    photographs |= {"model": None, "reference": None, "cases": 1}
    del photographs["protocols"]["isic"]
    text = markdown_table(photographs)
    assert text.startswith("# isic2018, test split, 1 case\n")
    # Nothing to compare with, nothing printed elsewhere.
    assert re.findall("^## (.*)", text, flags=re.MULTILINE) == ["Spread", "Further", "All rules"]
    assert len(table_after(text, "# ")) == 3


def test_markdown_ends_with_the_disclaimer_and_pads_its_tables(volumes):
    text = markdown_table(volumes)
    assert text.endswith("\n\n*Research use only; not a medical device.*\n")
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(line) for line in block.splitlines()}) == 1


def test_class_names_cannot_break_a_table(photographs):
    rename_lesion(photographs, "a|b [bold]\nc")
    row = table_after(markdown_table(photographs), "# ")[2]
    assert row[:2] == [r"a\|b [bold] c", "standard"]


@pytest.mark.parametrize(
    "name", ["tumour [core]", "[bold]", "[/]", "[red]a[/red]", ":heart:", r"\["]
)
def test_console_prints_names_to_the_letter(photographs, name):
    # Rich takes square brackets for styles (and raises on a lone [/]) and colons for emoji.
    rename_lesion(photographs, name)
    photographs["model"]["name"] = f"net {name}"
    photographs["split"] = name
    heading, *lines = printed(photographs).splitlines()
    assert heading.rstrip() == f"net {name} on isic2018, {name} split, 5 cases"
    assert [line.split(" standard")[0].rstrip() for line in lines if " standard 0." in line] == [
        name
    ]


SHOWN = {
    "photographs": ("dice", "iou", "sensitivity", "specificity", "accuracy"),
    "volumes": ("dice", "iou", "sensitivity"),
    "measured": ("dice", "iou", "sensitivity", "hd95_mm", "hd95_voxels"),
}


@pytest.mark.parametrize("kind", SHOWN)
def test_console_fits_80_columns(kind, request):
    summary = request.getfixturevalue(kind)
    text = printed(summary)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text  # nothing was cut
    name = summary["label_names"][-1]
    line = next(line for line in text.splitlines() if line.startswith(name))
    figures = summary["protocols"]["standard"]["classes"][name]
    shown = [
        f"{figures[metric]['mean']:.{2 if metric.startswith('hd95') else 4}f}"
        for metric in SHOWN[kind]
    ]
    counts = [str(figures["dice"][key]) for key in ("n", "missed", "false_positives")]
    assert line.split() == [*name.split(), "standard", *shown, *counts]
    assert "not measured here" in " ".join(text.split())
    assert text.rstrip().endswith("Research use only; not a medical device.")


def test_console_folds_long_names_and_keeps_the_numbers(photographs):
    rename_lesion(photographs, "portal_and_splenic_vein_with_its_branches")
    text = printed(photographs)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "0.3500 0.3125 0.4444 0.9100 0.8000" in text


# --- distances, groups and how the weights were chosen -----------------------------------------


def test_markdown_of_volumes_has_distances_in_both_units(measured):
    text = markdown_table(measured)
    header, _, *lines = table_after(text, "# ")
    assert header[2:] == [
        *("DSC", "95 % interval", "IoU", "SE", "HD95 mm", "HD95 vox"),
        *("n", "missed", "false pos.", "not appl."),
    ]
    for line, protocol in zip(lines[:2], ("standard", "transunet"), strict=True):
        figures = measured["protocols"][protocol]["classes"]["spleen"]
        mm = f"{figures['hd95_mm']['mean']:.2f}" if protocol == "standard" else "–"
        voxels = f"{figures['hd95_voxels']['mean']:.2f}"
        own_n = figures["hd95_voxels"]["n"] != figures["dice"]["n"]
        assert not own_n
        assert line[:2] + line[6:8] == ["spleen", protocol, mm, voxels]
    assert lines[-1][6] == "**–**"
    assert lines[-1][7] == f"**{measured['protocols']['transunet']['mean']['hd95_voxels']:.2f}**"
    words = text[: text.index("|")]
    fractions = "DSC (Dice), IoU (intersection over union) and SE (sensitivity) are fractions"
    assert f"{fractions} from 0 to 1, and 1 is best; " in words
    assert "HD95 is the 95th percentile" in words
    assert "in millimetres (mm) and voxels (vox)" in words
    rules = [row[0] for row in table_after(text, "## Rules that differ")]
    assert "distance: missed or false positive" in rules
    assert "HD95" in table_after(text, "## As printed")[0]


def test_without_distances_there_is_no_word_of_them(volumes):
    text = markdown_table(volumes)
    assert table_after(text, "# ")[0][2:6] == ["DSC", "95 % interval", "IoU", "SE"]
    ours = text[: text.index("## As printed")]
    assert "HD95" not in ours
    assert "distance" not in ours
    assert "over 0 of" not in ours
    shown = printed(volumes)
    assert "MSA²Net: DSC 84.75\n" in re.sub(" +\n", "\n", shown)  # nothing to compare its HD95 with
    assert "distance" not in shown


def test_millimetres_alone_may_be_unknown():
    summary = random_volumes(ORGANS, distances=True)
    text = markdown_table(summary)
    assert table_after(text, "# ")[0][6:8] == ["HD95 vox", "n"]
    assert "in voxels (vox), and 0 is best" in text


def test_specificity_and_accuracy_are_for_photographs(photographs, measured):
    assert "ACC (accuracy) are fractions" in markdown_table(photographs)
    for text in (markdown_table(measured), printed(measured)):
        assert not re.search(r"\b(ACC|SP)\b", text)


def test_markdown_by_group(measured):
    text = markdown_table(measured)
    assert "## By group\n\nend diastole: 2 cases, end systole: 2 cases.\n\n### standard\n" in text
    for protocol in ("standard", "transunet"):
        header, _, *lines = table_after(text, f"### {protocol}")
        few = protocol == "transunet"
        figures = ["HD95 vox"] if few else ["IoU", "SE", "HD95 mm", "HD95 vox"]
        counts = ["n", "missed", "false pos.", "not appl."]
        assert header == ["class", "group", "DSC", "95 % interval", *figures, *counts]
        assert len(lines) == 2 * (13 + 1)
        for line, phase in zip(lines[:2], PHASES, strict=True):
            entry = measured["groups"][phase]["protocols"][protocol]
            own = entry["classes"]["spleen"]
            assert line[:3] == ["spleen", phase, f"{own['dice']['mean']:.4f}"]
            assert line[-5] == f"{own['hd95_voxels']['mean']:.2f}"
            assert line[-4] == str(own["dice"]["n"])
        assert lines[-1][:2] == ["**mean**", "**end systole**"]
        assert lines[-1][2] == f"**{entry['mean']['dice']:.4f}**"


def test_console_by_group(measured):
    text = printed(measured)
    text = text[text.index("By group, standard protocol. end diastole: 2 cases") :]
    entry = measured["groups"]["end systole"]["protocols"]["standard"]
    mean = [f"{entry['mean']['dice']:.4f}"]
    mean += [f"{entry['mean'][key]:.2f}" for key in ("hd95_mm", "hd95_voxels")]
    lines = [line.split() for line in text.splitlines() if " end systole " in line]
    assert len(lines) == 13 + 1
    assert lines[-1][:5] == ["end", "systole", *mean]
    own = entry["classes"]["spleen"]
    assert lines[0][2:4] == [f"{own['dice']['mean']:.4f}", f"{own['hd95_mm']['mean']:.2f}"]


def test_long_organ_folds_beside_its_lines(measured):
    # Large distances and many cases: the widest table there is.
    for entry in measured["protocols"].values():
        for figures in entry["classes"].values():
            figures["dice"]["n"] = 240
            for metric in {"hd95_mm", "hd95_voxels"} & figures.keys():
                figures[metric]["mean"] = 512.25
    text = printed(measured)
    assert max(len(line) for line in text.splitlines()) <= 80
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("portal"))
    label = [
        line.split(name)[0].strip()
        for line, name in zip(lines[first : first + 2], ("standard", "transunet"), strict=True)
    ]
    assert label == ["portal and splenic", "vein"]  # no line more than two protocols need
    assert re.search("512.25   512.25 +240 ", lines[first])


@pytest.mark.parametrize("width", [80, 100, 120])
def test_console_headings_stand_on_one_line_and_are_explained(measured, width):
    measured["worst"] = {name: [{"case": "patient059_frame09"}] for name in THIRTEEN[1:]}
    lines = printed(measured, width).splitlines()
    assert "…" not in "".join(lines)
    rules = [(above, rule) for above, rule in pairwise(lines) if rule.startswith("──")]
    headings = [" ".join(above.split()) for above, _ in rules]
    assert headings[0] == "class protocol DSC IoU SE HD95 mm HD95 vox n miss FP"
    assert headings[1] == "class 95 % interval Q1 median Q3 n/a worst case"
    assert headings[2] == "class group DSC HD95 mm HD95 vox n miss FP"
    assert sum(line.rstrip().endswith(" patient059_frame09") for line in lines) == 13
    text = " ".join(" ".join(lines).split())
    for words in (
        "DSC (Dice), IoU (intersection over union) and SE (sensitivity) are fractions from 0 to 1",
        "HD95 is the 95th percentile of the distances between the two surfaces, in millimetres "
        "(mm) and voxels (vox), and 0 is best",
        "n: cases in the DSC; miss: of these, in the truth and not predicted; FP: false positives",
        "lower quartile (Q1), median, upper quartile (Q3), number of cases that it does not apply "
        "to (n/a), case where it is lowest.",
    ):
        assert words in text


def test_long_group_names_are_cut_in_the_terminal_only(measured):
    name = "a group with a name that no table of eighty columns can hold"
    measured["groups"] = {name: measured["groups"]["end systole"]}
    text = printed(measured)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert name in " ".join(text.split())
    table = text[text.index("By group") :]
    assert "\nportal and splenic vein a group with a name" in table  # the class is not squeezed
    assert f"| {name}" in markdown_table(measured)


@pytest.mark.parametrize("on_test", [False, True])
def test_selection_stands_under_the_heading(measured, on_test):
    sentence = "The weights are of the epoch that scored best on the [test] split."
    measured |= {"selection": sentence, "flattering": on_test}
    lines = markdown_table(measured).splitlines()
    assert lines[2] == ("**Warning:** " if on_test else "") + sentence
    shown = " ".join(printed(measured).split())
    assert f"cases {'Warning: ' if on_test else ''}{sentence}" in shown
    assert ("Warning" in shown) == on_test


def test_selection_on_test_is_never_silent(measured, volumes):
    assert "**Warning:** The weights saw or were chosen by these very cases" in markdown_table(
        measured | {"flattering": True}
    )
    for absent in (volumes, volumes | {"groups": {}, "selection": None, "flattering": False}):
        assert markdown_table(absent) == markdown_table(volumes)
        assert printed(absent) == printed(volumes)
        assert "By group" not in markdown_table(absent)


# --- spread, further figures, worst cases ------------------------------------------------------


def test_spread_and_intervals_by_hand(photographs):
    photographs["intervals"] = interval_facts(7)
    text = markdown_table(photographs)
    header, _, line = table_after(text, "## Spread")
    # Dice 0, 0, 2/5 and 1: ranks 0.75, 1.5 and 2.25; deviations -.35, -.35, .05 and .65
    quartiles = ["0.0000", "0.2000", "0.5500"]
    spread = f"{math.sqrt((2 * 0.35**2 + 0.05**2 + 0.65**2) / 3):.4f}"
    ends = interval(photographs, "standard")
    assert line == ["lesion", "DSC", "0.3500", ends, spread, *quartiles, "4"]
    assert header[3:] == [
        *("95 % interval", "SD", "lower quartile", "median", "upper quartile", "n")
    ]
    assert "(a BCa bootstrap over cases, 10,000 resamples, seed 7)" in text
    few = "Intervals over fewer than 20 cases are too narrow, and even with 20, 7 to 12 in 100"
    assert f"\nstandard: {few} miss the true mean: n = 4.\n" in text
    assert f"\nisic: {few} miss the true mean: n = 5.\n" in text
    shown = " ".join(printed(photographs).split())
    assert f"lesion {ends} {' '.join(quartiles)} 1 " in shown
    assert f"{few} miss the true mean: n = 4." in shown
    assert "n = 5" not in shown  # the console's intervals are of the standard protocol only


def test_spread_of_volumes(measured):
    lines = table_after(markdown_table(measured), "## Spread")[2:]
    assert len(lines) == 2 * 13 + 2
    classes = measured["protocols"]["standard"]["classes"]
    for line, metric in zip(lines[:2], ("dice", "hd95_mm"), strict=True):
        figure = classes["spleen"][metric]
        digits = 4 if metric == "dice" else 2
        keys = ("sd", "lower_quartile", "median", "upper_quartile")
        assert line[1] == {"dice": "DSC", "hd95_mm": "HD95 mm"}[metric]
        assert line[3] == interval(measured, "standard", "spleen", metric)
        assert line[4:] == [*(f"{figure[key]:.{digits}f}" for key in keys), str(figure["n"])]
    low, high = measured["protocols"]["standard"]["mean_interval"]["hd95_mm"]
    assert lines[-1][3] == f"**{low:.2f}–{high:.2f}**"


def test_why_there_is_no_interval():
    names = ("background", "a", "b", "c")
    full, none = np.array([1, 1, 2, 2]), np.array([1, 1, 0, 0])
    summary = summary_of(names, "volume", "acdc", [(full, full), (full, full), (full, none)])
    text = markdown_table(summary)
    assert (
        "standard: No interval of the DSC: a (all 3 values are the same, which does not say how "
        "others vary); c (no applicable case)."
    ) in text
    summary = summary_of(names, "volume", "acdc", [(full, full)])
    assert (
        "standard: No interval of the DSC: a, b (one case does not say how others vary); c (no "
        "applicable case)."
    ) in markdown_table(summary)


def test_twenty_cases_are_not_few():
    cases = [(np.array([1, 1, 0, 0]), np.array([1, i % 2, 0, 0])) for i in range(20)]
    names = ("background", "lesion")
    assert "fewer than" in markdown_table(summary_of(names, "photograph", "x", cases[:19]))
    assert "fewer than" not in markdown_table(summary_of(names, "photograph", "x", cases))


def test_further_figures(measured, photographs):
    text = markdown_table(measured)
    header, _, *lines = table_after(text, "## Further")
    assert header == [
        *("class", "HD mm", "HD95 directed max mm", "ASSD mm", "surface DSC 2 mm", "precision"),
        *("volume diff. %", "n"),
    ]
    figures = measured["protocols"]["standard"]["classes"]["spleen"]
    keys = ("hd_mm", "hd95_directed_max_mm", "assd_mm")
    assert lines[0][1:4] == [f"{figures[key]['mean']:.2f}" for key in keys]
    assert lines[0][4] == f"{figures['surface_dice_2mm']['mean']:.4f}"
    difference = figures["volume_difference_percent"]
    assert difference["n"] == figures["dice"]["n"] - 1  # in one case there is no spleen
    assert lines[0][6] == f"{difference['mean']:+.1f} ({difference['n']})"
    mean = measured["protocols"]["standard"]["mean"]
    assert lines[-1][1] == f"**{mean['hd_mm']:.2f}**"
    n = int(lines[-1][-1].strip("*"))
    assert lines[-1][6] == f"**{mean['volume_difference_percent']:+.1f} ({n - 1})**"
    assert "HD: the largest surface distance of both directions. HD95 directed max: 95th" in text
    assert "Volume difference: signed, in % of the truth's volume" in text

    text = markdown_table(photographs)
    # Precision 1, 1/2 and 0 of a false positive; volumes the same, a third less, and all missing.
    assert table_after(text, "## Further")[2] == ["lesion", "0.5000 (3)", "-44.4 (3)", "4"]
    assert "surface" not in text
    voxels = table_after(markdown_table(random_volumes(ORGANS, distances=True)), "## Further")
    assert voxels[0][1:5] == ["HD vox", "HD95 directed max vox", "ASSD vox", "surface DSC 2 vox"]


def test_worst_cases_are_listed(photographs):
    photographs["worst"] = {
        "lesion": [
            {"case": "img|1", "dice": 0.0, "outcome": "missed"},
            {"case": "img0", "dice": 0.0, "outcome": "false_positive"},
            {"case": "img2", "dice": 0.5, "outcome": "scored"},
        ]
    }
    (line,) = table_after(markdown_table(photographs), "## Worst cases")[2:]
    assert line == [
        "lesion",
        r"img\|1 (0.0000, missed); img0 (0.0000, false positive); img2 (0.5000)",
    ]
    assert re.search(r"lesion +0\.\d+–0\.\d+ .* img\|1", printed(photographs))
    photographs["worst"] = {"lesion": []}
    assert table_after(markdown_table(photographs), "## Worst cases")[2] == ["lesion", "–"]
    assert printed(photographs)


# --- other summaries ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHOWN)
def test_a_summary_of_the_first_schema_has_no_intervals(kind, request):
    summary = request.getfixturevalue(kind)
    old = schema_1(summary)
    for text in (markdown_table(old), printed(old)):
        assert "interval" not in text.replace("not applicable", "")
        assert "Spread" not in text
        assert "quart" not in text
    new_lines, old_lines = (
        table_after(markdown_table(content), "# ")[2:] for content in (summary, old)
    )
    assert [line[:3] + line[4:] for line in new_lines] == old_lines


EVIL = "<img src=x>|`a` [b](c) *d* \x1b[31mé\u202e &lt; [red]"


def test_names_are_no_markup_and_no_orders_to_a_terminal(photographs):
    rename_lesion(photographs, EVIL)
    photographs |= {"worst": {EVIL: [{"case": "=<b>\r\x1b[2J", "dice": 0.5, "outcome": "scored"}]}}
    photographs |= {"note": f"A note on {EVIL}.", "split": EVIL}
    texts = markdown_table(photographs), latex_table(photographs), printed(photographs, 200)
    for text in texts:
        assert not {*text} & {"\x1b", "\r", "\u202e"}
    markdown, _, shown = texts
    assert "<img" not in markdown
    assert "<b>" not in markdown
    name = r"&lt;img src=x>\|\`a\` [b\](c) \*d\* \\x1b[31mé\\u202e &amp;lt; [red]"
    assert f"A note on {name}." in markdown
    row = next(line for line in markdown.splitlines() if line.startswith(f"| {name} "))
    assert cells(row)[1] == "standard"
    assert r"A note on <img src=x>|`a` [b](c) *d* \x1b[31mé\u202e &lt; [red]." in shown


@pytest.mark.parametrize("width", [80, 100, 120])
def test_words_are_whole_in_the_terminal(width):
    names = ("background", "portal_vein_and_splenic_vein", "left_upper_lobe_of_the_lung")
    summary = random_volumes(names, distances=True, spacing_mm=(3, 0.75, 0.75), group="")
    case = "sub-0032_ses-20210101_acq-portalvenous_ct"
    summary["worst"] = {name: [{"case": case}] for name in names[1:]}
    summary["intervals"] = interval_facts()
    lines = printed(summary, width).splitlines()
    assert max(map(len, lines)) <= width
    whole = set(re.findall(r"[^\s_.-]+", printed(summary, 400)))
    assert set(re.findall(r"[^\s_.-]+", "\n".join(lines))) <= whole | {"─" * width}
    assert not re.search(r"\w…", "\n".join(lines))


def test_two_folders_are_named_and_the_note_is_shown(photographs):
    photographs |= {
        **{"model": None, "split": None, "reference": None, "source": "folders", "cases": 40},
        **{"data": {"format": "folders", "predictions": "masks [a]", "labels": "truth"}},
        **{"note": "A note [b]."},
    }
    lines = markdown_table(photographs).splitlines()
    assert (lines[0], lines[2]) == ("# masks [a] against truth, 40 cases", "A note [b].")
    shown = printed(photographs)
    assert shown.startswith("masks [a] against truth, 40 cases ")
    assert "\nA note [b]. " in shown


@pytest.mark.parametrize("text", [False, True])
def test_infinite_distances(text):
    nothing, some = np.zeros((2, 4, 4), int), np.ones((2, 4, 4), int)
    rows = []
    for i, prediction in enumerate((nothing, some, some)):
        options = {"distances": True, "spacing_mm": (3, 1, 1), "failed_distance": "inf"}
        rows += case_rows(f"case{i}", prediction, some, ("background", "a"), **options)
    summary = random_volumes(ORGANS) | {"label_names": ["background", "a"]}
    summary["protocols"] = {
        "standard": summarise(rows, summary["label_names"], standard_protocol("inf"))
    }
    if text:  # as in the file: strict JSON has no infinity
        entry = summary["protocols"]["standard"]
        as_text = json.dumps(entry).replace(" Infinity", ' "Infinity"')
        summary["protocols"]["standard"] = json.loads(as_text)
    shown = markdown_table(summary)
    line = table_after(shown, "# ")[2]
    assert line[6:9] == ["∞", "∞", "3"]
    assert table_after(shown, "## Spread")[3][2:8] == ["∞", "–", "–", "0.00", "0.00", "∞"]
    assert "No interval of the HD95 mm: 1 of 3 values is infinite." in shown
    assert "is infinity, and so is every mean with one such case in it." in shown
    assert "∞" in printed(summary)


def test_a_protocol_of_one_s_own_choice_is_shown(volumes):
    volumes["protocols"] = {"isic": volumes["protocols"]["isic"]}
    lines = table_after(markdown_table(volumes), "# ")[2:]
    assert {line[1] for line in lines} == {"isic", "**isic**"}
    assert " isic " in printed(volumes)


# --- the paper's numbers ---------------------------------------------------------------------


def test_reference_by_format():
    assert reference_for("isic2018")["columns"] == ["DSC", "SE", "SP", "ACC"]
    assert reference_for("btcv") == reference_for("synapse")
    assert reference_for("acdc") is None
    for name in ("isic2018", "synapse"):
        reference = reference_for(name)
        assert "not measured here" in reference["title"]
        assert reference["rows"][-1][0] == "MSA²Net"
        for row in reference["rows"]:
            assert len(row) == 1 + len(reference["columns"])


def test_reference_is_a_copy():
    reference_for("synapse")["rows"][0][1] = 0.0
    assert reference_for("synapse")["rows"][0][1] == 96.07


def test_printed_synapse_means_follow_from_the_printed_organs():
    off = {}
    for name, *row in reference_for("synapse")["rows"]:
        difference = sum(row[2:10]) / 8 - row[10]
        if abs(difference) > 0.005:  # the rounding of the printed mean
            off[name] = round(difference, 4)
    assert off == {"HiFormer-B": -0.06, "DAE-Former": 0.0125}  # as the note says


def test_only_the_paper_s_own_specificity_cannot_be_right():
    impossible = [
        name
        for name, _, se, sp, acc in reference_for("isic2018")["rows"]
        if not min(se, sp) <= acc <= max(se, sp)
    ]
    assert impossible == ["MSA²Net"]


def test_the_specificity_that_the_note_gives_fits():
    dsc, se, _, acc = reference_for("isic2018")["rows"][-1][1:]
    fp = 2 * se / dsc - 2 * se - (1 - se)  # per pixel of lesion, from the pooled Dice
    lesion = (1 - acc) / (fp + 1 - se)  # share of all pixels, from the accuracy
    specificity = 1 - fp * lesion / (1 - lesion)
    assert specificity == pytest.approx(0.9857, abs=5e-5)  # four printed digits
