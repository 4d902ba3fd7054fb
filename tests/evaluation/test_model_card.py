"""What the report and the model card say of flags and confidences."""

import csv
import json
import math
import re
import shutil

import pytest
from torch import nn

from drawn_summaries import monitor_of, usual, with_assessments
from html_page import Page
from msa2net.evaluation.case_assessments import summarise_assessments
from msa2net.evaluation.compare import compare_evaluations
from msa2net.evaluation.model_card import write_card
from msa2net.evaluation.summary import read_summary
from msa2net.inference.run_folder import read_facts, save_run
from msa2net.inference.validation_scores import (
    is_unfinished,
    network_warnings,
    validation_scores,
    with_scores,
)
from msa2net.quality.flags import CaseAssessment
from msa2net.quality.reference_ranges import FEWEST, Range, describe_limits
from msa2net.report.html import write_report
from report_runs import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("assessments") / "run", "volume")


def test_flagged_cases_come_first_in_the_report(run, tmp_path):
    assessments = {f"case{n}": CaseAssessment((), (), n / 100) for n in range(20)}
    assessments["odd"] = CaseAssessment(
        ("no <liver> was found", "it is noisier"), ("missing", "noise"), 2.5
    )
    assessments["odder"] = CaseAssessment(("it is noisier",), ("noise",), 3.0)
    summed = with_assessments(run, tmp_path / "run", monitor_of(assessments))
    assert (summed.flagged, summed.cases) == (2, 22)
    assert [one.case for one in summed.first] == ["odder", "odd"]
    assert summed.reasons == {"noise": 2, "missing": 1}
    assert summed.after.error < summed.before.error / 2
    html = write_report(tmp_path / "run").read_text()
    page = Page(html)
    text = " ".join(" ".join(page.text).split()) if isinstance(page.text, list) else page.text
    assert "2 of 22 cases are flagged" in text
    assert "no <liver> was found; it is noisier" in text
    assert "<liver>" not in html
    assert "divided by 1.50" in text
    assert f"error {summed.before.error:.4f} before" in text
    (chart,) = page.named("svg", "reliability")
    assert chart["aria-label"]
    dots = page.named("circle", "dot")
    assert len(dots) == len(summed.before.points) + len(summed.after.points)
    regions = [a for t, a in page.tags if a.get("aria-label") == "Flagged cases"]
    assert [region["tabindex"] for region in regions] == ["0"]


def test_a_temperature_that_did_not_help_is_told(run, tmp_path):
    monitor = monitor_of({"one": CaseAssessment((), (), 0.0)})
    monitor.tables_2B3 = monitor.tables_2B3[::-1]
    folder = tmp_path / "worse"
    with_assessments(run, folder, monitor)
    assert "after: here it made them worse." in Page(write_report(folder).read_text()).text
    facts = read_facts(folder).model_copy(update={"reference_ranges": usual()})
    (folder / "model.json").write_text(facts.model_dump_json())
    assert "with it, which made it worse here." in write_card(folder).read_text()
    # And where none was fitted, nothing is divided and the chart has one line.
    reason = "of 1 validation case no temperature is fitted, 5 are needed"
    alone = usual(val_cases=1, temperature=1.0, temperature_reason=reason)
    path = folder / "evaluation" / "summary.json"
    path.write_text(
        json.dumps(
            json.loads(path.read_text())
            | {"assessments": summarise_assessments(monitor, alone).model_dump()}
        )
    )
    page = Page(write_report(folder).read_text())
    assert f"not divided by a temperature: {reason}." in page.text
    assert "1 validation case: of so few nothing can be said about the share" in page.text
    assert "5 % of clean cases" not in page.text
    assert not [attributes for _, attributes in page.tags if "after" in attributes.get("class", "")]
    facts = facts.model_copy(update={"reference_ranges": alone})
    (folder / "model.json").write_text(facts.model_dump_json())
    card = write_card(folder).read_text()
    assert f"Confidences are the network's own: {reason}." in card
    assert "calibration error" not in card


def test_enough_validation_cases_keep_the_target():
    assert FEWEST == 59
    assert "at most 5 % of clean cases are flagged" in describe_limits(59)
    assert "nothing can be said" in describe_limits(58)
    assert describe_limits(0).startswith("No validation case")


