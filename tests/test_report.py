"""The report: everything on one page, nothing loaded, and nothing missing without a word."""

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from torch import nn

from msa2net.config import Config, dump_config, load_config
from msa2net.data.preprocessing import Preprocessing
from msa2net.errors import DataError, Msa2NetError
from msa2net.evaluation.evaluate import evaluate_run
from msa2net.evaluation.reference import reference_for
from msa2net.files import sha256
from msa2net.inference.run_folder import ModelFacts, NetworkFacts, save_run, software_versions
from msa2net.metrics import (
    PUBLISHED,
    case_rows,
    read_cases_csv,
    summarise,
    summarise_groups,
    write_cases_csv,
)
from msa2net.models.registry import MODELS
from msa2net.report import write_report
from msa2net.report.layouts import TrainingFacts
from msa2net.training.run import train

ORGANS = ["aorta", "gallbladder", "left kidney", "right kidney", "liver", "pancreas", "spleen"]
NAMES = {
    "photograph": ["background", "<b>lesion</b> & skin"],
    "volume": ["background", *ORGANS, "stomach"],
}
FORMATS = {"photograph": "isic2018", "volume": "synapse"}
CASES = {"photograph": 40, "volume": 6}
# A volume as evaluate scores it: with distances, and each case in a group.
SPACING_MM = (3.0, 0.8, 0.8)
GROUPS = ("end diastole", "end systole")
SELECTION = "The weights are those of the best epoch on the <test> split: these scores flatter."


def disc(grid, center, radius):
    y, x = np.mgrid[: grid[0], : grid[1]]
    return np.hypot(y - center[0], x - center[1]) < radius


def make_case(kind, rng, error):
    """A noisy image (Z, H, W, 3), a truth of discs, and a prediction that is off by `error`."""
    depth, height, width = (1, 150, 200) if kind == "photograph" else (24, 128, 128)
    truth = np.zeros((depth, height, width), np.uint8)
    prediction = np.zeros_like(truth)
    classes = range(1, len(NAMES[kind]))
    for index in classes:
        angle = 2 * np.pi * index / len(classes)
        center = np.array([np.sin(angle), np.cos(angle)]) * (0 if len(classes) == 1 else 36)
        center += np.array([height, width]) / 2
        shift = rng.normal(size=2) * error
        for z in range(depth):
            size = 45 if depth == 1 else 15 * np.sin(np.pi * (z + 1 + index % 3) / (depth + 4))
            truth[z][disc((height, width), center, size)] = index
            prediction[z][disc((height, width), center + shift, size * (1 - error / 60))] = index
    values = 90 + 12 * truth[..., None] + rng.normal(0, 12, (depth, height, width, 1))
    color = (1.1, 0.8, 0.7) if kind == "photograph" else (1, 1, 1)
    return np.clip(values * color, 0, 255).astype(np.uint8), truth, prediction


def make_config(data_format, **train):
    """A configuration whose encoder and precision are left to be decided."""
    settings = {"epochs": 40, "batch_size": 8, "learning_rate": 5e-4, "seed": 1234}
    return Config.model_validate(
        {
            "image_size": 128,
            "model": {"name": "msa2net_pico"},
            "data": {"format": data_format, "prepared": "prepared"},
            "loss": {"boundary_dou": 1, "cross_entropy": 0.5},
            "train": settings | train,
        }
    )


def make_facts(network, names, **changes):
    """A model.json as training leaves it."""
    facts = ModelFacts(
        network=network,
        label_names=tuple(names),
        preprocessing=Preprocessing(channels=network.in_channels, image_size=network.image_size),
        data={"format": "synapse", "hash": "ef" * 32},
        training={
            "best_epoch": 38,
            "val_dice": 0.8765,
            "epochs": 40,
            "precision": "32-true",
            "seed": 1234,
            "device": "cpu",
            "seconds": 754.2,
        },
        versions={"msa2net": "0.1.0", "torch": "2.11.0"},
    )
    return facts.model_copy(update=changes)


