"""What a command sets for its process: libraries' messages, kept memory, threads."""

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

LOGGERS = (
    *("nibabel.global", "PIL", "matplotlib", "pydicom", "highdicom", "h5py", "timm", "monai"),
    *("torch", "torch.onnx", "lightning.pytorch", "lightning.fabric", "onnx", "onnxscript"),
)
"""Those that write to the terminal; the first has a handler of its own, and so may others."""

_FOR_WORKERS = "PYTHONWARNINGS"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_ONE_GIB = 2**30
_levels: dict[str, int] = {}


def set_up(threads: int | None, verbose: bool) -> None:
    """Apply the common options to this process, before anything large is made in it."""
    keep_touched_memory()
    if verbose:
        show_library_messages()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Silence them inside; what msa2net says goes on, and an interpreter's own `-W` holds."""
    own, to_terminal = logging.getLogger("msa2net"), logging.lastResort
    before = os.environ.get(_FOR_WORKERS)
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
            os.environ[_FOR_WORKERS] = "ignore"  # workers that are started anew read it
        for name in LOGGERS:
            logger = logging.getLogger(name)
            _levels[name] = logger.level
            logger.setLevel(logging.CRITICAL + 1)
        nobody = logging.NullHandler()  # of loggers without one, Python prints warnings itself
        logging.getLogger().addHandler(nobody)
        if to_terminal is not None:
            own.addHandler(to_terminal)
        try:
            yield
        finally:
            if to_terminal is not None:
                own.removeHandler(to_terminal)
            logging.getLogger().removeHandler(nobody)
            _restore(LOGGERS)
            _put_back(before)


def show_library_messages() -> None:
    """Let them speak again, inside of `silence_libraries`, as --verbose asks.

    Not pydicom and highdicom: what they warn of are the values of a header, with names in it.
    """
    if not sys.warnoptions:
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", module=r"(pydicom|highdicom)(\..*)?")
        _put_back(None)
    root = logging.getLogger()
    for handler in [one for one in root.handlers if type(one) is logging.NullHandler]:
        root.removeHandler(handler)
    _restore(name for name in LOGGERS if name not in ("pydicom", "highdicom"))


def _restore(names: Iterable[str]) -> None:
    for name in names:
        logging.getLogger(name).setLevel(_levels[name])


def _put_back(before: str | None) -> None:
    if before is None:
        os.environ.pop(_FOR_WORKERS, None)
    else:
        os.environ[_FOR_WORKERS] = before


def keep_touched_memory() -> bool:
    """Tell glibc's allocator to hand freed memory out again rather than back to the system.

    Tensors of tens of megabytes come and go with every layer. Given back and taken anew, each of
    their pages is cleared by the system at its first touch, which can take longer than what is
    computed in it: a seventh of the time of a large network in bfloat16 on a CPU (see
    docs/performance.md). The most memory that a process takes stays about the same; only less of
    it is given back between two peaks. Elsewhere than on glibc nothing happens.

    Returns:
        Whether it was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    done = [mallopt(_M_MMAP_THRESHOLD, _ONE_GIB), mallopt(_M_TRIM_THRESHOLD, _ONE_GIB)]
    return all(done)
