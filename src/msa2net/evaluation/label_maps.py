"""Masks of two folders as class indices of the labels: whose values mean what.

A folder names its classes itself or is told; of pictures and volumes of two classes it may also
hold black and white. Between the folders classes are told by name, never by number.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msa2net.data.formats.file_names import (
    LABELS_FILE,
    MAX_CLASSES,
    find_labels_file,
    read_class_list,
    wrong_class_names,
)
from msa2net.data.geometry import Geometry
from msa2net.data.io.nifti import is_nifti, read_nifti_label
from msa2net.data.io.readers import read_mask
from msa2net.data.labels import IGNORE, apply_label_table, is_255_foreground, soft_edges_hint
from msa2net.errors import ConfigError, DataError
from msa2net.files import read_json
from msa2net.text import listed

DESCRIPTION = "dataset.json"
NAMED = 20  # classes in a sentence: those that differ may be late ones
UNNAMED = ("background", "foreground")

_LACKING = IGNORE  # in a prediction, where nothing is ignored: a class that the labels lack
_BLACK_AND_WHITE = "black and white (0 and 255, or 0 and 1, in one mask)"


@dataclass(frozen=True)
class ClassNames:
    """The classes that a folder names itself.

    Attributes:
        file: the file in which it does.
        names: one per class, background first.
        ignored: a label value besides 255 that counts nowhere; None if there is none.
    """

    file: Path
    names: tuple[str, ...]
    ignored: int | None = None


@dataclass(frozen=True)
class LabelMapping:
    """What the values of one folder's masks mean.

    Attributes:
        names: of the values 0, 1, …; empty where nobody names them.
        table: value → index of the class among the labels' names, or 255: in labels ignored, in
            predictions one of `lacking`.
        black_and_white: there are two classes, and a mask holds 0 and 255, or 0 and 1.
        lacking: values whose classes the labels do not have.
    """

    names: tuple[str, ...]
    table: dict[int, int]
    black_and_white: bool
    lacking: tuple[int, ...] = ()

    @property
    def undeclared_255(self) -> bool:
        """Return whether 255 is ignored because a label of two classes holds a 1."""
        ignored = [value for value, at in self.table.items() if at == IGNORE]
        return len(self.names) == 2 and ignored == [IGNORE]


@dataclass(frozen=True)
class LabelMappings:
    """The classes of an evaluation, and what either folder's values mean.

    Attributes:
        label_names: of the labels, background first; scores are in their order.
        never_predicted: classes that the predictions do not know: all of them count as missed.
    """

    label_names: tuple[str, ...]
    predictions: LabelMapping
    labels: LabelMapping
    never_predicted: tuple[str, ...]


def read_class_names(folder: Path) -> ClassNames | None:
    """Read the class names that a folder of masks declares; None if it does not.

    Looked at, in this order: `labels.txt`, as `find_labels_file` does; nnU-Net's `dataset.json` in
    the folder, and beside it.

    Raises:
        DataError: such a file cannot be used.
    """
    labels_file = find_labels_file(folder)
    if labels_file is not None:
        return ClassNames(labels_file, read_class_list(labels_file))
    for path in (folder / DESCRIPTION, folder.resolve().parent / DESCRIPTION):
        if _describes_labels(path):
            return _described_names(path)
    return None


def resolve_label_mappings(
    predictions: Path, labels: Path, given: Sequence[str] | None, masks: Iterable[Path]
) -> LabelMappings:
    """Settle the classes of two folders.

    Args:
        predictions: folder; its classes are told by name where it names them.
        labels: folder; its names and their order are those of the evaluation.
        given: names for folders that have none of their own.
        masks: files in `labels`. Where the folder names two classes they decide what 255 means,
            see `is_255_foreground`.

    Raises:
        ConfigError: `given` are not names, or contradict those of `labels`.
        DataError: names in a folder, or a mask, cannot be used.
    """
    told = None if given is None else _checked(given)
    own_p, own_l = read_class_names(predictions), read_class_names(labels)
    if told and own_l and told != own_l.names:
        raise ConfigError(
            f"{own_l.file} names the classes {listed(own_l.names, NAMED)} and you name "
            f"{listed(told, NAMED)}; leave the names out, or correct the file"
        )
    named_l = own_l.names if own_l else told
    p_names = own_p.names if own_p else told or named_l or UNNAMED
    l_names = named_l or p_names
    unnamed = not (own_p or named_l)
    indices = _indices_by_name(p_names, l_names, predictions)
    return LabelMappings(
        label_names=l_names,
        predictions=LabelMapping(
            names=() if unnamed else p_names,
            table={value: _LACKING if at is None else at for value, at in enumerate(indices)},
            black_and_white=len(p_names) == 2,
            lacking=tuple(value for value, at in enumerate(indices) if at is None),
        ),
        labels=_labels_coding(() if unnamed else l_names, own_l, masks),
        never_predicted=tuple(name for at, name in enumerate(l_names) if at not in indices),
    )


def _labels_coding(
    names: tuple[str, ...], own: ClassNames | None, masks: Iterable[Path]
) -> LabelMapping:
    table = {value: value for value in range(len(names or UNNAMED))}
    black_and_white = len(table) == 2 and (own is None or _drawn(own, masks))
    if not black_and_white:
        table[IGNORE] = IGNORE
    if own is not None and own.ignored is not None:
        table[own.ignored] = IGNORE
    return LabelMapping(names, table, black_and_white)


def _drawn(own: ClassNames, masks: Iterable[Path]) -> bool:
    """Tell whether masks of two named classes are black and white; as in `prepare`."""
    return own.ignored is None and is_255_foreground(read_values(path)[0] for path in masks)


def _indices_by_name(
    names: tuple[str, ...], known: tuple[str, ...], predictions: Path
) -> list[int | None]:
    """Return for each name its index among the known ones; None: not among them.

    The background comes first in both, whatever it is called.
    """
    if names[0] in known[1:] or known[0] in names[1:]:
        raise DataError(
            f"the predictions in {predictions} have the classes {listed(names, NAMED)} and the "
            f"labels {listed(known, NAMED)}; the background must come first in both"
        )
    return [0, *(known.index(name) if name in known else None for name in names[1:])]


def read_values(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Read a mask's raw values (Z, H, W), Z = 1 of a picture, and where its grid lies.

    Raises:
        DataError: unreadable, or no mask.
    """
    if is_nifti(path):
        return read_nifti_label(path)
    return read_mask(path)[None], Geometry()