def test_nothing_is_said_where_nothing_is_known(run, tmp_path):
    assert summarise_assessments(None, None) is None
    assert "Look at these first" not in write_report(run, tmp_path / "page.html").read_text()
    card = write_card(run).read_text()
    assert "no case is ever flagged" in card


def test_scores_of_earlier_weights_say_so_wherever_they_are_shown(run, tmp_path):
    """As after `train --resume` with more epochs: other weights, and the evaluation of before."""
    longer = tmp_path / "longer"
    shutil.copytree(run, longer)
    save_run(longer, nn.Linear(1, 1), read_facts(longer))
    said = "These scores are of earlier weights of this run"
    assert said not in write_card(run).read_text()
    assert f"**Warning:** {said}" in write_card(longer).read_text()
    assert said in write_report(longer).read_text()
    notes = compare_evaluations([run, longer])["notes"]
    assert any(note.startswith(f"Warning: longer: {said}") for note in notes)
    (longer / "model.json").write_text("{}")  # broken: said by whoever applies the network
    kept = read_summary(longer / "evaluation" / "summary.json").selection
    assert not kept.startswith(said)


def test_the_card_says_what_is_known_and_names_nobody(run, tmp_path):
    folder = tmp_path / "run"
    with_assessments(run, folder, monitor_of({"secret-case": CaseAssessment((), (), 0.0)}))
    facts = read_facts(folder).model_copy(update={"reference_ranges": usual()})
    (folder / "model.json").write_text(facts.model_dump_json())
    card = write_card(folder).read_text()
    for part in (
        "# Model card:",
        "Research use only; not a medical device.",
        "Size of liver: about 1200, usually 729 to 1980 mL",
        ", on cpu, computed in 32-bit floating point.",
        "DSC (Dice), IoU (intersection over union) and SE (sensitivity) are fractions from 0 to 1",
        "in millimetres (mm) and voxels (vox), and 0 is best; – is not applicable. n is the number "
        "of cases in the DSC, in the line of the mean the sum over the classes. Standard: every",
        "Limits were set on 6 validation cases: of so few nothing can be said about the share",
        "Confidences are of logits divided by 1.5.",
        "0 of 1 flagged",
        "Expected calibration error on test:",
        "| spleen",
        "## Intended use",
        "## Limits",
    ):
        assert part in card, part
    assert "secret-case" not in card
    assert "made it worse" not in card
    assert str(tmp_path) not in card
    (folder / "evaluation" / "summary.json").unlink()
    assert "Not evaluated yet" in write_card(folder).read_text()


@pytest.mark.parametrize(
    ("high", "said"),
    [(1.01, "usually 1.24 or more."), (0.5, "usually 1.24 to 50.")],
)
def test_no_share_is_above_all_of_an_image(run, tmp_path, high, said):
    shutil.copytree(run, tmp_path / "run")
    share = Range(low=math.log(0.0124), centre=math.log(0.138), high=math.log(high))
    depth = Range(low=math.log(5.36), centre=math.log(10.2), high=math.log(21.7))
    ranges = {"size:share:lesion": share, "spacing:depth:": depth}
    known = usual().model_copy(update={"ranges": ranges})
    facts = read_facts(run).model_copy(update={"reference_ranges": known})
    (tmp_path / "run/model.json").write_text(facts.model_dump_json())
    card = write_card(tmp_path / "run").read_text()
    assert f"Size of lesion in % of an image: about 13.8, {said}" in card
    assert "Slices a case: about 10, usually 6 to 21." in card  # slices come whole
    assert "32-true" not in card


# What validation said of a network ----------------------------------------------------------------


def facts_of(run, usual_of=None, **training):
    facts = read_facts(run)
    return facts.model_copy(
        update={"training": facts.training | training, "reference_ranges": usual_of or usual()}
    )


