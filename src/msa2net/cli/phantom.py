"""`msa2net phantom`."""

from pathlib import Path
from typing import Annotated

import typer

from msa2net.cli.console import console


def phantom(
    out: Annotated[Path, typer.Argument(help="New folder.", metavar="OUT")],
    format: Annotated[str, typer.Option(help="The layout to write: isic2018 or images.")],
    cases: Annotated[int, typer.Option(min=3, help="How many.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Other numbers give other cases.")] = 0,
) -> None:
    """Write synthetic data in the layout of a real data set, to try things without a download."""
    from msa2net.data.phantom_files import write_phantom

    write_phantom(format, out, cases, seed)
    console().print(f"{cases} synthetic cases in {out}")
    console().print(f"next: msa2net prepare {format} {out} prepared/phantom-{format}")
