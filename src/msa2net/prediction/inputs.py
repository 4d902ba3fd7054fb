"""What to predict: files, folders, patterns and DICOM series become images with names."""

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msa2net.data.dicom.detect import find_files, is_dicom
from msa2net.data.formats.file_names import image_name
from msa2net.data.io.nifti import NIFTI_SUFFIXES, is_nifti
from msa2net.data.io.readers import IMAGE_SUFFIXES, list_images, stem
from msa2net.errors import ConfigError, DataError
from msa2net.prediction.jobs import Image

CHANNEL = re.compile(r"(.+)_(\d{4})")  # nnU-Net's names of a channel's file


@dataclass(frozen=True)
class Inputs:
    """What inputs stand for.

    Attributes:
        images: of which no two have the same name; an input that is none has a problem.
        left_out: files in folders that are no images of a kind that is read, and folders with
            images that were not looked into.
    """

    images: tuple[Image, ...]
    left_out: tuple[Path, ...]


def find_images(
    inputs: Iterable[str | Path], channels: int = 1, series: str | None = None
) -> list[Image]:
    """Return the images of `find_inputs`."""
    return list(find_inputs(inputs, channels, series).images)


def find_inputs(
    inputs: Iterable[str | Path], channels: int = 1, series: str | None = None
) -> Inputs:
    """Find the images of files, folders and patterns (`scans/*.nii.gz`).

    A folder stands for the pictures and NIfTI volumes directly in it, without `NAME_gt`,
    `NAME_mask` and so on beside `NAME`, which are labels (`names.MASK_ENDINGS`), and for the
    DICOM series in it and all folders below.

    Of every DICOM study one series is predicted: the only one, or the one that `series` names.
    What cannot be predicted is an image with a problem: a study of which none is named, a series
    that is damaged, an input without any image, a missing channel, slices given one by one.

    Args:
        inputs: as people type them; patterns are for shells that leave them alone.
        channels: of the network; NIfTI files `NAME_0000`, `NAME_0001`, … are one image if several.
        series: part of a description, number or UID, see `choose_series`; a UID takes this series
            alone, and `all` every series.

    Raises:
        DataError: two images of one name.
        ConfigError: `series`, and no DICOM.
    """
    finder = _Finder(series)
    for entry in map(Path, inputs):
        try:
            for path in _expanded(entry):
                finder.look_at(path)
        except DataError as error:
            finder.without.append(Image.none(entry, str(error)))
    if series is not None and not finder.dicom:
        raise ConfigError("--series chooses among DICOM series, and no input holds any; leave it")
    images = [*group_channels(finder.plain, channels), *finder.dicom_images(), *finder.without]
    return Inputs(tuple(_named_apart(images)), tuple(dict.fromkeys(finder.left_out)))


class _Finder:
    """Collects what inputs stand for: pictures and volumes, DICOM, and what is none."""

    def __init__(self, series: str | None) -> None:
        self.plain: list[Path] = []
        self.dicom: list[Image] = []
        self.without: list[Image] = []
        self.left_out: list[Path] = []
        self._series = series

    def dicom_images(self) -> list[Image]:
        if not self.dicom:
            return []
        from msa2net.prediction.dicom_inputs import loose_slices

        return loose_slices(self.dicom)

    def look_at(self, entry: Path) -> None:
        if entry.is_dir():
            self._look_into(entry)
        elif not is_nifti(entry) and is_dicom(entry):
            self.dicom += self._find_dicom(entry)[0] or [_without_image(entry)]
        else:
            self.plain.append(entry)

    def _look_into(self, folder: Path) -> None:
        listed = _listed(folder)
        pictures = _without_labels(listed)
        self.plain += pictures
        there = _may_hold_bare_dicom(folder)
        images, others = self._find_dicom(folder) if there else ([], ())
        self.dicom += images
        if images:
            self.left_out += [path for path in others if path not in listed]
        elif pictures:
            self.left_out += _left_out(folder, listed)
        elif there:
            self.dicom.append(_without_image(folder))
        else:
            raise DataError(
                f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES + NIFTI_SUFFIXES)}), and no "
                f"DICOM in it or the folders below{_pattern_for(folder)}"
            )

    def _find_dicom(self, entry: Path) -> tuple[list[Image], tuple[Path, ...]]:
        from msa2net.prediction.dicom_inputs import find_dicom

        return find_dicom(entry, self._series)


