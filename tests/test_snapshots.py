"""Everything that is rendered for people and programs, as it was reviewed by eye.

After a change on purpose: `pytest tests/test_snapshots.py --snapshot-update`, and read the diff.
"""

import functools
import io
import json
import re
import shutil

import pytest
from rich.console import Console
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from commands import msa2net
from drawn_summaries import THIRTEEN, monitor_of, random_volumes, usual, with_assessments
from msa2net.evaluation.compare import compare_evaluations, console_comparison, write_comparison
from msa2net.evaluation.model_card import write_card
from msa2net.evaluation.summary import read_summary
from msa2net.evaluation.tables.console import console_table, markdown_table
from msa2net.inference.run_folder import read_facts, write_facts
from msa2net.quality.flags import CaseAssessment
from msa2net.report.html import write_report
from prediction_runs import write_run
from report_runs import as_schema_1, make_evaluation, make_run

COMMANDS = (
    *("train", "evaluate", "predict", "compare", "export", "prepare", "check"),
    *("models", "settings", "benchmark", "phantom", "demo", "import-weights"),
)
FLAGGED = {
    "case-00": CaseAssessment(("no stomach was found", "it is noisier"), ("missing", "noise"), 2.5),
    "case-01": CaseAssessment(("it is noisier",), ("noise",), 3.0),
    "case-02": CaseAssessment((), (), 0.2),
}
# What differs between machines and versions, and is no matter of rendering.
NEUTRAL = (
    (r"(?s)<(style|script)>.*?</\1>", r"<\1></\1>"),  # report.css and report.js as they are
    (r"data:image/\w+;base64,[A-Za-z0-9+/=]+", "data:IMAGE"),
    (r"\b[0-9a-f]{64}\b", "SHA256"),
    (r"\b[0-9a-f]{8,16}…", "SHA256…"),
    (r' d="M[^"]*z"', ' d="OUTLINE"'),
)


def named(name):
    return name.replace("/", "-") if isinstance(name, str) else None


@functools.cache
def extension(suffix):
    """Return what stores a snapshot as a file of its own, to be opened and looked at."""
    attributes = {"file_extension": suffix, "_write_mode": WriteMode.TEXT}
    return type("Rendered", (SingleFileSnapshotExtension,), attributes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs and evaluations of every kind, by the names of their folders."""
    root = tmp_path_factory.mktemp("rendered")
    for kind in ("volume", "photograph"):
        make_run(root / kind, kind)
        make_evaluation(root / f"{kind}-masks", kind)
    make_run(root / "infinite", "volume", failed_distance="inf")
    with_assessments(root / "volume", root / "trusted", monitor_of(FLAGGED))
    facts = read_facts(root / "trusted").model_copy(update={"reference_ranges": usual()})
    write_facts(root / "trusted", facts)
    shutil.copytree(root / "volume", root / "schema-1")
    summary = root / "schema-1" / "evaluation" / "summary.json"
    summary.write_text(json.dumps(as_schema_1(json.loads(summary.read_text()))))
    for run in ("volume", "photograph", "trusted", "schema-1"):
        write_card(root / run)
        write_report(root / run)
    for evaluation in ("volume-masks", "photograph-masks"):
        write_report(root / evaluation)
    return root


def neutral(text):
    for pattern, replacement in NEUTRAL:
        text = re.sub(pattern, replacement, text)
    return text


def rounded(value):
    """Numbers as they are shared by machines that round the last digit otherwise."""
    if isinstance(value, dict):
        return {
            key: dict.fromkeys(own, "VERSION") if key == "versions" else rounded(own)
            for key, own in value.items()
        }
    if isinstance(value, list):
        return [rounded(own) for own in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def printed(renderable, width):
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        *(f"{run}/evaluation/table.md" for run in ("volume", "photograph", "infinite")),
        *(f"{run}/evaluation/table.tex" for run in ("volume", "photograph")),
        *(f"{masks}/table.md" for masks in ("volume-masks", "photograph-masks")),
        *(f"{masks}/table.tex" for masks in ("volume-masks", "photograph-masks")),
        *(f"{run}/MODEL_CARD.md" for run in ("volume", "photograph", "trusted", "schema-1")),
        *(f"{run}/report.html" for run in ("photograph", "trusted", "schema-1")),
        "volume-masks/report.html",
    ],
    ids=named,
)
def test_files(name, folder, snapshot):
    stored = snapshot(extension_class=extension(name.rsplit(".", 1)[-1]))
    assert neutral((folder / name).read_text()) == stored


@pytest.mark.parametrize("name", ["volume/evaluation", "photograph/evaluation"], ids=named)
def test_summaries(name, folder, snapshot):
    content = rounded(json.loads((folder / name / "summary.json").read_text()))
    text = neutral(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    assert text == snapshot(extension_class=extension("json"))


@pytest.mark.parametrize("name", ["volume/evaluation", "photograph/evaluation"], ids=named)
def test_cases(name, folder, snapshot):
    text = (folder / name / "cases.csv").read_text()
    text = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.9g}", text)
    assert text == snapshot(extension_class=extension("csv"))


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["volume", "photograph", "infinite", "trusted", "schema-1"])
def test_evaluations_on_a_terminal(name, width, folder, snapshot):
    summary = read_summary(folder / name / "evaluation" / "summary.json")
    assert printed(console_table(summary), width) == snapshot(extension_class=extension("txt"))


def test_long_names(snapshot):
    summary = random_volumes(THIRTEEN, distances=True, spacing_mm=(3, 0.75, 0.75), group="")
    text = printed(console_table(summary), 80) + "\n\n" + markdown_table(summary)
    assert text == snapshot(extension_class=extension("txt"))


@pytest.mark.parametrize("metric", ["dice", "hd95_mm"])
def test_comparisons(metric, folder, snapshot, tmp_path):
    result = compare_evaluations(
        [folder / "volume", folder / "infinite"]
        if metric == "dice"
        else [folder / "volume", folder / "trusted"],
        metric=metric,
    )
    write_comparison(result, tmp_path)
    content = rounded(json.loads((tmp_path / "comparison.json").read_text()))
    text = [json.dumps(content, indent=2), (tmp_path / "comparison.md").read_text()]
    text += [printed(console_comparison(result), width) for width in (80, 120)]
    assert "\n\n".join(text) == snapshot(extension_class=extension("txt"))


def test_a_prediction(tmp_path, snapshot):
    """Its terminal and tables, of a volume and a file that is none."""
    write_run(tmp_path / "run")
    done = msa2net("phantom", "raw", "--format", "nnunet", "--cases", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "raw" / "imagesTr" / "broken_0000.nii.gz").write_bytes(b"none")
    done = msa2net("predict", "run", "raw/imagesTr", "--out", "out", cwd=tmp_path)
    tables = [path.read_text() for path in sorted((tmp_path / "out").glob("*.csv"))]
    text = "\n".join([done.stdout, done.stderr, *tables]).replace(str(tmp_path), "FOLDER")
    assert text == snapshot(extension_class=extension("txt"))


@pytest.mark.parametrize("command", ["msa2net", *COMMANDS])
def test_help(command, tmp_path, snapshot, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = msa2net(*([] if command == "msa2net" else [command]), "--help", cwd=tmp_path).stdout
    assert text == snapshot(extension_class=extension("txt"))
