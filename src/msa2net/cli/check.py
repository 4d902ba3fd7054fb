"""`msa2net check`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msa2net.cli.console import console, count_cases, say, track
from msa2net.cli.options import SettingsOption, flag, option
from msa2net.text import count_noun

if TYPE_CHECKING:
    from msa2net.config import Config
    from msa2net.data.check.dataset import Finding
    from msa2net.data.prepared.store import Store

NAMED = 3
MAX_PLACES = 1_000_000  # characters: with --verbose every case is named
STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def check(
    dataset: Annotated[
        Path,
        typer.Argument(
            help="Folder of prepared data; or a configuration (.yaml), to look at its data with "
            "its splits and folds, and at the memory that its training needs.",
            metavar="DATASET",
        ),
    ],
    settings: SettingsOption = None,
    image_size: Annotated[
        int | None,
        option(
            "The network's image size, to tell whether the disk has room; 224, or what the "
            "configuration says.",
            "PIXELS",
            min=32,
        ),
    ] = None,
    verbose: Annotated[
        bool, flag("Name every case, not three of a kind.", "--verbose", "-v")
    ] = False,
) -> None:
    """Look for what would spoil a training.

    Wrong labels, scales and splits, duplicates, damaged files.

    The exit code is 2 if there is any error; warnings and notes leave it at 0.
    """
    from msa2net.data.check.dataset import LEVELS, check_store

    config, store = _opened(dataset, settings or [], image_size)
    size = (image_size or 224,) * 2 if config is None else config.image_size
    findings = check_store(
        store,
        size,
        lambda cases, total: track(cases, total, "checking"),
        None if config is None else config.data,
    )
    if config is not None:
        from msa2net.training.memory import check_memory

        findings += check_memory(config, store)
        findings.sort(key=lambda finding: LEVELS.index(finding.level))
    show(findings, None if verbose else NAMED)
    kinds = {(finding.level, finding.what, finding.advice) for finding in findings}
    levels = Counter(level for level, _, _ in kinds)
    counts = ", ".join(count_noun(levels[level], level) for level in LEVELS)
    say(f"{counts} in {count_cases([case.patient or case.id for case in store.cases])}")
    if levels["error"]:
        raise typer.Exit(2)


def _opened(
    dataset: Path, settings: list[str], image_size: int | None
) -> tuple["Config | None", "Store"]:
    """Open prepared data, or a configuration and the data that it names.

    Raises:
        ConfigError: it is wrong, or there are settings and none to change.
        DataError: there are no such data.
    """
    from msa2net.config import load_config
    from msa2net.data.prepared.prepare import open_as_stored
    from msa2net.data.prepared.store import open_store
    from msa2net.errors import ConfigError

    if dataset.suffix.lower() not in (".yaml", ".yml"):
        if settings:
            raise ConfigError("--set changes a configuration; name one instead of prepared data")
        return None, open_store(dataset, complete=False)
    size = [] if image_size is None else [f"image_size={image_size}"]
    config = load_config(dataset, [*settings, *size])
    return config, open_as_stored(config.data, complete=False)


def show(findings: list["Finding"], named: int | None) -> None:
    """Print findings of the same words as one, with the first `named` places (None: all)."""
    from rich.table import Table
    from rich.text import Text

    from msa2net.data.check.findings import WHOLE
    from msa2net.text import printable

    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.level, finding.what, finding.advice), []).append(finding)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for (level, what, advice), group in groups.items():
        text = Text(printable(what), "bold")
        found = places(group, named)
        if found != WHOLE:
            text.append(f"\n{printable(found, MAX_PLACES)}", "not bold")
        if advice:
            text.append(f"\n→ {printable(advice)}", "not bold italic")
        table.add_row(Text(level, STYLES[level]), text)
        table.add_row()
    console().print(table)


def places(group: list["Finding"], named: int | None) -> str:
    """Return where a kind of finding is: `case0001 (12 mL), case0002 (9 mL) and 5 more`.

    Of the whole data set the detail alone.
    """
    from msa2net.data.check.findings import WHOLE
    from msa2net.text import listed

    shown = [
        f"{one.where} ({one.detail})"
        if one.detail and one.where != WHOLE
        else one.detail or one.where
        for one in group[:named]
    ]
    return listed(shown, len(shown), len(group))
