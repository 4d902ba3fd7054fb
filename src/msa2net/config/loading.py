"""Reading and writing configurations: YAML, `--set`, and what is said of a wrong one."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import ValidationError

from msa2net.config.schema import KIND, Config
from msa2net.config.types import SectionModel
from msa2net.errors import ConfigError
from msa2net.parsing import mistake_words, shown_value
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
    return f"'{key}' is {shown_value(first['input'], 200)}: {message}"


MAX_BYTES = 2**18
MAX_DEPTH = 20
MAX_VALUES = 10_000  # with what aliases repeat; our settings are a hundred
_LARGEST = 2**63


class _Loader(yaml.SafeLoader):
    """Builds plain values, and notes where each setting stands.

    YAML 1.1 takes 11:30:00 for a number to the base of 60 and 2024-01-01 for a date; here both
    stay text. A mapping that names a key twice is refused, because one of the two would be lost.

    Attributes:
        lines: setting as a dotted path → its line, counted from 1.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lines: dict[str, int] = {}
        self._path: list[str] = []
        self._names: dict[int, str] = {}
        self._sizes: dict[int, tuple[int, int]] = {}  # node → values and depth in it

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read one value, and see at once that it is neither too deep nor too large."""
        reader: Any = self  # of whose methods few are typed
        event = reader.peek_event()
        mark = event.start_mark
        if parent is not None:
            self._path.append(str(getattr(index, "value", "" if index is None else index)))
        name = ".".join(self._path)
        if len(self._path) > MAX_DEPTH:
            _refuse(f"lists or mappings lie in each other more than {MAX_DEPTH} deep", mark)
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent) and id(node) not in self._sizes:
            _refuse("an alias stands within what it names", mark)
        size, depth = self._measure(node)
        if size > MAX_VALUES or len(self._sizes) > MAX_VALUES:
            _refuse(f"it holds more than {MAX_VALUES} values, counting what aliases repeat", mark)
        if depth + len(self._path) > MAX_DEPTH:
            _refuse(f"lists or mappings lie in each other more than {MAX_DEPTH} deep", mark)
        if index is not None and name:
            self.lines.setdefault(name, mark.line + 1)
            self._names.setdefault(id(node), name)
        if parent is not None:
            self._path.pop()
        return node

    def _measure(self, node: Any) -> tuple[int, int]:
        """Return how many values are in a node, and how deep; what is in it was measured before."""
        if id(node) in self._sizes:  # an alias
            return self._sizes[id(node)]
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            _refuse_repeated(node)
            inner = [part for pair in inner for part in pair]
        within = [self._sizes[id(one)] for one in inner]
        size = 1 + sum(count for count, _ in within)
        self._sizes[id(node)] = size, max((1 + depth for _, depth in within), default=0)
        return self._sizes[id(node)]

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Make a value of what was read."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            name = self._names.get(id(node))
            kind = str(node.tag).rsplit(":", 1)[-1]
            what = f"'{name}' is" if name else "there is"
            value = printable(str(node.value), 60)
            _refuse(
                f"{what} '{value}', which is no {_KINDS.get(kind, kind)}", node.start_mark, error
            )


_KINDS = {"int": "whole number of at most 64 bits", "float": "number", "bool": "true or false"}


def parse_yaml(content: str | bytes, origin: str) -> tuple[Any, dict[str, int]]:
    """Read one YAML document.

    Args:
        content: of a file; or a value from the command line, which has no lines.
        origin: what to call it in an error.

    Returns:
        Its value, and setting as a dotted path → its line.

    Raises:
        ConfigError: not YAML, too large or too deep, or a key is named twice; says the line.
    """
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{origin} is larger than {MAX_BYTES >> 10} kB; is it a configuration?")
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        loader = _Loader(text)
        try:
            return loader.get_single_data(), loader.lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark is not None and text is not content else ""
        reason = error.problem or error.context
        raise ConfigError(f"{origin}{where} is not valid YAML: {reason}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{origin} is not valid YAML: {reason}") from error


def _refuse(reason: str, mark: Any, cause: Exception | None = None) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, reason, mark) from cause


def _refuse_repeated(node: yaml.MappingNode) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                _refuse(f"the key '{key.value}' stands there twice; remove one", key.start_mark)
            seen.add((key.tag, key.value))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    if ":" in node.value:
        return str(node.value)
    if len(node.value) > 100:
        raise ValueError("too long")
    value = int(loader.construct_yaml_int(node))
    if not -_LARGEST <= value < _LARGEST:
        raise ValueError("too large")
    return value


def _text(_: _Loader, node: yaml.ScalarNode) -> str:
    return str(node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _text)
