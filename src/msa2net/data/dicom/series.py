"""Which DICOM series a folder holds: files of any name, parted by what their headers say.

Series of several folders, copies of files, damaged ones and others that are no images are told
apart here, so that each series is whole or says why it is not.
"""

import filecmp
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from msa2net.data.dicom.detect import DICOM_SUFFIXES, find_files
from msa2net.data.dicom.headers import count_frames, read_image_header, rows_and_columns, slices_of
from msa2net.data.dicom.pydicom_io import is_uid, parsing, read_identifiers, require
from msa2net.data.dicom.slice_geometry import Slice, stack
from msa2net.data.geometry import Geometry
from msa2net.data.io.validation import format_shape
from msa2net.errors import DataError

_MODALITIES = (
    *("CR", "CT", "DX", "ES", "IO", "IVUS", "MG", "MR", "NM", "OCT", "OP", "OPT", "OT", "PT"),
    *("RF", "SM", "US", "XA", "XC"),
)


@dataclass(frozen=True, eq=False)
class Series:
    """The images of one DICOM series, found by their headers.

    Attributes:
        name: what to call its case: the folder's or file's name, with more of the path or the
            number where several series would have the same.
        uid: SeriesInstanceUID.
        number: SeriesNumber; None if not said.
        description: SeriesDescription, empty if not said; to be chosen by and not to be printed,
            since people write names into it.
        study: StudyInstanceUID; empty if not said.
        modality: CT, MR, PT, …; "?" if it is not of the standard.
        slices: how many images.
        shape: rows and columns, of the first image.
        spacing_mm: distance of slices, rows and columns; None where they are no regular grid,
            which `load_series` explains.
        folder: where it was looked for, or the one file.
        files: sorted by name, which is not the order of the slices.
        problem: why it is not whole; "" if nothing is known against it.
    """

    name: str
    uid: str = field(repr=False)
    number: int | None
    description: str = field(repr=False)
    study: str = field(repr=False)
    modality: str
    slices: int
    shape: tuple[int, int]
    spacing_mm: tuple[float, float, float] | None
    folder: Path
    files: tuple[Path, ...]
    problem: str
    _headers: tuple[Any, ...] = field(repr=False)

    def __str__(self) -> str:
        number = "without number" if self.number is None else f"number {self.number}"
        return (
            f"{number}, {self.modality}, {self.slices} × {format_shape(self.shape)}{self._below()}"
        )

    def _below(self) -> str:
        """Return in which of the folders that it was looked for in."""
        below = _common(self.files)
        return "" if below in (self.folder, self.folder.parent) else f" in {below}"

    def grid(self) -> tuple[list[Slice], Geometry]:
        """Return the slices in order and the geometry of the volume that `load_series` makes.

        Raises:
            DataError: they make up no grid (see `stack`), or lack what would tell.
        """
        pairs = zip(self.files, self._headers, strict=True)
        return stack([slice_ for path, header in pairs for slice_ in slices_of(path, header)])


@dataclass(frozen=True)
class Survey:
    """What the files of a folder and of all folders in it are.

    Attributes:
        series: not named yet.
        damaged: folder → why what is in it cannot be used, and may be a slice of no series here.
        others: files that are no DICOM image.
    """

    series: tuple[Series, ...]
    damaged: dict[Path, str]
    others: tuple[Path, ...]


def survey(folder: Path) -> Survey:
    """Look at every file of a folder, or at one file, and part them into series.

    Raises:
        DataError: no such folder, or pydicom is missing.
    """
    if not folder.exists():
        raise DataError(f"there is no file or folder {folder}")
    require()
    images: dict[str, list[tuple[Path, Any]]] = {}
    broken: list[tuple[Path, DataError]] = []
    others: list[Path] = []
    unlisted: list[DataError] = []
    for path in find_files(folder, unlisted) if folder.is_dir() else [folder]:
        try:
            header = read_image_header(path)
        except DataError as error:
            broken.append((path, error))
        else:
            if header is None:
                others.append(path)
            else:
                images.setdefault(str(header.SeriesInstanceUID), []).append((path, header))
    problems, damaged = _blamed(images, broken)
    if unlisted:
        damaged.setdefault(folder, str(unlisted[0]))
    series = []
    for uid, found in images.items():
        kept = _without_copies(found)
        others += sorted({path for path, _ in found} - {path for path, _ in kept})
        try:
            series.append(_series(uid, folder, kept, problems.get(uid, "")))
        except DataError as error:
            damaged[kept[0][0]] = str(error)
    return Survey(tuple(series), damaged, tuple(others))


