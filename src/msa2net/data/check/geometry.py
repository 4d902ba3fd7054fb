"""Checks whether the volumes of a data set lie in comparable grids."""

from collections import Counter
from collections.abc import Iterator, Sequence

import nibabel
import numpy as np
from numpy.typing import NDArray

from msa2net.data.check.findings import Finding, Level
from msa2net.data.geometry import Geometry, describe_recut
from msa2net.data.prepared.store import Store, StoredCase

THINNEST_MM, THICKEST_MM = 0.05, 20.0
"""Spacings at and beyond these are no body scanner's."""

OFF_MEDIAN = 3.0
MIN_CASES = 3
"""Fewer have no median to be off."""

OBLIQUE_DEGREES = 20.0
_AXES = ("slices", "rows", "columns")


def check_geometry(store: Store, rows: Sequence[StoredCase]) -> list[Finding]:
    """Find unusual spacings, numbers of slices and orientations of volumes."""
    if store.kind != "volume":
        return []
    geometries = {row.id: Geometry.from_json(row.geometry) for row in rows}
    spacings = {
        case_id: np.array(geometry.spacing_mm)
        for case_id, geometry in geometries.items()
        if geometry.spacing_mm is not None
    }
    slices = {row.id: row.shape[1] for row in rows}
    return [
        *_spacing(rows, spacings),
        *_depths(slices),
        *_orientations(geometries),
        *_recut(geometries),
        *_oblique(geometries, usual=store.intensity != "fixed"),
    ]


def _spacing(
    rows: Sequence[StoredCase], spacings: dict[str, NDArray[np.float64]]
) -> Iterator[Finding]:
    for row in rows:
        if row.id not in spacings:
            what = "the spacing is not known, distances will be in voxels"
            yield Finding(
                "note", row.id, what, "use files whose header states it, if there are any"
            )
    plausible = {}
    for case_id, spacing in spacings.items():
        if ((spacing > THINNEST_MM) & (spacing < THICKEST_MM)).all():
            plausible[case_id] = spacing
        else:
            what = f"a spacing is not between {THINNEST_MM:g} and {THICKEST_MM:g} mm"
            yield Finding("warning", case_id, what, "correct the file's header", _mm(spacing))
    if len(plausible) < MIN_CASES:
        return
    median = np.median(list(plausible.values()), axis=0)
    for case_id, spacing in plausible.items():
        factor = np.maximum(spacing / median, median / spacing)
        if factor.max() >= OFF_MEDIAN:
            axis = _AXES[int(factor.argmax())]
            what = f"the spacing of the {axis} is {OFF_MEDIAN:g} or more times off the median"
            detail = f"{_mm(spacing)}, the median is {_mm(median)}"
            yield Finding("warning", case_id, what, "compare the file's header", detail)


def _depths(slices: dict[str, int]) -> Iterator[Finding]:
    if len(slices) < MIN_CASES:
        return
    median = float(np.median(list(slices.values())))
    for case_id, depth in slices.items():
        if max(depth / median, median / depth) >= OFF_MEDIAN:
            what = f"the number of slices is {OFF_MEDIAN:g} or more times off the median"
            advice = "look whether the scan is of the same kind as the others"
            yield Finding("warning", case_id, what, advice, f"{depth}, the median is {median:g}")


def _orientations(geometries: dict[str, Geometry]) -> Iterator[Finding]:
    codes = Counter(
        "".join(nibabel.orientations.aff2axcodes(geometry.layout.affine))
        for geometry in geometries.values()
        if geometry.layout is not None
    )
    if len(codes) > 1:
        for code, count in codes.most_common():
            what = "the axes of the source files run in different directions"
            advice = "nothing to do: the prepared arrays are all turned alike"
            yield Finding("note", code, what, advice, f"{count} of {codes.total()} cases")


def _recut(geometries: dict[str, Geometry]) -> Iterator[Finding]:
    for case_id, geometry in geometries.items():
        recut = describe_recut(geometry)
        if recut is None:
            continue
        plane, pixels = recut
        what = f"the scan is {plane}, and training cuts it across its slices, into axial ones"
        advice = "look whether axial slices show what is to be found"
        level: Level = "note" if geometry.is_isotropic else "warning"
        yield Finding(level, case_id, what, advice, f"pixels of {pixels}")


def _oblique(geometries: dict[str, Geometry], *, usual: bool) -> Iterator[Finding]:
    """Compare the axes with the patient's; `usual`: in MRI planes are chosen by the organ."""
    for case_id, geometry in geometries.items():
        if geometry.affine is None:
            continue
        lengths = np.linalg.norm(geometry.affine[:3, :3], axis=0)
        axes = geometry.affine[:3, :3] / np.maximum(lengths, 1e-9)
        angle = float(np.degrees(np.arccos(np.clip(np.abs(np.diag(axes)), 0, 1))).max())
        if angle > OBLIQUE_DEGREES:
            what = f"the slices lie more than {OBLIQUE_DEGREES:g}° oblique to the patient's axes"
            advice = "resample the scan to straight axes unless all are taken that way"
            level: Level = "note" if usual else "warning"
            yield Finding(level, case_id, what, advice, f"{angle:.0f}°")


def _mm(spacing: NDArray[np.float64]) -> str:
    return "×".join(f"{side:.3g}" for side in spacing.tolist()) + " mm"
