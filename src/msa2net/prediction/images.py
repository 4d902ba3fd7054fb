"""One image to predict: where its files are, and what is known against it."""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from msa2net.data.case import Case
from msa2net.data.dicom.reader import load_series
from msa2net.data.dicom.series import Series, reread
from msa2net.data.io.nifti import is_nifti
from msa2net.data.io.readers import read_channels, read_path, stem
from msa2net.errors import DataError

_LONGEST = 200  # characters of a name; its outputs have longer ones


@dataclass(frozen=True)
class Image:
    """One image to predict; nothing of it but names and headers was read yet.

    Attributes:
        name: what its outputs are called.
        files: one, or one a channel, or all of a DICOM series; none if there is no image.
        folder: of a DICOM series: where it was looked for; without files, what was given.
        uid: of a DICOM series.
        problem: why it cannot be read; "" if nothing is known against it.
    """

    name: str
    files: tuple[Path, ...]
    folder: Path | None = None
    uid: str = ""
    problem: str = ""

    @classmethod
    def none(cls, place: Path, problem: str, name: str = "") -> "Image":
        """Return what stands for an input, or a part of one, that is no image."""
        return cls(name or name_of(place), (), place, problem=problem)

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
            return load_series(self.series())
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
        return replace(reread(self.files, self.folder, self.uid), name=self.name)

    def fingerprint(self) -> str:
        """Return what changes when its files do: a hash of their names, sizes and times."""
        parts = [f"{path.name} {_stat(path)}" for path in sorted(self.files)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def name_of(place: Path) -> str:
    """Return what to call the only image of a file, folder or pattern."""
    whole = place.resolve()
    name = stem(whole) if whole.suffix and not _is_folder(whole) else whole.name
    return re.sub(r"[*?\r\n]+", "_", name)[:_LONGEST] or "series"


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that no file system takes
        return False


def _stat(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "is not there"
    return f"{found.st_size} {found.st_mtime_ns}"
