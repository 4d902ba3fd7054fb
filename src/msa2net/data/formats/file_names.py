"""What data sets call their files: which mask is of which image, and what names its classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from msa2net.errors import DataError
from msa2net.files import read_lines
from msa2net.text import printable

Files: TypeAlias = dict[str, Path]  # by name

FIRST_CHANNEL = "_0000"
"""What nnU-Net adds to the names of images, and so to what is predicted of them."""

MASK_ENDINGS = ("_segmentation", "_seg", "_mask", "_label", "_gt")
"""What data sets add to an image's name to call its mask: ISIC, BraTS, many, many, ACDC."""

LABELS_FILE = "labels.txt"
"""Names the classes of masks, one a line, background first."""

MAX_CLASSES = 255  # 255 itself means "ignored"


def image_name(mask_name: str) -> str:
    """Return a mask's name without the ending that makes it one, in capitals or not, if any."""
    lower = mask_name.lower()
    ending = next((ending for ending in MASK_ENDINGS if lower.endswith(ending)), "")
    return mask_name[: len(mask_name) - len(ending)] or mask_name


def plain_name(name: str) -> str:
    """Return what names of a case have in common: in small letters, without any known ending."""
    return image_name(name.lower().removesuffix(FIRST_CHANNEL))


def match_names(some: Mapping[str, Path], others: Mapping[str, Path]) -> tuple[Files, Files]:
    """Return both with the names that make most pairs: as they are, or without a common ending.

    An ending (`FIRST_CHANNEL` or one of `MASK_ENDINGS`) is left out where all names of a side have
    it.
    """
    plain, bare = (dict(some), dict(others)), (_bare(some), _bare(others))
    readings = [(one, other) for other in (plain[1], bare[1]) for one in (plain[0], bare[0])]
    return max(readings, key=lambda names: len(names[0].keys() & names[1].keys()))


def _bare(files: Mapping[str, Path]) -> Files:
    """Return the files by their names without the ending that all of them have, if they do."""
    for ending in (FIRST_CHANNEL, *MASK_ENDINGS):
        if all(name.lower().endswith(ending) and len(name) > len(ending) for name in files):
            bare = {name[: -len(ending)]: path for name, path in files.items()}
            return bare if len(bare) == len(files) else dict(files)
    return dict(files)


def find_labels_file(masks: Path) -> Path | None:
    """Return the `labels.txt` of a folder of masks; None if there is none.

    It lies in the folder, or beside the folder if that is the `masks` of the format `images`.

    Raises:
        DataError: there are both, and they differ.
    """
    inside, folder = masks / LABELS_FILE, masks.resolve()
    beside = folder.parent / LABELS_FILE
    if folder.name != "masks" or not (folder.parent / "images").is_dir() or not beside.is_file():
        return inside if inside.is_file() else None
    if inside.is_file() and read_lines(inside) != read_lines(beside):
        raise DataError(f"{inside} and {beside} name different classes; remove one of the two")
    return beside


def read_class_list(path: Path) -> tuple[str, ...]:
    """Read the class names of a `labels.txt`, background first.

    Raises:
        DataError: it cannot be used.
    """
    names = tuple(read_lines(path))
    if wrong := wrong_class_names(names):
        raise DataError(
            f"{path} must name 2 to {MAX_CLASSES} different classes, one a line, background first; "
            f"{wrong}"
        )
    return names


def wrong_class_names(names: Sequence[str]) -> str:
    """Say why these cannot be the names of a network's classes, background first; "" if not."""
    if not 2 <= len(names) <= MAX_CLASSES:
        return f"there {'is' if len(names) == 1 else 'are'} {len(names)}"
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not all(names):
        return "one is empty"
    if twice:
        return f"'{printable(twice[0], 60)}' stands there twice"
    late = "background" in (name.lower() for name in names[1:])
    return "'background' is not the first" if late else ""
