"""What the formats share of looking into folders: what is read, and a word about what is not."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from msa2net.data.formats.file_names import LABELS_FILE
from msa2net.errors import ConfigError, DataError
from msa2net.text import listed

_log = logging.getLogger(__name__)

_NO_DATA = (LABELS_FILE, "thumbs.db", "desktop.ini", "license.txt", "attribution.txt")
"""Files that belong beside images, or that systems leave there."""


def raw_folder(root: Path | None, what: str) -> Path:
    """Return the folder of the raw data.

    Raises:
        ConfigError: none was given.
        DataError: it is not there.
    """
    if root is None:
        raise ConfigError(f"data.root is missing: name the folder that holds {what}")
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; name the one that holds {what}")
    return root


def subfolder(root: Path, name: str, what: str) -> Path:
    """Return a folder of the raw data's layout.

    Raises:
        DataError: it is not there; the sentence says what is.
    """
    folder = root / name
    if not folder.is_dir():
        raise DataError(f"{root} holds no folder {name}/: this layout is {what}; {_contents(root)}")
    return folder


def strip_ending(path: Path, endings: Sequence[str]) -> str:
    """Return a file's name without whichever of the endings it has, in capitals or not."""
    ending = next(ending for ending in endings if path.name.lower().endswith(ending))
    return path.name[: -len(ending)]


def by_name(paths: Iterable[Path], names: Iterable[str]) -> dict[str, Path]:
    """Return the files by their names.

    Raises:
        DataError: two have the same name.
    """
    files: dict[str, Path] = {}
    for path, name in zip(paths, names, strict=True):
        other = files.setdefault(name, path)
        if other is not path:
            raise DataError(f"{other} and {path} are both '{name}'; rename or remove one")
    return files


def warn_of_unread(folder: Path, read: Iterable[Path]) -> None:
    """Log what lies in a folder of the raw data and is not read: folders, files of other kinds."""
    known = {path.name for path in read}
    unread = [
        path.name + "/" * path.is_dir()
        for path in sorted(folder.iterdir())
        if path.name not in known
        and not path.name.startswith(".")
        and path.name.lower() not in _NO_DATA
    ]
    if unread:
        _log.warning(
            "%s: %d of its entries are not read, being folders or of another kind: %s",
            folder, len(unread), listed(unread),
        )  # fmt: skip


def _contents(folder: Path) -> str:
    names = sorted(
        path.name + "/" * path.is_dir()
        for path in folder.iterdir()
        if not path.name.startswith(".")
    )
    return f"it holds {listed(names)}" if names else "it is empty"
