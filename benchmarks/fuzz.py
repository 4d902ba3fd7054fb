"""Throw spoilt files at everything that reads one: a sentence, or success, and nothing else.

    python benchmarks/fuzz.py --inputs 20000 --seed 0 --workers 2

An input is a whole set of files of one kind (see `fuzz_kinds`), one of them spoilt. Which, and how,
follows from the seed and the input's number alone. Reading must end in an `Msa2NetError` of one
line or in success, within 10 s of computing and 2 GB, and damaged weights must be refused. Children
read, this process watches them. What fails is written to a folder, with how to repeat it.
"""

import argparse
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from fuzz_kinds import KINDS, Kind, make_kinds

from msa2net.errors import Msa2NetError

SECONDS = 10.0  # of computing; of waiting, six times as many
MEMORY_MB = 2000
LONGEST = 2100  # characters of a sentence
_POLL = 0.1
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Result:
    """What became of an input.

    Attributes:
        number: of the input.
        outcome: refused, accepted or failed.
        reason: the sentence, or what failed.
        seconds: of computing.
        peak_mb: the most memory that the process held.
    """

    number: int
    outcome: str
    reason: str
    seconds: float = 0.0
    peak_mb: float = 0.0


def spoil(kind: Kind, seed: int, number: int) -> tuple[str, bytes]:
    """Return which file of a kind is spoilt in an input, and to what."""
    rng = random.Random(f"{seed} {number}")
    name = rng.choice(list(kind.spoilt))
    content = kind.files[name]
    for _ in range(rng.choice((1, 1, 1, 2))):
        mutation = rng.choice(kind.spoilt[name])
        try:
            content = mutation(content, rng)
        except Exception:
            break
    return name, content


def lay_out(kind: Kind, folder: Path, name: str, content: bytes) -> None:
    """Write a kind's files, one of them spoilt."""
    shutil.rmtree(folder, ignore_errors=True)
    for other, own in kind.files.items():
        path = folder / other
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if other == name else own)


def assess(kind: Kind, folder: Path, *, changed: bool) -> tuple[str, str]:
    """Read an input and say what became of it, and why."""
    try:
        kind.read(folder)
    except Msa2NetError as error:
        sentence = str(error)
        if "\n" in sentence or not 10 < len(sentence) < LONGEST:
            return "failed", f"no sentence: {sentence[:300]!r}"
        return "refused", sentence
    except BaseException:
        return "failed", traceback.format_exc()
    if kind.must_be_whole and changed:
        return "failed", "damaged weights were accepted"
    return "accepted", ""


def work(kinds: Sequence[Kind], seed: int, numbers: Sequence[int], folder: Path, out: Connection):
    """Read inputs one after the other; tells of each that it begins, and how it ended."""
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    limit = 64 * 2**30  # of addresses: libraries reserve many
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for number in numbers:
        kind = kinds[number % len(kinds)]
        name, content = spoil(kind, seed, number)
        lay_out(kind, folder, name, content)
        out.send(number)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
        start = time.process_time()
        outcome, reason = assess(kind, folder, changed=content != kind.files[name])
        seconds = time.process_time() - start
        out.send(Result(number, outcome, reason, seconds, held_mb("self", "VmHWM")))
    out.send(None)


