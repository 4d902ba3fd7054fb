"""`msa2net compare`."""

from pathlib import Path
from typing import Annotated

import typer

from msa2net.cli.console import console, say
from msa2net.cli.options import CommonOption, SeedOption, option


def compare(
    evaluations: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders, or folders with a cases.csv; the first is the reference.",
            metavar="EVALUATION",
        ),
    ],
    metric: Annotated[
        str, option("A column of cases.csv: dice, iou, hd95_mm, …", "COLUMN")
    ] = "dice",
    protocol: Annotated[
        str, option("The rules of scoring: standard or transunet.", "NAME")
    ] = "standard",
    common: CommonOption = False,
    seed: SeedOption = 0,
    out: Annotated[
        Path | None,
        option(
            "Folder for comparison.json and comparison.md; without it nothing is written.", "FOLDER"
        ),
    ] = None,
) -> None:
    """Compare evaluations case by case.

    Paired differences with intervals and corrected tests.
    """
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
