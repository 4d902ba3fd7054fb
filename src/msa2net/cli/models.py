"""`msa2net models`."""

from typing import Annotated

from msa2net.cli.console import console, say
from msa2net.cli.options import option


def models(
    num_classes: Annotated[int, option("Classes, background included.", "NUMBER")] = 9,
) -> None:
    """List the networks: names, parameters, multiply–adds."""
    from rich.markup import escape
    from rich.table import Table

    from msa2net.errors import ConfigError
    from msa2net.models.complexity import summarise_model
    from msa2net.models.registry import MODELS

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("what it is, and its encoder")
    for heading in ("image", "parameters", "mult.–adds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, spec in MODELS.items():
        what = f"{spec.description}\n{spec.encoder}"
        try:
            facts = summarise_model(name, num_classes)
            cost = f"{facts.parameters:,}", f"{facts.multiply_adds / 1e9:.2f} G"
        except ConfigError:
            if not spec.extra:
                raise
            what += f'\n(needs pip install ".[{spec.extra}]")'
            cost = "–", "–"
        table.add_row(name, escape(what), f"{spec.image_size}²", *cost)
    console().print(table)
    say(
        f"\n{num_classes} classes, one input channel, one image. Mult.–adds: multiply–adds, half"
        "\nthe operations that torch counts in convolutions and matrix products"
        "\n(element-wise work is left out)."
        "\nAny timm encoder with features at strides 4–32 can be put in: model.encoder=NAME."
    )
