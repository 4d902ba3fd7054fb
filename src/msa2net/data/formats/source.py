"""What every data format gives: a list of cases that can be read one at a time."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Case
from msa2net.data.formats.file_names import LABELS_FILE
from msa2net.data.geometry import require_same_grid
from msa2net.data.io.nifti import read_nifti_label
from msa2net.data.io.readers import exif_orientation, read_channels, read_image, read_mask
from msa2net.data.io.validation import format_shape
from msa2net.data.labels import IGNORE, is_255_foreground, soft_edges_hint
from msa2net.data.prepared.splits import SPLITS, split_by_ratio
from msa2net.errors import DataError
from msa2net.text import listed


@dataclass(frozen=True)
class SourceCase:
    """One case of a raw data set, not read yet.

    Attributes:
        id: unique in the data set.
        split: train, val or test.
        files: what it is made from; empty for data made in memory.
        read: makes the Case, label included.
        patient: whose image it is, if several cases can be of one patient; "" where each is alone.
        group: what scores are also averaged by, such as a phase of the heart; "" if nothing.
    """

    id: str
    split: str
    files: tuple[Path, ...]
    read: Callable[[], Case]
    patient: str = ""
    group: str = ""


class Scaling(NamedTuple):
    """How values are scaled, see `Preprocessing`."""

    intensity: Literal["fixed", "percentile"]
    low: float
    high: float


HU_WINDOW = Scaling("fixed", -125.0, 275.0)
"""The soft-tissue window of the published preprocessing of abdominal CT."""

PERCENTILES = Scaling("percentile", 0.5, 99.5)
EIGHT_BIT = Scaling("fixed", 0.0, 255.0)


@dataclass(frozen=True)
class Source:
    """A raw data set.

    Attributes:
        kind: 2-D images (`photograph`) are scored per image and pooled, volumes per volume.
        label_names: one name per class, background first.
        scaling: of its values.
        cases: all of them.
        encoding: of abdominal data sets, see `labels`; None for others.
        meaning_255: decides what 255 means, where two classes are declared; None: 255 is ignored.
    """

    kind: Literal["photograph", "volume"]
    label_names: tuple[str, ...]
    scaling: Scaling
    cases: tuple[SourceCase, ...]
    encoding: str | None = None
    meaning_255: "MeaningOf255 | None" = None


class MeaningOf255:
    """What 255 means in masks of two declared classes, see `is_255_foreground`.

    All masks of the data set decide it, and they are read only if somebody asks.

    Args:
        masks: the files.
        read: reads the values of one.
    """

    def __init__(self, masks: Iterable[Path], read: Callable[[Path], NDArray[Any]]) -> None:
        self._masks, self._read = tuple(masks), read
        self._lock = threading.Lock()
        self._answer: bool | None = None

    def is_foreground(self) -> bool:
        """Return whether 255 is the foreground; otherwise it is ignored."""
        with self._lock:
            if self._answer is None:
                self._answer = is_255_foreground(self._values())
            return self._answer

    def _values(self) -> Iterator[NDArray[Any]]:
        for path in self._masks:
            try:
                values = self._read(path)
            except DataError:  # said when its case is read
                continue
            yield values


def source_cases(
    files: Mapping[str, tuple[Path, ...]],
    splits: Mapping[str, str],
    read: Callable[[str, tuple[Path, ...]], Case],
    patients: Mapping[str, str] = MappingProxyType({}),
    groups: Mapping[str, str] = MappingProxyType({}),
) -> tuple[SourceCase, ...]:
    """Make the cases of a data set, sorted by id.

    Args:
        files: of each case, by id.
        splits: the same; cases without are left out.
        read: makes a Case of an id and its files.
        patients: see `SourceCase`.
        groups: see `SourceCase`.
    """
    return tuple(
        SourceCase(
            case_id,
            splits[case_id],
            files[case_id],
            partial(read, case_id, files[case_id]),
            patients.get(case_id, ""),
            groups.get(case_id, ""),
        )
        for case_id in sorted(splits)
    )


def read_pair(
    case_id: str,
    files: Sequence[Path],
    num_classes: int,
    *,
    binary: bool,
    meaning_255: MeaningOf255 | None = None,
) -> Case:
    """Read a 2-D image and its mask as one Case.

    Args:
        case_id: of the case.
        files: the image, then the mask.
        num_classes: see `class_indices`.
        binary: see `class_indices`.
        meaning_255: see `Source`.

    Raises:
        DataError: unreadable, of different sizes, or mask values outside the classes.
    """
    image, mask = files
    case = read_image(image, case_id)
    values_HW = read_mask(mask)
    if values_HW.shape != case.image.shape[2:]:
        if values_HW.shape == case.image.shape[:1:-1] and exif_orientation(image) > 4:
            raise DataError(
                f"case {case_id}: the camera turned {image}, so that viewers show "
                f"{format_shape(case.image.shape[2:])} (rows × columns; EXIF orientation "
                f"{exif_orientation(image)}), and its mask {mask} is drawn on the stored "
                f"{format_shape(values_HW.shape)}; turn the mask alike, or remove the EXIF "
                "orientation"
            )
        raise DataError(
            f"case {case_id}: {image} is {format_shape(case.image.shape[2:])} and its mask {mask} "
            f"is {format_shape(values_HW.shape)} (rows × columns); they must be the same"
        )
    drawn = binary or (meaning_255 is not None and meaning_255.is_foreground())
    label_HW = class_indices(values_HW, num_classes, binary=drawn, origin=str(mask))
    return replace(case, label=label_HW[None])


def class_indices(
    values: NDArray[Any], num_classes: int, *, binary: bool, origin: str
) -> NDArray[np.uint8]:
    """Turn a mask file's values into class indices.

    Args:
        values: as stored in the file.
        num_classes: background included.
        binary: the data set's masks are black and white: 0 is background, 255 or 1 the object.
            Otherwise 0 … K−1 are classes and 255 is ignored. One data set has one meaning of
            255, whatever a single mask happens to hold.
        origin: the file, for messages.

    Raises:
        DataError: other values, named with their pixel counts.
    """
    found, counts = np.unique(values, return_counts=True)
    held = dict(zip(found.tolist(), counts.tolist(), strict=True))
    if binary and (held.keys() <= {0, IGNORE} or held.keys() <= {0, 1}):
        return (values > 0).astype(np.uint8)
    allowed = {*range(2 if binary else num_classes), IGNORE}
    strange = [value for value in held if value not in allowed]
    wrong = [f"{value} ({held[value]} pixels)" for value in strange]
    if binary and not wrong:
        raise DataError(
            f"{origin} holds 1 ({held[1]} pixels) beside {IGNORE} ({held[IGNORE]} pixels); masks "
            f"without a {LABELS_FILE} hold 0 and {IGNORE}, or 0 and 1, and with one that names two "
            f"classes {IGNORE} is ignored beside a 1"
        )
    if wrong:
        meant = (
            f"0 and {IGNORE}, or 0 and 1 (name classes in {LABELS_FILE} to use others)"
            if binary
            else f"0 to {num_classes - 1}, and {IGNORE} for pixels to ignore"
        )
        raise DataError(
            f"{origin} holds label values outside the declared classes: {listed(wrong)}; "
            f"allowed are {meant}{soft_edges_hint(np.array(strange), origin)}"
        )
    return values.astype(np.uint8)


def pair_by_id(
    images: dict[str, Path],
    masks: dict[str, Path],
    image_of: Callable[[str], str],
    mask_of: Callable[[str], str],
) -> dict[str, tuple[Path, Path]]:
    """Join images and masks by id.

    Args:
        images: by id.
        masks: by id.
        image_of: says for an error where the image of an id would have to be.
        mask_of: says the same of its mask.

    Raises:
        DataError: naming images without mask or masks without image.
    """
    for present, absent, what, other, looked_for in (
        (images, masks, "image", "mask", mask_of),
        (masks, images, "mask", "image", image_of),
    ):
        lonely = sorted(present.keys() - absent.keys())
        if lonely:
            raise DataError(
                f"{len(lonely)} of {len(present)} {what}s have no {other}, first "
                f"{present[lonely[0]]}: there is no {looked_for(lonely[0])}; add the {other}s or "
                f"move those {what}s away"
            )
    return {case_id: (images[case_id], masks[case_id]) for case_id in images}


# Volumes ------------------------------------------------------------------------------------------

SEED = 0  # of every split that is drawn rather than given
NIFTI_ENDINGS = (".nii.gz", ".nii")

ToClasses = Callable[[NDArray[Any], str], NDArray[np.uint8]]
"""Turns a label file's values into class indices; the string names the file for errors."""


