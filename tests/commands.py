"""Commands run inside the test's own process: importing torch anew for each would take minutes."""

import contextlib
import io
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from msa2net.cli import main, run_command


def msa2net(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `msa2net …`; exit code and output are what a process would give."""
    return _run(main, "msa2net", arguments, cwd)


def script(
    command: Callable[..., None], *arguments: str | Path, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run a command of its own, as `train.py` does."""
    return _run(lambda: run_command(command), "script.py", arguments, cwd)


def _run(
    entry: Callable[[], None], name: str, arguments: tuple[str | Path, ...], cwd: Path
) -> subprocess.CompletedProcess[str]:
    words = [name, *map(str, arguments)]
    out, err, before, code = io.StringIO(), io.StringIO(), Path.cwd(), 0
    with (
        mock.patch.object(sys, "argv", words),
        mock.patch.object(sys, "warnoptions", ["as the test asks"]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        os.chdir(cwd)
        try:
            entry()
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except Exception:  # what the interpreter does with an exception that nobody caught
            traceback.print_exc()
            code = 1
        finally:
            os.chdir(before)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def assert_one_sentence(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit code 2, one line on standard error, no traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]
