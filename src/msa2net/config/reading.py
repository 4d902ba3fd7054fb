"""Reading and writing configurations: YAML, `--set`, and what is said of a wrong one."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from msa2net.config.fields import SectionModel
from msa2net.config.sections import Config
from msa2net.errors import ConfigError

Section = TypeVar("Section", bound=SectionModel)

OTHER_NAMES = {"lr": "learning_rate"}
"""What users of other programs call a setting, where it is not like its name here."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 11:30:00 for a number to the base of 60; here it stays text."""


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | str:
    return node.value if ":" in node.value else loader.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML configuration and apply `key.path=value` overrides (values are YAML).

    Raises:
        ConfigError: the file or a key or a value is wrong; says which and what would be right.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        within = sorted(path.glob("*.yaml")) if path.is_dir() else []
        instead = f"; name a file in it, such as {within[0]}" if within else ""
        raise ConfigError(
            f"cannot read the configuration {path}: {error.strerror}{instead}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{path} is not valid YAML: {detail}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings; it must be a YAML mapping such as configs/*")
    for override in overrides:
        _apply_override(content, override)
    return parse_section(Config, content, origin=str(path))


def parse_section(section: type[Section], content: Mapping[str, Any], *, origin: str) -> Section:
    """Check the settings of one section, or of a whole run (`Config`), and fill in defaults.

    Raises:
        ConfigError: the first thing that is wrong with them.
    """
    try:
        return section.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_describe(error)}") from error


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


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set takes key=value, for example train.epochs=5; got '{override}'")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from error
    *sections, last = key.split(".")
    target = content
    for section in sections:
        inner = target.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override}: '{section}' is a value, not a section")
        target = inner
    target[last] = value


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
        message = first["msg"][0].lower() + first["msg"][1:]
    return f"'{key}' is {first['input']!r}: {message}"