def class_indices(
    values: NDArray[Any], coding: LabelMapping, path: Path, known: Sequence[str]
) -> NDArray[np.uint8]:
    """Turn a mask's values into indices of the labels' classes.

    Args:
        values: as from `read_values`.
        coding: of the mask's folder.
        path: the mask, for errors.
        known: the labels' classes, for errors.

    Raises:
        DataError: a value without a name, or of a class that the labels lack.
    """
    if coding.black_and_white and values.max() == IGNORE and _only(values, IGNORE):
        found = np.where(values == IGNORE, np.uint8(coding.table[1]), np.uint8(0))
    else:
        if not coding.names and not _only(values, 1):
            raise DataError(
                f"{path} holds {_example(values)}, so it is not {_BLACK_AND_WHITE}, and nobody "
                f"names the classes; name them with --names background,NAME,… or in a "
                f"{LABELS_FILE} in its folder{soft_edges_hint(values[values > 1], str(path))}"
            )
        found = apply_label_table(values, coding.table, origin=str(path), meaning=_meaning(coding))
    if coding.lacking:
        _refuse_lacking(values[found == _LACKING], coding, path, known)
    return found


def _refuse_lacking(
    values: NDArray[Any], coding: LabelMapping, path: Path, known: Sequence[str]
) -> None:
    if not values.size:
        return
    value, count = int(values[0]), np.count_nonzero(values == values[0])
    name = coding.names[1 if value == IGNORE else value]  # 255: the white of black and white
    raise DataError(
        f"{path} holds the class {name!r} (value {value}, {count} voxels), which is none of the "
        f"labels': {listed(known, NAMED)}; name classes alike on both sides, or score with labels "
        "that have it"
    )


def _only(values: NDArray[Any], other: int) -> bool:
    return bool(((values == 0) | (values == other)).all())


def _example(values: NDArray[Any]) -> str:
    wrong = values[(values != 0) & (values != 1)]
    return f"the value {wrong[0]} ({np.count_nonzero(wrong == wrong[0])} voxels)"


def _meaning(coding: LabelMapping) -> str:
    named = listed((f"{value} {name}" for value, name in enumerate(coding.names)), NAMED)
    if coding.black_and_white:
        return f"classes ({named}), nor is it {_BLACK_AND_WHITE}"
    return f"classes ({named})"


def _described_names(path: Path) -> ClassNames:
    from msa2net.data.formats.nnunet import read_description  # wanted here alone

    try:
        description = read_description(path)
    except DataError as error:
        raise DataError(
            f"{error}; or name the classes in a {LABELS_FILE} beside the masks"
        ) from error
    return ClassNames(path, description.label_names, description.ignored)


def _describes_labels(path: Path) -> bool:
    """Tell nnU-Net's dataset.json from others of this name, such as that of prepared data."""
    if not path.is_file():
        return False
    content = read_json(path)
    return isinstance(content, dict) and isinstance(content.get("labels"), dict)


def _checked(given: Sequence[str]) -> tuple[str, ...]:
    wrong = "they are no list" if isinstance(given, str) else wrong_class_names(given)
    if wrong:
        raise ConfigError(
            f"these are no names of classes ({wrong}); give 2 to {MAX_CLASSES} different ones, "
            "background first: --names background,liver in the command line, a list in Python"
        )
    return tuple(given)
