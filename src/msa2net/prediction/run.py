"""`predict_files`: many images, one after another, each with all of its outputs or none."""

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack, cast, get_args

import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Case, Segmentation
from msa2net.data.display import class_color, display_image
from msa2net.data.formats.file_names import LABELS_FILE
from msa2net.data.io.writers import write_jpeg
from msa2net.errors import ConfigError, DataError, Msa2NetError, memory_guard
from msa2net.files import clean_temporaries, put_in_place, read_lines, staging, write_text
from msa2net.inference.predictor import Segmenter
from msa2net.inference.sharding import World, share_of
from msa2net.locks import alone_in
from msa2net.options import InferenceKeywords, InferenceOptions
from msa2net.prediction.inputs import find_inputs
from msa2net.prediction.jobs import (
    OVERLAYS,
    SEGMENTATIONS,
    Existing,
    Job,
    Plan,
    SegKind,
    make_jobs,
    make_plan,
)
from msa2net.prediction.load import Source, open_source
from msa2net.prediction.records import (
    FAILURES_FILE,
    STRUCTURES_FILE,
    TABLES,
    Record,
    hash_outputs,
    structure_rows,
    write_record,
    write_tables,
)
from msa2net.prediction.records import FOLDER as RECORDS
from msa2net.quality.monitor import QualityMonitor
from msa2net.report.overlay import overlay

_LARGEST_PICTURE = 2**25  # pixels; more than any screen shows take gigabytes to draw

JobProgress = Callable[[Iterable[Job], int], Iterable[Job]]


@dataclass(frozen=True)
class Failure:
    """An image without a mask.

    Attributes:
        name: of the image.
        source: its file or folder.
        sentence: why.
    """

    name: str
    source: Path
    sentence: str


@dataclass(frozen=True)
class PredictionResult:
    """What this process did.

    Attributes:
        out: the folder.
        total: images that were this process's share.
        predicted: names of those predicted now.
        finished: names of those left out, as they were done already.
        failures: those that have no mask.
        flagged: (name, why) of those predicted now that are to be looked at first, the most
            suspicious first.
        notes: sentences on images that were cut into other slices than their own.
        performance: a line on each network's validation.
        warnings: sentences that speak against the networks, whatever the image.
        failures_file: lists the failures of the whole folder; None if there is none.
        structures_file: lists the structures of the whole folder; None if there is none.
        problems: sentences on tables that could not be written, and on records that could not be
            read: their images have masks and are in no table.
        left_out: files of the inputs' folders that are no images of a kind that is read, and
            folders with images that were not looked into.
    """

    out: Path
    total: int
    predicted: tuple[str, ...]
    finished: tuple[str, ...]
    failures: tuple[Failure, ...]
    flagged: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    performance: tuple[str, ...]
    warnings: tuple[str, ...]
    failures_file: Path | None
    structures_file: Path | None
    problems: tuple[str, ...]
    left_out: tuple[Path, ...]


@memory_guard("predicting")
def predict_files(
    run: str | Path | Sequence[str | Path],
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    series: str | None = None,
    overlays: bool = True,
    dicom_seg: SegKind = "none",
    existing: Existing = "refuse",
    world: World | None = None,
    progress: JobProgress | None = None,
    **options: Unpack[InferenceKeywords],
) -> PredictionResult:
    """Predict images into a folder; those that cannot be used are left out and listed.

    Writes masks on the images' own grids, tables and records, see docs/prediction.md.

    Args:
        run: run folders, whose probabilities are averaged, or an exported network (`.onnx`).
        inputs: files, folders and patterns, see `find_inputs`.
        out: folder, made if it is not there.
        series: which one of a DICOM study, see `find_inputs`.
        overlays: also draw pictures to look at.
        dicom_seg: also write a DICOM segmentation, read back before it counts.
        existing: see `Existing`.
        world: the processes that share the images, before any of them looks what is done already.
        progress: wraps the images to do and their number, to show a bar.
        options: fields of `InferenceOptions`; `batch_slices` is by default that of evaluating the
            run.

    Raises:
        WeightsError: neither a run folder nor an exported network.
        ConfigError: options that do not make sense.
        DataError: names that collide, outputs in the way, other classes, or another process that
            writes into the folder.
    """
    _check_options(dicom_seg, existing)
    out = Path(out)
    source = open_source(run, InferenceOptions(**options))
    found = find_inputs(inputs, source.facts.network.in_channels, series)
    jobs = make_jobs(found.images, overlays=overlays, dicom_seg=dicom_seg)
    world = world or World()
    share = share_of(jobs, *world)
    with alone_in(out, part=world.rank):
        _require_same_names(out, source.facts.label_names)
        plan = make_plan(share, out, source.maker, existing=existing, dicom_seg=dicom_seg)
        work = _Work(out, source, dicom_seg)
        try:
            work.predict(plan.jobs, progress)
        finally:  # also when interrupted: what is done stands in the tables
            problems = _write_lists(out, source.facts.label_names if plan.finished else None, jobs)
        return work.result(plan, problems, found.left_out)


