"""DICOM series: a folder of slices in, a volume in the training orientation out.

Needs pydicom (`pip install ".[dicom]"`), imported where it is used. Nothing of what a
header says about the patient is kept.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Case
from msa2net.data.dicom.headers import check_storage
from msa2net.data.dicom.pixels import check_sizes, decoded
from msa2net.data.dicom.pydicom_io import is_uid
from msa2net.data.dicom.series import Series, named, survey
from msa2net.data.geometry import to_canonical, to_file
from msa2net.data.io.validation import declared_bytes
from msa2net.errors import DataError
from msa2net.text import listed

_SHOWN = 20  # series in a message


def list_series(folder: Path) -> list[Series]:
    """List the image series of a folder, with all folders in it, or of one file.

    Only headers are read. Files may have any name; what is not DICOM, and DICOM that is no image
    (reports, segmentations, doses), is left out, and so are copies of a file. A damaged file is
    the problem of the series that it says it is of, or of every series beside it.

    Returns:
        Sorted by number; empty if there is none.

    Raises:
        DataError: no such folder, one that cannot be listed, pydicom is missing, or a damaged
            DICOM file that lies beside no series.
    """
    found = survey(folder)
    if found.damaged:
        raise DataError(next(iter(found.damaged.values())))
    return named(folder, found.series)


def choose_series(found: Sequence[Series], folder: Path, series: str | None = None) -> Series:
    """Choose the only series, or the one that `series` names.

    Args:
        found: of `list_series`.
        folder: for the sentence.
        series: its UID, its number, or a part of its description in any case of letters; tried in
            this order.

    Raises:
        DataError: none, or several; they are listed, without their descriptions.
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
    shown = matching or list(found)
    listing = listed(_told_apart(shown[:_SHOWN]), _SHOWN, len(shown), "; ")
    if not matching:
        raise DataError(f"{folder} holds no series '{series}'; there are: {listing}")
    raise DataError(
        f"{folder} holds {len(matching)} series{f' that match {series!r}' if series else ''}: "
        f"{listing}; choose one with --series, by its number, a part of its description, or its "
        "UID"
    )


def _told_apart(found: Sequence[Series]) -> list[str]:
    """Return series in words; those that would read alike with their UIDs."""
    shown = [str(one) for one in found]
    return [
        f"{text}, UID {one.uid}" if shown.count(text) > 1 and is_uid(one.uid) else text
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
    if series.problem:
        raise DataError(series.problem)
    for path, header in zip(series.files, series._headers, strict=True):
        check_storage(path, header)
    slices, geometry = series.grid()
    layout = geometry.layout
    assert layout is not None
    unread_XYZ = np.broadcast_to(np.int16(0), layout.shape)
    shape_ZHW = to_canonical(unread_XYZ, layout.orientation).shape
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


def _fits(values: NDArray[Any]) -> bool:
    """Return whether int16 holds all values exactly."""
    limits = np.iinfo(np.int16)
    if values.dtype.kind == "f":
        return False
    return int(values.min()) >= limits.min and int(values.max()) <= limits.max
