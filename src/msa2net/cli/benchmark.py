"""`msa2net benchmark`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msa2net.cli.console import console, say, set_up, track
from msa2net.cli.options import (
    CompileOption,
    DeviceOption,
    NetworkOption,
    ThreadsOption,
    VerboseOption,
    flag,
    option,
)

if TYPE_CHECKING:
    from msa2net.benchmark.run import Row

ROWS = 10  # for the progress bar
WIDTH = 130

BatchOption = Annotated[
    int | None,
    option("Slices in a training step; by default 20, on a CPU 4.", "NUMBER", min=2),
]
SlicesOption = Annotated[
    int | None,
    option("Slices of the volume that is segmented; by default 148, on a CPU 16.", "NUMBER", min=1),
]
RepeatsOption = Annotated[
    int | None,
    option("How often each part is measured; by default 5, on a CPU 3.", "NUMBER", min=1),
]
FormatOption = Annotated[
    bool | None,
    flag("Number format; by default what suits the device.", "--bfloat16/--float32"),
]
QuickOption = Annotated[bool, flag("A tiny network, only to see that everything runs.", "--quick")]
FileOption = Annotated[Path | None, option("Also write everything to this file.", "FILE")]


def benchmark(
    model: NetworkOption = "msa2net",
    batch: BatchOption = None,
    slices: SlicesOption = None,
    repeats: RepeatsOption = None,
    bfloat16: FormatOption = None,
    compile_network: CompileOption = False,
    quick: QuickOption = False,
    json: FileOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    verbose: VerboseOption = False,
) -> None:
    """Measure speed and memory on this machine."""
    set_up(threads, verbose)
    from msa2net.benchmark.run import as_json, machine, memory_of_training
    from msa2net.benchmark.run import benchmark as measured
    from msa2net.benchmark.settings import settings_for
    from msa2net.files import write_json
    from msa2net.inference.run_folder import choose_device

    settings = settings_for(
        choose_device(device),
        quick=quick,
        precision=None if bfloat16 is None else "bfloat16" if bfloat16 else "float32",
        model=model,
        batch=batch,
        slices=slices,
        repeats=repeats,
        compile=compile_network,
    )
    rows = list(track(measured(settings), ROWS, "measuring"))
    memory = memory_of_training(settings)
    say(", ".join(f"{name} {value}" for name, value in machine(settings).items()))
    each = next(row.multiply_adds / row.count for row in rows if row.multiply_adds) / 1e9
    say(
        f"{settings.model}, {settings.image_size}², {settings.precision}: {each:.2f} G "
        "multiply–adds an image"
    )
    _show(rows)
    _show_memory(memory)
    if quick:
        say("--quick measures a tiny network: no figure of it says anything about speed.")
    if json is not None:
        write_json(json, as_json(settings, rows, memory))
        say(f"everything is in {json}")


def _show(rows: "list[Row]") -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for heading in ("part", "of what"):
        table.add_column(heading, no_wrap=True)
    for heading in ("median", "fastest–slowest", "a second", "memory", "ceiling"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        low, high = row.timing.spread
        table.add_row(
            row.part,
            row.detail,
            _duration(row.timing.median),
            f"{_duration(low)}–{_duration(high)}",
            f"{row.per_second:.3g} {row.unit}s" if row.unit else "",
            "" if row.timing.peak_bytes is None else f"{row.timing.peak_bytes / 1e9:.2f} GB",
            "" if row.share is None else f"{100 * row.share:.0f} %",
        )
    screen = console()
    if not screen.is_terminal:  # a file has no width
        screen.width = WIDTH
    screen.print(table)
    say(
        "memory: the most above what was in use before. ceiling: share of the multiply–adds a "
        "second\nof the fastest large matrix product here; a training step counts as three forward "
        "passes."
    )


def _show_memory(memory: dict[str, float]) -> None:
    batch, plain, less = memory["batch"], memory["bytes"], memory["bytes_with_checkpointing"]
    say(
        f"training memory, computed and not measured, batch {batch}, SGD: {plain / 1e9:.1f} GB; "
        f"with gradient checkpointing {less / 1e9:.1f} GB"
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
