"""The label encodings that circulate for the BTCV ("Synapse") abdominal scans, as tables.

Three encodings of the same eight organs are in use beside the thirteen ids of the original files,
and nothing in a file says which one it holds. All conversions go through one look-up table:
replacing ids one after the other would merge organs whenever a new id equals an old one.

Sources: BTCV's own list; the loaders of TransUNet, CASCADE (also MERIT, EMCAD) and SAMed (also
nnFormer).
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.errors import ConfigError, DataError
from msa2net.text import listed

BACKGROUND = "background"
IGNORE = 255
"""Value of label voxels that count nowhere; conversions leave it alone. But see
`is_255_foreground`."""

ENCODINGS: dict[str, dict[int, str]] = {
    "btcv": {
        1: "spleen",
        2: "right kidney",
        3: "left kidney",
        4: "gallbladder",
        5: "oesophagus",
        6: "liver",
        7: "stomach",
        8: "aorta",
        9: "inferior vena cava",
        10: "portal and splenic vein",
        11: "pancreas",
        12: "right adrenal",
        13: "left adrenal",
    },
    "transunet": {
        1: "aorta",
        2: "gallbladder",
        3: "left kidney",
        4: "right kidney",
        5: "liver",
        6: "pancreas",
        7: "spleen",
        8: "stomach",
    },
    "cascade": {
        1: "spleen",
        2: "right kidney",
        3: "left kidney",
        4: "gallbladder",
        5: "pancreas",
        6: "liver",
        7: "stomach",
        8: "aorta",
    },
    "samed": {
        1: "spleen",
        2: "right kidney",
        3: "left kidney",
        4: "gallbladder",
        5: "liver",
        6: "stomach",
        7: "aorta",
        8: "pancreas",
    },
}
"""Encoding → id → organ; 0 is background in all of them. Ids run from 1 without a gap."""


def label_names(encoding: str) -> tuple[str, ...]:
    """Return an encoding's class names in the order of their ids, background first.

    Raises:
        ConfigError: there is no such encoding.
    """
    organs = _organs(encoding)
    return (BACKGROUND, *(organs[value] for value in sorted(organs)))


def convert(
    labels: NDArray[np.integer[Any]], source: str, target: str, *, origin: str = "the label"
) -> NDArray[np.uint8]:
    """Translate labels from one encoding to another, organ by organ, in one look-up.

    Organs that the target does not have become background; organs that only the target has are
    nowhere in the result. 255 ("ignored") stays 255.

    Args:
        labels: integers of any shape.
        source: the encoding the labels are in.
        target: the encoding wanted.
        origin: what to call the labels in an error, such as the file's name.

    Raises:
        ConfigError: there is no such encoding.
        DataError: values that `source` does not have, named with their voxel counts.
    """
    ids = {organ: value for value, organ in _organs(target).items()}
    table = {value: ids.get(organ, 0) for value, organ in _organs(source).items()}
    return apply_label_table(
        labels, {0: 0, IGNORE: IGNORE} | table, origin=origin, meaning=f"'{source}' ids"
    )


def apply_label_table(
    labels: NDArray[np.integer[Any]], table: Mapping[int, int], *, origin: str, meaning: str
) -> NDArray[np.uint8]:
    """Translate every label value by `table`.

    Args:
        labels: integers of any shape.
        table: from and to values, all within 0–255.
        origin: what to call the labels in an error, such as the file's name.
        meaning: what the table's values are, for the error, such as "'btcv' ids".

    Raises:
        DataError: values that are not in the table, named with their voxel counts.
    """
    # One cell on either side of 0–255 catches everything that lies outside.
    look_up = np.full(258, -1, np.int16)
    for value, new in table.items():
        look_up[value + 1] = new
    limits = np.iinfo(labels.dtype)
    clipped = np.clip(labels, max(-1, limits.min), min(256, limits.max)).astype(np.int16)
    clipped += 1
    mapped = look_up[clipped]
    unknown = mapped < 0
    if unknown.any():
        raise DataError(
            f"{origin} holds label values that are not {meaning}: {_counted(labels[unknown])}; "
            f"known are {_ranges(table)}{soft_edges_hint(labels[unknown], origin)}"
        )
    return mapped.astype(np.uint8)


def soft_edges_hint(strange: NDArray[Any], origin: str) -> str:
    """Return what to do about a picture of many values that are no class; "" of anything else.

    Args:
        strange: these values.
        origin: the file.
    """
    if len(np.unique(strange)) <= 5 or origin.lower().endswith((".nii", ".nii.gz")):
        return ""
    if origin.lower().endswith((".jpg", ".jpeg")):
        return "; JPEG smears masks, save them as PNG"
    return "; soft edges make such values, save the mask without smoothing (anti-aliasing)"


def class_table(classes: int) -> dict[int, int]:
    """Return the table for `apply_label_table` of values that are class indices or ignored."""
    return {value: value for value in (*range(classes), IGNORE)}


def is_255_foreground(masks: Iterable[NDArray[Any]]) -> bool:
    """Return whether 255 is the second of two classes in a data set, and not what counts nowhere.

    It is if some mask holds it and none holds a 1: such masks were drawn in black and white.

    Args:
        masks: the values of all masks that are labels; read up to the first that holds a 1.
    """
    white = False
    for values in masks:
        if (values == 1).any():
            return False
        white = white or bool((values == IGNORE).any())
    return white


def doubt_of_255(held: Mapping[str, Collection[int]], name: str) -> tuple[str, bool]:
    """Say what speaks against ignoring 255 in masks of two classes of which some hold a 1.

    A border that counts nowhere lies beside the class it borders on. Masks that hold 255 alone may
    be in black and white; if they are as many as those with a 1, a single stray 1 may have
    hidden the structure from the rest.

    Args:
        held: mask → its values.
        name: of class 1.

    Returns:
        A sentence, "" if nothing does; and whether nobody can tell, so that it is an error.
    """
    white = [mask for mask, values in held.items() if IGNORE in values and 1 not in values]
    ones = [mask for mask, values in held.items() if 1 in values]
    if not white or not ones:
        return "", False
    alone, stray = (f"{listed(masks, 2)} hold{'s' * (len(masks) == 1)}" for masks in (white, ones))
    if len(white) < len(ones):
        return (
            f"{IGNORE} is ignored, because {len(ones)} of {len(held)} labels hold a 1; {alone} "
            f"{IGNORE} and no 1: if it is '{name}' there, write 1 instead"
        ), False
    return (
        f"what {IGNORE} means is not clear: {stray} a 1, but {len(white)} of {len(held)} labels "
        f"hold {IGNORE} and no 1; if it is '{name}', write {IGNORE} instead of 1; if it is to be "
        "ignored, say so by a third name in labels.txt, of a class that no label holds, or by an "
        "'ignore' label in nnU-Net's dataset.json"
    ), True


def _organs(encoding: str) -> dict[int, str]:
    if encoding not in ENCODINGS:
        raise ConfigError(
            f"there is no label encoding '{encoding}'; there are {', '.join(ENCODINGS)}"
        )
    return ENCODINGS[encoding]


def _counted(values: NDArray[np.integer[Any]]) -> str:
    """Return values with their counts, at most five of them."""
    found, counts = np.unique(values, return_counts=True)
    pairs = list(zip(found.tolist(), counts.tolist(), strict=True))
    return listed(f"{value} ({count} voxels)" for value, count in pairs)


def _ranges(values: Mapping[int, int]) -> str:
    """Write the known values, the ignored one aside: '0 to 8', or '0, 1, 4'."""
    known = sorted(set(values) - {IGNORE})
    if known == list(range(known[-1] + 1)):
        return f"0 to {known[-1]}"
    return ", ".join(str(value) for value in known)
