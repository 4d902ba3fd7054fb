"""`msa2net predict`."""

import re
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

CHANNEL = re.compile(r"(.+)_(\d{4})")  # nnU-Net's names of a channel's file
LABELS_FILE = "labels.txt"  # class names of a folder of masks, see evaluation/masks.py


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

    The folder also gets labels.txt, the names of the classes. A file that cannot be read is
    reported and skipped; the exit code is then 2.
    """
    set_up(threads, verbose)
    from msa2net.inference.predictor import Predictor
    from msa2net.inference.run_folder import read_facts

    facts = read_facts(run)
    images = group_channels(find_inputs(inputs), facts.network.in_channels)
    require_same_names(out, facts.label_names)
    jobs = plan_outputs(images, out, overwrite)
    predictor = Predictor.load(run, device)
    failures: list[str] = []
    for job in track(jobs, len(jobs), "predicting"):
        try:
            _predict_one(predictor, job, overlays)
            _name_classes(out, facts.label_names)
        except DataError as error:
            failures.append(str(error))
    say(f"{len(jobs) - len(failures)} of {len(jobs)} images segmented; masks in {out}")
    say(DISCLAIMER)
    for failure in failures:
        print_error(failure)
    if failures:
        raise typer.Exit(2)


def require_same_names(out: Path, label_names: tuple[str, ...]) -> None:
    """Refuse a folder whose masks have other classes, by its `labels.txt`.

    Raises:
        DataError: naming both.
    """
    from msa2net.files import read_lines

    path = out / LABELS_FILE
    if not _exists(path):
        return
    there = read_lines(path)
    if there != [name.strip() for name in label_names]:
        raise DataError(
            f"{path} names the classes {', '.join(there)} and this network's are "
            f"{', '.join(label_names)}; choose another --out"
        )


def _name_classes(out: Path, label_names: tuple[str, ...]) -> None:
    """Write the names beside the masks, so that `evaluate` can tell classes by them."""
    from msa2net.files import write_text

    path = out / LABELS_FILE
    if not _exists(path):
        write_text(path, "".join(f"{name}\n" for name in label_names))


@dataclass(frozen=True)
class Job:
    """One image, of one file or of one a channel, and where its mask and overlay go."""

    files: tuple[Path, ...]
    name: str
    mask: Path
    overlay: Path


def find_inputs(inputs: list[Path]) -> list[Path]:
    """Expand folders into the images in them; `NAME_gt` beside `NAME` is a label, and left out.

    Raises:
        DataError: a folder without images.
    """
    from msa2net.data.readers import list_images, stem

    paths: list[Path] = []
    for entry in inputs:
        found = list_images(entry, volumes=True) if entry.is_dir() else [entry]
        names = {stem(path) for path in found}
        paths += [
            path for path in found if stem(path).removesuffix("_gt") not in names - {stem(path)}
        ]
    return paths


def group_channels(paths: list[Path], channels: int) -> dict[str, tuple[Path, ...]]:
    """Join `NAME_0000.nii.gz`, `NAME_0001.nii.gz`, … for a network that takes several channels.

    Returns:
        The image's name → its files, in the order of the channels.

    Raises:
        DataError: a channel is missing, or two images would have the same name.
    """
    from msa2net.data.nifti import is_nifti
    from msa2net.data.readers import stem

    images: dict[str, dict[int, Path]] = {}
    for path in dict.fromkeys(paths):
        numbered = CHANNEL.fullmatch(stem(path)) if channels > 1 and is_nifti(path) else None
        name, number = (numbered[1], int(numbered[2])) if numbered else (stem(path), -1)
        other = images.setdefault(name, {}).setdefault(number, path)
        if other is not path:
            raise DataError(
                f"{other} and {path} would both be written as {name}; predict them into "
                "different folders"
            )
    for name, files in images.items():
        if set(files) not in ({-1}, set(range(channels))):
            shown = ", ".join(path.name for _, path in sorted(files.items()))
            raise DataError(
                f"the network takes {channels} channels, {name}_0000 to {name}_{channels - 1:04d}, "
                f"but of {name} there is {shown}"
            )
    return {name: tuple(files[n] for n in sorted(files)) for name, files in images.items()}


def plan_outputs(images: dict[str, tuple[Path, ...]], out: Path, overwrite: bool) -> list[Job]:
    """Decide every output's name before anything is written.

    With `overwrite`, older results are removed here, so that none can pass for a new one if an
    image turns out to be unreadable.

    Raises:
        DataError: an output exists, or it is an input itself.
    """
    from msa2net.data.nifti import is_nifti

    jobs = [
        Job(
            files=files,
            name=name,
            mask=out / f"{name}{'.nii.gz' if is_nifti(files[0]) else '.png'}",
            overlay=out / "overlays" / f"{name}.jpg",
        )
        for name, files in images.items()
    ]
    inputs = [path for files in images.values() for path in files]
    existing = [path for job in jobs for path in (job.mask, job.overlay) if _exists(path)]
    for path in existing:
        if any(image.exists() and path.samefile(image) for image in inputs):
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
    from msa2net.data.readers import read_channels, read_path
    from msa2net.data.writers import write_jpeg
    from msa2net.report.figures import overlay

    several = len(job.files) > 1
    case = read_channels(job.files, job.name) if several else read_path(job.files[0])
    segmentation = predictor(case)
    segmentation.save(job.mask)
    if overlays:
        shown = int((segmentation.labels > 0).sum(axis=(1, 2)).argmax())  # the slice with the most
        window = predictor.preprocessing.intensity_range(case.image)
        low, high = (None, None) if case.image.dtype == np.uint8 else window
        picture_HW3 = display_image(case.image[:, shown : shown + 1], low, high)[0]
        labels_HW, classes = segmentation.labels[shown], len(predictor.label_names)
        write_jpeg(overlay(picture_HW3, labels_HW, num_classes=classes), job.overlay)
