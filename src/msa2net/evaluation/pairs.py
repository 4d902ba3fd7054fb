"""Which file belongs to which: predictions, labels and images, matched by their names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from msa2net.data.nifti import is_nifti
from msa2net.data.readers import list_images, stem
from msa2net.errors import DataError

Files: TypeAlias = dict[str, Path]  # by name

# What data sets add to every name: nnU-Net to images (and so to what is predicted of them), ACDC
# and ISIC to labels.
FIRST_CHANNEL = "_0000"
ENDINGS = (FIRST_CHANNEL, "_gt", "_segmentation")

_SHOWN = 5  # names in a sentence


@dataclass(frozen=True)
class Pair:
    """One case: its files.

    Attributes:
        id: the stem of the files.
        label: truth.
        prediction: None is missing, and scored as if it were empty.
        image: to look at; None if no images were given.
    """

    id: str
    label: Path
    prediction: Path | None
    image: Path | None


def match_files(
    predictions: Path, labels: Path, images: Path | None, *, missing_as_empty: bool
) -> list[Pair]:
    """Match files by their names without suffix; returns the cases in the order of their names.

    If that leaves files without a partner, and all names of a folder end in `_0000`, `_gt` or
    `_segmentation`, the match without that ending is taken where it leaves none. Files that are
    neither NIfTI nor pictures, hidden files and folders are passed over.

    Args:
        predictions: folder of masks.
        labels: folder of labels.
        images: folder of the images, or None; they may also be called `NAME_0000`.
        missing_as_empty: allow labels without prediction.

    Raises:
        DataError: no images in a folder, two of one name, or names without a partner.
    """
    predicted, labelled = _by_stem(predictions), _by_stem(labels)
    if _lonely(predicted, labelled, missing_as_empty):
        bare_p, bare_l = _bare(predicted), _bare(labelled)
        for these in ((bare_p, labelled), (predicted, bare_l), (bare_p, bare_l)):
            if not _lonely(*these, missing_as_empty):
                predicted, labelled = these
                break
    wrong = _lonely(predicted, labelled, missing_as_empty)
    if wrong:
        hint = ", or score missing predictions as empty with --missing-as-empty"
        raise DataError(
            f"{predictions} and {labels} do not match by name: {'; '.join(wrong)}; add what is "
            f"missing or move the others away{'' if missing_as_empty else hint}"
        )
    pictured = {} if images is None else _images(images, labelled)
    return [
        Pair(name, labelled[name], predicted.get(name), pictured.get(name))
        for name in sorted(labelled)
    ]


def image_kind(pairs: Sequence[Pair]) -> str:
    """Tell volumes from photographs.

    Raises:
        DataError: there are both.
    """
    files = [path for pair in pairs for path in (pair.label, pair.prediction) if path is not None]
    volumes = [path for path in files if is_nifti(path)]
    pictures = [path for path in files if not is_nifti(path)]
    if volumes and pictures:
        raise DataError(
            f"{volumes[0]} is a volume and {pictures[0]} a picture; score volumes and pictures "
            "in folders of their own"
        )
    return "volume" if volumes else "photograph"


def some_of(names: Sequence[str]) -> str:
    """Name the first few, and count the rest."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _by_stem(folder: Path) -> Files:
    files: Files = {}
    for path in list_images(folder, volumes=True):
        other = files.setdefault(stem(path), path)
        if other is not path:
            raise DataError(f"{other} and {path} have the same name; leave the one that counts")
    return files


def _bare(files: Files) -> Files:
    """Return the files by their names without the ending that all of them have, if they do."""
    for ending in ENDINGS:
        if all(name.lower().endswith(ending) for name in files):
            return {name[: -len(ending)]: path for name, path in files.items()}
    return files


def _lonely(predicted: Files, labelled: Files, missing_as_empty: bool) -> list[str]:
    """Say what has no partner, in words."""
    wrong = [] if missing_as_empty else _without(labelled, predicted, "label", "prediction")
    return wrong + _without(predicted, labelled, "prediction", "label")


def _without(
    those: Mapping[str, Path], others: Mapping[str, Path], what: str, partner: str
) -> list[str]:
    names = sorted(those.keys() - others.keys())
    if not names:
        return []
    return [f"{len(names)} of {len(those)} {what}s without {partner} ({some_of(names)})"]


def _images(folder: Path, labelled: Files) -> Files:
    there = _by_stem(folder)
    found = {name: there.get(name) or there.get(name + FIRST_CHANNEL) for name in labelled}
    lacking = sorted(name for name, path in found.items() if path is None)
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(labelled)} labels have no image in {folder} "
            f"({some_of(lacking)}); add them, or leave --images out"
        )
    return {name: path for name, path in found.items() if path is not None}
