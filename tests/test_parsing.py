"""Text that is damaged or forged: one sentence, at once, whatever it holds."""

import time

import pytest

from msa2net.errors import DataError
from msa2net.files import read_json
from msa2net.parsing import MAX_DEPTH, MAX_VALUES, parse_json


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "more than 32 deep"),
        (b"[" * 900 + b"]" * 900, "more than 32 deep"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "more than 32 deep"),
        (b"[" + b"9" * 5000 + b"]", "more than 64 bits"),
        (b'{"seed": 9223372036854775808}', "the number 9223372036854775808 has more than 64 bits"),
        (b'{"liver": 1, "spleen": 2, "liver": 3}', "the key 'liver' stands in one mapping twice"),
        (b'{"id": "\\ud800"}', "half of a character"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        (b"", "Expecting value"),
        (b"[" + b"0," * MAX_VALUES + b"0]", "more than 8000000 values"),
    ],
)
def test_what_is_no_json_within_bounds_is_refused_at_once(content: bytes, words: str):
    start = time.monotonic()
    with pytest.raises(DataError, match=rf"^dataset\.json is not valid JSON.*{words}"):
        parse_json(content, "dataset.json")
    assert time.monotonic() - start < 2


def test_json_that_is_meant_is_read(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_bytes(b'\xef\xbb\xbf{"name": "\\ud83d\\ude00", "low": -9223372036854775808}')
    assert read_json(path) == {"name": "😀", "low": -(2**63)}
    deepest = b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH
    assert parse_json(deepest, "it")["a"]["a"]
    with pytest.raises(DataError, match="cannot read"):
        read_json(tmp_path)
