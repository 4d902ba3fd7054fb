"""Ways to spoil the bytes of a file: blindly, and by what its format says of itself."""

import copy
import gzip
import io
import json
import math
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]
"""(content, source of chance) → spoilt content."""

WHOLE = (0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 10**6, 2**31 - 1, 2**32 - 1, 2**63)
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 3, 255, 10**6, 10**9, 2**31, 2**63 - 1, 1e308, 1e-308, math.nan, math.inf,
    "", "x", "²", "\0", "../../x", "/x", "=1+1", "a" * 70_000, "\x1b[31m", [], {}, [[]], [1, 2, 3],
    {"a": 1}, "@@DEEP@@", "@@DIGITS@@", "@@MAPS@@",
)  # fmt: skip
TEXT = {
    b'"@@DEEP@@"': b"[" * 5000 + b"]" * 5000,
    b'"@@DIGITS@@"': b"9" * 5000,
    b'"@@MAPS@@"': b'{"a":' * 500 + b"1" + b"}" * 500,
}
TOKENS = (
    b"\0", b"\r", b"\n", b"\xef\xbb\xbf", b"&a ", b"*a", b"!!binary ", b"!!float ", b"<<: ", b"%",
    b"- ", b": ", b"[", b"{", b"'", b'"', b"0x_", b"2024-99-99", b"1e999", b"-0", b"\xff", b"#",
    b"9" * 400, b"[" * 400, b"&a [*a,*a]", b"? ", b"|", b">", b"\t", b"---\n", b"...", b"~", b"=",
    b",",
)  # fmt: skip


def flips(content: bytes, rng: random.Random) -> bytes:
    """Flip up to 20 bits, often near the beginning, where headers are."""
    spoilt = bytearray(content)
    for _ in range(rng.randint(1, 20) if spoilt else 0):
        spoilt[_place(len(spoilt), rng)] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def numbers(content: bytes, rng: random.Random) -> bytes:
    """Write a number that programs trip over, of 1 to 8 bytes, into a few places."""
    spoilt = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        size = rng.choice((1, 2, 4, 8))
        if len(spoilt) < size:
            break
        value = rng.choice((*WHOLE, rng.getrandbits(64))) % 256**size
        at = min(_place(len(spoilt), rng), len(spoilt) - size)
        spoilt[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
    return bytes(spoilt)


def cut(content: bytes, rng: random.Random) -> bytes:
    """Lose the end, or a piece."""
    one, two = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    return content[:one] if rng.random() < 0.5 else content[:one] + content[two:]


def splice(content: bytes, rng: random.Random) -> bytes:
    """Copy a piece to another place, perhaps many times."""
    one, two = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    piece = content[one : min(two, one + 1000)] * rng.choice((1, 1, 2, 50))
    at = rng.randrange(len(content) + 1)
    return content[:at] + piece + content[at + (0 if rng.random() < 0.5 else len(piece)) :]


def tokens(content: bytes, rng: random.Random) -> bytes:
    """Put words of a language of text where none is expected."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(content) + 1)
        content = content[:at] + rng.choice(TOKENS) + content[at + rng.choice((0, 0, 1, 5)) :]
    return content


def digits(content: bytes, rng: random.Random) -> bytes:
    """Replace a number in a text."""
    found = list(re.finditer(rb"\d+", content))
    if not found:
        return tokens(content, rng)
    match = rng.choice(found)
    value = rng.choice((b"0", b"-1", b"1e400", b".nan", b"9" * rng.choice((5, 12, 30, 5000)), b"x"))
    return content[: match.start()] + value + content[match.end() :]


def json_values(content: bytes, rng: random.Random) -> bytes:
    """Replace, remove, add or name twice a value somewhere in JSON."""
    value = json.loads(content)
    spoil_tree(value, rng)
    spoilt = json.dumps(value).encode()
    for word, text in TEXT.items():
        spoilt = spoilt.replace(word, text)
    if rng.random() < 0.05:
        key = re.search(rb'"\w+": ', spoilt)
        spoilt = spoilt.replace(b"{", b"{" + (key[0] if key else b'"a": ') + b"1, ", 1)
    return spoilt


def spoil_tree(value: Any, rng: random.Random) -> None:
    """Change one to three places of nested lists and dictionaries."""
    for _ in range(rng.randint(1, 3)):
        places = [(value, key) for key in _keys(value)]
        for one, key in places:
            places += [(one[key], inner) for inner in _keys(one[key])]
        if not places:
            return
        one, key = rng.choice(places)
        what = rng.random()
        if what < 0.15:
            del one[key]
        elif what < 0.25:
            other, name = rng.choice(places)
            one[key] = copy.deepcopy(other[name])
        elif what < 0.3 and isinstance(one, dict):
            one[rng.choice(("x", "", "²", "a" * 5000))] = rng.choice(VALUES)
        else:
            one[key] = copy.deepcopy(rng.choice(VALUES))


def within_gzip(content: bytes, rng: random.Random) -> bytes:
    """Spoil what is packed, and pack it again."""
    return gzip.compress(blindly(gzip.decompress(content), rng), 1)


def within_zip(content: bytes, rng: random.Random) -> bytes:
    """Spoil a member of an archive, its checksum right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info, archive.read(info)) for info in archive.infolist()]
    chosen, out = rng.randrange(len(members)), io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number, (info, data) in enumerate(members):
            kind = info.compress_type if rng.random() < 0.9 else zipfile.ZIP_DEFLATED
            data = blindly(data[:200], rng) + data[200:] if number == chosen else data
            archive.writestr(info.filename, data, kind)
    return out.getvalue()


def within_png(content: bytes, rng: random.Random) -> bytes:
    """Spoil a chunk of a PNG, its checksum right; or pack far more than its picture holds."""
    chunks, at = [], 8
    while at + 8 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += length + 12
    chosen = rng.randrange(len(chunks))
    name, data = chunks[chosen]
    if name == b"IDAT" and rng.random() < 0.2:
        data = zlib.compress(bytes(2**24), 1)
    chunks[chosen] = name, blindly(data, rng)
    return content[:8] + b"".join(
        struct.pack(">I", len(own)) + kind + own + struct.pack(">I", zlib.crc32(kind + own))
        for kind, own in chunks
    )


def within_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Spoil the header of a file of weights, its length right; or some of its numbers."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    if rng.random() < 0.5:
        header = json_values(header, rng)
    else:
        at = rng.randrange(len(data) // 4) * 4
        value = rng.choice((math.nan, math.inf, -math.inf, 3e38))
        data = data[:at] + struct.pack("<f", value) + data[at + 4 :]
    return len(header).to_bytes(8, "little") + header + data


def within_deflated_dicom(content: bytes, rng: random.Random) -> bytes:
    """Spoil the elements of a DICOM file that is packed as a whole, and pack them again."""
    start = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(1, wbits=-15)
    inner = blindly(zlib.decompress(content[start:], wbits=-15), rng)
    return content[:start] + packer.compress(inner) + packer.flush()


def blindly(content: bytes, rng: random.Random) -> bytes:
    """Spoil bytes of any kind."""
    return rng.choice((flips, numbers, cut, splice))(content, rng)


def as_text(content: bytes, rng: random.Random) -> bytes:
    """Spoil a text of any kind."""
    return rng.choice((flips, tokens, tokens, digits, digits, cut, splice))(content, rng)


def _place(length: int, rng: random.Random) -> int:
    return rng.randrange(min(length, 600) if rng.random() < 0.6 else length)


def _keys(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value)
    return list(range(len(value))) if isinstance(value, list) else []
