"""Leaving a training early: signals, and a limit on time."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

Looks = Callable[[Iterable[int], int], Iterable[int]]
"""Wraps numbers, one for each time that a case is looked at, and how many there are."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)
OUT_OF_TIME = 1  # a signal's number is larger, so it is what several processes agree on


class StopTraining(Exception):  # noqa: N818
    """Raised between two batches to leave Lightning's loop; never seen outside training."""


class TrainingInterrupted(KeyboardInterrupt):
    """A signal ended a training; its state was saved and `resume` goes on from there.

    Attributes:
        run: the run folder.
        signum: the signal.
        epochs: that are finished.
        steps: that are finished.
    """

    def __init__(self, run: Path, signum: int, epochs: int, steps: int) -> None:
        super().__init__(f"{signal.Signals(signum).name} after step {steps}")
        self.run, self.signum, self.epochs, self.steps = run, signum, epochs, steps


class StopRequest:
    """Says when to leave: a signal came, or the next batch might end after the limit.

    As a context it takes SIGTERM and SIGINT, in the main thread only, and gives them back. The
    first signal is noted; the second one ends the process at once.

    Args:
        seconds: the limit, counted from now; None for none.

    Attributes:
        signum: the signal that came.
        out_of_time: the limit is near.
    """

    def __init__(self, seconds: float | None) -> None:
        self.signum: int | None = None
        self.out_of_time = False
        self._seconds = seconds
        self._started = self._last = time.monotonic()
        self._longest = 0.0
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._last = time.monotonic()  # preparing data counts, but is not how long a batch takes
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                # Ignored on purpose, as by nohup or a shell's background jobs, stays ignored.
                if signal.getsignal(signum) != signal.SIG_IGN:
                    self._handlers[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def _note(self, signum: int, _: FrameType | None) -> None:
        if self.signum is not None:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        self.signum = signum

    @property
    def code(self) -> int:
        """Return why to leave as a number: the signal, OUT_OF_TIME, or 0 for no reason."""
        return self.signum or (OUT_OF_TIME if self.out_of_time else 0)

    def take(self, code: int) -> None:
        """Leave for a reason that another process has."""
        self.out_of_time = self.out_of_time or code == OUT_OF_TIME
        if code not in (0, OUT_OF_TIME) and self.signum is None:
            self.signum = code

    def check(self, saving_seconds: float) -> bool:
        """Return whether to leave now; to be called after each batch and validation case.

        Args:
            saving_seconds: what saving took the last time; twice as much is set aside, and twice
                the longest time between two calls.
        """
        now = time.monotonic()
        self._longest, self._last = max(self._longest, now - self._last), now
        if self._seconds is not None:
            needed = 2 * (self._longest + saving_seconds)
            self.out_of_time = now - self._started + needed >= self._seconds
        return self.signum is not None or self.out_of_time

    def between(self, looks: Looks | None) -> Looks:
        """Return what leaves before a look by StopTraining, where it is time to."""

        def leave_or_go_on(numbers: Iterable[int], total: int) -> Iterator[int]:
            for number in numbers if looks is None else looks(numbers, total):
                if self.check(0.0):
                    raise StopTraining
                yield number

        return leave_or_go_on
