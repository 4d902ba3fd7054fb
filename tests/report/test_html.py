"""The report: everything on one page, nothing loaded, and nothing missing without a word."""

import csv
import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from html_page import Page
from msa2net.config import NetworkConfig, dump_config, load_config
from msa2net.errors import DataError, Msa2NetError
from msa2net.evaluation.examples import RANKS
from msa2net.evaluation.run import evaluate_run
from msa2net.files import sha256
from msa2net.inference.run_folder import TrainingMetadata, read_facts, software_versions
from msa2net.inference.validation_scores import network_warnings
from msa2net.metrics.protocol import FAILED_DISTANCES, PROTOCOLS
from msa2net.metrics.summary import read_cases_csv, summarise
from msa2net.models.registry import MODELS
from msa2net.report.html import write_report
from msa2net.report.load import read_example
from msa2net.training.run import train
from report_runs import (
    NAMES,
    SELECTION,
    as_schema_1,
    make_config,
    make_evaluation,
    make_facts,
    make_run,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return {kind: make_run(tmp_path_factory.mktemp("runs") / f"{kind}-run", kind) for kind in NAMES}


@pytest.fixture(scope="module")
def pages(runs):
    return {kind: write_report(run) for kind, run in runs.items()}


@pytest.mark.parametrize("kind", NAMES)
def test_page_is_whole_and_loads_nothing(pages, kind):
    html = pages[kind].read_text(encoding="utf-8")
    page = Page(html)
    assert len(page.links) >= 6
    assert all(link.startswith(("data:", "#")) for link in page.links)  # or within the page
    assert not re.search(r"https?:|@import|url\((?!#)|//cdn|<iframe|fetch\(", html)
    assert "default-src 'none'" in html
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b|Undefined", page.text)


@pytest.mark.parametrize(("kind", "limit"), [("photograph", 500_000), ("volume", 3_000_000)])
def test_page_is_small(pages, kind, limit):
    # The images of the fixture are full of noise, the worst that a JPEG can meet.
    assert 20_000 < pages[kind].stat().st_size < limit


def test_page_of_large_examples_is_small_too(runs, tmp_path):
    run = tmp_path / "large"
    shutil.copytree(runs["volume"], run)
    rng = np.random.default_rng(0)
    for path in (run / "evaluation/examples").glob("*.npz"):
        with np.load(path) as small:
            truth, prediction = (
                small[k].repeat(4, 1).repeat(4, 2) for k in ("truth", "prediction")
            )
        image = np.clip(rng.normal(100, 15, (*truth.shape, 1)), 0, 255).repeat(3, -1)
        arrays = {"image": image.astype(np.uint8), "truth": truth, "prediction": prediction}
        np.savez(path, **arrays)
    assert write_report(run).stat().st_size < 5_000_000


@pytest.mark.parametrize("kind", NAMES)
def test_sections_come_in_order(pages, kind):
    text = Page(pages[kind].read_text()).text
    headings = ["What was run", "Learning curves", "Scores", "Dice of every case"]
    headings += ["Worst, median and best", "Reference results", "Research use only"]
    places = [text.index(heading) for heading in headings]
    assert places == sorted(places)
    assert "not a like-for-like comparison" in text


def test_headline_and_facts(pages, runs):
    text = Page(pages["volume"].read_text()).text
    summary = json.loads((runs["volume"] / "evaluation/summary.json").read_text())
    mean = summary["protocols"]["standard"]["mean"]["dice"]
    low, high = summary["protocols"]["standard"]["mean_interval"]["dice"]
    interval = f"95 % interval {low:.3f}–{high:.3f}"
    assert f"volume-run mean Dice {mean:.4f} standard protocol; {interval}; missed: 1, f" in text
    facts = ["1.23 M", "6 volumes", "Epochs 40", "of epoch 38, validation Dice 0.876"]
    facts += [f"Encoder {MODELS['msa2net_pico'].encoder} ", "12 min 34 s to the kept weights"]
    facts += [
        "Seed 1234",
        "Device cpu",
        "Precision 32-bit floating point (32-true)",
        "128 × 128",
        "Batch size 8",
    ]
    facts += ["Loss 1 × boundary_dou + 0.5 × cross_entropy", "Learning rate 0.0005, cosine"]
    facts += ["Versions msa2net 0.1.0, torch 2.11.0 ", "Scored with python"]
    facts += ["synapse, not the same as in training", "Data hash " + "cd" * 8 + " "]
    facts += [f"Predictions hash {'a1' * 8} Labels hash {'b2' * 8} Split hash {'d4' * 8} "]
    facts.append(f"Weights hash {sha256(runs['volume'] / 'model.safetensors')[:16]} ")
    assert [fact for fact in facts if fact not in text] == []


def facts_of(folder, *, config=None, facts=None):
    """The facts on the page of a run folder with these two files."""
    folder.mkdir()
    if config:
        (folder / "config.yaml").write_text(dump_config(config))
    if facts:
        (folder / "model.json").write_text(facts.model_dump_json())
    text = Page(write_report(folder).read_text()).text
    return text[text.index("What was run") : text.index("Learning curves")]


def test_precision_is_what_ran_or_nothing(tmp_path):
    network = NetworkConfig(
        name="msa2net", encoder=None, num_classes=2, in_channels=1, image_size=(64, 96)
    )
    known = {"seed": 7, "best_epoch": 3, "warnings": ["nothing useful was learnt: …"]}
    before = make_facts(network, ["background", "a"], training=known)
    planned = facts_of(tmp_path / "a", config=make_config("synapse"), facts=before)
    assert "Precision" not in planned  # auto is not a precision
    assert "Seed 7" in planned
    assert "Warning nothing useful was learnt: … Epochs" in planned
    assert "Kept weights of epoch 3 " in planned
    assert "64 × 96" in planned
    assert "Epochs 40 planned" in planned
    asked = facts_of(tmp_path / "b", config=make_config("synapse", precision="bf16-mixed"))
    assert "Precision bfloat16 (16 bits) mixed with 32-bit floating point (bf16-mixed)" in asked


def test_encoder_is_the_one_in_use(tmp_path):
    network = NetworkConfig(
        name="msa2net", encoder="test_maxvit", num_classes=2, in_channels=1, image_size=(64, 64)
    )
    config = make_config("synapse")
    pretrained = config.model_copy(
        update={"model": config.model.model_copy(update={"pretrained": True})}
    )
    facts = make_facts(network, ["background", "a"])
    assert "Encoder test_maxvit Image" in facts_of(tmp_path / "a", config=config, facts=facts)
    own = f"Encoder {MODELS['msa2net_pico'].encoder}, from ImageNet weights"
    assert own in facts_of(tmp_path / "b", config=pretrained)
    unknown = make_facts(
        network.model_copy(update={"name": "newer", "encoder": None}), ["background", "a"]
    )
    assert "Encoder" not in facts_of(tmp_path / "c", facts=unknown)


@pytest.mark.parametrize(
    ("kind", "published", "other"),
    [("photograph", "ISIC 2018 as", "TransUNet:"), ("volume", "TransUNet:", "ISIC 2018 as")],
)
def test_both_protocols_stand_side_by_side(pages, runs, kind, published, other):
    text = Page(pages[kind].read_text()).text
    assert published in text
    assert other not in text
    protocols = json.loads((runs[kind] / "evaluation/summary.json").read_text())["protocols"]
    name = NAMES[kind][-1]
    first = protocols["standard"]["classes"][name]["dice"]
    second = protocols["isic" if kind == "photograph" else "transunet"]["classes"][name]["dice"]
    assert first["missed"] == 1
    rest = f"{first['n']} 1 0 {first['not_applicable']} "
    assert f"{rest}{second['mean']:.4f} {between(second['interval'])} " in text
    assert "false positive: predicted, not in the truth 0 " in text


def test_only_rules_that_differ_are_listed(pages):
    text = Page(pages["volume"].read_text()).text
    start = text.index("All rules")
    differing, every = text[:start], text[start:]
    assert "both empty not applicable 0" in differing
    assert "ignored pixels" not in differing
    assert "both non-empty" not in differing
    for situation, *_ in PROTOCOLS["standard"].rules + PROTOCOLS["transunet"].rules:
        assert situation in every


def between(ends, digits=3):
    low, high = ends
    return f"{low:.{digits}f}–{high:.{digits}f}"


def far_between(ends):
    """Of distances: two decimals suffice, and one from 10 on."""
    return between(ends, 2 if ends[1] < 10 else 1)


def quartiles(figure):
    return between((figure["lower_quartile"], figure["upper_quartile"]))


def scores_of(text):
    return text[text.index("Scores Dice lies") : text.index("Dice of every case")]


def test_cards_have_the_distance_of_what_was_found(pages, runs):
    text = Page(pages["volume"].read_text()).text
    cards = text[text.index("Worst, median and best cases") :]
    worst = cards[cards.index(" case-00 ") : cards.index("case-03")]
    rows = read_cases_csv(runs["volume"] / "evaluation/cases.csv")
    for row in (row for row in rows if row["case"] == "case-00"):
        shown = f"{row['class']} {row['dice']:.3f} {row['hd95_mm']:.1f} mm"
        if row["class"] == "stomach":
            assert "stomach missed" in worst
        else:
            assert shown in worst
    assert worst.count(" mm") == 7
    assert " mm" not in Page(pages["photograph"].read_text()).text


def test_selection_on_test_is_a_warning(pages, runs, tmp_path):
    page = Page(pages["volume"].read_text())
    assert f"1,234,567 Warning: {SELECTION} What was run" in page.text
    assert len(page.named("p", "warning")) == 1
    run = tmp_path / "run"
    shutil.copytree(runs["volume"], run)
    path = run / "evaluation/summary.json"
    sentence = "The weights are those of the best epoch on the val split."
    changed = {"selection": sentence, "flattering": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    page = Page(write_report(run).read_text())
    assert f"1,234,567 {sentence} What was run" in page.text
    assert page.named("p", "warning") == []


def test_evaluations_from_before_distances_still_render(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["volume"], run)
    summary = json.loads((run / "evaluation/summary.json").read_text())
    summary = as_schema_1(summary)
    for key in ("groups", "selection", "flattering"):
        del summary[key]
    later = ("hd", "assd", "surface_dice", "volume_difference")
    for entry in summary["protocols"].values():
        for table in (*entry["classes"].values(), entry["mean"], entry["mean_over"]):
            for metric in [name for name in table if name.startswith(later)]:
                del table[metric]
    (run / "evaluation/summary.json").write_text(json.dumps(summary))
    with (run / "evaluation/cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (run / "evaluation/cases.csv").open("w", newline="") as file:
        columns = [name for name in rows[0] if name != "group" and not name.startswith(later)]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    text = Page(write_report(run).read_text()).text
    ours = text[: text.index("Reference results")]
    assert not re.search(r"HD95|istance|By group|Warning| mm\b", ours)
    assert "stomach missed" in ours


def test_an_evaluation_with_older_names_of_metrics_has_the_same_page(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["volume"], run)
    page = write_report(run).read_text()
    assert "HD95 directed max" in page
    for name in ("summary.json", "cases.csv"):
        path = run / "evaluation" / name
        path.write_text(path.read_text().replace("directed_max", "directed"))
    assert write_report(run).read_text() == page


def test_schema_1_has_no_intervals_and_says_nothing_of_them(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["volume"], run)
    summary = as_schema_1(json.loads((run / "evaluation/summary.json").read_text()))
    (run / "evaluation/summary.json").write_text(json.dumps(summary))
    text = Page(write_report(run).read_text()).text
    ours = text[: text.index("Reference results")]
    assert not re.search(r"nterval|quartile|Worst cases of each class|is below 20|hash a1", ours)
    liver = summary["protocols"]["standard"]["classes"]["liver"]
    dice = liver["dice"]
    assert f"liver {dice['mean']:.4f} {dice['median']:.4f} {liver['hd95_mm']['mean']:.2f}" in ours
    assert "a failure counts the image's diagonal" in ours  # as its rules say


def test_intervals_are_explained_and_few_cases_warned_of(pages):
    text = scores_of(Page(pages["volume"].read_text()).text)
    assert "its 95 % interval (BCa bootstrap over cases, 10,000 resamples)" in text
    warning = "n = 6 is below 20: such an interval is too narrow"
    assert text.count(warning) == 1  # once for all classes of both protocols
    assert f"Interval, Standard and TransUNet: {warning}" in text
    assert "is below 20" not in Page(pages["photograph"].read_text()).text  # 40 cases


def test_warnings_name_what_they_are_of(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["volume"], run)
    path = run / "evaluation/summary.json"
    summary = json.loads(path.read_text())
    for entry in summary["protocols"].values():
        entry["mean_warning"] = {}
        for figures in entry["classes"].values():
            for figure in figures.values():
                figure["warning"] = None
    classes = summary["protocols"]["standard"]["classes"]
    classes["liver"]["dice"]["warning"] = classes["spleen"]["dice"]["warning"] = "first"
    classes["liver"]["hd95_mm"]["warning"] = classes["aorta"]["dice"]["warning"] = "second"
    summary["protocols"]["standard"]["mean_warning"] = {"dice": "third"}
    (run / "evaluation/summary.json").write_text(json.dumps(summary))
    text = scores_of(Page(write_report(run).read_text()).text)
    assert "Interval, Standard: Dice of liver and spleen: first." in text
    assert "Interval, Standard: Dice of aorta and HD95 mm of liver: second." in text
    assert "Interval, Standard: Dice of the mean over classes: third." in text


def test_a_warning_of_every_interval_is_not_one_of_those_there_are_not(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["volume"], run)
    path = run / "evaluation/summary.json"
    summary = json.loads(path.read_text())
    pancreas = summary["protocols"]["standard"]["classes"]["pancreas"]["dice"]
    pancreas |= {"interval": None, "warning": "no interval: all 6 values are the same"}
    path.write_text(json.dumps(summary))
    text = scores_of(Page(write_report(run).read_text()).text)
    assert "Interval, Standard and TransUNet: n = 6 is below 20" in text
    assert "Interval, Standard: Dice of pancreas: no interval: all 6 values are the same." in text


@pytest.mark.parametrize("way", ["inf", "nan"])
def test_failed_distances_are_told_in_the_words_of_their_policy(tmp_path, way):
    run = make_run(tmp_path / "run", "volume", way)
    text = Page(write_report(run).read_text()).text
    words = FAILED_DISTANCES[way]
    assert f"the standard protocol's distance is: {words}." in text
    assert f"a failure counts {words}" in text
    assert f"distance: missed or false positive {words} 0, as if perfect" in text
    assert "the image's diagonal" not in text
    table = scores_of(text)
    table = table[: table.index("By group")]
    stomach = table[table.index("stomach ") :]
    if way == "inf":
        assert "mean HD95 ∞ mm" in text
        assert re.match(r"stomach [\d.]+ \S+ [\d.]+ \S+ ∞ ∞ 6 1 0 0 ", stomach)
        assert "1 of 6 values is infinite" in text
    else:  # over five cases, and so it is said in the cell
        assert re.match(r"stomach (\S+ ){4}[\d.]+ \S+, n 5 [\d.]+ \S+, n 5 6 1 0 0 ", stomach)
        mean = table[table.index("Mean over classes ") :]
        counts = json.loads((run / "evaluation/summary.json").read_text())
        counts = counts["protocols"]["standard"]["mean_counts"]
        assert counts["hd95_mm"]["n"] < counts["dice"]["n"]
        few = rf"[\d.]+ \S+, n {counts['hd95_mm']['n']}"
        assert re.match(rf"Mean over classes \S+ \S+ {few} {few} {counts['dice']['n']} ", mean)
    assert not re.search(r"\bnan\b|\binf\b|Infinity", text)


def test_a_protocol_of_one_s_own_choice_is_shown(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["volume"], run)
    path = run / "evaluation/summary.json"
    summary = json.loads(path.read_text())
    rows = read_cases_csv(run / "evaluation/cases.csv")
    for own in (summary, *summary["groups"].values()):
        scores = summarise(rows, summary["label_names"], "isic")
        own["protocols"] = {"isic": scores.model_dump()}
    path.write_text(json.dumps(summary))
    text = Page(write_report(run).read_text()).text
    assert "No scores" not in text
    assert "ISIC 2018 as published" in scores_of(text)


def test_worst_cases_are_listed_by_class(pages, runs):
    page = Page(pages["volume"].read_text())
    start = page.text.index("Worst cases of each class")
    text = page.text[start : page.text.index("Worst, median and best")]
    worst = json.loads((runs["volume"] / "evaluation/summary.json").read_text())["worst"]
    assert len(worst) == 8
    for label, cases in worst.items():
        assert len(cases) == 5
        names = {"scored": "", "missed": "missed, ", "false_positive": "false positive, "}
        rows = [f"{c['case']} {names[c['outcome']]}{c['dice']:.4f}" for c in cases]
        assert f"{label} Case Dice {' '.join(rows)}" in text
    assert "case-00 missed, 0.0000" in text
    assert "case-01 false positive, 0.0000" in text
    assert len(page.named("td", "failed")) == 2


def test_an_evaluation_of_folders_is_a_page_of_its_own(tmp_path):
    folder = make_evaluation(tmp_path / "outcome", "volume")
    path = write_report(folder)
    assert path == folder / "report.html"
    page = Page(path.read_text())
    text = page.text
    assert "outcome – MSA²Net evaluation MSA²Net evaluation report outcome" in text
    assert "What was scored" in text
    facts = ["Predictions masks of <ours> Labels masks of the expert Scored 6 volumes"]
    facts += [
        f"Predictions hash {'a1' * 8} Labels hash {'b2' * 8} Protocols standard and transunet"
    ]
    facts += ["Scored with python", "The published columns are of the given masks."]
    assert [fact for fact in facts if fact not in text] == []
    without = r"this folder has no|Learning curves|configuration|network|parameters|Weights|split"
    assert not re.search(without, text[: text.index("Scores Dice lies")])
    assert "Worst cases of each class" in text
    assert len(page.named("svg", "view")) == 5


def test_one_protocol_alone_stands_alone(runs, tmp_path):
    for name in ("standard", "transunet"):
        run = tmp_path / name
        shutil.copytree(runs["volume"], run)
        path = run / "evaluation/summary.json"
        summary = json.loads(path.read_text())
        for entry in (summary, *summary["groups"].values()):
            entry["protocols"] = {name: entry["protocols"][name]}
        (run / "evaluation/summary.json").write_text(json.dumps(summary))
        text = Page(write_report(run).read_text()).text
        assert ("Standard: every case" in text) == (name == "standard")
        assert ("TransUNet: the" in text) == (name == "transunet")
        assert "Why the two differ" not in text


def test_names_from_outside_are_escaped(pages, runs, tmp_path):
    html = pages["photograph"].read_text()
    assert "&lt;b&gt;lesion&lt;/b&gt; &amp; skin" in html
    assert "<b>lesion" not in html
    run = tmp_path / "<script>alert(1)<"
    shutil.copytree(runs["photograph"], run)
    config = run / "config.yaml"
    encoder = 'encoder: "</pre><script>alert(2)</script>"'
    config.write_text(config.read_text().replace("encoder: null", encoder))
    page = Page(write_report(run, tmp_path / "page.html").read_text())
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "</pre><script>alert(2)</script>" in page.text


def test_volume_examples_have_every_slice(pages):
    page = Page(pages["volume"].read_text())
    sliders = [a for tag, a in page.tags if tag == "input" and a["type"] == "range"]
    assert [s["max"] for s in sliders] == ["24"] * 5
    assert [s["value"] for s in sliders] == ["13"] * 5
    assert len([a for tag, a in page.tags if tag == "g" and "hidden" in a]) == 5 * 2 * 23
    page = Page(pages["photograph"].read_text())
    assert "range" not in {a.get("type") for _, a in page.tags}
    assert len(page.named("svg", "view")) == 6


@pytest.mark.parametrize("kind", NAMES)
def test_cards_go_from_the_worst_to_the_best(pages, kind):
    text = Page(pages[kind].read_text()).text
    cards = text[text.index("Worst, median and best cases") :]
    shown = re.findall(r"(worst|median|best) Dice ([\d.]+) ", cards)
    assert shown == sorted(shown, key=lambda card: (RANKS.index(card[0]), float(card[1])))
    assert len({rank for rank, _ in shown}) == 3
    ranks = re.findall(r"((?:second |near the )?(?:worst|median|best)) Dice", cards)
    if kind == "photograph":  # two of each, of which one is the worst and one the best
        expected = ["worst", "second worst", "near the median", "near the median"]
        assert ranks == [*expected, "second best", "best"]
    if kind == "volume":  # here names have another order
        assert cards.index(" case-01") < cards.index(" case-00") < cards.index(" case-03")


@pytest.mark.parametrize("kind", NAMES)
def test_truth_is_a_line_and_prediction_hatched(pages, kind):
    """Told apart by form, and so without colours too; dark and light show on any picture."""
    html = pages[kind].read_text()
    page = Page(html)
    parts = [a for tag, a in page.tags if tag == "path"]
    views = page.named("svg", "view")
    hatched = {a["fill"][5:-1] for a in parts if a.get("fill", "").startswith("url(#")}
    patterns = [a["id"] for tag, a in page.tags if tag == "pattern"]
    assert len(patterns) == len(set(patterns)) == len(views) * (len(NAMES[kind]) - 1) + 1
    assert hatched <= set(patterns)
    assert "key" in hatched  # in the legend
    for form in ("tint", "dark", "light"):
        assert len([a for a in parts if a.get("class") == form]) >= len(patterns)
    outlines = [a["id"] for a in page.named("g", "outline")]
    assert [a["href"][1:] for tag, a in page.tags if tag == "use"] == outlines  # each drawn twice
    assert len(outlines) == len(set(outlines)) > 0
    assert "truth: a line prediction: hatched" in page.text
    assert "--edge: #000" in html
    # The one class there is needs no colour for its truth: white on black is never the hatching's.
    lone = [a for a in page.named("figure", "card") if "lone" in a["class"]]
    assert len(lone) == (len(views) if kind == "photograph" else 0)


def test_averaged_weights_have_a_curve(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["photograph"], run)
    before = write_report(run).read_text()
    assert "line average" not in before
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["average_val_dice"] = "0.5" if row["val_dice"] else ""
    rows[19]["average_val_dice"] = "0.9876"
    with (run / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    page = Page(write_report(run).read_text())
    (line, _) = page.named("path", "average")  # in the chart, and in its legend
    assert line["d"].count("L") == 19
    assert "best 0.988 at epoch 20, averaged weights" in page.text
    assert "skin, averaged weights" in page.text
    ring = page.named("circle", "mark")[-1]
    assert f"{ring['cx']} {ring['cy']}" in line["d"]


def test_worst_case_shows_its_failure(pages):
    text = Page(pages["volume"].read_text()).text
    cards = text[text.index("Worst, median and best cases") :]
    assert "stomach missed" in cards
    assert "gallbladder false pos." in cards


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("metrics.csv", "No learning curves"),
        ("evaluation/summary.json", "No scores"),
        ("evaluation/cases.csv", "No distribution"),
        ("evaluation/examples", "No pictures"),
        ("config.yaml", "no config.yaml"),
        ("model.json", None),
    ],
)
@pytest.mark.parametrize("kind", NAMES)
def test_missing_piece_is_named(runs, tmp_path, kind, missing, sentence):
    run = tmp_path / "run"
    shutil.copytree(runs[kind], run)
    gone = run / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    text = Page(write_report(run).read_text()).text
    sentences = ["No learning curves", "No scores", "No distribution", "No pictures"]
    found = [s for s in [*sentences, "no config.yaml"] if s in text]
    assert found == ([sentence] if sentence else [])


def test_imported_weights_alone_make_a_page(tmp_path):
    network = NetworkConfig(
        name="msa2net_reference", encoder=None, num_classes=9, in_channels=1, image_size=(224, 224)
    )
    origin = {"imported_from": "msa2net.pth", "sha256": "0123456789abcdef" * 4}
    facts = make_facts(network, NAMES["volume"], training=origin, data={})
    text = facts_of(tmp_path / "imported", facts=facts)
    assert f"Encoder {MODELS['msa2net_reference'].encoder} Image size 224 × 224" in text
    assert "Imported from msa2net.pth Its SHA-256 0123456789abcdef Versions msa2net" in text
    assert not re.search(r"Epochs|Seed|Data|Kept|Scored", text)
    page = Page((tmp_path / "imported/report.html").read_text()).text
    assert page.count("this folder has no") == 5


def test_a_real_run_fills_every_row(tmp_path):
    settings = tmp_path / "tiny.yaml"
    settings.write_text(
        f"""
        image_size: 32
        model: {{name: msa2net, encoder: test_maxvit}}
        data: {{format: phantom, prepared: {tmp_path / "prepared"}, phantom_cases: [1, 1, 1],
               phantom_shape: [8, 64, 64]}}
        augment: {{horizontal_flip: 0.5}}
        train: {{epochs: 2, batch_size: 8, learning_rate: 0.001}}
        """
    )
    run = tmp_path / "run"
    train(load_config(settings), run, device="cpu")
    summary = evaluate_run(run, device="cpu")
    html = write_report(run).read_text()
    facts = dict(re.findall(r"<div><dt>([^<]+)</dt><dd>([^<]+)</dd></div>", html))
    weights = [facts.pop(key) for key in ("Kept weights", "Training time")]
    assert [bool(re.match(r"of epoch [12], val|0 min \d+ s", text)) for text in weights] == [
        True
    ] * 2
    versions = ", ".join(f"{name} {version}" for name, version in software_versions().items())
    assert facts == {
        "Network": "msa2net",
        "Encoder": "test_maxvit",
        "Image size": "32 × 32",
        "Data": "phantom",
        "Data hash": summary.data.hash[:16],
        "Predictions hash": summary.hashes.predictions[:16],
        "Labels hash": summary.hashes.labels[:16],
        "Split hash": summary.hashes.split[:16],
        "Scored on": "test split, 1 volume",
        "Warning": "; ".join(network_warnings(read_facts(run))),
        "Epochs": "2",
        "Device": "cpu",
        "Trained on": "train",
        "Mirrored": "horizontal",
        "Precision": "32-bit floating point (32-true)",
        "Seed": "1234",
        "Batch size": "8",
        "Loss": "1 × dice + 1 × cross_entropy",
        "Optimiser": "adamw",
        "Learning rate": "0.001, cosine schedule",
        "Weights hash": sha256(run / "model.safetensors")[:16],
        "Versions": versions,
    }
    written = json.loads((run / "model.json").read_text())["training"]
    assert written.keys() <= TrainingMetadata.model_fields.keys()  # nothing is written unread


def test_no_reference_no_section(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["volume"], run)
    path = run / "evaluation/summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "reference": None}))
    assert "Reference results" not in write_report(run).read_text()


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("metrics.csv", "epoch,train_loss\n1,low\n", "metrics.csv is not a metrics.csv"),
        ("metrics.csv", "epoch,train_loss\n1,2,3\n", "more cells"),
        ("metrics.csv", "train_loss\n1\n", "no epoch"),
        ("config.yaml", "a: [1", "config.yaml, line 1 is not valid YAML"),
        ("config.yaml", "- a", "config.yaml holds no settings"),
        ("config.yaml", "image_size: 32", "config.yaml: the setting 'data' is missing"),
        ("model.json", "{", "model.json is not valid JSON"),
        ("model.json", '{"schema_version": 1}', "model.json is damaged: .*network"),
        ("evaluation/summary.json", '{"schema": 4}', "schema 4 and this version reads 1 to 3"),
        ("evaluation/summary.json", "[]", "summary.json has schema None"),
        ("evaluation/summary.json", '{"schema": 1}', "summary.json is damaged: split is missing"),
        ("evaluation/cases.csv", "case,class\n", "cases.csv is not"),
        ("evaluation/examples/worst-case-00.npz", "no zip", "worst-case-00.npz"),
    ],
)
def test_broken_file_is_named(runs, tmp_path, name, content, match):
    run = tmp_path / "run"
    shutil.copytree(runs["photograph"], run)
    (run / name).write_text(content)
    out = tmp_path / "page" / "report.html"
    with pytest.raises(Msa2NetError, match=match) as caught:
        write_report(run, out)
    assert "\n" not in str(caught.value)
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("name", "place", "value", "match"),
    [
        ("model.json", ["training", "seconds"], "long", "damaged: training.seconds is 'long'"),
        ("evaluation/summary.json", ["cases"], None, "summary.json is damaged: cases is None"),
        (
            "evaluation/summary.json",
            ["protocols", "isic", "classes"],
            {},
            "summary.json is damaged: .*protocol isic lacks a figure of class '<b>lesion",
        ),
    ],
)
def test_broken_value_is_named(runs, tmp_path, name, place, value, match):
    run = tmp_path / "run"
    shutil.copytree(runs["photograph"], run)
    content = json.loads((run / name).read_text())
    target = content
    for key in place[:-1]:
        target = target[key]
    assert place[-1] in target
    target[place[-1]] = value
    (run / name).write_text(json.dumps(content))
    with pytest.raises(Msa2NetError, match=match):
        write_report(run)


