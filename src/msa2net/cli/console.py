"""What all commands share: what is printed, progress bars, and what a process is set to."""

import ctypes
import logging
import os
import re
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msa2net.text import count_noun

if TYPE_CHECKING:
    from lightning import Callback
    from rich.console import Console

Item = TypeVar("Item")

SHOWN = 5  # lines of one kind on the screen
DISCLAIMER = "Research use only, not a medical device."

_COMMAND, _NO_BREAK = re.compile(r"(?<=: )msa2net .*$"), "\u00a0"
INTERRUPTED = 130  # what shells say of a program ended by Ctrl-C


def console() -> "Console":
    """Return a console on standard output."""
    from rich.console import Console

    return Console(highlight=False)


def say(message: str, style: str = "") -> None:
    """Print lines as they are: names with brackets are no markup, and obey nobody.

    On a terminal, lines that are too long for it end between words. Paths, and a command at the end
    of a line, are not broken: they are to be pasted.
    """
    from rich.text import Text

    screen = console()
    screen.print(Text(_lines(message, screen), style), soft_wrap=True)


def _lines(message: str, screen: "Console") -> str:
    from msa2net.text import folded, printable

    lines = [printable(line) for line in message.split("\n")]
    if screen.is_terminal:
        kept = [_COMMAND.sub(lambda found: found[0].replace(" ", _NO_BREAK), x) for x in lines]
        lines = [folded(line, screen.width).replace(_NO_BREAK, " ") for line in kept]
    return "\n".join(lines)


def say_networks(performance: Sequence[str], warnings: Sequence[str]) -> None:
    """Print what validation said of networks, and what speaks against them."""
    for line in performance:
        say(f"network {line}")
    for warning in warnings:
        say(f"warning: {warning}", style="bold yellow")


def say_flagged(cases: Sequence[tuple[str, str]], flagged: int, everywhere: Path) -> None:
    """Print the first flagged cases, each flag on a line.

    Args:
        cases: names and flags in one text each, the most suspicious first.
        flagged: how many there are.
        everywhere: the file that lists them all.
    """
    if not flagged:
        return
    from msa2net.quality.flags import SEPARATOR

    say("look at these first:")
    for name, why in cases[:SHOWN]:
        say(f"  {name}: " + why.replace(SEPARATOR, "\n    "))
    if flagged > SHOWN:
        say(f"  and at {flagged - SHOWN} more, see {everywhere}")


def count_cases(patients: Collection[str]) -> str:
    """Write `18 cases of 9 patients`; of one case each, `9 cases`.

    Args:
        patients: of each case.
    """
    cases, different = len(patients), len(set(patients))
    whose = f" of {count_noun(different, 'patient')}" if different < cases else ""
    return count_noun(cases, "case") + whose


def print_error(message: str) -> None:
    """Print one sentence to standard error."""
    from rich.console import Console
    from rich.text import Text

    screen = Console(stderr=True, highlight=False)
    text = Text(_lines(f"error: {message}", screen))
    text.stylize("bold red", 0, len("error:"))
    screen.print(text, soft_wrap=True)


def common_words(device: str, threads: int | None) -> list[str]:
    """Return the common options of a command as they were given, for one that goes on with it."""
    words = [] if device == "auto" else ["--device", device]
    return words if threads is None else [*words, "--threads", str(threads)]


def track(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """Yield the items under a progress bar that is gone when all are done.

    Where there is no terminal there is no bar: of it, a file would keep an empty line.
    """
    from rich.progress import track as rich_track

    screen = console()
    if screen.is_interactive:
        items = rich_track(items, description, total=total, console=screen, transient=True)
    yield from items


def looks(numbers: Iterable[int], total: int) -> Iterator[int]:
    """Show how far the end of a training is: a bar, or without a terminal a line a minute."""
    from msa2net.cli.bar import progress_lines

    doing = "fitting the reference ranges"
    return (
        track(numbers, total, doing)
        if console().is_interactive
        else progress_lines(numbers, total, doing, say)
    )


def training_progress(verbose: bool) -> "Callback":
    """Make what shows a training's progress: a bar, or without a terminal a line an epoch.

    Lightning's own messages are silenced unless verbose.
    """
    from msa2net.cli.bar import EpochLines, TrainingBar

    if not verbose:  # Lightning sets its loggers' levels when it is imported
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
    screen = console()
    return TrainingBar(screen) if screen.is_interactive else EpochLines(say)


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
