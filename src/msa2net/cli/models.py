"""`msa2net models`."""

from typing import Annotated

import typer

from msa2net.cli.console import console, say


def models(
    num_classes: Annotated[
        int, typer.Option(help="Classes, background included.", metavar="NUMBER")
    ] = 9,
) -> None:
    """List the networks: names, parameters, multiply–adds."""
    from rich.table import Table

    from msa2net.errors import ConfigError
    from msa2net.models.registry import MODELS
    from msa2net.models.summary import summarise_model

    table = Table("name", "what it is", "encoder", box=None, header_style="bold")
    for heading in ("image", "parameters", "multiply–adds"):
        table.add_column(heading, justify="right")
    for name, spec in MODELS.items():
        try:
            facts = summarise_model(name, num_classes)
            cost = (f"{facts.parameters:,}", f"{facts.multiply_adds / 1e9:.2f} G")
        except ConfigError:
            if not spec.extra:
                raise
            cost = (f'pip install ".[{spec.extra}]"', "")
        table.add_row(name, spec.description, spec.encoder, f"{spec.image_size}²", *cost)
    console().print(table)
    say(
        f"\n{num_classes} classes, one input channel, one image. Multiply–adds: half the operations"
        "\nthat torch counts in convolutions and matrix products (element-wise work is left out)."
        "\nAny timm encoder with features at strides 4–32 can be put in: model.encoder=NAME."
    )
