"""`msa2net predict`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msa2net.cli.console import (
    DISCLAIMER,
    DeviceOption,
    RunArgument,
    ThreadsOption,
    VerboseOption,
    console,
    print_error,
    set_up,
    track,
)
from msa2net.errors import DataError

if TYPE_CHECKING:
    from msa2net.inference.predictor import Predictor


def predict(
    run: RunArgument,
    inputs: Annotated[
        list[Path], typer.Argument(help="Image files and folders of them.", metavar="INPUT …")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the masks.")],
    overlays: Annotated[bool, typer.Option(help="Also write pictures to look at.")] = True,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Segment images: a mask for each at the image's own size, and an overlay to look at.

    A file that cannot be read is reported and skipped; the exit code is then 2.
    """
    set_up(threads, verbose)
    paths = find_inputs(inputs)
    from msa2net.inference.predictor import Predictor

    predictor = Predictor.load(run, device)
    failures: list[str] = []
    written = 0
    for path in track(paths, len(paths), "predicting"):
        try:
            _predict_one(predictor, path, out, overlays)
            written += 1
        except DataError as error:
            failures.append(str(error))
    screen = console()
    screen.print(f"{written} of {len(paths)} images segmented; masks in {out}")
    screen.print(DISCLAIMER)
    for failure in failures:
        print_error(failure)
    if failures:
        raise typer.Exit(2)


def find_inputs(inputs: list[Path]) -> list[Path]:
    """Expand folders into the images in them; refuse two inputs that would share an output.

    Raises:
        DataError: nothing there, or two files of the same name.
    """
    from msa2net.data.readers import list_images

    paths: list[Path] = []
    for entry in inputs:
        paths += list_images(entry) if entry.is_dir() else [entry]
    first_of: dict[str, Path] = {}
    for path in paths:
        other = first_of.setdefault(path.stem, path)
        if other is not path:
            raise DataError(
                f"{other} and {path} would both be written as {path.stem}.png; predict them into "
                "different folders"
            )
    return paths


def _predict_one(predictor: "Predictor", path: Path, out: Path, overlays: bool) -> None:
    from msa2net.data.display import display_image
    from msa2net.data.readers import read_path
    from msa2net.data.writers import write_jpeg
    from msa2net.report.figures import overlay

    mask_path, overlay_path = out / f"{path.stem}.png", out / "overlays" / f"{path.stem}.jpg"
    for target in (mask_path, overlay_path):
        if target.resolve() == path.resolve():
            raise DataError(f"{path} would be overwritten by its own mask; choose another --out")
        target.unlink(missing_ok=True)  # an older result must not pass for this input's
    case = read_path(path)
    segmentation = predictor(case)
    segmentation.save(mask_path)
    if overlays:
        picture_HW3 = display_image(case.image)[0]
        num_classes = len(predictor.label_names)
        write_jpeg(
            overlay(picture_HW3, segmentation.labels[0], num_classes=num_classes), overlay_path
        )