class _Work:
    """Predicting the images of one process."""

    def __init__(self, out: Path, source: Source, dicom_seg: SegKind) -> None:
        self._predicted: list[str] = []
        self._failures: list[Failure] = []
        self._notes: list[str] = []
        self._flagged: list[tuple[float, str, str]] = []
        self._monitor: QualityMonitor | None = None
        self._out = out
        self._source = source
        self._dicom_seg = dicom_seg

    def predict(self, jobs: Sequence[Job], progress: JobProgress | None) -> None:
        """Predict and write one image after another; failures are collected."""
        clean_temporaries(self._out, RECORDS, OVERLAYS, SEGMENTATIONS)
        if not jobs:
            return
        predictor = self._source.load()
        if predictor.reference_ranges is not None:
            self._monitor = QualityMonitor(predictor.reference_ranges)
        todo = iter(jobs if progress is None else progress(jobs, len(jobs)))
        for job, case, segmentation in self._segmented(predictor, todo):
            try:
                with memory_guard(f"writing what was found in {job.name}"):
                    self._write(predictor, job, case, segmentation)
                _name_classes(self._out, predictor.label_names)
            except Msa2NetError as error:
                self._fail(job, error)
            else:
                self._predicted.append(job.name)
                note = predictor.note(case)
                if note is not None:
                    self._notes.append(f"{job.name}: {note}")
            del case, segmentation  # a volume is not kept while the next is being read

    def result(
        self, plan: Plan, problems: tuple[str, ...], left_out: tuple[Path, ...]
    ) -> PredictionResult:
        """Sum up; `problems` are those of the tables."""
        failures, structures = self._out / FAILURES_FILE, self._out / STRUCTURES_FILE
        return PredictionResult(
            out=self._out,
            total=len(plan.jobs) + len(plan.finished),
            predicted=tuple(self._predicted),
            finished=plan.finished,
            failures=tuple(self._failures),
            flagged=tuple((name, why) for _, name, why in sorted(self._flagged)),
            notes=tuple(self._notes),
            performance=self._source.performance,
            warnings=self._source.warnings,
            failures_file=failures if self._failures and failures.is_file() else None,
            structures_file=structures if structures.is_file() else None,
            problems=problems,
            left_out=left_out,
        )

    def _segmented(
        self, predictor: Segmenter, jobs: Iterator[Job]
    ) -> Iterator[tuple[Job, Case, Segmentation]]:
        """Yield images in order, segmented in batches across their borders as `evaluate` does."""
        waiting: deque[tuple[Job, Case]] = deque()
        while True:
            try:
                for segmentation in predictor.segment(self._read(jobs, waiting), self._monitor):
                    yield *waiting.popleft(), segmentation
                    del segmentation
                return
            except Msa2NetError:
                pass  # one of those that wait
            while waiting:
                job, case = waiting.popleft()
                try:
                    segmentation = next(predictor.segment([case], self._monitor))
                except Msa2NetError as error:
                    self._fail(job, error)
                else:
                    yield job, case, segmentation
                    del segmentation
                del case

    def _read(self, jobs: Iterator[Job], waiting: deque[tuple[Job, Case]]) -> Iterator[Case]:
        for job in jobs:
            try:
                with memory_guard(f"reading {job.image.source}"):
                    case = job.image.read()
            except Msa2NetError as error:
                self._fail(job, error)
                continue
            waiting.append((job, case))
            yield case
            del case

    def _write(
        self, predictor: Segmenter, job: Job, case: Case, segmentation: Segmentation
    ) -> None:
        """Write all of an image's outputs aside, then bring them to their places.

        Those of an earlier prediction go only then.
        """
        out = self._out
        with staging(out) as staged:
            paths = {name: staged / name for name in job.outputs}
            segmentation.save(paths[job.mask])
            if job.overlay:
                write_jpeg(_picture(predictor, case, segmentation), paths[job.overlay])
            if job.segmentation:
                from msa2net.data.dicom.segmentation import write_segmentation

                write_segmentation(
                    segmentation,
                    job.image.series(),
                    paths[job.segmentation],
                    kind=cast("Any", self._dicom_seg.upper()),
                    colours=[class_color(k) for k in range(len(segmentation.label_names))],
                )
            assessment = None
            if self._monitor is not None:
                assessment = self._monitor.assessments.pop(case.id)
            text = assessment.text if assessment is not None else ""
            record = self._record(
                job,
                outputs=hash_outputs(paths),
                dicom_seg=self._dicom_seg,
                structures=structure_rows(segmentation),
                flags=text,
                anomaly_score=None if assessment is None else assessment.anomaly_score,
            )
            job.remove(out)
            write_record(out, job.name, record)
            for name, path in paths.items():
                (out / name).parent.mkdir(exist_ok=True)
                put_in_place(path, out / name)
        if assessment is not None and assessment.flags:
            self._flagged.append((-assessment.anomaly_score, job.name, text))

    def _fail(self, job: Job, error: Msa2NetError) -> None:
        """Note a failure, and leave nothing that could pass for its result."""
        job.remove(self._out)
        self._failures.append(Failure(job.name, job.image.source, str(error)))
        with contextlib.suppress(DataError):  # a full disk: the sentence is said all the same
            write_record(self._out, job.name, self._record(job, error=str(error)))

    def _record(self, job: Job, **facts: Any) -> Record:
        image = job.image
        return Record(
            made_by=self._source.maker,
            warnings=self._source.warnings,
            source=str(image.source),
            fingerprint=image.fingerprint(),
            **facts,
        )


