"""`msa2net prepare`."""

from pathlib import Path
from typing import Annotated

import typer

from msa2net.cli.console import console, track


def prepare(
    format: Annotated[str, typer.Argument(help="isic2018 or images.", metavar="FORMAT")],
    source: Annotated[Path, typer.Argument(help="Folder of the raw data.", metavar="SOURCE")],
    out: Annotated[Path, typer.Argument(help="Folder for the prepared data.", metavar="OUT")],
    max_side: Annotated[int, typer.Option(help="Larger photographs are reduced to this.")] = 1024,
) -> None:
    """Bring raw data into memory-mapped arrays; a second run does only what changed.

    `train` does this by itself; prepare ahead to find broken files early.
    """
    from msa2net.config import DataConfig
    from msa2net.data import store

    data = DataConfig(format=format, root=source, prepared=out, max_side=max_side)
    prepared = store.prepare(data, lambda cases, total: track(cases, total, "preparing"))
    counts = ", ".join(f"{len(prepared.ids(split))} {split}" for split in ("train", "val", "test"))
    console().print(f"{len(prepared.cases)} cases ({counts}) in {out}")
    console().print(f"classes: {', '.join(prepared.label_names)}")
