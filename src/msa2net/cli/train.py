"""`msa2net train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msa2net.cli.console import (
    DISCLAIMER,
    DeviceOption,
    ThreadsOption,
    VerboseOption,
    say,
    set_up,
    track,
    training_bar,
)

if TYPE_CHECKING:
    from msa2net.training.run import TrainingResult


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file, see configs/.", metavar="CONFIG")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a setting: key=value, e.g. train.epochs=5. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; runs/NAME-OF-CONFIG if not given.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a run that is there already.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Train a network and keep the weights that validate best (train.keep=last: the last)."""
    from msa2net.config import load_config

    loaded = load_config(config, settings or ())
    set_up(threads, verbose)
    from msa2net.training.run import train as train_run

    result = train_run(
        loaded,
        out or Path("runs") / config.stem,
        device=device,
        overwrite=overwrite,
        progress=lambda cases, total: track(cases, total, "preparing data"),
        callbacks=[training_bar(verbose)],
    )
    print_result(result)
    say(f"next: msa2net evaluate {result.run}")


def print_result(result: "TrainingResult") -> None:
    """Say what a training came to."""
    minutes, seconds = divmod(round(result.seconds), 60)
    say(f"trained in {minutes} min {seconds} s; the network is in {result.run}")
    if result.best_dice is None:
        say("the last weights were kept")
    else:
        say(
            f"best Dice while training {result.best_dice:.4f} (mean over classes and cases), "
            f"in epoch {result.best_epoch}"
        )
    say(DISCLAIMER)
