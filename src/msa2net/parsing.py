"""Reading text that may be damaged or forged: JSON within bounds, and what it must hold."""

import json
from itertools import chain
from typing import TYPE_CHECKING, Any, NoReturn

from msa2net.errors import DataError
from msa2net.text import listed, printable

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

MAX_BYTES = 2**28
"""Of a JSON file: prepared data of a hundred thousand cases."""

MAX_VALUES = 8_000_000
"""In a JSON file; each takes up to 100 bytes of memory, however short its text."""

MAX_DEPTH = 32
"""Of lists and mappings within each other; ours have eight."""

_LARGEST = 2**63  # whole numbers beyond are nobody's, and arrays cannot hold them
_DIGITS = len(str(_LARGEST)) + 1  # and a sign


def parse_json(content: bytes, origin: str) -> Any:
    """Read JSON: UTF-8, with or without a byte-order mark.

    Refused besides what is no JSON: a key that a mapping names twice, of which one would be lost;
    whole numbers of more than 64 bits; and what is too large or too deep to be meant.

    Args:
        content: of a file.
        origin: what to call it in an error.

    Raises:
        DataError: saying what is wrong with it.
    """
    if len(content) > MAX_BYTES:
        raise DataError(
            f"{origin} is larger than {MAX_BYTES >> 20} MB, which nothing that is read here is; "
            "restore or delete it"
        )
    # Every value but the first of a list or mapping has a comma before it.
    if sum(map(content.count, (b",", b"[", b"{"))) > MAX_VALUES:
        _refuse(origin, f"it holds more than {MAX_VALUES} values")
    try:
        value = json.loads(
            content.decode("utf-8-sig"), object_pairs_hook=_mapping, parse_int=_whole_number
        )
        if b"\\u" in content:  # half a pair of these stands for no character
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        _refuse(origin, f"byte {error.start} is not UTF-8 text", error)
    except UnicodeEncodeError as error:
        _refuse(origin, "it holds half of a character", error)
    except RecursionError as error:
        _refuse(origin, _TOO_DEEP, error)
    except ValueError as error:
        _refuse(origin, str(error), error)
    if _deeper_than(value, MAX_DEPTH):
        _refuse(origin, _TOO_DEEP)
    return value


def first_mistake(error: "ValidationError") -> str:
    """Say in a few words what is wrong first with what was read: where, what it is, and why."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = mistake_words(first)
    if first["type"] == "missing":
        return f"{place} is missing"
    if not place or isinstance(first["input"], dict):
        return f"{place}: {message}" if place else message
    return f"{place} is {shown_value(first['input'], 100)}: {message}"


def shown_value(value: object, limit: int) -> str:
    """Return a value that was read as text of at most `limit` characters; lists without Python."""
    if isinstance(value, list | tuple):
        return printable(f"a list ({listed(value, 3)})" if value else "an empty list", limit)
    return printable("a mapping" if isinstance(value, dict) else repr(value), limit)


def mistake_words(mistake: "ErrorDetails") -> str:
    """Say what a value must be, by one of pydantic's errors."""
    if mistake["type"] in _EXPECTED:
        return f"must be {_EXPECTED[mistake['type']]}"
    message = (
        mistake["msg"]
        .removeprefix("Value error, ")
        .replace(" should ", " must ")
        .replace("Tuple", "list")
    )
    message = message.removeprefix("Input ")
    return message[0].lower() + message[1:]


_EXPECTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "a list"),
    **dict.fromkeys(
        ("dict_type", "model_type", "model_attributes_type", "dataclass_type"), "a mapping"
    ),
    "string_type": "text",
    "path_type": "a path",
}
"""Pydantic's kind of error → what was expected."""

_TOO_DEEP = f"lists or mappings lie in each other more than {MAX_DEPTH} deep"


def _refuse(origin: str, reason: str, cause: Exception | None = None) -> NoReturn:
    raise DataError(f"{origin} is not valid JSON: {reason}; mend, restore or delete it") from cause


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key '{twice}' stands in one mapping twice")
    return content


def _whole_number(text: str) -> int:
    value = int(text) if len(text) <= _DIGITS else _LARGEST
    if not -_LARGEST <= value < _LARGEST:
        raise ValueError(f"the number {printable(text, 30)} has more than 64 bits")
    return value


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    while level and depth >= 0:
        outer = [one for one in level if isinstance(one, dict | list) and one]
        level = list(
            chain.from_iterable(one.values() if isinstance(one, dict) else one for one in outer)
        )
        depth -= 1
    return bool(level)
