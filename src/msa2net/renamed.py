"""Former names of settings, JSON keys and CSV columns, which are read for one version more.

To rename one: add it to `FORMER`, and read its file through the function for it. The version after
drops the entry. A former name is noted once a process, by this module's logger.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from msa2net.errors import ConfigError

FORMER: dict[str, dict[str, str]] = {
    "configuration": {
        "model.start_from": "init_from",
        "train.supervision": "deep_supervision",
        "train.balance": "oversample_foreground",
    },
    "model.json": {"usual": "reference_ranges"},
    "record": {"suspicion": "anomaly_score"},
    "summary.json": {"trust": "assessments", "trust.first.suspicion": "anomaly_score"},
    "cases.csv": {"suspicion": "anomaly_score"},
}
"""Kind of file → path of a former name → the name in its place.

A path is dotted; `*` in it stands for any key of a mapping, and an item of a list has none.
"""

_log = logging.getLogger(__name__)
_noted: set[tuple[str, str]] = set()


def current_path(kind: str, path: str) -> str:
    """Return the path of a setting, key or column, with the name that it has now.

    Args:
        kind: of file, such as `configuration`.
        path: dotted, such as `train.batch_size`.
    """
    current = _current_path(kind, path)
    _note(kind, {path: current})
    return current


def current_keys(kind: str, content: Any) -> Any:
    """Return parsed JSON or YAML with the keys of now, at every depth.

    Raises:
        ConfigError: something stands there twice, by its former name and by its name.
    """
    if kind not in FORMER:
        return content
    paths: dict[str, str] = {}
    content = _current_keys(kind, content, "", paths)
    _note(kind, paths)
    return content


def current_columns(kind: str, columns: Sequence[str]) -> list[str]:
    """Return the header of a CSV file with the names of now."""
    return [current_path(kind, column) for column in columns]


def _current_path(kind: str, path: str) -> str:
    names = path.split(".")
    for former, name in FORMER.get(kind, {}).items():
        parts = former.split(".")
        if len(parts) == len(names) and all(map(_matches, parts, names)):
            return ".".join([*names[:-1], name])
    return path


def _matches(part: str, name: str) -> bool:
    return part in ("*", name)


def _current_keys(kind: str, content: Any, within: str, paths: dict[str, str]) -> Any:
    if isinstance(content, list):
        return [_current_keys(kind, own, within, paths) for own in content]
    if not isinstance(content, Mapping):
        return content
    found: dict[Any, Any] = {}
    for key, own in content.items():
        path = f"{within}{key}"
        paths[path] = current = _current_path(kind, path)
        name = key if current == path else current.rsplit(".", 1)[-1]
        if name != key and name in content:
            raise ConfigError(f"{path} is the former name of {current}; remove one of them")
        found[name] = _current_keys(kind, own, f"{path}.", paths)
    return found


def _note(kind: str, paths: Mapping[str, str]) -> None:
    """Note former names in one line, each name once a process."""
    new = {(kind, path): name for path, name in paths.items() if path != name}
    if new := {key: name for key, name in new.items() if key not in _noted}:
        _noted.update(new)
        names = ", ".join(f"{path} is called {name} now" for (_, path), name in new.items())
        _log.warning("%s: %s; former names are read by this version only", kind, names)
