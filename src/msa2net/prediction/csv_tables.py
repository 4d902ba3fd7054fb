"""`structures.csv`, `flags.csv`, `failures.csv`: sizes, what to look at first, what has no mask.

All are made anew from all of the folder's records, by each process when it is done, so that they
are whole whoever comes last and however often it was interrupted.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from msa2net.data.case import Segmentation
from msa2net.errors import DataError
from msa2net.files import remove, write_text
from msa2net.locks import alone_in
from msa2net.prediction.records import FOLDER, STRUCTURE_COLUMNS, all_records
from msa2net.text import csv_text

STRUCTURES_FILE, FLAGS_FILE, FAILURES_FILE = "structures.csv", "flags.csv", "failures.csv"
TABLES = (STRUCTURES_FILE, FLAGS_FILE, FAILURES_FILE)
FLAG_COLUMNS = ("case", "anomaly_score", "flags")
FAILURE_COLUMNS = ("case", "source", "error")


def structure_rows(segmentation: Segmentation, at_once: int = 2**24) -> tuple[dict[str, str], ...]:
    """Measure every class but the background, also those that were not found.

    Args:
        segmentation: what was found.
        at_once: voxels that are counted at once: counting takes 8 times the size of what it counts.

    Returns:
        Rows by `STRUCTURE_COLUMNS`: voxels (of a picture its pixels), the volume in mL where the
        voxels' size is known, and of a single slice the area in mm² as well. What is not known is
        left empty.
    """
    classes = len(segmentation.label_names)
    voxels = np.zeros(classes, np.int64)
    for labels_HW in segmentation.labels:
        rows = max(1, at_once // labels_HW.shape[1])
        for y in range(0, len(labels_HW), rows):
            some = labels_HW[y : y + rows].reshape(-1)
            voxels += np.bincount(some, minlength=classes)[:classes]
    volume_mm3, area_mm2 = _voxel_mm(segmentation)
    return tuple(
        {
            "case": segmentation.id,
            "structure": name,
            "voxels": str(count),
            "volume_ml": _number(count, volume_mm3, 1000),
            "area_mm2": _number(count, area_mm2, 1),
        }
        for name, count in zip(segmentation.label_names[1:], voxels[1:].tolist(), strict=True)
    )


def write_tables(out: Path, asked_for: Collection[str] = ()) -> tuple[str, ...]:
    """Write all tables, of what exists; one without rows is removed.

    Args:
        out: the folder.
        asked_for: names of images that fail if they are not there. Of others that are not there any
            more, failures of another time are not listed.

    In `flags.csv` the most suspicious cases come first; cases predicted by networks
    without reference ranges are not in it.

    Returns:
        A sentence for each record that cannot be read: its image is in no table.

    Raises:
        DataError: they cannot be written.
    """
    if not (out / FOLDER).is_dir():
        return ()
    unread: list[str] = []
    try:
        with alone_in(out / FOLDER, wait=True):
            remove(out / FOLDER / ".lock")  # of earlier versions
            structures: list[Mapping[str, str]] = []
            flags: list[tuple[float, Mapping[str, str]]] = []
            failures: list[Mapping[str, str]] = []
            for name, record in all_records(out):
                if isinstance(record, DataError):
                    unread.append(f"{name} is in none of the tables: {record}")
                elif record.error and (name in asked_for or not _is_gone(record.source)):
                    failures.append({"case": name, "source": record.source, "error": record.error})
                elif not record.error and all(
                    (out / output).is_file() for output in record.outputs
                ):
                    structures += record.structures
                    if record.anomaly_score is not None:
                        row = {"case": name, "anomaly_score": f"{record.anomaly_score:g}"}
                        flags.append((-record.anomaly_score, row | {"flags": record.flags}))
            _write(out / STRUCTURES_FILE, STRUCTURE_COLUMNS, structures)
            _write(out / FLAGS_FILE, FLAG_COLUMNS, [row for _, row in sorted(flags, key=_first)])
            _write(out / FAILURES_FILE, FAILURE_COLUMNS, failures)
    except OSError as error:
        raise DataError(f"cannot write tables in {out}: {error.strerror or error}") from error
    return tuple(unread)


def _write(path: Path, columns: tuple[str, ...], rows: Iterable[Mapping[str, str]]) -> None:
    listed = list(rows)
    if listed:
        write_text(path, csv_text(columns, listed))
    else:
        path.unlink(missing_ok=True)


def _is_gone(source: str) -> bool:
    """Tell whether an image that failed is no longer there; what cannot be asked for is."""
    try:
        return not Path(source).exists()
    except OSError:
        return False


def _first(pair: tuple[float, Mapping[str, str]]) -> tuple[float, str]:
    return pair[0], pair[1]["case"]


def _voxel_mm(segmentation: Segmentation) -> tuple[float | None, float | None]:
    """Return a voxel's mm³ and, of a single slice, mm²; None where it is not known."""
    geometry = segmentation.geometry
    if geometry.spacing_mm is None:
        return None, None
    volume_mm3 = math.prod(geometry.spacing_mm)
    if geometry.affine is not None:  # of sheared grids the spacings' product is too much
        volume_mm3 = abs(float(np.linalg.det(geometry.affine[:3, :3])))
    single = len(segmentation.labels) == 1
    return volume_mm3, math.prod(geometry.spacing_mm[1:]) if single else None


def _number(count: int, size: float | None, per: float) -> str:
    return "" if size is None else f"{count * size / per:.6g}"
