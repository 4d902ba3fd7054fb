"""`msa2net prepare`."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from msa2net.cli.console import count_cases, say, track
from msa2net.cli.options import WorkersOption, option


def prepare(
    format: Annotated[
        str,
        typer.Argument(help="isic2018, images, acdc, btcv, synapse or nnunet.", metavar="FORMAT"),
    ],
    source: Annotated[Path, typer.Argument(help="Folder of the raw data.", metavar="SOURCE")],
    out: Annotated[Path, typer.Argument(help="Folder for the prepared data.", metavar="OUT")],
    max_side: Annotated[
        int,
        option("Photographs with a longer side are stored reduced to this.", "PIXELS", min=32),
    ] = 1024,
    labels: Annotated[
        str | None,
        option("Label encoding of btcv and synapse: btcv, transunet, cascade, samed.", "NAME"),
    ] = None,
    workers: WorkersOption = None,
) -> None:
    """Bring raw data into memory-mapped arrays.

    A second run does only what changed.

    `train` does this by itself; prepare ahead to find broken files early.
    """
    from msa2net.config import DataConfig, parse_section
    from msa2net.data.prepared.prepare import prepare as prepare_data

    data = parse_section(
        DataConfig,
        {"format": format, "root": source, "prepared": out, "max_side": max_side, "labels": labels},
        origin="data",
    )
    prepared = prepare_data(data, lambda cases, total: track(cases, total, "preparing"), workers)
    splits = Counter(case.split for case in prepared.cases)
    counts = ", ".join(f"{splits[split]} {split}" for split in ("train", "val", "test"))
    patients = [case.patient or case.id for case in prepared.cases]
    say(f"{count_cases(patients)} ({counts} cases) in {out}")
    say(f"classes: {', '.join(prepared.label_names)}")
    if prepared.encoding is not None:
        say(f"label encoding: {prepared.encoding}")
    say(f"next: msa2net check {out}")
