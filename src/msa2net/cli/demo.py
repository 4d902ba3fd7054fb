"""`msa2net demo`."""

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msa2net.cli.console import (
    DISCLAIMER,
    DeviceOption,
    ThreadsOption,
    VerboseOption,
    console,
    say,
    set_up,
    track,
)

if TYPE_CHECKING:
    from msa2net.config import Config

HELD_OUT_CASE = 9999  # far beyond the cases that are trained and tested on


def demo(
    out: Annotated[Path, typer.Option(help="Run folder.", metavar="FOLDER")] = Path("runs/demo"),
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting, such as train.epochs=5; may be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier demo there.")
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Train, evaluate, predict and report on built-in synthetic CT, in a few minutes."""
    config = demo_config(out, settings or [])
    set_up(threads, verbose)
    from msa2net.cli.train import run_training
    from msa2net.evaluation.evaluate import evaluate_run
    from msa2net.evaluation.tables import console_table
    from msa2net.report.html import write_report

    say("1/4 drawing synthetic CT volumes and training on them")
    run_training(
        config, out, device=device, verbose=verbose, overwrite=overwrite, preparing="drawing"
    )
    say("\n2/4 evaluating on test volumes")
    summary = evaluate_run(
        out, device=device, progress=lambda cases, total: track(cases, total, "evaluating")
    )
    console().print(console_table(summary))
    say("\n3/4 segmenting a volume that is in no split")
    say(f"mask: {_predict_held_out(config, out, device)}")
    say("\n4/4 writing the report")
    say(f"open in a browser: {write_report(out)}")
    say(DISCLAIMER)


def demo_config(out: Path, settings: list[str]) -> "Config":
    """Read the demo's settings; its data go beside the run folder."""
    from msa2net.config import load_config

    with resources.as_file(resources.files("msa2net.cli").joinpath("demo.yaml")) as path:
        return load_config(path, [f"data.prepared={json.dumps(f'{out}-data')}", *settings])


def _predict_held_out(config: "Config", out: Path, device: str) -> Path:
    from msa2net.data.phantom import abdomen
    from msa2net.inference.predictor import Predictor

    case = abdomen(HELD_OUT_CASE, shape=config.data.phantom_shape)
    segmentation = Predictor.load(out, device)(case)
    return segmentation.save(out / "prediction" / f"{case.id}.nii.gz")
