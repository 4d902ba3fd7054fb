"""What a prepared data set may have got wrong, said whenever it is opened to train."""

import logging
from collections.abc import Iterable

from msa2net.data.check.dataset import check_encoding
from msa2net.data.geometry import Geometry, describe_recut
from msa2net.data.labels import IGNORE
from msa2net.data.prepared.store import (
    Store,
    only_ignored,
    stored_doubt_of_255,
    took_255_as_foreground,
)
from msa2net.text import listed

_log = logging.getLogger(__name__)


def warn_before_training(store: Store, *, undeclared_255: bool) -> None:
    """Log a warning for everything about a data set that may be meant, and may be a mistake.

    Label encodings that the organs contradict, a meaning of 255 that had to be guessed, images that
    a camera turned, and scans that are cut across their own slices. `msa2net check` says it
    again.

    Args:
        store: the data set.
        undeclared_255: its classes are two, and nothing but its labels says what 255 means.
    """
    meaning = _meaning_of_255(store, undeclared_255)
    for sentence in (*_encoding(store), *meaning, *_camera(store), *_recut(store)):
        _log.warning("%s: %s", store.root, sentence)


def _encoding(store: Store) -> Iterable[str]:
    """A network learns wrong names as well as right ones."""
    for finding in check_encoding(store, store.cases):
        if finding.level == "error":
            yield f"{finding.what}; → {finding.advice}"


def _meaning_of_255(store: Store, undeclared: bool) -> Iterable[str]:
    if took_255_as_foreground(store.cases):
        yield (
            f"no label holds a 1, so {IGNORE} is taken for '{store.label_names[1]}' in all of "
            f"them; beside a 1 in any label, {IGNORE} would be ignored"
        )
    elif only_ignored(store.cases):
        yield (
            f"the labels hold only 0 and {IGNORE}, and {IGNORE} is ignored, so nothing can be "
            f"learned; number the classes {listed(store.label_names[1:])} from 1, and prepare again"
        )
    elif undeclared and (doubt := stored_doubt_of_255(store)[0]):
        yield doubt


def _camera(store: Store) -> Iterable[str]:
    turned = [row.id for row in store.cases if row.turned_alone > 1]
    if turned:
        yield (
            f"the camera turned {len(turned)} of {len(store.cases)} photographs (EXIF orientation) "
            f"whose masks say nothing of it ({listed(turned)}); masks must be drawn on the picture "
            f"as viewers show it, which msa2net check {store.root} compares"
        )


def _recut(store: Store) -> Iterable[str]:
    """The arrays do not show that they were turned."""
    planes: dict[str, dict[str, str]] = {}
    for row in store.cases:
        recut = describe_recut(Geometry.from_json(row.geometry))
        if recut is not None:
            plane, pixels = recut
            planes.setdefault(plane, {})[row.id] = pixels
    for plane, scans in planes.items():
        yield (
            f"{len(scans)} of {len(store.cases)} scans are {plane} ({listed(scans)}); they are cut "
            f"into axial slices all the same, with pixels of {next(iter(scans.values()))} in the "
            "first"
        )
