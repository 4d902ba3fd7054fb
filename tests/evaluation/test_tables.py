"""Tables for people: by hand, and what the snapshots do not hold."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from rich.console import Console

from drawn_summaries import ORGANS, THIRTEEN, random_volumes, summary_of
from msa2net.evaluation.schema import Summary
from msa2net.evaluation.tables.console import console_table, markdown_table
from msa2net.evaluation.tables.latex import latex_table
from msa2net.metrics.schema import WorstCase
from msa2net.metrics.summary import interval_method
from report_runs import as_schema_1

EVIL = "<img src=x>|`a` [b](c) *d* \x1b[31mé\u202e &lt; [red]"


def photographs(name="lesion", protocols=("standard", "isic"), **changes):
    truth, nothing = np.array([1, 1, 1, 0, 0, 0, 0, 0]), np.zeros(8, dtype=int)
    half = np.array([0, 0, 1, 1, 0, 0, 0, 0])
    cases = [(truth, truth), (half, truth), (nothing, truth), (half, nothing), (nothing, nothing)]
    names = ("background", name)
    summary = summary_of(names, "photograph", "isic2018", cases, protocols=protocols)
    return summary.model_copy(update=changes)


@pytest.fixture(scope="module")
def measured():
    """Volumes with distances, in two groups, of the organs with the longest names."""
    return random_volumes(THIRTEEN, distances=True, spacing_mm=(3, 0.75, 0.75), group="")


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


def test_both_protocols_by_hand():
    summary = photographs()
    intervals = [
        "{:.3f}–{:.3f}".format(*summary.protocols[name].mean_interval["dice"])
        for name in ("standard", "isic")
    ]
    header, _, *lines = table_after(markdown_table(summary), "# ")
    assert header == [
        *("class", "protocol"),
        *("DSC", "95 % interval", "IoU", "SE", "SP", "ACC"),
        *("n", "missed", "false pos.", "not appl."),
    ]
    # Dice 1, 2/5, 0, 0: mean 0.35 over 4; SE 1, 1/3, 0: mean 4/9 over 3;
    # SP 1, 4/5, 1, 6/8, 1: mean 0.91 over 5; ACC 1, 5/8, 5/8, 6/8, 1: mean 0.8 over 5
    assert lines == [
        [
            *("lesion", "standard", "0.3500", intervals[0]),
            *("0.3125", "0.4444 (3)", "0.9100 (5)", "0.8000 (5)", "4", "1", "1", "1"),
        ],
        # pooled: tp 3+1, fp 1+2, fn 2+3, tn 5+4+5+6+8
        [
            *("lesion", "isic", "0.5000", intervals[1]),
            *("0.3333", "0.4444", "0.9032", "0.8000", "5", "1", "1", "0"),
        ],
    ]
    # Dice 0, 0, 2/5 and 1: ranks 0.75, 1.5 and 2.25; deviations -.35, -.35, .05 and .65
    spread = ["lesion", "DSC", "0.3500", intervals[0], "0.4726", "0.0000", "0.2000", "0.5500", "4"]
    assert table_after(markdown_table(summary), "## Spread")[2] == spread
    # Precision 1, 1/2 and 0 of a false positive; volumes the same, a third less, and all missing.
    further = table_after(markdown_table(summary), "## Further")
    assert further[2] == ["lesion", "0.5000 (3)", "-44.4 (3)", "4"]


def test_what_makes_an_interval_narrow_or_none():
    text = markdown_table(photographs(intervals=interval_method(7)))
    assert "(a BCa bootstrap over cases, 10,000 resamples, seed 7)" in text
    few = "Intervals over fewer than 20 cases are too narrow, and even with 20, 7 to 12 in 100"
    assert f"\nstandard: {few} miss the true mean: n = 4.\n" in text
    assert f"\nisic: {few} miss the true mean: n = 5.\n" in text
    shown = " ".join(printed(photographs()).split())
    assert f"{few} miss the true mean: n = 4." in shown
    assert "n = 5" not in shown  # the console's intervals are of the standard protocol only
    names = ("background", "a", "b", "c")
    full, none = np.array([1, 1, 2, 2]), np.array([1, 1, 0, 0])
    for cases, words in (
        (
            [(full, full), (full, full), (full, none)],
            "a (all 3 values are the same, which does not say how others vary); c (no applicable",
        ),
        ([(full, full)], "a, b (one case does not say how others vary); c (no applicable case)."),
    ):
        text = markdown_table(summary_of(names, "volume", "acdc", cases))
        assert f"standard: No interval of the DSC: {words}" in text
    cases = [(np.array([1, 1, 0, 0]), np.array([1, i % 2, 0, 0])) for i in range(20)]
    for count in (19, 20):
        summary = summary_of(("background", "lesion"), "photograph", "x", cases[:count])
        assert ("fewer than" in markdown_table(summary)) == (count < 20)


def test_only_what_was_measured_has_a_column(measured):
    volumes = random_volumes(ORGANS)
    text = markdown_table(volumes)
    assert table_after(text, "# ")[0][2:6] == ["DSC", "95 % interval", "IoU", "SE"]
    ours = text[: text.index("## As printed")]
    assert "HD95" not in ours
    assert "distance" not in ours
    assert "over 0 of" not in ours
    assert not re.search(r"distance|MSA²Net: DSC 84.75\S", printed(volumes))
    text = markdown_table(random_volumes(ORGANS, distances=True))  # the spacing is not known
    assert table_after(text, "# ")[0][6:8] == ["HD95 vox", "n"]
    assert "in voxels (vox), and 0 is best" in text
    assert "HD vox" in table_after(text, "## Further")[0]
    assert "SP" not in table_after(markdown_table(measured), "# ")[0]  # of volumes always near 1


@pytest.mark.parametrize("name", ["tumour [core]", "[/]", "[red]a[/red]", ":heart:", r"\["])
def test_the_terminal_shows_names_to_the_letter(name):
    # Rich takes square brackets for styles (and raises on a lone [/]) and colons for emoji.
    model = photographs().model.model_copy(update={"name": f"net {name}"})
    heading, *lines = printed(photographs(name, model=model, split=name)).splitlines()
    assert heading.rstrip() == f"net {name} on isic2018, {name} split, 5 cases"
    assert [line.split(" standard")[0].rstrip() for line in lines if " standard 0." in line] == [
        name
    ]


def test_names_are_no_markup_and_no_orders_to_a_terminal():
    worst = WorstCase(case="=<b>\r\x1b[2J", dice=0.5, outcome="scored")
    summary = photographs(EVIL, worst={EVIL: (worst,)}, note=f"A note on {EVIL}.", split=EVIL)
    texts = markdown_table(summary), latex_table(summary), printed(summary, 200)
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
def test_the_terminal_is_wide_enough(measured, width):
    """Nothing is cut, whatever the names: words stay whole, and numbers on one line."""
    names = ("background", "portal_vein_and_splenic_vein", "left_upper_lobe_of_the_lung")
    long = random_volumes(names, distances=True, spacing_mm=(3, 0.75, 0.75), group="")
    name = "a group with a name that no table of eighty columns can hold"
    group = {name: measured.groups["end systole"]}
    for summary in (photographs(), random_volumes(ORGANS), measured, long):
        case = WorstCase(case="sub-0032_ses-20210101_ct", dice=0.5, outcome="scored")
        worst = dict.fromkeys(summary.classes, (case,))
        summary = summary.model_copy(update={"worst": worst, "intervals": interval_method()})
        lines = printed(summary, width).splitlines()
        assert max(map(len, lines)) <= width
        whole = set(re.findall(r"[^\s_.-]+", printed(summary, 400)))
        assert set(re.findall(r"[^\s_.-]+", "\n".join(lines))) <= whole | {"─" * width}
        assert not re.search(r"\w…", "\n".join(lines))
        headings = [line for line, rule in pairwise(lines) if rule.startswith("──")]
        assert " ".join(headings[1].split()) == "class 95 % interval Q1 median Q3 n/a worst case"
    text = printed(measured.model_copy(update={"groups": group}), width)
    assert max(map(len, text.splitlines())) <= width
    assert name in " ".join(text.split())


def test_long_organ_folds_beside_its_lines(measured):
    # Large distances and many cases: the widest table there is.
    content = json.loads(measured.model_dump_json())
    for scores in content["protocols"].values():
        for values in scores["classes"].values():
            values["dice"]["n"] = 240
            for metric in {"hd95_mm", "hd95_voxels"} & values.keys():
                values[metric]["mean"] = 512.25
    lines = printed(Summary.model_validate(content)).splitlines()
    assert max(map(len, lines)) <= 80
    first = next(i for i, line in enumerate(lines) if line.startswith("portal"))
    label = [
        line.split(name)[0].strip()
        for line, name in zip(lines[first : first + 2], ("standard", "transunet"), strict=True)
    ]
    assert label == ["portal and splenic", "vein"]  # no line more than two protocols need
    assert re.search("512.25   512.25 +240 ", lines[first])


def test_how_the_weights_were_chosen_is_never_silent(measured):
    sentence = "The weights are of the epoch that scored best on the [test] split."
    for flattering in (False, True):
        summary = measured.model_copy(update={"selection": sentence, "flattering": flattering})
        warning = "Warning: " if flattering else ""
        assert markdown_table(summary).splitlines()[2].replace("**", "") == warning + sentence
        shown = " ".join(printed(summary).split())
        assert f"cases {warning}{sentence}" in shown
        assert ("Warning" in shown) == flattering
    text = markdown_table(measured.model_copy(update={"flattering": True}))
    assert "**Warning:** The weights saw or were chosen by these very cases" in text


def test_what_is_not_there_is_not_spoken_of():
    text = markdown_table(photographs(protocols=("standard",), reference=None, model=None, cases=1))
    assert text.startswith("# isic2018, test split, 1 case\n")
    assert re.findall("^## (.*)", text, flags=re.MULTILINE) == ["Spread", "Further", "All rules"]
    assert len(table_after(text, "# ")) == 3
    alone = photographs(protocols=("transunet",))  # not the published one of photographs
    assert table_after(markdown_table(alone), "# ")[2][1] == "transunet"
    assert " transunet " in printed(alone)
    nothing = photographs(worst={"lesion": ()})
    assert table_after(markdown_table(nothing), "## Worst cases")[2] == ["lesion", "–"]
    assert printed(nothing)


@pytest.mark.parametrize("kind", ["photograph", "volume"])
def test_the_first_schema_has_no_intervals(kind, measured):
    summary = photographs() if kind == "photograph" else measured
    old = Summary.model_validate(as_schema_1(json.loads(summary.model_dump_json())))
    for text in (markdown_table(old), printed(old), latex_table(old)):
        assert not re.search("interval|Spread|quart", text.replace("not applicable", ""))
    new_lines, old_lines = (table_after(markdown_table(s), "# ")[2:] for s in (summary, old))
    assert [line[:3] + line[4:] for line in new_lines] == old_lines
