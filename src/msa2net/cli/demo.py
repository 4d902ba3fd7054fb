"""`msa2net demo`."""

import json
import shlex
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msa2net.cli.console import (
    DISCLAIMER,
    INTERRUPTED,
    common_words,
    console,
    print_error,
    say,
    set_up,
    track,
)
from msa2net.cli.options import (
    DeviceOption,
    OverwriteOption,
    SettingsOption,
    ThreadsOption,
    VerboseOption,
    option,
)

if TYPE_CHECKING:
    from msa2net.config import Config

HELD_OUT_CASE = 9999  # far beyond the cases that are trained and tested on
TIME_S = 240.0  # that all of a demo is meant to take
LEAST_EPOCHS = 2
# What is no step of training (validating, measuring, evaluating, the report) takes about as long as
# so many steps; loading makes each of these a little longer than those that are measured.
FURTHER_STEPS = 50
OVERHEAD = 1.03


def demo(
    out: Annotated[Path, option("Run folder.", "FOLDER")] = Path("runs/demo"),
    settings: SettingsOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Train, evaluate and predict on synthetic CT, in minutes.

    On a slow machine fewer epochs are trained. Called again after an interruption, it goes on.
    """
    words = ["msa2net", "demo", "--out", str(out)]
    words += [word for setting in settings or () for word in ("--set", setting)]
    words += common_words(device, threads)
    try:
        _demo(out, settings or [], overwrite, device, threads, verbose, words)
    except KeyboardInterrupt:
        print_error(f"interrupted; go on with: {shlex.join(words)}")
        raise typer.Exit(INTERRUPTED) from None


def _demo(
    out: Path,
    settings: list[str],
    overwrite: bool,
    device: str,
    threads: int | None,
    verbose: bool,
    words: list[str],
) -> None:
    started = time.monotonic()
    config = demo_config(out, settings)
    by_hand = any(setting.startswith(("train.epochs", "train.max_steps")) for setting in settings)
    begun = None if overwrite else begun_demo(out, config, by_hand)
    set_up(threads, verbose)
    from msa2net.cli.train import run_training
    from msa2net.evaluation.run import evaluate_run
    from msa2net.evaluation.tables.console import console_table
    from msa2net.report.html import write_report
    from msa2net.training.checkpoint import Checkpoints

    resume = begun is not None and bool(Checkpoints(out).paths())
    if resume:
        say(f"1/4 resuming the training that was begun in {out}; --overwrite begins again")
    else:
        say("1/4 drawing synthetic CT volumes and training on them")
    if begun is None and not by_hand:
        config = fit(config, started, device)
    run_training(
        begun or config,
        out,
        device=device,
        verbose=verbose,
        overwrite=overwrite or (begun is not None and not resume),
        resume=resume,
        preparing="drawing",
        again=words,
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


def begun_demo(out: Path, config: "Config", by_hand: bool = False) -> "Config | None":
    """Return the settings of a demo that was begun in a folder, with the epochs chosen then.

    Args:
        out: the folder.
        config: the settings of a new demo.
        by_hand: its epochs were asked for, and are not those of before.

    Raises:
        ConfigError: the folder holds another training, or a demo with other settings.
    """
    from msa2net.config import load_config
    from msa2net.errors import ConfigError
    from msa2net.files import CONFIG_FILE

    if not (out / CONFIG_FILE).is_file():
        return None
    begun = load_config(out / CONFIG_FILE)
    chosen = with_epochs(config, begun.train.epochs, begun.train.validate_every)
    if _comparable(begun) != _comparable(chosen):
        raise ConfigError(
            f"{out} holds a training with other settings than this demo's; name another folder "
            "with --out, or replace it with --overwrite"
        )
    return config if by_hand else chosen


def _comparable(config: "Config") -> dict[str, Any]:
    """Return settings without places."""
    return config.model_dump(exclude={"data": {"prepared", "root"}})


def with_epochs(config: "Config", epochs: int, validate_every: int) -> "Config":
    """Return the settings with another number of epochs."""
    train = {"epochs": epochs, "validate_every": validate_every}
    return config.model_copy(update={"train": config.train.model_copy(update=train)})


def fit(config: "Config", started: float, device: str) -> "Config":
    """Return the demo with as many epochs as this machine trains in time, and say so."""
    from msa2net.benchmark.fitting import epochs_within, step_seconds
    from msa2net.cli.bar import as_time
    from msa2net.data.prepared.prepare import prepare

    store = prepare(config.data, lambda cases, total: track(cases, total, "drawing"))
    slices = sum(case.shape[1] for case in store.cases if case.split == "train")
    per_epoch = max(1, slices // config.train.batch_size)
    step = OVERHEAD * step_seconds(config, store, device)
    spent, most = time.monotonic() - started, config.train.epochs
    epochs = epochs_within(TIME_S - spent, step, per_epoch, FURTHER_STEPS, most, LEAST_EPOCHS)
    whole = as_time(spent + step * (epochs * per_epoch + FURTHER_STEPS))
    measured = f"a training step takes {step:.2f} s here"
    if epochs == most:
        say(f"{measured}: all of the demo about {whole}")
        return config
    say(
        f"{measured}: {epochs} of {most} epochs are trained, so that all of the demo takes about "
        f"{whole}; its scores will be lower than after all of them (--set train.epochs={most})"
    )
    return with_epochs(config, epochs, epochs)


def _predict_held_out(config: "Config", out: Path, device: str) -> Path:
    from msa2net.data.phantom import abdomen
    from msa2net.inference.predictor import Predictor

    case = abdomen(HELD_OUT_CASE, shape=config.data.phantom_shape)
    segmentation = Predictor.load(out, device)(case)
    return segmentation.save(out / "prediction" / f"{case.id}.nii.gz")
