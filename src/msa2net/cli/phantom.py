"""`msa2net phantom`."""

from pathlib import Path
from typing import Annotated

import typer

from msa2net.cli.console import count_cases, say, track


def phantom(
    out: Annotated[Path, typer.Argument(help="New folder.", metavar="OUT")],
    format: Annotated[
        str,
        typer.Option(
            help="The layout: images, isic2018, acdc, btcv, synapse or nnunet.", metavar="NAME"
        ),
    ],
    cases: Annotated[
        int | None,
        typer.Option(
            min=3,
            help="How many photographs, volumes or, of acdc, patients with two volumes each; by "
            "default 60, 8 or 9, and with --full-size as many as the real data set has.",
            metavar="NUMBER",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Other numbers give other cases.", metavar="NUMBER")
    ] = 0,
    full_size: Annotated[
        bool,
        typer.Option(
            "--full-size",
            help="Draw as many cases as the real data set has, of its size; takes long.",
        ),
    ] = False,
) -> None:
    """Write synthetic data in the layout of a real data set, to try things without a download."""
    from msa2net.data.phantom.files import FORMATS_2D, write_phantom

    names = write_phantom(
        format,
        out,
        cases,
        seed,
        full_size=full_size,
        progress=lambda planned, total: track(planned, total, "drawing"),
    )
    kind = "photograph" if format in FORMATS_2D else "volume"
    say(f"{count_cases(names)} in {out}, each a synthetic {kind}")
    say(f"next: msa2net prepare {format} {out} prepared/phantom-{format}")