def read_nifti_case(case_id: str, files: Sequence[Path], to_classes: ToClasses) -> Case:
    """Read one file a channel (or one file of several channels), then the label, as one Case.

    Raises:
        DataError: a file cannot be read, or they do not lie on the same grid.
    """
    *images, label = files
    case = read_channels(images, case_id)
    values_ZHW, label_geometry = read_nifti_label(label)
    require_same_grid(
        case_id,
        (images[0], case.image.shape[1:], case.geometry),
        (label, values_ZHW.shape, label_geometry),
    )
    return replace(case, label=to_classes(values_ZHW, str(label)))


def split_patients(patients: Iterable[str], splits: Sequence[str] = SPLITS) -> dict[str, str]:
    """Draw a split for each patient, always the same one.

    Three splits get 70, 10 and 20 % of the patients; two (train and val) get 7 to 1. With fewer
    patients than splits all are in train, so that a single example can still be prepared.
    """
    ids = sorted(set(patients))
    if len(ids) < len(splits):
        return dict.fromkeys(ids, "train")
    if len(splits) == len(SPLITS):
        return split_by_ratio(ids, seed=SEED)
    shuffled = np.random.default_rng(SEED).permutation(ids).tolist()
    val = max(1, round(len(ids) / 8))
    return dict(zip(shuffled, ["val"] * val + ["train"] * (len(ids) - val), strict=True))
