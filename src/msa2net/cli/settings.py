"""`msa2net settings`."""

from typing import TYPE_CHECKING, Annotated

import typer

from msa2net.cli.console import console
from msa2net.cli.options import flag

if TYPE_CHECKING:
    from msa2net.config.describe import SettingsOfSection


def settings(
    section: Annotated[
        str | None,
        typer.Argument(
            help="run, model, data, augment or train; or one setting, such as train.batch_size. "
            "All if not given.",
            metavar="SECTION",
        ),
    ] = None,
    markdown: Annotated[
        bool, flag("Print the page docs/settings.md instead.", "--markdown")
    ] = False,
) -> None:
    """List the settings of a configuration.

    What each is for, what may be written, and its default.
    """
    from msa2net.config.describe import describe_settings, settings_page
    from msa2net.errors import ConfigError

    if markdown:
        if section is not None:
            raise ConfigError("--markdown prints the whole page; leave SECTION out")
        typer.echo(settings_page(), nl=False)
        return
    found = describe_settings(section)
    width = max(len(setting.key) for one in found for setting in one.settings)
    for one in found:
        _show(one, width)
    console().print(
        "Change one with --set KEY=VALUE, or in the YAML file; what is not set is null there."
    )


def _show(section: "SettingsOfSection", width: int) -> None:
    """Print a section as a table: the name, beside it its purpose, kind and default."""
    from rich.table import Table
    from rich.text import Text

    from msa2net.config.describe import NEEDED, NOT_SET, WHOLE

    name = "" if section.name == WHOLE else f"{section.name}: "
    console().print(Text(f"{name}{section.title}", "bold"))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=width)
    table.add_column(ratio=1)
    for setting in section.settings:
        words = Text(setting.description)
        words.append(f"\n{setting.kind} · ", "dim")
        default = setting.default
        plain = default in (NOT_SET, NEEDED)
        words.append(
            default if plain else f"default {default}", "yellow" if default == NEEDED else "dim"
        )
        table.add_row(Text(setting.key, "bold cyan"), words)
    console().print(table)
    console().print()
