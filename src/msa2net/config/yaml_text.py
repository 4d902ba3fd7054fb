"""YAML within bounds: whoever wrote it, one sentence says which line and which key is wrong."""

from typing import Any, NoReturn

import yaml

from msa2net.errors import ConfigError
from msa2net.text import printable

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
