"""What to predict: files, folders, patterns and DICOM series become images with names."""

import glob
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from msa2net.data.case import Case
from msa2net.data.dicom import Series, choose_series, list_series, load_series
from msa2net.data.dicom_files import holds_dicom, is_dicom
from msa2net.data.dicom_io import parsing, require
from msa2net.data.names import image_name
from msa2net.data.nifti import NIFTI_SUFFIXES, is_nifti
from msa2net.data.readers import (
    IMAGE_SUFFIXES,
    list_images,
    read_channels,
    read_path,
    stem,
)
from msa2net.errors import ConfigError, DataError

CHANNEL = re.compile(r"(.+)_(\d{4})")  # nnU-Net's names of a channel's file
ALL_SERIES = "all"

_Placed: TypeAlias = tuple[Path, Series]  # a series, and the folder that lists it


@dataclass(frozen=True)
class Image:
    """One image to predict; nothing of it but names and headers was read yet.

    Attributes:
        name: what its outputs are called.
        files: one, or one a channel, or all of a DICOM series.
        folder: of a DICOM series: where `list_series` finds it.
        uid: of a DICOM series.
        problem: why it cannot be read; "" if nothing is known against it.
    """

    name: str
    files: tuple[Path, ...]
    folder: Path | None = None
    uid: str = ""
    problem: str = ""

    @property
    def is_dicom(self) -> bool:
        """Whether it is a DICOM series."""
        return self.folder is not None

    @property
    def is_volume(self) -> bool:
        """Whether it has a place in space, so that its mask is NIfTI."""
        return self.is_dicom or is_nifti(self.files[0])

    @property
    def source(self) -> Path:
        """What to call it in a sentence."""
        return self.folder or self.files[0]

    def read(self) -> Case:
        """Read it whole.

        Raises:
            DataError: it cannot be used.
        """
        if self.problem:
            raise DataError(self.problem)
        if self.is_dicom:
            return replace(load_series(self.series()), id=self.name)
        if len(self.files) > 1:
            return read_channels(self.files, self.name)
        return read_path(self.files[0])

    def series(self) -> Series:
        """Read the headers of its DICOM series.

        They are not kept with the image: those of a thousand patients would fill the memory.

        Raises:
            DataError: the files changed since they were listed.
        """
        assert self.folder is not None
        for series in list_series(self.folder):
            if series.uid == self.uid:
                return series
        raise DataError(f"{self.folder} no longer holds the series {self.uid}; start again")

    def fingerprint(self) -> str:
        """Return what changes when its files do: a hash of their names, sizes and times."""
        parts = [f"{path.name} {_stat(path)}" for path in sorted(self.files)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def find_images(
    inputs: Iterable[str | Path], channels: int = 1, series: str | None = None
) -> list[Image]:
    """Find the images of files, folders and patterns (`scans/*.nii.gz`).

    A folder stands for the pictures and NIfTI volumes directly in it, without `NAME_gt`,
    `NAME_mask` and so on beside `NAME`, which are labels (`names.MASK_ENDINGS`). If there are none,
    or DICOM files lie directly in it too, it stands for the DICOM series in it and all folders
    below.

    Of every DICOM study one series is predicted: the only one, or the one that `series` names. A
    study for which there is no such one, or that cannot be listed, is an image with a problem.

    Args:
        inputs: as people type them; patterns are for shells that leave them alone.
        channels: of the network; NIfTI files `NAME_0000`, `NAME_0001`, … are one image if several.
        series: part of a description, number or UID, see `choose_series`; a UID takes this series
            alone, and `all` every series.

    Returns:
        Images of which no two have the same name.

    Raises:
        DataError: a folder without images, a pattern without files, a missing channel, two images
            of one name, or slices of one series given one by one.
        ConfigError: `series`, and no DICOM.
    """
    plain: list[Path] = []
    dicom: list[Image] = []
    for entry in _expanded(inputs):
        if entry.is_dir():
            pictures = _pictures(entry)
            plain += pictures
            if pictures and not any(map(_is_bare_dicom, _entries(entry))):
                continue
        elif not is_dicom(entry):
            plain.append(entry)
            continue
        dicom += _find_dicom(entry, series)
    if series is not None and not dicom:
        raise ConfigError("--series chooses among DICOM series, and no input holds any; leave it")
    _refuse_loose_slices(dicom)
    return _named_apart([*group_channels(plain, channels), *dicom])


def group_channels(paths: Sequence[Path], channels: int) -> list[Image]:
    """Join `NAME_0000.nii.gz`, `NAME_0001.nii.gz`, … for a network that takes several channels.

    Raises:
        DataError: a channel is missing, or two files would have the same name.
    """
    images: dict[str, dict[int, Path]] = {}
    for path in dict.fromkeys(paths):
        numbered = CHANNEL.fullmatch(stem(path)) if channels > 1 and is_nifti(path) else None
        name, number = (numbered[1], int(numbered[2])) if numbered else (stem(path), -1)
        other = images.setdefault(name, {}).setdefault(number, path)
        if other is not path:
            raise _same_name(other, path, name)
    for name, files in images.items():
        if set(files) not in ({-1}, set(range(channels))):
            shown = ", ".join(path.name for _, path in sorted(files.items()))
            raise DataError(
                f"the network takes {channels} channels, {name}_0000 to {name}_{channels - 1:04d}, "
                f"but of {name} there is {shown}"
            )
    return [Image(name, tuple(files[n] for n in sorted(files))) for name, files in images.items()]


def _expanded(inputs: Iterable[str | Path]) -> list[Path]:
    """Return the inputs, with the files of patterns that no shell has filled in."""
    paths: list[Path] = []
    for entry in map(Path, inputs):
        if _exists(entry) or not glob.has_magic(str(entry)):
            paths.append(entry)
            continue
        matching = sorted(glob.glob(str(entry), recursive=True))  # noqa: PTH207 – absolute ones too
        if not matching:
            raise DataError(f"no file or folder is called like {entry}; correct the pattern")
        paths += map(Path, matching)
    return paths


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"cannot look for {path}: {error.strerror or error}") from error


