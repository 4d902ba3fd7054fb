"""The errors that a user can cause and mend.

Each message is one sentence that says what is wrong, where, and what to do. The command line
prints it without a traceback and leaves with exit code 2; any other exception is our fault.

That memory ran out is said by many classes and in many words; `is_out_of_memory` knows them all,
and nothing else decides it.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from msa2net.text import printable

MORE_MEMORY = "end what else runs on this machine, or use one with more memory"
"""What to do where no setting makes it less."""

# torch of CPUs (Linux, Windows), CUDA and MPS; cuBLAS, cuDNN, cuFFT; C++; onnxruntime; MONAI; HDF5.
_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|(can't|cannot|could not|failed to|unable to) allocate"
    r"|bad[_ ]alloc|alloc(ation)?_failed|memory allocation failed|\bOOM\b",
    re.IGNORECASE,
)


class Msa2NetError(ValueError):
    """Something outside the program is wrong and the person at the keyboard can mend it.

    Names of files, and what other libraries say of them, are foreign text: the sentence is made
    printable and bounded here, once for terminals, tables and records.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class ConfigError(Msa2NetError):
    """A configuration, option or argument does not make sense."""


class DataError(Msa2NetError):
    """An image, a label or a data set cannot be used as it is."""


class WeightsError(Msa2NetError):
    """A weight file or run folder cannot be loaded."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that there was no memory left, of the machine or a device.

    Words count only in what libraries raise for anything that fails: `RuntimeError` and classes of
    their own. Sentences of ours say already what to do.
    """
    if isinstance(error, Msa2NetError):
        return False
    if isinstance(error, MemoryError):  # numpy's is one
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    kind = type(error)
    if any(one.__name__ == "OutOfMemoryError" for one in kind.__mro__):  # torch's
        return True
    speaks = isinstance(error, RuntimeError) or kind.__module__ != "builtins"
    return speaks and _NO_MEMORY.search(str(error)) is not None


@contextmanager
def memory_guard(doing: str, remedy: str = MORE_MEMORY) -> Iterator[None]:
    """Turn an exception that means too little memory into one sentence; leave others alone.

    Args:
        doing: what the block does.
        remedy: what to lower.

    Raises:
        ConfigError: memory ran out.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).strip().splitlines()
        detail = f" ({said[0][:150]})" if said else ""
        raise ConfigError(f"not enough memory while {doing}{detail}; {remedy}") from error
