"""Writing files so that a crash, a full disk or a second process never leaves half of one."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msa2net.errors import DataError, Msa2NetError
from msa2net.parsing import MAX_BYTES, parse_json


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it replaces `path`, on failure it vanishes.

    The temporary name keeps the whole suffix (`.nii.gz`), because writers choose by it.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=".writing-", suffix="".join(path.suffixes[-2:])
        )
        temporary = Path(name)
        os.close(handle)
        yield temporary
        # mkstemp, and safetensors too, make files that only their owner can read.
        temporary.chmod(0o644)
        with temporary.open("rb+") as written:  # Windows syncs writable files only
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; check that the folder is writable "
            "and the disk has room"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Give a folder within `folder` that vanishes; errors name the place a file was meant for.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as staged:
            try:
                yield Path(staged)
            except Msa2NetError as error:
                raise type(error)(str(error).replace(staged, str(folder))) from error
    except OSError as error:
        raise DataError(
            f"cannot write into {folder}: {error.strerror or error}; check that the folder is "
            "writable and the disk has room"
        ) from error


def put_in_place(staged: Path, path: Path) -> None:
    """Bring a finished file to its place, once it is on the disk."""
    with staged.open("rb+") as written:  # Windows syncs writable files only
        os.fsync(written.fileno())
    staged.chmod(0o644)
    staged.replace(path)


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
            content = file.read(MAX_BYTES + 1)
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


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