def _pictures(folder: Path) -> list[Path]:
    """List pictures and volumes directly in a folder without their labels; perhaps none."""
    try:
        found = list_images(folder, volumes=True)
    except DataError as error:
        if _may_hold_dicom(folder):
            return []
        raise DataError(
            f"{error}, and no DICOM in it or the folders below{_pattern_for(folder)}"
        ) from error
    names = {stem(path) for path in found}
    return [path for path in found if image_name(stem(path)) not in names - {stem(path)}]


def _pattern_for(folder: Path) -> str:
    """Say how images in the folders below are named, if there are any."""
    for suffix in IMAGE_SUFFIXES + NIFTI_SUFFIXES:
        if next(folder.rglob(f"*{suffix}"), None) is not None:
            pattern = f"{glob.escape(str(folder))}/**/*{suffix}"
            return f"; name those in the folders below by a pattern, such as '{pattern}'"
    return ""


def _is_bare_dicom(path: Path) -> bool:
    known = path.suffix.lower() in IMAGE_SUFFIXES or is_nifti(path)
    return not known and is_dicom(path)


# DICOM --------------------------------------------------------------------------------------------


def _find_dicom(entry: Path, wanted: str | None) -> list[Image]:
    """Find the series to predict of one input, and say what is wrong with the others."""
    listed: list[_Placed] = []
    images: list[Image] = []
    for place in _places(entry):
        try:
            listed += [(place, series) for series in list_series(place)]
        except DataError as error:
            images.append(_problem(place, error))
    if not listed and not images:
        raise DataError(f"{entry} holds no DICOM image")
    exact = [pair for pair in listed if pair[1].uid == wanted]
    if exact:
        return [_image(*pair) for pair in exact]
    studies: dict[str, list[_Placed]] = {}
    for place, series in listed:
        studies.setdefault(_study(series) or str(place), []).append((place, series))
    for study in studies.values():
        where = _where(entry, study)
        try:
            chosen = study if wanted == ALL_SERIES else [_choose(where, study, wanted)]
        except DataError as error:
            images.append(_problem(where, error))
            continue
        # Folders of one study are called as its series are, those of several as patients are.
        split = where != study[0][0]
        images += [
            _image(place, series, f"{_name_of(entry)}_{series.name}" if split else None)
            for place, series in chosen
        ]
    return images


