"""Which file belongs to which: predictions, labels and images, matched by their names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from msa2net.data.dicom.detect import DICOM_SUFFIXES
from msa2net.data.formats.file_names import FIRST_CHANNEL, Files, match_names, plain_name
from msa2net.data.io.nifti import is_nifti
from msa2net.data.io.readers import list_images, stem
from msa2net.errors import DataError
from msa2net.evaluation.schema import LeftOut
from msa2net.text import listed, printable

# What may hold a mask and is not read: passed over, it would be missing without a word.
_OTHER_MASKS = (*DICOM_SUFFIXES, ".mha", ".mhd", ".nrrd", ".nhdr", ".gif", ".webp", ".jp2")

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


class Matches(NamedTuple):
    """The cases to score and, if only those that both folders have are wanted, what was left out.

    Attributes:
        pairs: in the order of their names.
        left_out: `predictions` and `labels`, both also where nothing was; None if not asked for.
    """

    pairs: list[Pair]
    left_out: dict[str, LeftOut] | None


def match_files(
    predictions: Path,
    labels: Path,
    images: Path | None,
    *,
    missing_as_empty: bool = False,
    common: bool = False,
) -> Matches:
    """Match files by their names without suffix.

    If that leaves files without a partner, and all names of a folder have one ending of those that
    data sets add, such as `_0000`, `_gt` or `_mask`, the match without it is taken where it makes
    more pairs, see `match_names`. Hidden files, folders and files that cannot be masks are passed
    over.

    Args:
        predictions: folder of masks.
        labels: folder of labels.
        images: folder of the images, or None; they may also be called `NAME_0000`.
        missing_as_empty: allow labels without prediction.
        common: match what both folders have, and count the rest.

    Raises:
        DataError: no images in a folder, two of one name, masks of an unknown kind, names without a
            partner, or nothing that both folders have.
    """
    predicted, labelled = match_names(_masks(predictions), _masks(labels))
    shared = predicted.keys() & labelled.keys()
    wanted = sorted(labelled if missing_as_empty else shared)
    complete = len(shared) == len(predicted) and len(wanted) == len(labelled)
    if not (shared if common else complete):
        raise DataError(
            f"{predictions} and {labels} do not match by name: {_counted(predicted, labelled)}"
            f"{_nearly(predicted, labelled)}; "
            f"{_remedy(len(shared), missing_as_empty=missing_as_empty)}"
        )
    pictured = {} if images is None else _images(images, wanted)
    pairs = [Pair(name, labelled[name], predicted.get(name), pictured.get(name)) for name in wanted]
    if not common:
        return Matches(pairs, None)
    sides = {"predictions": (predicted, labelled), "labels": (labelled, predicted)}
    return Matches(pairs, {side: _left_out(*both) for side, both in sides.items()})


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


def _by_stem(folder: Path) -> Files:
    files: Files = {}
    for path in list_images(folder, volumes=True):
        other = files.setdefault(printable(stem(path)), path)
        if other is not path:
            raise DataError(f"{other} and {path} have the same name; leave the one that counts")
    return files


def _masks(folder: Path) -> Files:
    """As `_by_stem`; what may be a mask and is not read is no silent gap."""
    files = _by_stem(folder)
    others = [path.name for path in sorted(folder.iterdir()) if _may_be_mask(path, files)]
    if others:
        raise DataError(
            f"{folder} holds files of a kind that is not read as a mask ({listed(others)}); write "
            "them as NIfTI or PNG, or move them away"
        )
    return files


def _may_be_mask(path: Path, read: Files) -> bool:
    """Tell masks that would be passed over; not those that are there in a readable form too."""
    hidden = path.name.startswith(".")
    return path.suffix.lower() in _OTHER_MASKS and not hidden and path.stem not in read


def _counted(predicted: Files, labelled: Files) -> str:
    """Say how many names match, and which do not, on either side."""
    shared = len(predicted.keys() & labelled.keys())
    words = [f"{shared or 'none'} match{'es' * (shared == 1)}"]
    for side, those, others in (
        ("predictions", predicted, labelled),
        ("labels", labelled, predicted),
    ):
        names = sorted(those.keys() - others.keys())
        shown = f" ({listed(names)})" if names else ""
        words.append(f"{len(names) or 'none'} of {len(those)} only in the {side}{shown}")
    return ", ".join(words)


def _nearly(predicted: Files, labelled: Files) -> str:
    """Say which of the lonely names are nearly alike, as where some have an ending and some not."""
    lonely_p = {plain_name(name): name for name in sorted(predicted.keys() - labelled.keys())}
    lonely_l = {plain_name(name): name for name in sorted(labelled.keys() - predicted.keys())}
    both = sorted(lonely_p.keys() & lonely_l.keys())
    if not both:
        return ""
    return (
        f"; but for capital letters or an ending {len(both)} more would match, such as "
        f"{lonely_p[both[0]]} and {lonely_l[both[0]]}"
    )


def _remedy(shared: int, *, missing_as_empty: bool) -> str:
    if not shared:
        return "call the files of a case alike in both folders"
    if missing_as_empty:
        return (
            "add labels to those predictions or move them away (missing predictions count as empty "
            "already)"
        )
    return (
        "add what is missing or move the others away, score only what both have with --common, or "
        "score missing predictions as empty with --missing-as-empty"
    )


def _left_out(those: Mapping[str, Path], others: Mapping[str, Path]) -> LeftOut:
    names = sorted(those.keys() - others.keys())
    return LeftOut(cases=len(names), of=len(those), first=tuple(names[:_SHOWN]))


def _images(folder: Path, wanted: Sequence[str]) -> Files:
    there = _by_stem(folder)
    found = {name: there.get(name) or there.get(name + FIRST_CHANNEL) for name in wanted}
    lacking = sorted(name for name, path in found.items() if path is None)
    if lacking:
        raise DataError(
            f"{len(lacking)} of {len(wanted)} labels have no image in {folder} "
            f"({listed(lacking)}); add them, or leave --images out"
        )
    return {name: path for name, path in found.items() if path is not None}