def group_channels(paths: Sequence[Path], channels: int) -> list[Image]:
    """Join `NAME_0000.nii.gz`, `NAME_0001.nii.gz`, … for a network that takes several channels.

    An image of which a channel is missing has a problem.

    Raises:
        DataError: two files would have the same name.
    """
    images: dict[str, dict[int, Path]] = {}
    for path in dict.fromkeys(paths):
        numbered = CHANNEL.fullmatch(stem(path)) if channels > 1 and is_nifti(path) else None
        name, number = (numbered[1], int(numbered[2])) if numbered else (stem(path), -1)
        other = images.setdefault(name, {}).setdefault(number, path)
        if other is not path:
            raise _same_name(other, path, name)
    return [_joined(name, files, channels) for name, files in images.items()]


def _joined(name: str, files: dict[int, Path], channels: int) -> Image:
    problem = ""
    if set(files) not in ({-1}, set(range(channels))):
        shown = ", ".join(path.name for _, path in sorted(files.items()))
        problem = (
            f"the network takes {channels} channels, {name}_0000 to {name}_{channels - 1:04d}, "
            f"but of {name} there is {shown}"
        )
    return Image(name, tuple(files[number] for number in sorted(files)), problem=problem)


def _expanded(entry: Path) -> list[Path]:
    """Return an input, or the files of a pattern that no shell has filled in."""
    if _exists(entry) or not glob.has_magic(str(entry)):
        return [entry]
    matching = sorted(glob.glob(str(entry), recursive=True))  # noqa: PTH207 – absolute ones too
    if not matching:
        raise DataError(f"no file or folder is called like {entry}; correct the pattern")
    return [Path(name) for name in matching]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"cannot look for {path}: {error.strerror or error}") from error


def _without_image(entry: Path) -> Image:
    """Say of an input that there is no image in it."""
    if entry.is_dir():
        return Image.none(entry, f"{entry} holds no DICOM image")
    from msa2net.data.dicom.headers import kind_of

    kind = kind_of(entry)
    return Image.none(
        entry, f"{entry} is a DICOM file without an image{f' ({kind})' if kind else ''}"
    )


# Folders ------------------------------------------------------------------------------------------


def _listed(folder: Path) -> list[Path]:
    """List pictures and volumes directly in a folder; perhaps none."""
    if not any(map(_is_known, _entries(folder))):
        return []
    try:
        return list_images(folder, volumes=True)
    except DataError:  # hidden ones only
        return []


def _without_labels(found: Sequence[Path]) -> list[Path]:
    names = {stem(path) for path in found}
    return [path for path in found if image_name(stem(path)) not in names - {stem(path)}]


def _left_out(folder: Path, listed: Sequence[Path]) -> list[Path]:
    """List what else lies directly in a folder: other files, and folders that hold images."""
    rest = [path for path in _entries(folder) if path.name[0] != "." and path not in listed]
    return [path for path in rest if path.is_file() or _first_known(path) is not None]


def _pattern_for(folder: Path) -> str:
    """Say how images in the folders below are named, if there are any."""
    first = _first_known(folder)
    if first is None:
        return ""
    pattern = f"{glob.escape(str(folder))}/**/*{first.name[len(stem(first)) :]}"
    return f"; name those in the folders below by a pattern, such as '{pattern}'"


def _first_known(folder: Path) -> Path | None:
    return next((path for path in find_files(folder, []) if _is_known(path)), None)


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES or is_nifti(path)


def _may_hold_bare_dicom(folder: Path) -> bool:
    """Tell whether there is DICOM; a file that cannot be opened may be, and is named later."""
    try:
        return any(not _is_known(path) and is_dicom(path) for path in find_files(folder))
    except DataError:
        return True


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}") from error


# Names --------------------------------------------------------------------------------------------


def _named_apart(images: Sequence[Image]) -> list[Image]:
    """Return each image once; those without files take a name that is free.

    Raises:
        DataError: two would have the same name.
    """
    named: dict[str, Image] = {}
    for image in sorted(dict.fromkeys(images), key=lambda one: not one.files):
        name = image.name
        for number in range(2, len(images) + 2) if not image.files else ():
            if name not in named:
                break
            name = f"{image.name}_{number}"
        other = named.setdefault(name, replace(image, name=name))
        if (other.files, other.problem) != (image.files, image.problem):
            raise _same_name(other.source, image.source, name)
    return list(named.values())


def _same_name(one: Path, other: Path, name: str) -> DataError:
    return DataError(
        f"{one} and {other} would both be written as {name}; predict them into different folders"
    )
