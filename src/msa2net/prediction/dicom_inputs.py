"""Which DICOM series of an input are predicted: of every study one, and why not of the others."""

from collections.abc import Sequence
from pathlib import Path

from msa2net.data.dicom.detect import holds_dicom, is_dicom
from msa2net.data.dicom.reader import choose_series
from msa2net.data.dicom.series import Series, named, survey
from msa2net.errors import DataError
from msa2net.prediction.jobs import Image, name_of

ALL_SERIES = "all"


def find_dicom(entry: Path, wanted: str | None) -> tuple[list[Image], tuple[Path, ...]]:
    """Find the series to predict of a folder or file, and say what is wrong with the others.

    Args:
        entry: it.
        wanted: see `find_images`.

    Returns:
        Images, and the files that are no DICOM image.
    """
    try:
        found = survey(entry)
    except DataError as error:
        return [Image.none(entry, str(error))], ()
    places = _places(entry)
    series = _placed(entry, places, found.series)
    images = [
        Image.none(place if entry.is_dir() else entry, why, _called(entry, place, places))
        for place, why in found.damaged.items()
    ]
    exact = [one for one in series if one.uid == wanted]
    if exact:
        return [_image(one) for one in exact], found.others
    studies: dict[str, list[Series]] = {}
    for one in series:
        studies.setdefault(one.study or str(one.folder), []).append(one)
    for study in studies.values():
        folders = {one.folder for one in study}
        where = folders.pop() if len(folders) == 1 else entry
        try:
            chosen = study if wanted == ALL_SERIES else [_choose(where, study, wanted)]
        except DataError as error:
            images.append(Image.none(where, str(error)))
            continue
        # Folders of one study are called as its series are, those of several as patients are.
        split = where != study[0].folder
        images += [
            _image(one, f"{name_of(entry)}_{one.name}" if split else one.name) for one in chosen
        ]
    return images, found.others


def loose_slices(images: Sequence[Image]) -> list[Image]:
    """Return the images, with slices that were given file by file as one that has a problem.

    Each of them would be a volume of its own.
    """
    loose: dict[str, list[Image]] = {}
    for image in images:
        if image.uid and image.source.is_file():
            loose.setdefault(image.uid, []).append(image)
    several = {uid: some for uid, some in loose.items() if len({one.source for one in some}) > 1}
    refused = [
        Image.none(
            some[0].source,
            f"{some[0].source} and {some[-1].source} are slices of one series; give their "
            f"folder, {some[0].source.parent}, instead",
        )
        for some in several.values()
    ]
    kept = [image for image in images if not (image.uid in several and image.source.is_file())]
    return kept + refused


def _placed(entry: Path, places: Sequence[Path], found: Sequence[Series]) -> list[Series]:
    """Name series after the place that they lie in; those of several after the entry."""
    groups: dict[Path, list[Series]] = {}
    for series in found:
        within = set.intersection(*(set(path.parents) for path in series.files))
        place = next((place for place in places if place in within), entry)
        groups.setdefault(place, []).append(series)
    return [one for place, group in groups.items() for one in named(place, group)]


def _places(entry: Path) -> list[Path]:
    """Return the folders in a folder that hold DICOM, such as patients; or itself."""
    try:
        if not entry.is_dir() or any(map(is_dicom, entry.iterdir())):
            return [entry]
        holding = [
            path
            for path in sorted(entry.iterdir())
            if path.is_dir() and path.name[0] != "." and may_hold_dicom(path)
        ]
    except (OSError, DataError):  # said by `survey`
        return [entry]
    return holding if len(holding) > 1 else [entry]


def may_hold_dicom(folder: Path) -> bool:
    """Tell whether there is DICOM; a file that cannot be opened may be, and is named later."""
    try:
        return holds_dicom(folder)
    except DataError:
        return True


def _called(entry: Path, place: Path, places: Sequence[Path]) -> str:
    if not entry.is_dir() or place in places:
        return name_of(place if entry.is_dir() else entry)
    return "_".join([name_of(entry), *place.relative_to(entry).parts])


def _choose(where: Path, study: Sequence[Series], wanted: str | None) -> Series:
    """Choose one series of a study.

    Raises:
        DataError: listing them.
    """
    try:
        return choose_series(study, where, wanted)
    except DataError as error:
        every = "; or predict each of them with --series all" if wanted is None else ""
        raise DataError(f"{error}{every}") from error


def _image(series: Series, name: str = "") -> Image:
    return Image(
        name or series.name, series.files, series.folder, series.uid, problem=series.problem
    )