def _choose(where: Path, study: Sequence[_Placed], wanted: str | None) -> _Placed:
    """Choose one series of a study.

    Raises:
        DataError: listing them.
    """
    try:
        one = choose_series([series for _, series in study], where, wanted)
    except DataError as error:
        every = "; or predict each of them with --series all" if wanted is None else ""
        raise DataError(f"{error}{every}") from error
    return next(pair for pair in study if pair[1] is one)


def _where(entry: Path, study: Sequence[_Placed]) -> Path:
    """Return the folder that a study is in: its own if there is one."""
    places = {place for place, _ in study}
    return places.pop() if len(places) == 1 else entry


def _places(entry: Path) -> list[Path]:
    """Return where to list series: the folder, or the folders in it that hold DICOM.

    A file that is damaged may be a slice of any series beside it, but of none in the next folder.
    """
    if not entry.is_dir() or any(map(is_dicom, _entries(entry))):
        return [entry]
    holding = [
        path
        for path in _entries(entry)
        if path.is_dir() and path.name[0] != "." and _may_hold_dicom(path)
    ]
    return holding if len(holding) > 1 else [entry]


def _may_hold_dicom(folder: Path) -> bool:
    """Tell whether there is DICOM; a file that cannot be opened may be, and is named later."""
    try:
        return holds_dicom(folder)
    except DataError:
        return True


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}") from error


def _study(series: Series) -> str:
    """Return the UID of the study that a series is of; "" if it does not say."""
    path = series.files[0]
    with parsing(path):
        header = require().dcmread(
            path, stop_before_pixels=True, specific_tags=["StudyInstanceUID"], force=True
        )
        return str(header.get("StudyInstanceUID") or "")


def _image(place: Path, series: Series, name: str | None = None) -> Image:
    return Image(name or series.name, series.files, place, series.uid)


def _problem(place: Path, error: DataError) -> Image:
    return Image(_name_of(place), (), place, problem=str(error))


def _name_of(place: Path) -> str:
    whole = place.resolve()
    return (stem(whole) if whole.is_file() else whole.name) or "series"


def _refuse_loose_slices(images: Sequence[Image]) -> None:
    """Refuse slices of a series given file by file: each would be a volume of its own.

    Raises:
        DataError: naming two, and their folder.
    """
    loose: dict[str, Image] = {}
    for image in images:
        if image.uid and image.source.is_file():
            other = loose.setdefault(image.uid, image)
            if other.source != image.source:
                raise DataError(
                    f"{other.source} and {image.source} are slices of one series; give their "
                    f"folder, {image.source.parent}, instead"
                )


def _named_apart(images: Sequence[Image]) -> list[Image]:
    """Return each image once.

    Raises:
        DataError: two would have the same name.
    """
    named: dict[str, Image] = {}
    for image in images:
        other = named.setdefault(image.name, image)
        if (other.files, other.problem) != (image.files, image.problem):
            raise _same_name(other.source, image.source, image.name)
    return list(named.values())


def _same_name(one: Path, other: Path, name: str) -> DataError:
    return DataError(
        f"{one} and {other} would both be written as {name}; predict them into different folders"
    )


def _stat(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "is not there"
    return f"{found.st_size} {found.st_mtime_ns}"