def reread(files: Sequence[Path], folder: Path, uid: str) -> Series:
    """Read the headers of a series anew, when its pixels are wanted.

    Raises:
        DataError: the files changed since they were listed.
    """
    headers = [(path, read_image_header(path)) for path in files]
    if any(header is None or str(header.SeriesInstanceUID) != uid for _, header in headers):
        raise DataError(f"{folder} changed while it was being read; start again")
    return _series(uid, folder, headers)


def _blamed(
    images: dict[str, list[tuple[Path, Any]]], broken: Sequence[tuple[Path, DataError]]
) -> tuple[dict[str, str], dict[Path, str]]:
    """Find of which series damaged files are: (UID → why, folder → why).

    One that is a second copy of a slice is of none. One that does not say its series may be a
    slice of any beside it: a stack that ends early looks whole.
    """
    known = {str(header.get("SOPInstanceUID")) for some in images.values() for _, header in some}
    problems: dict[str, str] = {}
    damaged: dict[Path, str] = {}
    for path, error in broken:
        series, own = read_identifiers(path)
        if own and own in known:
            continue
        beside = [series] if series in images else []
        why = str(error)
        if not beside:
            beside = [
                uid
                for uid, some in images.items()
                if any(other.parent == path.parent for other, _ in some)
            ]
            why += "; it could be a slice of any series beside it" if beside else ""
        for uid in beside:
            problems.setdefault(uid, why)
        if not beside:
            damaged.setdefault(path.parent, why)
    return problems, damaged


def _without_copies(images: Sequence[tuple[Path, Any]]) -> list[tuple[Path, Any]]:
    """Leave out files that equal another one of the series, such as a disc's second copy."""
    first: dict[str, Path] = {}
    kept = []
    for path, header in images:
        other = first.setdefault(str(header.get("SOPInstanceUID") or path), path)
        if other is path or not _equal(other, path):
            kept.append((path, header))
    return kept


def _equal(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _series(
    uid: str, folder: Path, images: Sequence[tuple[Path, Any]], problem: str = ""
) -> Series:
    files, headers = zip(*images, strict=True)
    first = headers[0]
    with parsing(files[0]):
        modality = str(first.get("Modality") or "")
        series = Series(
            name="",
            uid=uid,
            number=_number(first),
            description=" ".join(str(first.get("SeriesDescription") or "").split()),
            study=str(first.get("StudyInstanceUID") or ""),
            modality=modality if modality in _MODALITIES else "?",
            slices=sum(map(count_frames, headers)),
            shape=rows_and_columns(first),
            spacing_mm=None,
            folder=folder,
            files=files,
            problem=problem,
            _headers=headers,
        )
    try:
        _, geometry = series.grid()
    except DataError:
        return series
    assert geometry.layout is not None
    width, height, depth = np.linalg.norm(geometry.layout.affine[:3, :3], axis=0).tolist()
    return replace(series, spacing_mm=(depth, height, width))


def _number(header: Any) -> int | None:
    """Return SeriesNumber; None if there is none that can be read."""
    try:
        return int(header.SeriesNumber)
    except (AttributeError, TypeError, ValueError):
        return None


def named(folder: Path, found: Sequence[Series]) -> list[Series]:
    """Return series, sorted by number, with short names of their own.

    They are named after the folder, or the one file, they lie in.
    """
    whole = folder.resolve()
    own = (whole.stem if whole.suffix.lower() in DICOM_SUFFIXES else whole.name) or "series"

    def alone(_: Series) -> str:
        return own

    def below(series: Series) -> str:
        return "_".join([own, *_common(series.files).relative_to(folder).parts])

    def numbered(series: Series) -> str:
        return f"{below(series)}_{series.number}"

    def told_apart(series: Series) -> str:
        uid = series.uid
        known = uid if is_uid(uid) else hashlib.sha256(uid.encode()).hexdigest()[:16]
        return f"{below(series)}_{known}"

    for scheme in (alone, below, numbered, told_apart):
        names = [scheme(series) for series in found]
        if len(set(names)) == len(names):
            break
    pairs = zip(found, names, strict=True)
    series = [replace(one, name=name, folder=folder) for one, name in pairs]
    return sorted(series, key=lambda one: (one.number is None, one.number or 0, one.uid))


def _common(files: Sequence[Path]) -> Path:
    """Return the deepest folder that all files are in."""
    return Path(os.path.commonpath([path.parent for path in files]))
