"""Let this process keep the memory that it has touched once."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_ONE_GIB = 2**30


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
