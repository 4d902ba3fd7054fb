"""`msa2net evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from msa2net.cli.console import console, say, say_flagged, say_networks, set_up, track
from msa2net.cli.options import (
    CommonOption,
    DeviceOption,
    ThreadsOption,
    VerboseOption,
    WorkersOption,
    flag,
    option,
)
from msa2net.errors import ConfigError, DataError

if TYPE_CHECKING:
    from msa2net.evaluation.schema import Summary
    from msa2net.metrics.protocol import FailedDistance


RunOrMasks = Annotated[
    Path,
    typer.Argument(
        help="A run folder or, with --labels, a folder of masks.", metavar="RUN|PREDICTIONS"
    ),
]
SplitOption = Annotated[
    str | None,
    option("Which cases of a run: train, val or test; test if not given.", "NAME"),
]
LabelsOption = Annotated[
    Path | None,
    option("Folder of labels, with the same names as the masks.", "FOLDER"),
]
NamesOption = Annotated[
    str | None,
    option("Classes, background first, if no folder names them.", "A,B,…"),
]
ImagesOption = Annotated[
    Path | None,
    option("Folder of the images, to show with the masks in the report.", "FOLDER"),
]
OutOption = Annotated[
    Path | None,
    option("Folder for the results on masks; PREDICTIONS-evaluation if not given.", "FOLDER"),
]
MissingOption = Annotated[bool, flag("Score missing masks as empty ones.", "--missing-as-empty")]
FailedOption = Annotated[
    str,
    option("What a distance counts where a class failed: diagonal, inf, nan.", "NAME"),
]


def evaluate(
    run: RunOrMasks,
    split: SplitOption = None,
    labels: LabelsOption = None,
    names: NamesOption = None,
    images: ImagesOption = None,
    out: OutOption = None,
    missing_as_empty: MissingOption = False,
    common: CommonOption = False,
    workers: WorkersOption = None,
    failed_distance: FailedOption = "diagonal",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Score a run, or masks against labels.

    Masks and labels are NIfTI volumes or pictures, matched by name; nothing is resampled.
    """
    set_up(threads, verbose)
    way = cast("FailedDistance", failed_distance)  # the library refuses what is none
    if labels is None:
        alone = {"names": names, "images": images, "out": out, "workers": workers}
        given = [name for name, value in alone.items() if value is not None]
        given += ["missing-as-empty"] * missing_as_empty + ["common"] * common
        _evaluate_run(run, split or "test", device, way, given)
        return
    for name, given_here in (("split", split is not None), ("device", device != "auto")):
        if given_here:
            raise ConfigError(
                f"--{name} is of runs, and with --labels two folders are scored; leave it"
            )
    from msa2net.evaluation.folders import evaluate as evaluate_folders

    out = out or default_out(run)
    summary = evaluate_folders(
        run,
        labels,
        None if names is None else [name.strip() for name in names.split(",")],
        failed_distance=way,
        missing_as_empty=missing_as_empty,
        common=common,
        images=images,
        out=out,
        workers=workers,
        progress=lambda cases, total: track(cases, total, "evaluating"),
    )
    _show(summary, out, out)


def default_out(predictions: Path) -> Path:
    """Name the folder for results: beside the predictions, never in them."""
    whole = predictions.resolve() if predictions.name in ("", "..") else predictions
    return whole.with_name(f"{whole.name}-evaluation")


def _evaluate_run(
    run: Path, split: str, device: str, failed_distance: "FailedDistance", given: list[str]
) -> None:
    from msa2net.evaluation.run import evaluate_run
    from msa2net.files import EVALUATIONS, MODEL_FILE
    from msa2net.inference.run_folder import read_facts
    from msa2net.inference.validation_scores import describe_networks

    if given:
        raise ConfigError(f"--{given[0]} is for a folder of masks; give --labels as well")
    if not (run / MODEL_FILE).is_file():
        raise DataError(
            f"{run} is not a run folder: it has no {MODEL_FILE}; to score a folder of masks, give "
            "the folder of their labels with --labels"
        )
    say_networks(*describe_networks([(run, read_facts(run))]))
    summary = evaluate_run(
        run,
        split=split,
        device=device,
        failed_distance=failed_distance,
        progress=lambda cases, total: track(cases, total, "evaluating"),
    )
    _show(summary, run, run / EVALUATIONS[split], split)


def _show(summary: "Summary", folder: Path, evaluation: Path, split: str = "test") -> None:
    from msa2net.evaluation.tables.console import console_table
    from msa2net.report.html import write_report

    console().print(console_table(summary))
    if summary.data.same_as_training is False:
        say("note: the prepared data changed since this network was trained")
    if own := summary.assessments:
        say(f"\nflagged: {own.flagged} of {own.cases} cases; others may be wrong too")
        cases = [(first.case, first.flags) for first in own.first]
        say_flagged(cases, own.flagged, evaluation / "cases.csv")
    say(f"\ncases, summary and tables: {evaluation}")
    say(f"report: {write_report(folder, split=split)}")