@pytest.mark.parametrize(
    ("place", "match"),
    [
        (["standard"], "group 'end systole' was not scored by the same protocols"),
        (
            ["standard", "classes", "liver"],
            "standard of end systole lacks a figure of class 'liver'",
        ),
    ],
)
def test_broken_group_is_named(runs, tmp_path, place, match):
    run = tmp_path / "run"
    shutil.copytree(runs["volume"], run)
    path = run / "evaluation/summary.json"
    content = json.loads(path.read_text())
    target = content["groups"]["end systole"]["protocols"]
    for key in place[:-1]:
        target = target[key]
    del target[place[-1]]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"summary.json is damaged: .*{match}"):
        write_report(run)


def test_example_arrays_must_fit(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["photograph"], run)
    labels = np.zeros((1, 4, 4), np.uint8)
    path = run / "evaluation/examples/best-x.npz"
    np.savez(path, image=np.zeros((1, 4, 5, 3), np.uint8), truth=labels, prediction=labels)
    with pytest.raises(DataError, match=r"best-x.npz: expected uint8 image \(Z, H, W, 3\)"):
        write_report(run)


def test_examples_that_unpack_to_too_much_are_not_unpacked(tmp_path):
    header = io.BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": (1000, 1000, 1000, 3)}
    np.lib.format.write_array_header_1_0(header, facts)
    path = tmp_path / "best-x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", header.getvalue() + bytes(2**24))
    with pytest.raises(
        DataError,
        match=r"best-x.npz declares 2.8 GiB.*more than 512.0 MiB are not read; evaluate again",
    ):
        read_example(path)


def test_damaged_examples_are_named(runs, tmp_path):
    path = shutil.copy(next((runs["photograph"] / "evaluation/examples").iterdir()), tmp_path)
    content = bytearray(Path(path).read_bytes())
    content[len(content) // 3 : len(content) // 3 + 20] = bytes(20)
    Path(path).write_bytes(content)
    with pytest.raises(DataError, match=r"\.npz .*; evaluate again"):
        read_example(Path(path))


@pytest.mark.parametrize("make", [True, False])
def test_not_a_run_folder(tmp_path, make):
    folder = tmp_path / "elsewhere"
    if make:
        folder.mkdir()
    with pytest.raises(DataError, match="elsewhere is not a run folder"):
        write_report(folder)


def test_out_and_return_value(runs, tmp_path):
    out = tmp_path / "deep" / "page.html"
    assert write_report(runs["photograph"], out) == out
    assert out.read_bytes() == write_report(runs["photograph"]).read_bytes()  # and repeatable
