"""DICOM series: a folder of slices in, a volume in the training orientation out.

Needs pydicom (`pip install ".[dicom]"`), imported where it is used. Nothing of what a
header says about the patient is kept.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Case
from msa2net.data.dicom_files import (
    DICOM_SUFFIXES,
    check_storage,
    find_files,
    read_image_header,
    slices_of,
)
from msa2net.data.dicom_grid import Slice, stack
from msa2net.data.dicom_io import parsing, require
from msa2net.data.dicom_pixels import check_sizes, decoded
from msa2net.data.geometry import Geometry, to_file, to_training
from msa2net.data.guards import declared_bytes, sides
from msa2net.errors import DataError

_SHOWN = 20  # series in a message


@dataclass(frozen=True, eq=False)
class Series:
    """The images of one DICOM series, found by their headers.

    Attributes:
        name: what to call its case: the folder's or file's name, with more of the path or the
            number where several series would have the same.
        uid: SeriesInstanceUID.
        number: SeriesNumber; None if not said.
        description: SeriesDescription; empty if not said.
        modality: CT, MR, PT, …
        slices: how many images.
        shape: rows and columns, of the first image.
        spacing_mm: distance of slices, rows and columns; None where they are no regular grid,
            which `load_series` explains.
        folder: where it was looked for, or the one file.
        files: sorted by name, which is not the order of the slices.
    """

    name: str
    uid: str
    number: int | None
    description: str
    modality: str
    slices: int
    shape: tuple[int, int]
    spacing_mm: tuple[float, float, float] | None
    folder: Path
    files: tuple[Path, ...]
    _headers: tuple[Any, ...] = field(repr=False)

    def __str__(self) -> str:
        number = "without number" if self.number is None else f"number {self.number}"
        return (
            f"{number}, '{self.description}', {self.modality}, {self.slices} × {sides(self.shape)}"
        )

    def grid(self) -> tuple[list[Slice], Geometry]:
        """Return the slices in order and the geometry of the volume that `load_series` makes.

        Raises:
            DataError: they make up no grid (see `stack`), or lack what would tell.
        """
        pairs = zip(self.files, self._headers, strict=True)
        return stack([slice_ for path, header in pairs for slice_ in slices_of(path, header)])


def list_series(folder: Path) -> list[Series]:
    """List the image series of a folder, with all folders in it, or of one file.

    Only headers are read. Files may have any name; what is not DICOM, and DICOM that is no image
    (reports, segmentations, doses), is left out.

    Returns:
        Sorted by number; empty if there is none.

    Raises:
        DataError: no such folder, pydicom is missing, or a DICOM file whose header is damaged: it
            could be a slice of any series.
    """
    if not folder.exists():
        raise DataError(f"there is no file or folder {folder}")
    require()
    found: dict[str, list[tuple[Path, Any]]] = {}
    for path in find_files(folder) if folder.is_dir() else [folder]:
        header = read_image_header(path)
        if header is not None:
            found.setdefault(str(header.SeriesInstanceUID), []).append((path, header))
    series = _named(folder, [_series(uid, folder, images) for uid, images in found.items()])
    return sorted(series, key=lambda one: (one.number is None, one.number or 0, one.uid))


def choose_series(found: Sequence[Series], folder: Path, series: str | None = None) -> Series:
    """Choose the only series, or the one that `series` names.

    Args:
        found: of `list_series`.
        folder: for the sentence.
        series: its UID, its number, or a part of its description in any case of letters; tried in
            this order.

    Raises:
        DataError: none, or several; they are listed.
    """
    if not found:
        raise DataError(f"{folder} holds no DICOM image")
    matching = list(found)
    if series is not None:
        wanted = series.strip().lower()
        matching = (
            [one for one in found if one.uid == wanted]
            or [one for one in found if str(one.number) == wanted]
            or [one for one in found if wanted in one.description.lower()]
        )
    if len(matching) == 1:
        return matching[0]
    listed = "; ".join(_told_apart((matching or found)[:_SHOWN]))
    if not matching:
        raise DataError(f"{folder} holds no series '{series}'; there are: {listed}")
    raise DataError(
        f"{folder} holds {len(matching)} series{f' that match {series!r}' if series else ''}: "
        f"{listed}; choose one with --series, by its number, a part of its description, or its "
        f"UID such as {matching[0].uid}"
    )


def _told_apart(found: Sequence[Series]) -> list[str]:
    """Describe series; those that would read alike with their UIDs."""
    shown = [str(one) for one in found]
    return [
        text if shown.count(text) == 1 else f"{text}, UID {one.uid}"
        for text, one in zip(shown, found, strict=True)
    ]


def read_series(path: Path, *, series: str | None = None) -> Case:
    """Read a folder's DICOM series, or one DICOM file, as a Case.

    Args:
        path: a folder, searched with all folders in it, or one file, which is read alone.
        series: which one, if there are several; see `choose_series`.

    Returns:
        As `load_series`.

    Raises:
        DataError: as `list_series`, `choose_series` and `load_series`.
    """
    return load_series(choose_series(list_series(path), path, series))


def load_series(series: Series) -> Case:
    """Read the pixels of a series.

    Order and spacing come from the slices' positions, and values are rescaled slice by slice.
    Padding around a round field of view keeps the value it is stored with.

    Returns:
        Case in the training orientation with image (1, Z, H, W), int16 if that holds every value
        exactly and float32 otherwise; its id is the series' name.

    Raises:
        DataError: no regular grid (see `stack`), colours or inverted greys, a missing tag or
            decoder, or a damaged file.
    """
    for path, header in zip(series.files, series._headers, strict=True):
        check_storage(path, header)
    slices, geometry = series.grid()
    layout = geometry.layout
    assert layout is not None
    unread_XYZ = np.broadcast_to(np.int16(0), layout.shape)
    shape_ZHW = to_training(unread_XYZ, layout.orientation).shape
    check_sizes(slices, declared_bytes(series.folder, shape_ZHW, np.dtype(np.float32).itemsize))
    whole = all(float(n).is_integer() for one in slices for n in (one.slope, one.intercept))
    image_ZHW: NDArray[Any] = np.empty(shape_ZHW, np.int16 if whole else np.float32)
    file_XYZ = to_file(image_ZHW, layout.orientation)
    for index, values_YX in enumerate(decoded(slices)):
        if image_ZHW.dtype == np.int16 and not _fits(values_YX):
            image_ZHW = image_ZHW.astype(np.float32)
            file_XYZ = to_file(image_ZHW, layout.orientation)
        file_XYZ[:, :, index] = values_YX.T
    return Case(series.name, image_ZHW[None], geometry=geometry, source=series.folder)


def _series(uid: str, folder: Path, images: Sequence[tuple[Path, Any]]) -> Series:
    headers = tuple(header for _, header in images)
    first = headers[0]
    with parsing(images[0][0]):
        number = first.get("SeriesNumber")
        series = Series(
            name="",
            uid=uid,
            number=None if number is None else int(number),
            description=" ".join(str(first.get("SeriesDescription") or "").split()),
            modality=str(first.get("Modality") or "?"),
            slices=sum(int(header.get("NumberOfFrames") or 1) for header in headers),
            shape=(int(first.Rows), int(first.Columns)),
            spacing_mm=None,
            folder=folder,
            files=tuple(path for path, _ in images),
            _headers=headers,
        )
    try:
        _, geometry = series.grid()
    except DataError:
        return series
    assert geometry.layout is not None
    width, height, depth = np.linalg.norm(geometry.layout.affine[:3, :3], axis=0).tolist()
    return replace(series, spacing_mm=(depth, height, width))


def _named(folder: Path, found: Sequence[Series]) -> list[Series]:
    """Name each series shortly and so that no two are called the same."""
    whole = folder.resolve()
    own = (whole.stem if whole.suffix.lower() in DICOM_SUFFIXES else whole.name) or "series"
    if len(found) == 1:
        return [replace(found[0], name=own)]

    def below(series: Series) -> str:
        deepest = Path(os.path.commonpath([path.parent for path in series.files]))
        return "_".join([own, *deepest.relative_to(folder).parts])

    def numbered(series: Series) -> str:
        return f"{below(series)}_{series.number}"

    def told_apart(series: Series) -> str:
        return f"{below(series)}_{series.uid}"

    schemes = (below, numbered, told_apart)
    names = next(
        names for scheme in schemes if len(set(names := list(map(scheme, found)))) == len(found)
    )
    return [replace(series, name=name) for series, name in zip(found, names, strict=True)]


def _fits(values: NDArray[Any]) -> bool:
    """Tell whether int16 holds all values exactly."""
    limits = np.iinfo(np.int16)
    if values.dtype.kind == "f":
        return False
    return int(values.min()) >= limits.min and int(values.max()) <= limits.max
