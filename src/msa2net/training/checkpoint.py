"""Checkpoints: the state of a training, in files that are whole or not there.

`checkpoints/epoch00004-step00000123-9f86d081884c7d65.ckpt` names the finished epochs, the finished
batches, and the first 16 digits of the file's own SHA-256: content and checksum appear together, by
one renaming. Any of them opens with `torch.load(path, weights_only=True)`.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from msa2net.compat import is_failed_write
from msa2net.errors import DataError, WeightsError, is_out_of_memory
from msa2net.files import put_in_place, sha256, temporary_folder
from msa2net.models.weights import refuse_packed
from msa2net.training.checkpoint_state import what_is_missing

FOLDER = "checkpoints"
SCHEMA = 1
KEPT = 2
DIGITS = 16
NAME = re.compile(rf"epoch(\d+)-step(\d+)-([0-9a-f]{{{DIGITS}}})\.ckpt")


class Checkpoints:
    """The checkpoints of a run: the last two are kept."""

    def __init__(self, run: Path) -> None:
        self.folder = run / FOLDER
        self._whole: list[Path] = []  # written or read by us, the oldest first

    def paths(self) -> list[Path]:
        """List the files that are named as checkpoints, the newest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        aged = ((_age(path), path) for path in found if NAME.fullmatch(path.name))
        return [path for age, path in sorted(aged, reverse=True) if age]

    def save(self, state: Mapping[str, Any], epoch: int, step: int) -> None:
        """Write a checkpoint; older ones go only when it lies safely on the disk.

        Raises:
            DataError: the folder cannot be written or the disk is full.
        """
        try:
            with temporary_folder(self.folder) as temporary:
                staged = temporary / f"{step}.ckpt"
                with staged.open("wb") as file, _plain_errors():
                    torch.save({"schema": SCHEMA} | dict(state), file)
                digest = sha256(staged)[:DIGITS]
                path = self.folder / f"epoch{epoch:05d}-step{step:08d}-{digest}.ckpt"
                put_in_place(staged, path)
            sync_folder(self.folder)
            self._whole = [*self._whole, path][-KEPT:]
            self._remove(set(self.paths()) - set(self._whole))  # damaged newer ones too
        except OSError as error:
            raise DataError(
                f"cannot write a checkpoint into {self.folder}: {error.strerror or error}; the one "
                "before it is kept: make room or the folder writable, then go on with --resume"
            ) from error

    def load(self, *, tidy: bool = True) -> tuple[dict[str, Any], list[str]]:
        """Read the newest checkpoint that is whole.

        Args:
            tidy: remove older ones than are kept.

        Returns:
            Its state, and a sentence for each newer one that is damaged.

        Raises:
            WeightsError: there is none.
        """
        damaged, newest = list[str](), ""
        paths = self.paths()
        for number, path in enumerate(paths, start=1):
            reason = ""
            try:
                if sha256(path)[:DIGITS] != _digest(path):
                    reason = "its checksum is another"
                else:
                    refuse_packed(path)
                    state = torch.load(path, map_location="cpu", weights_only=True)
                    reason = "" if _is_of_another_version(state) else what_is_missing(state)
            except Exception as error:  # torch has many ways to say that it cannot read a file
                if is_out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())[:200]
            if not reason:
                _check_schema(path, state)
                self._whole = [*reversed(paths[number:][: KEPT - 1]), path]
                if tidy:
                    self._remove(set(paths[number:]) - set(self._whole))
                return state, damaged
            newest = newest or reason
            damaged.append(f"the checkpoint {path} is damaged ({reason}); the one before is taken")
        if not damaged:
            raise WeightsError(
                f"{self.folder.parent} holds no checkpoint to go on from; name the run's folder "
                "with --out, or start without --resume"
            )
        raise WeightsError(
            f"all checkpoints in {self.folder} ({len(damaged)}) are damaged, the newest: {newest}; "
            "start again with --overwrite"
        )

    def _remove(self, paths: set[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renamings in a folder outlast a power failure, where the system can."""
    if os.name != "nt":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _age(path: Path) -> tuple[int, int, float] | tuple[()]:
    """Return what to sort by; nothing if another process has just removed the file."""
    found = NAME.fullmatch(path.name)
    assert found is not None
    try:
        return int(found[1]), int(found[2]), path.stat().st_mtime
    except FileNotFoundError:
        return ()


def _digest(path: Path) -> str:
    found = NAME.fullmatch(path.name)
    assert found is not None
    return found[3]


def _is_of_another_version(state: object) -> bool:
    return isinstance(state, Mapping) and state.get("schema") != SCHEMA


def _check_schema(path: Path, state: Mapping[str, Any]) -> None:
    if _is_of_another_version(state):
        raise WeightsError(
            f"{path} has schema {state.get('schema')}, this version reads {SCHEMA}; go on with the "
            "version of msa2net that began the training"
        )


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn what torch makes of a failed write into the system's own error."""
    try:
        yield
    except RuntimeError as error:
        if is_failed_write(error):
            raise OSError(str(error).splitlines()[0]) from error
        raise
