"""Cases spoilt on purpose, to see whether anybody notices; the tests of flags use it too.

Axes: C channels, Z slices, H rows, W columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from msa2net.data.case import Case, Geometry
from msa2net.data.phantom import skin_lesion

Spoiler = Callable[[Case, np.random.Generator], Case]


def with_noise(case: Case, rng: np.random.Generator) -> Case:
    """Add noise of a fifth of the image's range."""
    image = case.image.astype(np.float32)
    return _with(case, image + rng.normal(0, 0.2 * _range(image), image.shape))


def shifted(case: Case, _: np.random.Generator) -> Case:
    """Add a quarter of the image's range to every value."""
    image = case.image.astype(np.float32)
    return _with(case, image + 0.25 * _range(image))


def inverted(case: Case, _: np.random.Generator) -> Case:
    """Exchange dark and bright."""
    image = case.image.astype(np.float32)
    low, high = np.percentile(image, [0.5, 99.5])
    return _with(case, low + high - image)


def in_other_units(case: Case, _: np.random.Generator) -> Case:
    """Give a tenth of every value, as in another unit."""
    return _with(case, case.image.astype(np.float32) / 10)


def mirrored(case: Case, _: np.random.Generator) -> Case:
    """Exchange left and right while the header stays."""
    return _turned(case, lambda array: array[..., ::-1])


def upside_down(case: Case, _: np.random.Generator) -> Case:
    """Exchange top and bottom while the header stays."""
    return _turned(case, lambda array: array[..., ::-1, :])


def without_largest(case: Case, rng: np.random.Generator) -> Case:
    """Take the largest structure out: its place gets the values of what is around it."""
    assert case.label is not None
    counts = np.bincount(case.label[(case.label > 0) & (case.label < 255)], minlength=2)
    return without(case, int(counts.argmax()), rng)


def without(case: Case, structure: int, rng: np.random.Generator) -> Case:
    """Take a structure out of image and label."""
    assert case.label is not None
    inside = ndimage.binary_dilation(case.label == structure, iterations=2)
    ring = ndimage.binary_dilation(inside, iterations=4) & ~inside & (case.label == 0)
    image = np.array(case.image)
    for channel in image:
        around = channel[ring] if ring.any() else channel[~inside]
        channel[inside] = rng.choice(around, int(inside.sum()))
    label = np.where(case.label == structure, 0, case.label).astype(np.uint8)
    return replace(case, image=image, label=label)


def photograph(case: Case, rng: np.random.Generator) -> Case:
    """Put a grey picture in its place, as the case's kind of numbers.

    A picture's own 8 bits are refused by networks of Hounsfield units; converted, it passes.
    """
    picture = skin_lesion(int(rng.integers(1000))).image
    grey = picture.astype(np.float32).mean(axis=0, keepdims=True)
    image = np.repeat(grey, len(case.image), axis=0)
    return replace(_with(replace(case, label=None), image), geometry=Geometry())


SPOILERS: Mapping[str, Spoiler] = {
    "noise": with_noise,
    "shifted": shifted,
    "inverted": inverted,
    "other units": in_other_units,
    "mirrored": mirrored,
    "upside down": upside_down,
    "largest structure removed": without_largest,
    "grey photograph": photograph,
}
"""What is done → how."""


def _range(image: NDArray[Any]) -> float:
    low, high = np.percentile(image, [0.5, 99.5])
    return float(high - low)


def _with(case: Case, image: NDArray[Any]) -> Case:
    """Keep the type of the values, as a file would."""
    kind = case.image.dtype
    if kind.kind in "iu":
        ends = np.iinfo(kind.name)
        image = np.clip(np.round(image), ends.min, ends.max)
    return replace(case, image=image.astype(kind))


def _turned(case: Case, turn: Callable[[NDArray[Any]], NDArray[Any]]) -> Case:
    label = None if case.label is None else np.ascontiguousarray(turn(case.label))
    return replace(case, image=np.ascontiguousarray(turn(case.image)), label=label)
