"""All settings in words: what each is for, what may be written, and what it is otherwise."""

import difflib
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from msa2net.config.loading import OTHER_NAMES
from msa2net.config.schema import KIND, Config
from msa2net.config.types import Kind, SectionModel
from msa2net.errors import ConfigError
from msa2net.renamed import current_path
from msa2net.text import joined

WHOLE = "run"  # stands for the settings that are in no section
NOT_SET, NEEDED = "not set", "must be set"
_KINDS = {
    bool: ("true or false", "true or false"),
    int: ("whole number", "whole numbers"),
    float: ("number", "numbers"),
    str: ("text", "texts"),
    Path: ("path", "paths"),
}


_BEGINNING = """\
# Settings

Every setting of a configuration, `configs/*.yaml`. In the file a section is a mapping; on the
command line `--set train.batch_size=8` changes one setting. What is *not set* is `null` in YAML.
`msa2net settings` prints this list; part of it:

```bash
msa2net settings train             # one section
msa2net settings train.batch_size  # one setting
```"""
_END = """\
`msa2net settings --markdown` writes this page, from the descriptions in `src/msa2net/config/`."""


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: as `--set` takes it.
        kind: what may be written, with its range.
        default: as in a YAML file, or `NOT_SET`, or `NEEDED`.
        description: what it is for.
    """

    key: str
    kind: str
    default: str
    description: str


@dataclass(frozen=True)
class SettingsOfSection:
    """The settings of one section.

    Attributes:
        name: its key; `WHOLE` for those that are in none.
        title: what it is about.
        settings: in the order of the configuration.
    """

    name: str
    title: str
    settings: tuple[Setting, ...]


def describe_settings(chosen: str | None = None) -> list[SettingsOfSection]:
    """Return all settings, or those of one section, or one.

    Args:
        chosen: a section such as `train`, or a setting such as `train.batch_size` or `loss`.

    Raises:
        ConfigError: there is no such section or setting.
    """
    sections = _sections()
    if chosen is None:
        return sections
    found, chosen = [], current_path(KIND, chosen)
    for section in sections:
        own = [one for one in section.settings if chosen in (section.name, one.key)]
        if own:
            found.append(SettingsOfSection(section.name, section.title, tuple(own)))
    if not found:
        raise ConfigError(_unknown(chosen, sections))
    return found


def settings_page() -> str:
    """Return `docs/settings.md`."""
    lines = [_BEGINNING]
    for section in describe_settings():
        name = "" if section.name == WHOLE else f"`{section.name}`: "
        lines += ["", f"## {name}{section.title}", ""]
        lines += ["| setting | kind | default | what it is |", "|---|---|---|---|"]
        lines += [_row(setting) for setting in section.settings]
    return "\n".join([*lines, "", _END]) + "\n"


def _row(setting: Setting) -> str:
    default = setting.default
    if default not in (NOT_SET, NEEDED):
        default = f"`{default}`"
    cells = (f"`{setting.key}`", setting.kind, default, setting.description)
    return f"| {' | '.join(cells)} |"


def _sections() -> list[SettingsOfSection]:
    whole, others = [], []
    for name, info in Config.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, SectionModel):
            settings = [_setting(f"{name}.{key}", one) for key, one in kind.model_fields.items()]
            title = _first_sentence(kind.__doc__)
            others.append(SettingsOfSection(name, title, tuple(settings)))
        else:
            whole.append(_setting(name, info))
    return [SettingsOfSection(WHOLE, "The whole run", tuple(whole)), *others]


def _first_sentence(text: str | None) -> str:
    first = (text or "").split("\n")[0].removesuffix(".")
    return first[:1].lower() + first[1:]


def _setting(key: str, info: FieldInfo) -> Setting:
    words = _words(info.annotation, info.metadata) + _range(info.metadata)
    return Setting(key, words, _default(info), info.description or "")


def _words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Say what may be written for a type."""
    for one in metadata:
        if isinstance(one, Kind):
            return one.words
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(inner[0], inner[1:])
    if origin in (Union, types.UnionType):  # None is how YAML leaves a setting unset
        return _words(next(one for one in inner if one is not type(None)))
    if origin is Literal:
        return joined([str(one) for one in inner], "or")
    if origin is tuple and inner[-1] is ...:
        return f"list of {_words(inner[0])}"
    if origin is tuple:
        return f"list of {len(inner)} {_KINDS[inner[0]][1]}"
    if origin is dict:
        return f"names with {_KINDS[inner[1]][1]}"
    return _KINDS[annotation][0]


def _range(metadata: Sequence[Any]) -> str:
    """Say which numbers are taken, such as `, 0 to 1`."""
    limits = {
        name: getattr(one, name)
        for one in metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(one, name, None) is not None
    }
    low = f"{limits['ge']:g}" if "ge" in limits else ""
    low = f"above {limits['gt']:g}" if "gt" in limits else low
    high = f"{limits['le']:g}" if "le" in limits else ""
    high = f"below {limits['lt']:g}" if "lt" in limits else high
    if low and high:
        return f", {low} to {high}"
    if low:
        return f", {low}" if "gt" in limits else f", at least {low}"
    return f", at most {high}" if "le" in limits else f", {high}" if high else ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return NEEDED
    if info.default is None:
        return NOT_SET
    plain = list(info.default) if isinstance(info.default, tuple) else info.default
    text = str(yaml.safe_dump(plain, default_flow_style=True, sort_keys=False))
    return text.removesuffix("...\n").strip()


def _unknown(chosen: str, sections: Sequence[SettingsOfSection]) -> str:
    names = [section.name for section in sections]
    keys = [setting.key for section in sections for setting in section.settings]
    last = chosen.rsplit(".", 1)[-1]
    close = [key for key in keys if key.endswith(f".{OTHER_NAMES.get(last, last)}")]
    close += difflib.get_close_matches(chosen, [*names, *keys], n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"the sections are {', '.join(names)}"
    return f"there is no section or setting '{chosen}'; {hint}"
