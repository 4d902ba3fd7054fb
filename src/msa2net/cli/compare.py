"""`msa2net compare`."""

from pathlib import Path
from typing import Annotated

import typer

from msa2net.cli.console import console, say


def compare(
    evaluations: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, or folders with a cases.csv; the first is the reference.",
            metavar="EVALUATION …",
        ),
    ],
    metric: Annotated[
        str, typer.Option(help="A column of cases.csv: dice, iou, hd95_mm, …", metavar="COLUMN")
    ] = "dice",
    protocol: Annotated[
        str, typer.Option(help="The rules of scoring: standard or transunet.", metavar="NAME")
    ] = "standard",
    common: Annotated[
        bool, typer.Option("--common", help="Leave out cases that not all evaluations have.")
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the intervals' bootstrap.", metavar="NUMBER")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for comparison.json and comparison.md; without it nothing is written.",
            metavar="FOLDER",
        ),
    ] = None,
) -> None:
    """Compare evaluations case by case: differences, intervals, tests, and what they can tell."""
    from msa2net.evaluation.compare import (
        compare_evaluations,
        console_comparison,
        write_comparison,
    )

    result = compare_evaluations(
        evaluations, metric=metric, protocol=protocol, common=common, seed=seed
    )
    console().print(console_comparison(result))
    if out is not None:
        write_comparison(result, out)
        say(f"\ncomparison: {out}")
