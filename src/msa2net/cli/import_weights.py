"""`msa2net import-weights`."""

from pathlib import Path
from typing import Annotated

import typer

from msa2net.cli.console import say
from msa2net.cli.options import option


def import_weights(
    file: Annotated[Path, typer.Argument(help="A published or own .pth file.", metavar="FILE")],
    out: Annotated[Path, typer.Argument(help="Run folder to make.", metavar="OUT")],
    image_size: Annotated[
        int, option("Side of the images it was trained on, in pixels.", "NUMBER")
    ] = 224,
) -> None:
    """Turn published weights into a run folder, for `predict`.

    The paper's repository (github.com/xmindflow/MSA-2Net) links its weights
    for Synapse in its README; download the .pth file there.

    Which of the two released networks it belongs to is recognised by its keys.

    The file is opened without running code in it (weights_only).
    """
    from msa2net.evaluation.model_card import write_card
    from msa2net.inference.import_weights import import_published

    facts = import_published(file, out, image_size)
    write_card(out)
    names = ", ".join(facts.label_names)
    say(f"recognised {facts.network.name}; its network is now in {out}")
    say(f"classes: {names}")
    say(f"next: msa2net predict {out} IMAGE --out masks")
