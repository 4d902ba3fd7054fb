"""`msa2net predict`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msa2net.cli.console import (
    DISCLAIMER,
    DeviceOption,
    RunArgument,
    ThreadsOption,
    VerboseOption,
    print_error,
    say,
    set_up,
    track,
)
from msa2net.errors import DataError

if TYPE_CHECKING:
    from msa2net.inference.predictor import Predictor


def predict(
    run: RunArgument,
    inputs: Annotated[
        list[Path],
        typer.Argument(help="Pictures, NIfTI volumes, and folders of them.", metavar="INPUT …"),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the masks.")],
    overlays: Annotated[bool, typer.Option(help="Also write pictures to look at.")] = True,
    overwrite: Annotated[bool, typer.Option(help="Replace masks that exist already.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Segment pictures and NIfTI volumes: a mask on each one's own grid, and an overlay.

    A file that cannot be read is reported and skipped; the exit code is then 2.
    """
    set_up(threads, verbose)
    jobs = plan_outputs(find_inputs(inputs), out, overwrite)
    from msa2net.inference.predictor import Predictor

    predictor = Predictor.load(run, device)
    failures: list[str] = []
    for job in track(jobs, len(jobs), "predicting"):
        try:
            _predict_one(predictor, job, overlays)
        except DataError as error:
            failures.append(str(error))
    say(f"{len(jobs) - len(failures)} of {len(jobs)} images segmented; masks in {out}")
    say(DISCLAIMER)
    for failure in failures:
        print_error(failure)
    if failures:
        raise typer.Exit(2)


@dataclass(frozen=True)
class Job:
    """One image and where its mask and overlay go."""

    image: Path
    mask: Path
    overlay: Path


def find_inputs(inputs: list[Path]) -> list[Path]:
    """Expand folders into the images in them.

    Raises:
        DataError: a folder without images.
    """
    from msa2net.data.readers import list_images

    paths: list[Path] = []
    for entry in inputs:
        paths += list_images(entry, volumes=True) if entry.is_dir() else [entry]
    return paths


def plan_outputs(images: list[Path], out: Path, overwrite: bool) -> list[Job]:
    """Decide every output's name before anything is written.

    With `overwrite`, older results are removed here, so that none can pass for a new one if an
    image turns out to be unreadable.

    Raises:
        DataError: two images would share an output, an output exists, or it is an input itself.
    """
    from msa2net.data.nifti import is_nifti
    from msa2net.data.readers import stem

    jobs = [
        Job(
            image=path,
            mask=out / f"{stem(path)}{'.nii.gz' if is_nifti(path) else '.png'}",
            overlay=out / "overlays" / f"{stem(path)}.jpg",
        )
        for path in images
    ]
    first_of: dict[str, Path] = {}
    for job in jobs:
        other = first_of.setdefault(stem(job.image), job.image)
        if other is not job.image:
            raise DataError(
                f"{other} and {job.image} would both be written as {job.mask.name}; predict them "
                "into different folders"
            )
    existing = [path for job in jobs for path in (job.mask, job.overlay) if _exists(path)]
    for path in existing:
        if any(image.exists() and path.samefile(image) for image in images):
            raise DataError(f"{path} is itself an input; choose another --out")
    if existing and not overwrite:
        raise DataError(
            f"{existing[0]} exists already; choose another --out, or replace it with --overwrite"
        )
    for path in existing:
        path.unlink()
    return jobs


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


def _predict_one(predictor: "Predictor", job: Job, overlays: bool) -> None:
    import numpy as np

    from msa2net.data.display import display_image
    from msa2net.data.readers import read_path
    from msa2net.data.writers import write_jpeg
    from msa2net.report.figures import overlay

    case = read_path(job.image)
    segmentation = predictor(case)
    segmentation.save(job.mask)
    if overlays:
        shown = int((segmentation.labels > 0).sum(axis=(1, 2)).argmax())  # the slice with the most
        window = predictor.preprocessing.intensity_range(case.image)
        low, high = (None, None) if case.image.dtype == np.uint8 else window
        picture_HW3 = display_image(case.image[:, shown : shown + 1], low, high)[0]
        labels_HW, classes = segmentation.labels[shown], len(predictor.label_names)
        write_jpeg(overlay(picture_HW3, labels_HW, num_classes=classes), job.overlay)
