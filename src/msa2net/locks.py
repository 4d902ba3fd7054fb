"""One process at a time: locks on files, which the operating system lifts when their owner dies.

Whoever holds a lock file writes into it who that is, for those who are refused, and removes it in
the end. One that a killed process left is taken over. Nothing but the system's own lock counts, so
no file can keep a folder closed for good.
"""

import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import count
from pathlib import Path

from msa2net.errors import ConfigError, DataError

LOCK_FILE = ".msa2net-lock"

_POLL_S = 0.1
_LONGEST_HOLDER = 200  # bytes
_ATTEMPTS = 100  # to open a file before somebody removes it: some file systems number no file twice
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # its target would be written to

_log = logging.getLogger(__name__)
_inherited: set[int] = set()  # handles that a forked child is to close
_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)

if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        os.lseek(handle, 1 << 30, os.SEEK_SET)  # the content before stays readable for others
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Lock:
    """A lock file, and whether this process holds it.

    Attributes:
        path: the file.
        missing: why the file system offers no locks, "" if it does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.missing = ""
        self._handle, self._owner = -1, 0

    def acquire(self) -> bool:
        """Take it; False if another process holds it. Where there are no locks it is taken too.

        Raises:
            OSError: the file cannot be made.
        """
        for attempt in count():
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
            try:
                _take(handle)
            except OSError as error:
                if error.errno in _HELD:
                    os.close(handle)
                    return False
                self.missing = error.strerror or str(error)
            except BaseException:
                os.close(handle)
                raise
            if _is_at(handle, self.path) or attempt == _ATTEMPTS:
                break
            os.close(handle)  # whoever held it has removed it since it was opened
        self._handle, self._owner = handle, os.getpid()
        _inherited.add(handle)
        return True

    def sign(self) -> None:
        """Write into the file who holds it."""
        since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
        text = f"process {os.getpid()} on {socket.gethostname()}, since {since}\n"
        with suppress(OSError):  # a full disk is no reason to go without
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            os.write(self._handle, text.encode())

    def holder(self) -> str:
        """Read who holds it."""
        with suppress(OSError), self.path.open("rb") as file:
            text = file.read(_LONGEST_HOLDER).decode("utf-8", "replace").strip()
            if text:
                return text
        return "another process"

    def release(self) -> None:
        """Remove the file and lift the lock; a forked child does neither."""
        if self._handle < 0 or self._owner != os.getpid():
            return
        handle, self._handle = self._handle, -1
        if sys.platform == "win32":  # which removes no open file
            os.close(handle)
        with suppress(OSError):
            self.path.unlink()
        _inherited.discard(handle)
        if sys.platform != "win32":
            os.close(handle)


@contextmanager
def alone_in(folder: Path, *, wait: bool = False, part: int = 0) -> Iterator[None]:
    """Keep other processes from writing into a folder, which is made if it is not there.

    A file system without locks is used without them, and a line says so.

    Args:
        folder: `.msa2net-lock` in it is the lock.
        wait: for a process that holds it, instead of refusing.
        part: number of one of several processes that write into the folder together; each has a
            lock of its own.

    Raises:
        DataError: another process holds it, which is named; or nothing can be written there.
        ConfigError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; name a folder")
    lock = Lock(folder / (f"{LOCK_FILE}-{part}" if part else LOCK_FILE))
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _acquire(lock, folder, wait)
        except OSError as error:
            raise DataError(
                f"cannot write into {folder}: {error.strerror or error}; check that the folder is "
                "writable and the disk has room"
            ) from error
        yield
    finally:
        lock.release()
        for path in made:
            with suppress(OSError):  # something was written into it, as a rule
                path.rmdir()


def _acquire(lock: Lock, folder: Path, wait: bool) -> None:
    waiting = False
    while not lock.acquire():
        if not wait:
            raise DataError(
                f"{folder} is being written to by {lock.holder()}; wait until that is done, or "
                "name another folder"
            )
        if not waiting:
            _log.warning("waiting for %s, which writes into %s", lock.holder(), folder)
        waiting = True
        time.sleep(_POLL_S)
    if lock.missing:
        _log.warning(
            "the file system of %s offers no locks (%s): see to it that no other process writes "
            "there",
            folder,
            lock.missing,
        )
    lock.sign()


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _close_inherited() -> None:
    """Leave the locks to the parent: a loading process that outlives it would hold them."""
    for handle in _inherited:
        with suppress(OSError):
            os.close(handle)
    _inherited.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)
