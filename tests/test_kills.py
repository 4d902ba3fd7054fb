"""Killed at any file operation and repeated, a command comes to the same and leaves nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from paths import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SCRIPT = ROOT / "tests" / "kills.py"
ALL = (
    "prepare", "prepare-again", "train", "train-overwrite", "train-resume",
    "predict", "predict-overwrite", "evaluate", "export",
)  # fmt: skip


def kill(folder: Path, *arguments: str, timeout: float) -> dict[str, dict]:
    """Run the script; returns what it found, by command."""
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for one in found:
        assert one["left"] == [], one["command"]
        assert one["wrong"] == [], one["command"]
    return {one["command"]: one for one in found}


def test_a_few_kills(tmp_path: Path):
    """In preparing, slicing, between epochs, in the weights, in the last table."""
    found = kill(tmp_path, "train", "--at", "0.2,0.4,0.55,0.7,0.85,0.95", timeout=300)
    assert found["train"]["kills"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("command", ALL)
def test_kills_at_every_operation(tmp_path: Path, command: str):
    (found,) = kill(tmp_path, command, timeout=3600).values()
    assert found["kills"] > 0.9 * found["operations"]  # threads do not always come to as many
    assert found["operations"] > 10