def _picture(predictor: Segmenter, case: Case, segmentation: Segmentation) -> NDArray[np.uint8]:
    """Draw the slice in which most is labelled; a very large one by a part of its pixels."""
    labels_ZHW, classes = segmentation.labels, len(segmentation.label_names)
    shown = int(np.argmax([np.count_nonzero(labels_HW) for labels_HW in labels_ZHW]))
    window = predictor.preprocessing.intensity_range(case.image)
    low, high = (None, None) if case.image.dtype == np.uint8 else window
    step = math.ceil(math.sqrt(labels_ZHW[shown].size / _LARGEST_PICTURE))
    few_C1HW = case.image[:, shown : shown + 1, ::step, ::step]
    picture_HW3 = display_image(few_C1HW, low, high)[0]
    return overlay(picture_HW3, labels_ZHW[shown, ::step, ::step], num_classes=classes)


def _check_options(dicom_seg: SegKind, existing: Existing) -> None:
    for what, value, known in (
        ("DICOM segmentation", dicom_seg, get_args(SegKind)),
        ("way with existing outputs", existing, get_args(Existing)),
    ):
        if value not in known:
            raise ConfigError(f"there is no {what} '{value}'; use {', '.join(known)}")
    if dicom_seg != "none":
        from msa2net.data.dicom.pydicom_io import require

        require("highdicom")  # missing, it is said before anything is predicted


def _require_same_names(out: Path, label_names: tuple[str, ...]) -> None:
    """Refuse a folder whose masks have other classes, by its `labels.txt`."""
    path = out / LABELS_FILE
    if not path.is_file():
        return
    there = read_lines(path)
    if there != [name.strip() for name in label_names]:
        raise DataError(
            f"{path} names the classes {', '.join(there)} and this network's are "
            f"{', '.join(label_names)}; choose another --out"
        )


def _name_classes(out: Path, label_names: tuple[str, ...]) -> None:
    """Write the names beside the masks, so that `evaluate` can tell classes by them."""
    path = out / LABELS_FILE
    if not path.is_file():
        write_text(path, "".join(f"{name}\n" for name in label_names))


def _write_lists(
    out: Path, label_names: tuple[str, ...] | None, jobs: Iterable[Job]
) -> tuple[str, ...]:
    """Write the tables, and the names of classes if they are given; return what went wrong.

    A full disk is no reason to forget what was done; tables of another time would mislead.
    """
    try:
        if label_names is not None:
            _name_classes(out, label_names)
        return write_tables(out, {job.name for job in jobs})
    except DataError as error:
        for name in TABLES:
            with contextlib.suppress(OSError):
                (out / name).unlink(missing_ok=True)
        return (f"{error}; the masks are whole, and predict with --resume writes the tables anew",)
