"""`msa2net evaluate`."""

from typing import Annotated

import typer

from msa2net.cli.console import (
    DeviceOption,
    RunArgument,
    ThreadsOption,
    VerboseOption,
    console,
    say,
    set_up,
    track,
)


def evaluate(
    run: RunArgument,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Score a run under the published protocol and an honest one, and write its report."""
    set_up(threads, verbose)
    from msa2net.evaluation.evaluate import evaluate_run
    from msa2net.evaluation.tables import console_table
    from msa2net.report.html import write_report

    summary = evaluate_run(
        run,
        split=split,
        device=device,
        progress=lambda cases, total: track(cases, total, "evaluating"),
    )
    console().print(console_table(summary))
    if not summary["data"]["same_as_training"]:
        say("note: the prepared data changed since this network was trained")
    say(f"\ncases, summary and table: {run / 'evaluation'}")
    say(f"report: {write_report(run)}")