def watch(
    kinds: Sequence[Kind], seed: int, numbers: Sequence[int], workers: int
) -> Iterator[Result]:
    """Yield what becomes of inputs; a child that hangs, swells or dies is replaced."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        shares = [list(numbers[own::workers]) for own in range(workers)]
        running = [_Child(kinds, seed, share, Path(scratch)) for share in shares if share]
        while running:
            ready = wait([child.pipe for child in running], _POLL)
            for child in running.copy():
                result = child.hear() if child.pipe in ready else None
                result = result or child.exceeded()
                if result is not None:
                    yield _within_limits(result)
                if child.ended:
                    running.remove(child)
                    if rest := child.rest():
                        running.append(_Child(kinds, seed, rest, Path(scratch)))


class _Child:
    """A process that reads inputs, and the one it is at."""

    def __init__(self, kinds: Sequence[Kind], seed: int, share: list[int], scratch: Path) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe(duplex=False)
        folder = scratch / str(time.monotonic_ns())
        self._process = context.Process(target=work, args=(kinds, seed, share, folder, theirs))
        self._process.start()
        theirs.close()
        self.ended = False
        self._share = share
        self._begin(share[0])

    def hear(self) -> Result | None:
        """Take one message; return what became of an input, if it says that."""
        try:
            said = self.pipe.recv()
        except (EOFError, pickle.UnpicklingError):
            self._process.join()
            return self._lost(f"the process ended with {self._process.exitcode}")
        if isinstance(said, Result):
            return said
        if said is None:
            self._process.join()
            self.ended, self._at = True, self._share[-1]
        else:
            self._begin(said)
        return None

    def exceeded(self) -> Result | None:
        """Kill the process if it computes too long or holds too much."""
        used, waited = self._used(), time.monotonic() - self._since
        held = held_mb(str(self._process.pid))
        reason = ""
        if used > SECONDS or waited > 6 * SECONDS:
            reason = f"no answer after {used:.0f} s of computing, {waited:.0f} s in all"
        elif held > MEMORY_MB:
            reason = f"{held:.0f} MB of memory"
        if not reason or self.ended:
            return None
        self._process.kill()
        self._process.join()
        return self._lost(reason, used)

    def rest(self) -> list[int]:
        """Return the inputs that are left."""
        return self._share[self._share.index(self._at) + 1 :]

    def _begin(self, number: int) -> None:
        self._at, self._since = number, time.monotonic()
        self._before = _computed(self._process.pid)

    def _used(self) -> float:
        return max(0.0, _computed(self._process.pid) - self._before)

    def _lost(self, reason: str, seconds: float = 0.0) -> Result:
        self.ended = True
        return Result(self._at, "failed", reason, seconds)


def _within_limits(result: Result) -> Result:
    reason = ""
    if result.seconds > SECONDS:
        reason = f"{result.seconds:.1f} s"
    elif result.peak_mb > MEMORY_MB:
        reason = f"{result.peak_mb:.0f} MB of memory"
    if not reason or result.outcome == "failed":
        return result
    return Result(result.number, "failed", reason, result.seconds, result.peak_mb)


def _computed(pid: int | None) -> float:
    """Return the seconds that a process has computed."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK


def held_mb(pid: str, what: str = "VmRSS") -> float:
    """Return the memory that a process holds, or (VmHWM) the most that it did."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    return next((int(x.split()[1]) / 1024 for x in lines.splitlines() if x.startswith(what)), 0.0)


def keep(kinds: Sequence[Kind], seed: int, result: Result, out: Path) -> None:
    """Write a failing input, and how to repeat it."""
    kind = kinds[result.number % len(kinds)]
    folder = out / f"{kind.name}-{seed}-{result.number}"
    name, content = spoil(kind, seed, result.number)
    lay_out(kind, folder / "files", name, content)
    words = f"spoilt: {name}\nfuzz.py --seed {seed} --first {result.number} --inputs 1\n"
    (folder / "reason.txt").write_text(words + result.reason, encoding="utf-8", errors="replace")


def fuzz(
    inputs: int, seed: int, *, first: int = 0, workers: int = 1, out: Path | None = None,
    names: Sequence[str] = (),
) -> tuple[list[Kind], list[Result]]:  # fmt: skip
    """Throw so many inputs; kinds come in turn."""
    with tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as folder:
        kinds = make_kinds(Path(folder))
        step = len(kinds)
        numbers = range(first, first + inputs)
        if names:
            chosen = [place for place, kind in enumerate(kinds) if kind.name in names]
            numbers = [n for n in range(first, first + inputs * step) if n % step in chosen]
            numbers = numbers[:inputs]
        results = []
        for result in watch(kinds, seed, numbers, workers):
            results.append(result)
            if result.outcome == "failed" and out is not None:
                keep(kinds, seed, result, out)
                last = result.reason.strip().splitlines()[-1][:150]
                print(f"{kinds[result.number % step].name} {result.number}: {last}", flush=True)
    return kinds, results


def table(kinds: Sequence[Kind], results: Sequence[Result]) -> str:
    """Return a line a kind."""
    head = f"{'kind':18}{'inputs':>8}{'refused':>9}{'accepted':>10}{'failed':>8}{'slowest':>9}"
    lines = [f"{head}{'peak MB':>9}"]
    for place, kind in enumerate(kinds):
        own = [one for one in results if one.number % len(kinds) == place]
        if own:
            counts = [sum(x.outcome == o for x in own) for o in ("refused", "accepted", "failed")]
            slowest, peak = max(x.seconds for x in own), max(x.peak_mb for x in own)
            lines.append(
                f"{kind.name:18}{len(own):8}{counts[0]:9}{counts[1]:10}{counts[2]:8}"
                f"{slowest:8.1f}s{peak:9.0f}"
            )
    failed = sum(one.outcome == "failed" for one in results)
    return "\n".join([*lines, f"{len(results)} inputs, {failed} failed"])


def main() -> int:
    """Run from the command line; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kinds", nargs="*", default=(), choices=KINDS, metavar="KIND")
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"))
    given = parser.parse_args()
    kinds, results = fuzz(
        given.inputs, given.seed, first=given.first, workers=given.workers, out=given.out,
        names=given.kinds,
    )  # fmt: skip
    print(table(kinds, results))
    return int(any(one.outcome == "failed" for one in results))


if __name__ == "__main__":
    sys.exit(main())
