"""`msa2net train`."""

import shlex
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msa2net.cli.console import (
    DISCLAIMER,
    INTERRUPTED,
    common_words,
    looks,
    say,
    set_up,
    track,
    training_progress,
)
from msa2net.cli.options import (
    DeviceOption,
    OverwriteOption,
    SettingsOption,
    ThreadsOption,
    VerboseOption,
    flag,
    option,
)
from msa2net.text import count_noun

if TYPE_CHECKING:
    from msa2net.config import Config
    from msa2net.training.session import TrainingResult


MUCH_WAITING = 0.05  # of the time: a device that idles so often is worth another process


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file, see configs/.", metavar="CONFIG")],
    settings: SettingsOption = None,
    out: Annotated[
        Path | None,
        option("Run folder; runs/NAME-OF-CONFIG if not given.", "FOLDER"),
    ] = None,
    fold: Annotated[
        int | None,
        option("Validate on this fold of data.folds; the run is named …-foldN.", "NUMBER", min=0),
    ] = None,
    overwrite: OverwriteOption = False,
    resume: Annotated[
        bool, flag("Go on with an interrupted run, or lengthen one.", "--resume")
    ] = False,
    accept_changes: Annotated[
        bool,
        flag(
            "With --resume: resume despite changed settings or data.",
            "--accept-changes",
        ),
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Train a network.

    The weights that validate best are kept, or the last (train.keep=last).
    """
    from msa2net.config import load_config

    run = out or Path("runs") / config.stem
    chosen = [*(settings or ()), *([] if fold is None else [f"data.fold={fold}"])]
    loaded = load_config(config, chosen)
    if fold is not None:
        run = fold_folder(run, fold, loaded.data.folds)
    set_up(threads, verbose)
    result = run_training(
        loaded,
        run,
        device=device,
        verbose=verbose,
        overwrite=overwrite,
        resume=resume,
        accept_changes=accept_changes,
        again=[*_resuming(run), *common_words(device, threads)],
    )
    say(f"next: {shlex.join(['msa2net', 'evaluate', str(result.run)])}")


def fold_folder(run: Path, fold: int, folds: int | None) -> Path:
    """Name a fold's run folder, such as runs/acdc-fold2.

    Raises:
        ConfigError: the cases are not drawn into folds.
    """
    from msa2net.errors import ConfigError

    if folds is None:
        raise ConfigError("--fold needs folds; add --set data.folds=5")
    ending = f"-fold{fold}"
    return run if run.name.endswith(ending) else run.with_name(run.name + ending)


def run_training(
    config: "Config",
    run: Path,
    *,
    device: str,
    verbose: bool,
    overwrite: bool = False,
    resume: bool = False,
    accept_changes: bool = False,
    preparing: str = "preparing data",
    again: Sequence[str] = (),
) -> "TrainingResult":
    """Show how a training goes on, and say what it came to, or how to go on with it.

    Args:
        config: what to do.
        run: the run folder.
        device: cpu, cuda, mps or auto.
        verbose: let the libraries speak.
        overwrite: see `msa2net.training.run.train`, as the two below.
        resume: likewise.
        accept_changes: likewise.
        preparing: what the bar says while data are prepared.
        again: the command that goes on with it; `train` if not given.

    Raises:
        typer.Exit: it was stopped, by time with code 0 or by a signal with 128 and its number; or
            this is not the first of several processes, which says nothing.
    """
    from msa2net.training.distributed import find_processes
    from msa2net.training.run import train

    first, shown = find_processes(config.train).first, training_progress(verbose)
    go_on = f"go on with: {shlex.join(again or _resuming(run))}"
    try:
        result = train(
            config,
            run,
            device=device,
            overwrite=overwrite,
            resume=resume,
            accept_changes=accept_changes,
            progress=(lambda cases, total: track(cases, total, preparing)) if first else None,
            notices=say,
            callbacks=[shown] if first else [],
            looks=looks if first else None,
        )
    except KeyboardInterrupt as stop:
        raise typer.Exit(_interrupted(stop, run, go_on, say if first else _nothing)) from stop
    if not first:
        raise typer.Exit
    if not result.finished:
        say(f"train.max_time: saved after {count_noun(result.epochs, 'epoch')}; {go_on}")
        raise typer.Exit
    print_result(result)
    return result


def _interrupted(
    stop: KeyboardInterrupt, run: Path, go_on: str, tell: Callable[[str], None]
) -> int:
    """Tell how to go on with a training that a signal ended; return the exit code."""
    from msa2net.training.checkpoint import Checkpoints
    from msa2net.training.stopping import TrainingInterrupted

    if isinstance(stop, TrainingInterrupted):
        name = signal.Signals(stop.signum).name
        tell(
            f"{name}: saved after {count_noun(stop.epochs, 'epoch')} ({stop.steps} steps); {go_on}"
        )
        return 128 + stop.signum
    if Checkpoints(run).paths():  # when it was gone on with, before the next step
        tell(f"interrupted; {go_on}")
    else:
        tell("interrupted before the first step; the same command goes on")
    return INTERRUPTED


def _nothing(_: str) -> None:
    """Stand for `say` where another process speaks."""


def _resuming(run: Path) -> list[str]:
    return ["msa2net", "train", str(run / "config.yaml"), "--out", str(run), "--resume"]


def print_result(result: "TrainingResult") -> None:
    """Say what a training came to."""
    from msa2net.cli.bar import as_time

    epochs = count_noun(result.epochs, "epoch")
    say(f"trained {epochs} in {as_time(result.seconds)}; the network is in {result.run}")
    if (result.waiting_share or 0.0) > MUCH_WAITING:
        say(
            f"{result.waiting_share:.0%} of it was spent waiting for data (timing.csv); more "
            "loading processes may help: train.workers"
        )
    if result.stopped_early:
        say("train.early_stopping: the last validations brought no higher Dice")
    if result.best_dice is None:
        say("the last weights were kept")
    else:
        say(
            f"best Dice while training {result.best_dice:.4f} (mean over classes and cases), "
            f"in epoch {result.best_epoch}"
        )
    for warning in result.warnings:
        say(f"warning: {warning}", "bold yellow")
    say(DISCLAIMER)
