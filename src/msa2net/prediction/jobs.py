"""Images to predict and their outputs, whose places are settled before anything is written."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from msa2net.data.case import Case
from msa2net.data.io.nifti import is_nifti
from msa2net.data.io.readers import read_channels, read_path, stem
from msa2net.errors import ConfigError, DataError
from msa2net.prediction.records import Maker, Record, read_record, record_path

if TYPE_CHECKING:
    from msa2net.data.dicom.series import Series

Existing = Literal["refuse", "overwrite", "resume"]
"""What to do about outputs that exist: refuse to start, replace them, or go on with the rest.

An image is done if its outputs are as they were written, by the same networks and options, and its
own files are what they were.
"""

SegKind = Literal["none", "binary", "labelmap"]

OVERLAYS, SEGMENTATIONS = "overlays", "dicom-seg"

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
            from msa2net.data.dicom.reader import load_series

            return load_series(self.series())
        if len(self.files) > 1:
            return read_channels(self.files, self.name)
        return read_path(self.files[0])

    def series(self) -> "Series":
        """Read the headers of its DICOM series.

        They are not kept with the image: those of a thousand patients would fill the memory.

        Raises:
            DataError: the files changed since they were listed.
        """
        from msa2net.data.dicom.series import reread

        assert self.folder is not None
        return replace(reread(self.files, self.folder, self.uid), name=self.name)

    def fingerprint(self) -> str:
        """Return what changes when its files do: a hash of their names, sizes and times."""
        parts = [f"{path.name} {_stat(path)}" for path in sorted(self.files)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    """One image and the names of its outputs in the folder; "" is not written.

    Attributes:
        image: it.
        mask: NIfTI for volumes, PNG for pictures.
        overlay: a picture to look at.
        segmentation: DICOM.
    """

    image: Image
    mask: str
    overlay: str = ""
    segmentation: str = ""

    @property
    def name(self) -> str:
        """Of the image."""
        return self.image.name

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what will be written."""
        return tuple(name for name in (self.mask, self.overlay, self.segmentation) if name)

    @property
    def possible(self) -> tuple[str, ...]:
        """The names of what an earlier prediction of this image may have written."""
        return (self.mask, f"{OVERLAYS}/{self.name}.jpg", f"{SEGMENTATIONS}/{self.name}.dcm")

    def remove(self, out: Path) -> None:
        """Remove every output and then the record, so that none can pass for a new one.

        Outputs without a record would seem to be somebody else's after a kill.
        """
        for path in (*(out / name for name in self.possible), record_path(out, self.name)):
            try:
                path.unlink(missing_ok=True)
            except NotADirectoryError:
                pass
            except OSError as error:
                raise DataError(f"cannot remove {path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class Plan:
    """What is left to do.

    Attributes:
        jobs: with outputs of other images or networks in none of their places.
        finished: names of images whose outputs are there already.
    """

    jobs: tuple[Job, ...]
    finished: tuple[str, ...]


def make_jobs(images: Sequence[Image], *, overlays: bool, dicom_seg: SegKind) -> list[Job]:
    """Name every image's outputs.

    Of an image that is no DICOM there is no DICOM segmentation: it has a problem, beside others
    that are.

    Raises:
        ConfigError: DICOM segmentations are asked for, and no image is DICOM.
    """
    jobs = []
    for image in images:
        if dicom_seg != "none" and not image.is_dicom and image.source.exists():
            problem = (
                f"{image.source} is no DICOM, and a DICOM segmentation is written of a DICOM "
                "series only; leave --dicom-seg, or predict the series by itself"
            )
            if not any(other.is_dicom for other in images):
                raise ConfigError(problem)
            image = replace(image, problem=image.problem or problem)
        jobs.append(
            Job(
                image=image,
                mask=f"{image.name}{'.nii.gz' if image.is_volume else '.png'}",
                overlay=f"{OVERLAYS}/{image.name}.jpg" if overlays else "",
                segmentation="" if dicom_seg == "none" else f"{SEGMENTATIONS}/{image.name}.dcm",
            )
        )
    return jobs


def make_plan(
    jobs: Sequence[Job], out: Path, maker: Maker, *, existing: Existing, dicom_seg: SegKind
) -> Plan:
    """Find what is done already; nothing is written or removed.

    Raises:
        DataError: an output exists and nothing is said about it, or is itself an input, or, with
            `resume`, was not made by the same networks with the same options.
    """
    _refuse_inputs(jobs, out)
    todo, finished = [], []
    for job in jobs:
        there = [name for name in job.possible if _exists(out / name)]
        if not there or existing == "overwrite":
            todo.append(job)
            continue
        if existing == "refuse":
            raise DataError(
                f"{out / there[0]} exists already; choose another --out, go on where it stopped "
                "with --resume, or replace it with --overwrite"
            )
        record = read_record(out, job.name)
        _require_same(out, there, record, maker)
        assert record is not None
        same = record.fingerprint == job.image.fingerprint()
        same = same and (dicom_seg == "none" or record.dicom_seg == dicom_seg)
        if same and record.intact(out, job.outputs):
            finished.append(job.name)
        else:
            todo.append(job)
    return Plan(tuple(todo), tuple(finished))


def _require_same(out: Path, there: Sequence[str], record: Record | None, maker: Maker) -> None:
    """Refuse outputs that are not the same networks' work."""
    instead = "choose another --out, or replace it with --overwrite"
    for name in there:
        if record is None or not record.owns(out, name):
            raise DataError(
                f"{out / name} was not written by msa2net predict, or was changed since; {instead}"
            )
        difference = maker.difference(record.made_by)
        if difference:
            raise DataError(f"{out / name} was made {difference}; {instead}")


def _refuse_inputs(jobs: Sequence[Job], out: Path) -> None:
    """Refuse to write over what is to be read.

    Raises:
        DataError: naming the file.
    """
    inputs = {_identity(path) for job in jobs for path in job.image.files} - {None}
    for job in jobs:
        for name in job.possible:
            if _identity(out / name) in inputs:
                raise DataError(f"{out / name} is itself an input; choose another --out")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error


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