def make_run(folder, kind):
    """A run folder as train and evaluate leave it, with six example cases."""
    names, rng = NAMES[kind], np.random.default_rng(7)
    examples = folder / "evaluation" / "examples"
    examples.mkdir(parents=True)
    config = make_config(FORMATS[kind])
    (folder / "config.yaml").write_text(dump_config(config))
    network = NetworkFacts(
        name=config.model.name,
        encoder=config.model.encoder,
        num_classes=len(names),
        in_channels=3 if kind == "photograph" else 1,
        image_size=config.image_size,
    )
    save_run(folder, nn.Linear(1, 1), make_facts(network, names))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["epoch", "step", "learning_rate", "train_loss", "val_dice"]
            + [f"val_dice_{name}" for name in names[1:]]
        )
        for epoch in range(1, 41):
            level = 0.9 - 0.8 * np.exp(-epoch / 9) + rng.normal(0, 0.012)
            each = [level - 0.02 * i + rng.normal(0, 0.015) for i in range(len(names) - 1)]
            scores = [np.mean(each), *each] if epoch % 2 == 0 else [""] * len(names)
            writer.writerow([epoch, epoch * 20, 5e-4, 0.15 + np.exp(-epoch / 8), *scores])
    rows, cases = [], CASES[kind]
    for number in range(cases):
        image, truth, prediction = make_case(kind, rng, error=12 * (1 - number / cases))
        if number == 0:
            prediction[prediction == len(names) - 1] = 0  # a missed class
        if number == 1 and kind == "volume":
            truth[truth == 2] = 0  # a false positive
        case = f"case-{number:02d}"
        as_volume = {"distances": True, "spacing_mm": SPACING_MM, "group": GROUPS[number % 2]}
        rows += case_rows(case, prediction, truth, names, **(as_volume if kind == "volume" else {}))
        rank = {0: "worst", 1: "worst", cases // 2: "median", cases - 1: "best"}.get(number)
        rank = rank or ("best" if number == cases - 2 else "median" if number == 3 else None)
        if rank:
            arrays = {"image": image, "truth": truth, "prediction": prediction}
            np.savez_compressed(examples / f"{rank}-{case}.npz", **arrays)
    write_cases_csv(folder / "evaluation" / "cases.csv", rows)
    summary = {
        "schema": 1,
        "split": "test",
        "cases": cases,
        "label_names": names,
        "image_kind": kind,
        "model": {
            "name": config.model.name,
            "parameters": 1_234_567,
            "weights_sha256": sha256(folder / "model.safetensors"),
        },
        "data": {"format": FORMATS[kind], "hash": "cd" * 32, "same_as_training": False},
        "versions": software_versions(),
        "protocols": {name: summarise(rows, names, name) for name in ("standard", PUBLISHED[kind])},
        "reference": reference_for(FORMATS[kind]),
    }
    protocols = summary["protocols"]
    groups = {name: summarise_groups(rows, names, name) for name in protocols}
    if kind == "volume":
        summary["groups"] = {
            group: {"cases": 3, "protocols": {name: groups[name][group] for name in protocols}}
            for group in GROUPS
        }
        summary |= {"selection": SELECTION, "flattering": True}
    (folder / "evaluation" / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return {kind: make_run(tmp_path_factory.mktemp("runs") / f"{kind}-run", kind) for kind in NAMES}


@pytest.fixture(scope="module")
def pages(runs):
    return {kind: write_report(run) for kind, run in runs.items()}


class Page(HTMLParser):
    """Checks that tags balance; collects what an element points to, and the text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.links, self.text, self.tags = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == [], "tags left open"
        self.text = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "link", "input", "br", "hr", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        names = ("src", "href", "srcset", "xlink:href", "data", "action", "poster")
        self.links += [value for name, value in attrs if name in names]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else, line {self.getpos()}"

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def named(self, tag, style):
        return [a for t, a in self.tags if t == tag and style in a.get("class", "").split()]


@pytest.mark.parametrize("kind", NAMES)
def test_page_is_whole_and_loads_nothing(pages, kind):
    html = pages[kind].read_text(encoding="utf-8")
    page = Page(html)
    assert len(page.links) >= 6
    assert all(link.startswith("data:") for link in page.links)
    assert not re.search(r"https?:|@import|url\(|//cdn|<iframe|fetch\(", html)
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
    assert f"volume-run mean Dice {mean:.3f} standard protocol; missed: 1, false pos" in text
    facts = ["1.23 M", "6 volumes", "Epochs 40", "of epoch 38, validation Dice 0.876"]
    facts += [f"Encoder {MODELS['msa2net_pico'].encoder} ", "12 min 34 s to the kept weights"]
    facts += ["Seed 1234", "Device cpu", "Precision 32-true", "128 × 128", "Batch size 8"]
    facts += ["Loss 1 × boundary_dou + 0.5 × cross_entropy", "Learning rate 0.0005, cosine"]
    facts += ["Versions msa2net 0.1.0, torch 2.11.0 ", "Scored with python"]
    facts += ["synapse, not the same as in training", "Data hash " + "cd" * 8 + " "]
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
    network = NetworkFacts(
        name="msa2net", encoder=None, num_classes=2, in_channels=1, image_size=(64, 96)
    )
    before = make_facts(network, ["background", "a"], training={"seed": 7, "best_epoch": 3})
    planned = facts_of(tmp_path / "a", config=make_config("synapse"), facts=before)
    assert "Precision" not in planned  # auto is not a precision
    assert "Seed 7" in planned
    assert "Kept weights of epoch 3 " in planned
    assert "64 × 96" in planned
    assert "Epochs 40 planned" in planned
    asked = facts_of(tmp_path / "b", config=make_config("synapse", precision="bf16-mixed"))
    assert "Precision bf16-mixed" in asked


def test_encoder_is_the_one_in_use(tmp_path):
    network = NetworkFacts(
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
    distances = protocols["standard"]["classes"][name]
    far = [distances[metric]["mean"] for metric in ("hd95_mm", "hd95_voxels")]
    shown = "".join(f"{value:.2f} " for value in far if value is not None)
    line = f"{name} {first['mean']:.4f} {first['median']:.4f} {shown}{first['n']} 1 0 "
    assert f"{line}{second['mean']:.4f}" in text
    assert "false positive: predicted, not in the truth 0 " in text


def test_only_rules_that_differ_are_listed(pages):
    text = Page(pages["volume"].read_text()).text
    assert "both empty not applicable 0" in text
    assert "ignored pixels" not in text
    assert "both non-empty" not in text


def scores_of(text):
    return text[text.index("Scores Dice lies") : text.index("Dice of every case")]


def test_distances_stand_beside_dice(pages, runs):
    page = Page(pages["volume"].read_text())
    summary = json.loads((runs["volume"] / "evaluation/summary.json").read_text())
    standard, transunet = (summary["protocols"][name] for name in ("standard", "transunet"))
    own, published = standard["classes"]["liver"], transunet["classes"]["liver"]
    dice, mm, voxels = (own[metric] for metric in ("dice", "hd95_mm", "hd95_voxels"))
    line = f"liver {dice['mean']:.4f} {dice['median']:.4f} {mm['mean']:.2f} {voxels['mean']:.2f} 6"
    text = scores_of(page.text)
    assert line in text
    published_line = f"{published['dice']['median']:.4f} {published['hd95_voxels']['mean']:.2f} 6"
    assert published_line in text
    headings = "HD95 mm HD95 vox n Missed False pos. Dice Median HD95 vox n Missed"
    assert f"Class Dice Median {headings}" in text
    assert "in millimetres or in voxels" in text
    assert "distance: missed or false positive the image's diagonal" in text
    mean = standard["mean"]
    assert (
        f"Mean over classes {mean['dice']:.4f} {mean['hd95_mm']:.2f} {mean['hd95_voxels']:.2f}"
        in text
    )
    # Near 1 for any organ, found or not: the page leaves them to summary.json.
    assert "Specificity" not in text
    assert "Accuracy" not in text
    assert "Class IoU Sensitivity Precision" in text
    assert f"mean HD95 {mean['hd95_mm']:.1f} mm standard protocol; a failure" in page.text


def test_cards_have_the_distance_of_what_was_found(pages, runs):
    text = Page(pages["volume"].read_text()).text
    worst = text[text.index("worst case-00") : text.index("worst case-01")]
    rows = read_cases_csv(runs["volume"] / "evaluation/cases.csv")
    for row in (row for row in rows if row["case"] == "case-00"):
        shown = f"{row['class']} {row['dice']:.3f} {row['hd95_mm']:.1f} mm"
        if row["class"] == "stomach":
            assert "stomach missed" in worst
        else:
            assert shown in worst
    assert worst.count(" mm") == 7
    assert " mm" not in Page(pages["photograph"].read_text()).text


def test_groups_stand_side_by_side(pages, runs):
    text = scores_of(Page(pages["volume"].read_text()).text)
    summary = json.loads((runs["volume"] / "evaluation/summary.json").read_text())
    for name, title in (("standard", "Standard: every case"), ("transunet", "TransUNet: the")):
        table = text[text.index(f"By group – {title}") :]
        assert "end diastole 3 cases end systole 3 cases Class Dice HD95" in table
        line = "spleen"
        for group in GROUPS:
            figures = summary["groups"][group]["protocols"][name]["classes"]["spleen"]
            line += f" {figures['dice']['mean']:.4f}"
            line += f" {figures['hd95_mm']['mean']:.2f}" if name == "standard" else ""
            line += f" {figures['hd95_voxels']['mean']:.2f} 3 0 0"
        assert line in table


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
    for key in ("groups", "selection", "flattering"):
        del summary[key]
    for entry in summary["protocols"].values():
        for table in (*entry["classes"].values(), entry["mean"], entry["mean_over"]):
            for metric in ("hd95_mm", "hd95_voxels"):
                table.pop(metric, None)
    (run / "evaluation/summary.json").write_text(json.dumps(summary))
    with (run / "evaluation/cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    later = ("group", "hd95_mm", "hd95_voxels", "hd95_voxels_transunet")
    with (run / "evaluation/cases.csv").open("w", newline="") as file:
        columns = [column for column in rows[0] if column not in later]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    text = Page(write_report(run).read_text()).text
    ours = text[: text.index("Reference results")]
    assert not re.search(r"HD95|istance|By group|Warning| mm\b", ours)
    assert "stomach missed" in ours


def test_names_from_outside_are_escaped(pages, runs, tmp_path):
    html = pages["photograph"].read_text()
    assert "&lt;b&gt;lesion&lt;/b&gt; &amp; skin" in html
    assert "<b>lesion" not in html
    run = tmp_path / "<script>alert(1)<"
    shutil.copytree(runs["photograph"], run)
    config = run / "config.yaml"
    config.write_text(config.read_text() + "# </pre><script>alert(2)</script>\n")
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


def test_worst_case_comes_first_with_its_failure(pages):
    text = Page(pages["volume"].read_text()).text
    cards = text[text.index("Worst, median and best cases") :]
    assert (
        cards.index("worst case-00") < cards.index("median case-03") < cards.index("best case-05")
    )
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
    network = NetworkFacts(
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
        "Data hash": summary["data"]["hash"][:16],
        "Scored on": "test split, 1 volume",
        "Epochs": "2",
        "Device": "cpu",
        "Trained on": "train",
        "Precision": "32-true",
        "Seed": "1234",
        "Batch size": "8",
        "Loss": "1 × dice + 1 × cross_entropy",
        "Optimiser": "adamw",
        "Learning rate": "0.001, cosine schedule",
        "Weights hash": sha256(run / "model.safetensors")[:16],
        "Versions": versions,
    }
    written = json.loads((run / "model.json").read_text())["training"]
    assert written.keys() <= TrainingFacts.model_fields.keys()  # nothing is written unread


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
        ("config.yaml", "a: [1", "config.yaml is not valid YAML"),
        ("config.yaml", "- a", "config.yaml holds no settings"),
        ("config.yaml", "image_size: 32", "config.yaml: the setting 'data' is missing"),
        ("model.json", "{", "model.json is not valid JSON"),
        ("model.json", '{"schema_version": 1}', "model.json is damaged: .*network"),
        ("evaluation/summary.json", '{"schema": 2}', "schema 2 and this version reads 1"),
        ("evaluation/summary.json", "[]", "summary.json has schema None"),
        ("evaluation/summary.json", '{"schema": 1}', "summary.json is damaged: split: "),
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
        ("model.json", ["training", "seconds"], "long", "model.json is damaged: seconds: .*number"),
        ("evaluation/summary.json", ["cases"], None, "summary.json is damaged: cases: .*integer"),
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
    with pytest.raises(DataError, match=match):
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


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PROBE = """<script>
const card = document.querySelector(".card"), say = document.documentElement.dataset;
const slider = card.querySelector("input[type=range]"), box = card.querySelector("[name=truth]");
const shown = () => ["truth", "prediction"].map(layer => [...card.querySelectorAll(`.${layer} > g`)]
  .flatMap((g, z) => getComputedStyle(g).display === "none" ? [] : [z]).join()).join("/");
say.before = shown();
slider.value = 3; slider.dispatchEvent(new Event("input"));
say.after = shown();
say.y = card.querySelector("image").getAttribute("y");
say.output = card.querySelector("output").value;
box.click();
say.truth = getComputedStyle(card.querySelector(".view .truth")).display;
say.wide = document.documentElement.scrollWidth > innerWidth;
</script>"""


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1280, 500])  # chromium has no narrower window
def test_script_in_a_browser(pages, tmp_path, width):
    html = pages["volume"].read_text()
    page = tmp_path / "page.html"
    page.write_text(html.replace("</body>", PROBE + "</body>"))
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [CHROMIUM, *FLAGS, profile, f"--window-size={width},900", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    root = re.search(r"<html[^>]*>", done.stdout.decode())
    assert root, done.stderr.decode()[-500:]
    said = dict(re.findall(r'data-(\w+)="([^"]*)"', root[0]))
    assert said == {
        "script": "on",
        "before": "12/12",  # the middle slice, of truth and of prediction
        "after": "2/2",
        "y": str(-2 * 2 * 128),  # two slices up, in half pixels
        "output": "3 of 24",
        "truth": "none",
        "wide": "false",  # nothing sticks out: wide tables scroll inside themselves
    }
