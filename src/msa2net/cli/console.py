"""What all commands share: the console and progress bars."""

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
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
