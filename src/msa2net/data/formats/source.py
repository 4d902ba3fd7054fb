"""What every data format gives: a list of cases that can be read one at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from msa2net.data.case import Case
from msa2net.data.readers import read_image, read_mask
from msa2net.errors import DataError

IGNORE = 255


@dataclass(frozen=True)
class SourceCase:
    """One case of a raw data set, not read yet.

    Attributes:
        id: unique in the data set.
        split: train, val or test.
        files: what it is made from; empty for data made in memory.
        read: makes the Case, label included.
    """

    id: str
    split: str
    files: tuple[Path, ...]
    read: Callable[[], Case]


@dataclass(frozen=True)
class Source:
    """A raw data set.

    Attributes:
        kind: photographs are scored per image and pooled, volumes per volume.
        label_names: one name per class, background first.
        intensity, low, high: how values are scaled, see `Preprocessing`.
        cases: all of them.
    """

    kind: Literal["photograph", "volume"]
    label_names: tuple[str, ...]
    intensity: Literal["fixed", "percentile"]
    low: float
    high: float
    cases: tuple[SourceCase, ...]


def photograph_cases(
    pairs: dict[str, tuple[Path, Path]], splits: dict[str, str], num_classes: int
) -> tuple[SourceCase, ...]:
    """Make the cases of a data set of picture and mask files, sorted by id."""
    return tuple(
        SourceCase(
            id=case_id,
            split=splits[case_id],
            files=pairs[case_id],
            read=partial(read_pair, case_id, *pairs[case_id], num_classes),
        )
        for case_id in sorted(splits)
    )


def read_pair(case_id: str, image: Path, mask: Path, num_classes: int) -> Case:
    """Read a picture and its mask as one Case.

    Raises:
        DataError: unreadable, of different sizes, or mask values outside the classes.
    """
    case = read_image(image, case_id)
    values_HW = read_mask(mask)
    if values_HW.shape != case.image.shape[2:]:
        raise DataError(
            f"case {case_id}: {image} is {_size(case.image.shape[2:])} and its mask {mask} is "
            f"{_size(values_HW.shape)} (rows × columns); they must be the same"
        )
    label_HW = class_indices(values_HW, num_classes, origin=str(mask))
    return Case(id=case_id, image=case.image, label=label_HW[None], source=image)


def class_indices(values: NDArray[Any], num_classes: int, *, origin: str) -> NDArray[np.uint8]:
    """Turn a mask file's values into class indices.

    0 … K−1 are classes and 255 is ignored; a mask of two classes may also use 0 and 255 for
    background and object, the usual form of a binary picture.

    Raises:
        DataError: other values, named with their pixel counts.
    """
    found, counts = np.unique(values, return_counts=True)
    if num_classes == 2 and set(found.tolist()) <= {0, 255}:
        return (values == 255).astype(np.uint8)
    wrong = [
        f"{value} ({count} pixels)"
        for value, count in zip(found.tolist(), counts.tolist(), strict=True)
        if not (0 <= value < num_classes or value == IGNORE)
    ]
    if wrong:
        allowed = "0 and 1, or 0 and 255" if num_classes == 2 else f"0 to {num_classes - 1}"
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        hint = "; JPEG smears masks, save them as PNG" if len(wrong) > 5 else ""
        raise DataError(
            f"{origin} holds label values outside the declared classes: {shown}; "
            f"allowed are {allowed}{hint}"
        )
    return values.astype(np.uint8)


def pair_by_id(images: dict[str, Path], masks: dict[str, Path]) -> dict[str, tuple[Path, Path]]:
    """Join images and masks by id.

    Raises:
        DataError: naming images without mask or masks without image.
    """
    for present, absent, what, other in (
        (images, masks, "image", "mask"),
        (masks, images, "mask", "image"),
    ):
        lonely = sorted(present.keys() - absent.keys())
        if lonely:
            raise DataError(
                f"{len(lonely)} of {len(present)} {what}s have no {other}, first "
                f"{present[lonely[0]]}; add the {other}s or move those {what}s away"
            )
    return {case_id: (images[case_id], masks[case_id]) for case_id in images}


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in shape)
