"""`msa2net predict`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from msa2net.cli.console import (
    DISCLAIMER,
    INTERRUPTED,
    SHOWN,
    print_error,
    say,
    say_flagged,
    say_networks,
    set_up,
    track,
)
from msa2net.cli.options import (
    CompileOption,
    DeviceOption,
    OverwriteOption,
    ThreadsOption,
    VerboseOption,
    flag,
    option,
)
from msa2net.errors import ConfigError
from msa2net.text import count_noun, listed

if TYPE_CHECKING:
    from msa2net.prediction.jobs import SegKind
    from msa2net.prediction.run import PredictionResult

InputsArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Pictures, NIfTI volumes, DICOM series, and folders of them.", metavar="INPUT"
    ),
]
NetworkArgument = Annotated[
    Path, typer.Argument(help="A run folder, or an exported network (.onnx).", metavar="RUN")
]
OthersOption = Annotated[
    list[Path] | None,
    option("Another run, averaged with RUN; may be repeated.", "RUN2", "--with"),
]
SeriesOption = Annotated[
    str | None,
    option(
        "Which series of a DICOM study: its number, part of its description, or its UID; all "
        "takes each of them.",
        "SERIES",
    ),
]
FlipsOption = Annotated[
    bool, flag("Test-time augmentation: average the outputs of mirrored images.", "--flips")
]
SlidingOption = Annotated[
    bool,
    flag("Slide windows over slices at full resolution, instead of resizing them.", "--sliding"),
]
ReducedOption = Annotated[
    bool, flag("Compute in bfloat16: faster on devices that have it.", "--bfloat16")
]
SegOption = Annotated[
    str,
    option("Also write DICOM segmentations: none, binary, labelmap.", "NAME"),
]


def predict(
    run: NetworkArgument,
    inputs: InputsArgument,
    out: Annotated[Path, option("Folder for the masks.", "FOLDER")],
    others: OthersOption = None,
    series: SeriesOption = None,
    flips: FlipsOption = False,
    sliding: SlidingOption = False,
    bfloat16: ReducedOption = False,
    compile_network: CompileOption = False,
    dicom_seg: SegOption = "none",
    overlays: Annotated[bool, flag("Also write pictures to look at.")] = True,
    overwrite: OverwriteOption = False,
    resume: Annotated[
        bool, flag("Go on where it stopped: leave out what is done.", "--resume")
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Segment 2-D images, NIfTI volumes and DICOM series.

    Each mask lies on the grid of its own image.

    An image that cannot be used is reported and skipped; the exit code is then 2.

    Started by torchrun or srun, the processes share the images.
    """
    from msa2net.inference.sharding import device_of_process, world_from_environment
    from msa2net.prediction.load import is_exported
    from msa2net.prediction.run import predict_files

    exported = is_exported(run)
    set_up(None if exported else threads, verbose)  # an exported network goes without torch
    if overwrite and resume:
        raise ConfigError("--overwrite replaces what --resume would keep; give one of them")
    try:
        result = predict_files(
            [run, *(others or [])],
            inputs,
            out,
            series=series,
            mode="sliding" if sliding else "resize",
            flips=flips,
            precision="bfloat16" if bfloat16 else "float32",
            compile=compile_network,
            overlays=overlays,
            dicom_seg=cast("SegKind", dicom_seg),  # the library refuses what is none
            existing="overwrite" if overwrite else "resume" if resume else "refuse",
            device=device if exported else device_of_process(device, os.environ),
            threads=threads,
            world=world_from_environment(os.environ),
            progress=lambda jobs, total: track(jobs, total, "predicting"),
        )
    except KeyboardInterrupt:
        print_error(f"interrupted; what is in {out} is whole, and --resume goes on with the rest")
        raise typer.Exit(INTERRUPTED) from None
    _show(result, overlays)
    if result.failures or result.problems:
        raise typer.Exit(2)


def _show(result: "PredictionResult", overlays: bool) -> None:
    from msa2net.prediction.jobs import OVERLAYS

    done = len(result.predicted)
    left = f", {len(result.finished)} were done already" if result.finished else ""
    failed = f", {len(result.failures)} failed" if result.failures else ""
    where = f"; masks in {result.out}" if done or result.finished else ""
    say(f"{done} of {result.total} images segmented{left}{failed}{where}")
    if done and overlays:
        say(f"look at {result.out / OVERLAYS}")
    if result.structures_file is not None:
        say(f"sizes of the structures: {result.structures_file}")
    say_networks(result.performance, result.warnings)
    say_flagged(result.flagged, len(result.flagged), result.out / "flags.csv")
    _say_left_out(result.left_out)
    for note in result.notes[:SHOWN]:
        say(f"note: {note}")
    if len(result.notes) > SHOWN:
        say(f"note: the same holds for {len(result.notes) - SHOWN} more")
    say(DISCLAIMER)
    for problem in result.problems[:SHOWN]:
        print_error(problem)
    if len(result.problems) > SHOWN:
        print_error(f"and {len(result.problems) - SHOWN} more records cannot be read")
    shown = SHOWN if result.failures_file else len(result.failures)
    for failure in result.failures[:shown]:
        print_error(failure.sentence)
    if len(result.failures) > shown:
        more = len(result.failures) - shown
        print_error(
            f"and {more} more images have no mask; all are listed in {result.failures_file}"
        )


def _say_left_out(left_out: Sequence[Path]) -> None:
    """Say what an input's folder holds besides the images that were taken."""
    folders = [path for path in left_out if path.is_dir()]
    if len(folders) < len(left_out):
        files = [path for path in left_out if path not in folders]
        number = count_noun(len(files), "file")
        say(f"left out, no images of a kind that is read, or copies: {number} ({listed(files)})")
    if folders:
        say(
            f"not looked into: {count_noun(len(folders), 'folder')} with images "
            f"({listed(folders)}); name them, too"
        )
