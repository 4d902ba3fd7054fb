"""Spoilt files of every kind end in a sentence or in success; the fuzzer notices what does not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import fuzz
import fuzz_mutations
import pytest

from msa2net.errors import DataError
from paths import ROOT

SCRIPT = ROOT / "benchmarks" / "fuzz.py"


def test_two_hundred_spoilt_files(tmp_path: Path):
    """In a process of its own, whose memory is its own; 20,000 are thrown by hand."""
    words = ["--inputs", "200", "--seed", "0", "--workers", "1", "--out", tmp_path / "failures"]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 inputs, 0 failed" in done.stdout


def never_ends(_: Path) -> None:
    while True:
        pass


def swells(_: Path) -> None:
    held = [b"x" * 2**26 for _ in range(16)]
    time.sleep(5)
    assert held


def dies(_: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuses(_: Path) -> None:
    raise DataError("the file x is damaged; restore it")


def fails(_: Path) -> None:
    raise KeyError("x")


@pytest.mark.parametrize(
    ("read", "outcome", "reason"),
    [
        (refuses, "refused", "is damaged"),
        (fails, "failed", "KeyError"),
        (dies, "failed", "the process ended with -9"),
        (never_ends, "failed", "no answer after"),
        (swells, "failed", "MB of memory"),
        (lambda _: None, "failed", "damaged weights were accepted"),
    ],
)
def test_the_fuzzer_notices(tmp_path: Path, monkeypatch, read, outcome: str, reason: str):
    monkeypatch.setattr(fuzz, "SECONDS", 0.5 if read is never_ends else 5)
    spoilt = {"a": (fuzz_mutations.flips,)}
    kind = fuzz.Kind("kind", {"a": b"content"}, spoilt, read, must_be_whole=True)
    whole = fuzz.Kind("whole", {"a": b"content"}, spoilt, lambda _: None)
    monkeypatch.setattr(fuzz, "MEMORY_MB", 10**6)
    (without,) = fuzz.watch([whole], 0, [0], 1)  # a child begins with what its parent holds
    monkeypatch.setattr(fuzz, "MEMORY_MB", without.peak_mb + 300)
    found = list(fuzz.watch([kind, whole], 0, range(4), 1))
    assert [one.outcome for one in found] == [outcome, "accepted"] * 2
    assert reason in found[0].reason
    fuzz.keep([kind], 0, found[0], tmp_path)
    assert (tmp_path / "kind-0-0" / "files" / "a").read_bytes() != b"content"
    assert "--seed 0 --first 0" in (tmp_path / "kind-0-0" / "reason.txt").read_text()


def test_an_input_is_the_same_whenever_it_is_made():
    content = b'{"a": [1, 2, {"b": "c"}], "d": 5}'
    for name in ("flips", "numbers", "cut", "splice", "tokens", "digits", "json_values"):
        mutation = getattr(fuzz_mutations, name)
        one, two = (mutation(content, random.Random(7)) for _ in range(2))
        assert one == two
        assert one != content or name == "cut"