def test_validation_scores_are_in_the_facts_or_in_older_files(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    names = facts_of(run).label_names[1:]
    noted = facts_of(run, val_dice_by_class={"aorta": 0.9, "liver": None, "no class": 1})
    scores = validation_scores(noted, folder)
    assert (scores.split, scores.dice) == ("val", 0.8765)
    assert scores.by_class == {"aorta": 0.9, "liver": None}
    with (folder / "metrics.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["epoch"] == "38")
    expected = {name: float(row[f"val_dice_{name}"]) for name in names}
    assert validation_scores(facts_of(run), folder).by_class == expected
    assert validation_scores(facts_of(run)).by_class == {}  # an exported network has no such file
    assert validation_scores(with_scores(facts_of(run), folder)).by_class == expected
    assert validation_scores(facts_of(run, averaged=True), folder).by_class == {}
    (folder / "metrics.csv").write_bytes(b"epoch,\xff\n38,1\n")
    assert validation_scores(facts_of(run), folder).by_class == {}
    # Where the last weights were kept and never validated, an evaluation may know.
    bare = facts_of(run, val_dice=None)
    assert validation_scores(bare, folder) is None  # it is of the test split
    path = folder / "evaluation" / "summary.json"
    summary = json.loads(path.read_text()) | {"split": "val"}
    path.write_text(json.dumps(summary))
    found = validation_scores(bare, folder)
    assert found.dice == summary["protocols"]["standard"]["mean"]["dice"]
    assert list(found.by_class) == list(names)
    (folder / "model.safetensors").write_bytes(b"others")
    assert validation_scores(bare, folder) is None
    path.write_text('{"split": "val", "hashes": 7}')
    assert validation_scores(bare, folder) is None


def test_a_network_that_finds_nothing_says_so(run):
    each = {"aorta": 0.71, "liver": 0.0, "spleen": 0.004, "stomach": None}
    facts = facts_of(run, val_dice=0.09, val_dice_by_class=each)
    said = validation_scores(facts).words()
    assert said == (
        "validation Dice 0.090 (aorta 0.71, liver 0.00, spleen 0.00, stomach not in it)"
    )
    poor, hardly = network_warnings(facts)
    assert poor.startswith("its validation Dice is only 0.09: ")
    assert hardly.startswith("it hardly finds liver (Dice 0.00), spleen (Dice 0.00) in validation")
    learnt = facts_of(run, val_dice=0.0, warnings=["nothing useful was learnt: look"])
    assert network_warnings(learnt) == ("nothing useful was learnt: look",)
    good = facts_of(run, val_dice=0.9, val_dice_by_class={"aorta": 0.9, "liver": 0.21})
    assert network_warnings(good) == ()
    seen = validation_scores(facts_of(run, trained_on=["train", "val"]))
    assert seen.words() == "validation Dice 0.876 (cases that were trained on)"
    watched = facts_of(run, val_dice=None, test_dice=0.5)
    assert validation_scores(watched).words() == "test Dice 0.500"


@pytest.mark.parametrize(
    ("training", "known", "unfinished"),
    [
        ({"finished": False, "epochs_run": 3}, None, True),
        ({"finished": True, "epochs_run": 3}, None, False),  # stopped early
        ({"epochs_run": 3}, None, True),  # of an older version
        ({"epochs_run": 3}, usual(), False),  # which noted at the end what is usual
        ({"epochs_run": 40}, None, False),
        ({}, None, False),
    ],
)
def test_an_unfinished_training_is_told(run, training, known, unfinished):
    facts = facts_of(run, val_dice=0.9, **training).model_copy(update={"reference_ranges": known})
    assert is_unfinished(facts) == unfinished
    told = [warning for warning in network_warnings(facts) if "(3 of 40 epochs)" in warning]
    assert bool(told) == unfinished


def test_the_card_warns_of_what_the_network_cannot_do(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    card = write_card(tmp_path / "run").read_text()
    assert card.count("**Warning:**") == 1  # about the choice of weights
    assert re.search(r"Mean Dice on val then: 0\.8765, by class: aorta 0\.\d{4}, gall", card)
    facts = facts_of(run, finished=False, epochs_run=3, val_dice_by_class={"aorta": 0.01})
    (tmp_path / "run/model.json").write_text(facts.model_dump_json())
    card = write_card(tmp_path / "run").read_text()
    assert "**Warning:** its training is unfinished" in card
    assert "**Warning:** it hardly finds aorta (Dice 0.01)" in card


def test_imported_weights_have_a_card(tmp_path, run):
    facts = read_facts(run)
    training = {"imported_from": "weights.pth", "sha256": "ab" * 32}
    (tmp_path / "model.json").write_text(
        facts.model_copy(update={"training": training, "data": {}}).model_dump_json()
    )
    card = write_card(tmp_path).read_text()
    assert "of the data they were trained on nothing is known" in card
    assert "weights.pth" not in card
