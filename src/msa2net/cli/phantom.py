"""`msa2net phantom`."""

from pathlib import Path
from typing import Annotated

import typer

from msa2net.cli.console import count_cases, say, track
from msa2net.cli.options import SeedOption, flag, option


def phantom(
    out: Annotated[Path, typer.Argument(help="New folder.", metavar="OUT")],
    format: Annotated[
        str,
        option("The layout: images, isic2018, acdc, btcv, synapse or nnunet.", "NAME"),
    ],
    cases: Annotated[
        int | None,
        option(
            "How many photographs, volumes or, of acdc, patients with two volumes each; by "
            "default 60, 8 or 9, and with --full-size as many as the real data set has.",
            "NUMBER",
            min=3,
        ),
    ] = None,
    seed: SeedOption = 0,
    full_size: Annotated[
        bool,
        flag(
            "Draw as many cases as the real data set has, of its size; takes long.", "--full-size"
        ),
    ] = False,
) -> None:
    """Write synthetic data in the layout of a real data set."""
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
