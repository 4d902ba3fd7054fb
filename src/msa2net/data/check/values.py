"""Checks whether a case's voxels look like an image and its label."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.check.findings import WHOLE, Finding, Level
from msa2net.data.check.organ_statistics import ORGANS
from msa2net.data.formats.source import HU_WINDOW
from msa2net.data.labels import IGNORE
from msa2net.data.prepared.intensity_statistics import ChannelStatistics
from msa2net.data.prepared.splits import SPLITS
from msa2net.data.prepared.store import (
    Store,
    StoredCase,
    only_ignored,
    read_failures,
    stored_doubt_of_255,
    took_255_as_foreground,
)

FULL = 0.95
"""Foreground that fills more of a case than this is probably an inverted mask."""

SPECK = 2
"""A class of this many voxels or fewer is probably a slip of the pen."""

NO_AIR_HU = -200.0
"""A CT reaches below this wherever there is air, so around every patient."""

OUTSIDE = 0.99
_SLICES = 8  # of a case, that are read to see how much lies outside the window


def check_label(store: Store, row: StoredCase) -> Iterator[Finding]:
    """Find values that are no class, empty, full and wholly ignored labels, and specks."""
    counts = {int(value): count for value, count in row.voxels.items()}
    total = sum(counts.values())
    ignored, background = counts.get(IGNORE, 0), counts.get(0, 0)
    classes = len(store.label_names)
    wrong = [f"{v} ({n} voxels)" for v, n in counts.items() if v >= classes and v != IGNORE]
    if wrong:
        what = f"the label holds values other than 0 to {classes - 1} and {IGNORE}"
        yield Finding("error", row.id, what, "correct the label file", ", ".join(wrong[:3]))
    if ignored == total:
        what = f"every voxel of the label is ignored ({IGNORE})"
        yield Finding("error", row.id, what, "label the case or leave it out")
    elif background + ignored == total:
        what = "the label is empty"
        advice = "look whether the image really shows nothing of any class"
        yield Finding("warning", row.id, what, advice)
    elif background < (1 - FULL) * (total - ignored):
        what = f"the label fills more than {FULL:.0%} of the image"
        advice = "look whether foreground and background are exchanged"
        share = 1 - background / (total - ignored)
        level: Level = "warning" if store.kind == "volume" else "note"  # a close-up may be full
        yield Finding(level, row.id, what, advice, f"{share:.1%}")
    for value, name in enumerate(store.label_names[1:], start=1):
        if 0 < counts.get(value, 0) <= SPECK:
            what = f"'{name}' has only {SPECK} voxels or fewer"
            advice = "look whether they were labelled by mistake"
            yield Finding("warning", row.id, what, advice)


def check_organ_volumes(store: Store, row: StoredCase) -> Iterator[Finding]:
    """Find organs of impossible size, where the classes are organs and the spacing is known."""
    if store.encoding is None or row.spacing_mm is None:
        return
    for value, name in enumerate(store.label_names[1:], start=1):
        voxels, organ = row.voxels.get(str(value), 0), ORGANS[name]
        volume_ml = voxels * float(np.prod(row.spacing_mm)) / 1000
        if voxels > SPECK and not organ.least_ml <= volume_ml <= organ.most_ml:
            what = f"'{name}' is not between {organ.least_ml:g} and {organ.most_ml:g} mL"
            advice = "look at the label, and at the spacing in the file's header"
            yield Finding("warning", row.id, what, advice, f"{volume_ml:.3g} mL")


def check_meaning_of_255(store: Store, rows: Sequence[StoredCase]) -> Iterator[Finding]:
    """Find what 255 was taken for, where all labels had to tell; an error if nothing is left."""
    if took_255_as_foreground(rows):
        what = f"no label holds a 1, so {IGNORE} was taken for '{store.label_names[1]}'"
        advice = f"if {IGNORE} should be ignored, the labels lack the class itself, as 1"
        yield Finding("note", WHOLE, what, advice)
    elif only_ignored(rows):
        what = f"the labels hold only 0 and {IGNORE}, which is ignored, so nothing can be learned"
        yield Finding("error", WHOLE, what, "number the classes from 1, and prepare again")
    elif store.format == "images" and not read_failures(store.root):  # which name it already
        doubt, unclear = stored_doubt_of_255(store)
        if doubt:
            level: Level = "error" if unclear else "warning"
            yield Finding(level, WHOLE, doubt, "make all masks alike, and prepare again")


def check_classes(store: Store, rows: Sequence[StoredCase]) -> Iterator[Finding]:
    """Find classes that a split lacks; one that only train lacks is an error."""
    shown: dict[str, set[int]] = {}
    for row in rows:
        shown.setdefault(row.split, set()).update(int(value) for value in row.voxels)
    for value, name in enumerate(store.label_names[1:] if shown else (), start=1):
        lacking = [split for split in SPLITS if split in shown and value not in shown[split]]
        if len(lacking) == len(shown):
            what = "no case shows this class"
            advice = "leave it out of the classes: nothing can be learned of it, or scored"
            yield Finding("warning", name, what, advice)
            continue
        for split in lacking:
            level: Level = "error" if split == "train" else "warning"
            so = "learned" if split == "train" else "scored there"
            what = f"no case of {split} shows this class, it cannot be {so}"
            yield Finding(level, name, what, "split the cases otherwise")


def check_channels(store: Store, row: StoredCase) -> Iterator[Finding]:
    """Find a number of channels that the network will not take, or that is filled up."""
    channels = row.shape[0]
    if channels == store.channels:
        return
    level: Level = "error"
    what = "the image has another number of channels than others"
    if channels == 1:
        level, what = "warning", "the image has one channel, others have more; it will be repeated"
    detail = f"{channels}, the network gets {store.channels}"
    yield Finding(level, row.id, what, "bring all images to the same channels", detail)


def check_image(store: Store, row: StoredCase, image_CZHW: NDArray[Any]) -> Iterator[Finding]:
    """Find values that are no numbers, constant images, and values of another scale."""
    broken = sum(channel.not_finite for channel in row.intensity)
    if broken:
        what = "values of the image are NaN or infinite"
        advice = "replace them by a number, such as the background's"
        yield Finding("error", row.id, what, advice, f"{broken} voxels")
    constant = [channel for channel in row.intensity if channel.minimum == channel.maximum]
    if len(constant) == len(row.intensity):
        what = "the image has the same value everywhere"
        detail = f"{constant[0].minimum:g}"
        yield Finding("error", row.id, what, "look at the image file", detail)
    elif constant:
        what = "a channel of the image has the same value everywhere"
        yield Finding("warning", row.id, what, "look at the image files")
    if len(constant) < len(row.intensity) and store.intensity == "fixed":
        yield from _check_scale(store, row, image_CZHW)


def _check_scale(store: Store, row: StoredCase, image_CZHW: NDArray[Any]) -> Iterator[Finding]:
    # TransUNet's files are clipped on purpose, and their reader has refused everything else.
    is_ct = store.kind == "volume" and (store.low, store.high) == HU_WINDOW[1:]
    if is_ct and store.format != "synapse":
        channel = row.intensity[0]
        if (suspect := _not_hounsfield(channel)) is not None:
            what, advice = suspect
            detail = f"{channel.minimum:g} to {channel.maximum:g}"
            what = f"does not look like Hounsfield units: {what}"
            yield Finding("warning", row.id, what, advice, detail)
    outside = _share_outside(image_CZHW, store.low, store.high)
    if outside > OUTSIDE:
        what = (
            f"more than {OUTSIDE:.0%} of the voxels lie outside {store.low:g} to {store.high:g}, "
            "of which the network sees nothing"
        )
        advice = "look whether the values are of the scale that the format expects"
        yield Finding("warning", row.id, what, advice, f"{outside:.2%}")


def _not_hounsfield(channel: ChannelStatistics) -> tuple[str, str] | None:
    """Return what is odd about the values of a CT, and what to do."""
    rescale = "use the original values: air is −1000, water 0"
    if channel.minimum >= 0 and channel.maximum <= 1:
        return "values within 0 to 1", f"{rescale}; for TransUNet's files there is 'synapse'"
    if channel.minimum >= 0 and channel.maximum <= 255:
        return "values within 0 to 255", rescale
    if channel.minimum >= 0 and channel.maximum >= 1000:
        return "never below 0, perhaps stored with an offset of 1024", "subtract the offset"
    if channel.minimum > NO_AIR_HU:
        return f"never below −{-NO_AIR_HU:g}, so without air, perhaps clipped", rescale
    return None


def _share_outside(image_CZHW: NDArray[Any], low: float, high: float) -> float:
    depth = image_CZHW.shape[1]
    chosen = np.unique(np.linspace(0, depth - 1, _SLICES).round().astype(int))
    sample = image_CZHW[:, chosen]
    return 1 - float(((sample >= low) & (sample <= high)).mean())


# Images that a camera turned ---------------------------------------------------------------------
# A camera that is held upright stores its pixels lying, and says so in EXIF. Readers turn the image
# as viewers do; a mask that was drawn on the stored pixels then lies beside its object.

_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).T,
    8: np.rot90,
}
"""EXIF orientation → what makes of stored pixels (H, W) the picture that viewers show."""

CLEARLY = 1.5
"""How many times better one way must fit than the other."""


def check_camera(store: Store, row: StoredCase) -> Iterator[Finding]:
    """Compare how well the mask of a turned image fits as it lies and turned alike."""
    if row.turned_alone == 1:
        return
    case = store.case(row.id, strict=False)
    assert case.label is not None
    grey_HW = case.image[:, 0].astype(np.float64).mean(axis=0)
    label_HW = np.asarray(case.label[0])
    turned_HW = _TURNS[row.turned_alone](label_HW)
    lying = _separation(grey_HW, label_HW)
    # Of other sizes only where preparing reduced the picture by a rounded factor.
    turned = _separation(grey_HW, turned_HW) if turned_HW.shape == grey_HW.shape else 0.0
    what = "the camera turned the photograph (EXIF orientation) and its mask says nothing of it; "
    detail = f"orientation {row.turned_alone}"
    if lying > CLEARLY * turned:
        yield Finding("note", row.id, f"{what}it fits as viewers show both", "", detail)
        return
    fits = "it fits better turned alike" if turned > CLEARLY * lying else "look which way it fits"
    advice = "turn the mask, or remove the EXIF orientation of the photograph, and prepare again"
    yield Finding("warning", row.id, what + fits, advice, detail)


def _separation(grey_HW: NDArray[np.float64], label_HW: NDArray[np.uint8]) -> float:
    """Return the share of the variance that lies between object and background (η²)."""
    counted = label_HW != IGNORE
    values, inside = grey_HW[counted], label_HW[counted] > 0
    if not inside.any() or inside.all() or values.var() == 0:
        return 0.0
    share, gap = inside.mean(), values[inside].mean() - values[~inside].mean()
    return float(share * (1 - share) * gap**2 / values.var())
