"""Writing files so that a crash, a full disk or a second process never leaves half of one."""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msa2net.errors import DataError, Msa2NetError
from msa2net.locks import LOCK_FILE, Lock
from msa2net.parsing import MAX_BYTES, parse_json

CONFIG_FILE, MODEL_FILE, WEIGHTS_FILE = "config.yaml", "model.json", "model.safetensors"
"""Of a run folder."""

EVALUATIONS = {"test": "evaluation", "val": "evaluation-val", "train": "evaluation-train"}
"""Split → the folder of its scores in a run: none takes the place of the test split's."""

WRITING = ".msa2net-writing"
"""The folder that holds whatever is being written into the folder around it."""

_EARLIER = ".writing-"  # what earlier versions called it, beside the target
_STRAY = re.compile(r"\.writing-.*|\.tmp[A-Za-z0-9]{6}")  # the latter is safetensors' own
_WITHOUT_LOCKS_S = 24 * 3600  # nobody writes on a file for longer


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path; on success it replaces `path`, on failure it vanishes.

    It is called as `path` is, because writers choose by the suffix.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    with _refusals(str(path)), temporary_folder(path.parent) as folder:
        yield folder / path.name
        put_in_place(folder / path.name, path)


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Give a folder within `folder` that vanishes; errors name the place a file was meant for.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    with _refusals(f"into {folder}"), temporary_folder(folder) as staged:
        try:
            yield staged
        except Msa2NetError as error:
            raise type(error)(str(error).replace(str(staged), str(folder))) from error


@contextlib.contextmanager
def temporary_folder(folder: Path) -> Iterator[Path]:
    """Give a folder of this process within `folder`, made if it is not there, that vanishes.

    It lies in `.msa2net-writing`, which is there while anybody writes. A lock beside it tells the
    living from what killed processes left, and that is removed here as well.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = _new_lock(folder / WRITING)
    temporary = lock.path.with_suffix("")
    try:
        temporary.mkdir()
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.release()
        with contextlib.suppress(OSError):  # others write there
            (folder / WRITING).rmdir()


def put_in_place(staged: Path, path: Path) -> None:
    """Bring a finished file to its place, once it is on the disk.

    Args:
        staged: in a folder of `temporary_folder`, whose permissions are those that the user's
            umask gives; some writers make files that only their owner can read.
        path: in the folder around it, or below.

    Raises:
        OSError: it cannot be written.
    """
    with staged.open("rb+") as written:  # Windows syncs writable files only
        os.fsync(written.fileno())
    allowed = staged.parent.stat().st_mode & 0o666
    if staged.stat().st_mode & 0o777 != allowed:
        staged.chmod(allowed)
    staged.replace(path)


def clean_temporaries(folder: Path, *below: str) -> None:
    """Remove what killed processes left of their writing; what others write just now stays.

    Args:
        folder: one that commands write into; it need not be there.
        below: folders in it that they write into as well.
    """
    for place in (folder, *(folder / name for name in below)):
        _remove_dead(place / WRITING)
        lock = Lock(place / LOCK_FILE)
        with contextlib.suppress(OSError):
            if lock.path.is_file() and lock.acquire():
                lock.release()
        for path in leftover_temporaries(place):
            if path.name.startswith(_EARLIER):
                remove(path)


def contents(folder: Path) -> list[str]:
    """List what is in a folder by name, without what is only there while somebody writes.

    What killed processes left is left out as well. Of no folder it is nothing.
    """
    passing = {WRITING, LOCK_FILE, *(path.name for path in leftover_temporaries(folder))}
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in found if path.name not in passing)


def leftover_temporaries(folder: Path) -> list[Path]:
    """List what killed processes of earlier versions left in a folder, directly in it.

    Names such as `.tmpA5cYww` may be those of other programs where a folder is not ours alone.
    """
    found = folder.iterdir() if folder.is_dir() else ()
    return [path for path in found if _STRAY.fullmatch(path.name)]


def remove(path: Path) -> None:
    """Remove a file or a folder; one that cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _new_lock(writing: Path) -> Lock:
    """Take a lock of a name that nobody has; the folder may vanish meanwhile, others remove it."""
    while True:
        try:
            writing.mkdir()
        except FileExistsError:
            if writing.is_file():  # not "no folder": another thread may just have removed it
                raise
            _remove_dead(writing)
        with contextlib.suppress(FileNotFoundError):
            lock = Lock(writing / f"{secrets.token_hex(8)}.lock")
            if lock.acquire():
                return lock


def _remove_dead(writing: Path) -> None:
    """Remove what nobody's living process writes; what cannot be removed is in nobody's way."""
    with contextlib.suppress(OSError):
        for token in {path.name.removesuffix(".lock") for path in writing.iterdir()}:
            lock = Lock(writing / f"{token}.lock")
            if lock.acquire():
                if not lock.missing or _age_s(writing / token) > _WITHOUT_LOCKS_S:
                    remove(writing / token)
                lock.release()
        writing.rmdir()


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write {what}: {error.strerror or error}; check that the folder is writable "
            "and the disk has room"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, all of it or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, all of it or nothing."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file, see `parse_json`.

    Raises:
        DataError: the file is missing, is not JSON, or is beyond what is read.
    """
    try:
        with path.open("rb") as file:
            held = os.fstat(file.fileno()).st_size  # `read` takes memory for all it is asked for
            content = file.read(min(held, MAX_BYTES) + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    return parse_json(content, str(path))


def read_lines(path: Path) -> list[str]:
    """Read a text file's lines, stripped, without the empty ones.

    Raises:
        DataError: the file is missing or is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows editors begin with a byte-order mark
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def usable_cores() -> int:
    """Count the cores that we may use: in containers and under taskset fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
