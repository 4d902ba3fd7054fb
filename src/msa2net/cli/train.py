"""`msa2net train`."""

import shlex
import signal
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
    from msa2net.config import Config
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
    resume: Annotated[
        bool, typer.Option(help="Go on with a run that was interrupted, or lengthen it.")
    ] = False,
    accept_changes: Annotated[
        bool, typer.Option(help="With --resume: although settings or data are no longer the same.")
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Train a network and keep the weights that validate best (train.keep=last: the last)."""
    from msa2net.config import load_config

    loaded = load_config(config, settings or ())
    set_up(threads, verbose)
    result = run_training(
        loaded,
        out or Path("runs") / config.stem,
        device=device,
        verbose=verbose,
        overwrite=overwrite,
        resume=resume,
        accept_changes=accept_changes,
    )
    say(f"next: msa2net evaluate {result.run}")


def run_training(
    config: "Config",
    run: Path,
    *,
    device: str,
    verbose: bool,
    overwrite: bool = False,
    resume: bool = False,
    accept_changes: bool = False,
) -> "TrainingResult":
    """Train with a bar, and say what it came to, or how to go on with it.

    Raises:
        typer.Exit: it was stopped, by time with code 0 or by a signal with 128 and its number.
    """
    from msa2net.training.run import train
    from msa2net.training.stopping import TrainingInterrupted

    try:
        result = train(
            config,
            run,
            device=device,
            overwrite=overwrite,
            resume=resume,
            accept_changes=accept_changes,
            progress=lambda cases, total: track(cases, total, "preparing data"),
            notices=say,
            callbacks=[training_bar(verbose)],
        )
    except TrainingInterrupted as stop:
        name = signal.Signals(stop.signum).name
        say(f"{name}: saved after {stop.epochs} epochs ({stop.steps} steps); {_how_to_go_on(run)}")
        raise typer.Exit(128 + stop.signum) from stop
    if not result.finished:
        say(f"train.max_time: saved after {result.epochs} epochs; {_how_to_go_on(run)}")
        raise typer.Exit
    print_result(result)
    return result


def _how_to_go_on(run: Path) -> str:
    words = ["msa2net", "train", str(run / "config.yaml"), "--out", str(run), "--resume"]
    return f"go on with: {shlex.join(words)}"


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
