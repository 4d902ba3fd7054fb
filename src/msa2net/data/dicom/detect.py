"""Telling DICOM from other files, without reading its header."""

import os
from collections.abc import Iterator
from pathlib import Path

from msa2net.data.io.validation import file_errors
from msa2net.errors import DataError

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
"""Usual endings; files are known by their content, since scanners often give them none."""


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by its first bytes, or failing that by its name."""
    if path.name.startswith(".") or not path.is_file():
        return False
    return path.suffix.lower() in DICOM_SUFFIXES or has_preamble(path)


def has_preamble(path: Path) -> bool:
    """Return whether a file begins as DICOM files do since 1993."""
    with file_errors(path, "DICOM"), path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def holds_dicom(folder: Path) -> bool:
    """Return whether there is a DICOM file anywhere in a folder."""
    return any(is_dicom(path) for path in find_files(folder))


def find_files(folder: Path, unlisted: list[DataError] | None = None) -> Iterator[Path]:
    """Yield the files of a folder and of all folders in it, sorted, without hidden ones.

    Args:
        folder: where to look.
        unlisted: takes the folders that cannot be listed; without it the first one is raised.
    """

    def note(error: OSError) -> None:
        problem = DataError(f"cannot list {error.filename}: {error.strerror}")
        if unlisted is None:
            raise problem from error
        unlisted.append(problem)

    for place, folders, names in os.walk(folder, onerror=note):
        folders.sort()
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))
