"""Reading and writing configurations: YAML, `--set`, and what is said of a wrong one."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from msa2net.config.schema import KIND, Config
from msa2net.config.types import SectionModel
from msa2net.config.yaml_text import MAX_BYTES, parse_yaml
from msa2net.errors import ConfigError
from msa2net.parsing import mistake_words
from msa2net.renamed import current_keys, current_path
from msa2net.text import printable

Section = TypeVar("Section", bound=SectionModel)

OTHER_NAMES = {"lr": "learning_rate"}
"""What users of other programs call a setting, where it is not like its name here."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML configuration and apply `key.path=value` overrides (values are YAML).

    Raises:
        ConfigError: the file or a key or a value is wrong; says which and what would be right.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        within = sorted(path.glob("*.yaml")) if path.is_dir() else []
        instead = f"; name a file in it, such as {within[0]}" if within else ""
        raise ConfigError(
            f"cannot read the configuration {path}: {error.strerror}{instead}"
        ) from error
    content, lines = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings; it must be a YAML mapping such as configs/*")
    content = current_keys(KIND, content)
    places = {current_path(KIND, key): f"{path}, line {line}" for key, line in lines.items()}
    for override in overrides:
        places[_apply_override(content, override)] = f"--set {override}"
    return parse_section(Config, content, origin=str(path), places=places)


def parse_section(
    section: type[Section],
    content: Mapping[str, Any],
    *,
    origin: str,
    places: Mapping[str, str] | None = None,
) -> Section:
    """Check the settings of one section, or of a whole run (`Config`), and fill in defaults.

    Args:
        section: what they are to be.
        content: the settings.
        origin: where they come from, for errors.
        places: setting as a dotted path → where it stands, if that is known better.

    Raises:
        ConfigError: the first thing that is wrong with them.
    """
    try:
        return section.model_validate(content)
    except ValidationError as error:
        place = _place(error, places or {}) or origin
        raise ConfigError(f"{printable(place, 300)}: {_describe(error)}") from error


def dump_config(config: Config) -> str:
    """Write a configuration as YAML, every field resolved."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def known_keys() -> list[str]:
    """List every setting as a dotted path."""
    keys: list[str] = []
    for name, info in Config.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, SectionModel):
            keys += [f"{name}.{inner}" for inner in section.model_fields]
        else:
            keys.append(name)
    return keys


def _apply_override(content: dict[str, Any], override: str) -> str:
    """Set one setting; the others of its section stay, or are what they are by default.

    Returns:
        The setting's dotted path.
    """
    shown = printable(override, 200)
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set takes key=value, for example train.epochs=5; got '{shown}'")
    value, _ = parse_yaml(text, f"--set {shown}")
    key = current_path(KIND, key)
    *sections, last = key.split(".")
    target = content
    for section in sections:
        if target is content and section not in content and section in Config.model_fields:
            default = Config.model_fields[section].get_default()
            content[section] = dict(default) if isinstance(default, dict) else {}
        inner = target.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {shown}: '{section}' is a value, not a section")
        target = inner
    target[last] = value
    return key


def _place(error: ValidationError, places: Mapping[str, str]) -> str | None:
    """Return where the first wrong setting, or the section that it is in, stands."""
    parts = [str(part) for part in error.errors()[0]["loc"]]
    keys = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((places[key] for key in keys if key in places), None)


def _describe(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        last = key.rsplit(".", 1)[-1]
        last = OTHER_NAMES.get(last, last)
        close = [known for known in known_keys() if known.rsplit(".", 1)[-1] == last]
        if not close:  # not just the right name in the wrong section
            close = difflib.get_close_matches(key, known_keys(), n=1, cutoff=0.5)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(known_keys())}"
        return f"there is no setting '{key}'; {hint}"
    if first["type"] == "missing":
        return f"the setting '{key}' is missing"
    if first["type"] == "value_error":  # raised by a validator of ours
        message = str(first["ctx"]["error"])
        if isinstance(first["input"], dict):  # about several settings together
            return message
    else:
        message = mistake_words(first)
    return f"'{key}' is {printable(repr(first['input']), 200)}: {message}"
