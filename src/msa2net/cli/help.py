"""How `--help` looks: a name, what follows it, and what it is for; no types where none are typed.

Typer's own page shows a type beside every flag (`<bool>`) and leaves help texts a narrow column.
"""

import inspect
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from rich.text import Text

NAME, VALUE, FAINT, BORDER = "bold cyan", "bold yellow", "dim", "dim"


class Command(TyperCommand):
    """A command whose help is written here."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Name options and arguments as everybody does: `[OPTIONS] RUN INPUT …`."""
        arguments = [one for one in self.get_params(ctx) if one.param_type_name == "argument"]
        return ["[OPTIONS]", *(_argument(one) for one in arguments)]

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Print usage, what the command does, and its parameters."""
        _print_head(self, ctx)
        _print_parameters(self, ctx)


class Group(TyperGroup):
    """Several commands, likewise."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        """Print usage, what the program is, its options and commands."""
        from rich.text import Text

        _print_head(self, ctx)
        _print_parameters(self, ctx)
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (Text(name, NAME), Text(_paragraphs(command.help)[0]))
            for name, command in commands
            if command is not None and not command.hidden
        ]
        _print_panel("Commands", rows)


def _print_head(command: Any, ctx: Any) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    usage = Text.assemble(
        ("Usage: ", "yellow"),
        (" ".join([ctx.command_path, *command.collect_usage_pieces(ctx)]), "bold"),
    )
    screen = Console(highlight=False)
    screen.print(Padding(usage, (1, 1)))
    for paragraph in _paragraphs(command.help):
        screen.print(Padding(Text(paragraph), (0, 1, 1, 1)))


def _print_parameters(command: Any, ctx: Any) -> None:
    from rich.text import Text

    parameters = [one for one in command.get_params(ctx) if not getattr(one, "hidden", False)]
    arguments = [one for one in parameters if one.param_type_name == "argument"]
    _print_panel("Arguments", [(Text(_argument(one), VALUE), _purpose(one)) for one in arguments])
    options = [one for one in parameters if one.param_type_name == "option"]
    _print_panel("Options", [(_option(one), _purpose(one)) for one in options])


def _print_panel(title: str, rows: "Sequence[tuple[Text, Text]]") -> None:
    from rich.console import Console
    from rich.panel import Panel

    if rows:
        panel = Panel(_grid(rows), title=title, title_align="left", border_style=BORDER)
        Console(highlight=False).print(panel)


def _grid(rows: "Sequence[tuple[Text, Text]]") -> "Table":
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    for row in rows:
        grid.add_row(*row)
    return grid


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _option(parameter: Any) -> "Text":
    from rich.text import Text

    short = [name for name in parameter.opts if not name.startswith("--")]
    long = [name for name in parameter.opts if name.startswith("--")]
    text = Text(", ".join([*long, *short]), NAME)
    for name in parameter.secondary_opts:
        text.append("/").append(name)
    if not parameter.is_flag:
        text.append(" ").append(parameter.metavar or "VALUE", VALUE)
    return text


def _purpose(parameter: Any) -> "Text":
    """Return what it is for, its least value, and its default or that there must be one."""
    from rich.text import Text

    text = Text(" ".join(_paragraphs(parameter.help)))
    facts = []
    kind = getattr(parameter, "type", None)  # where older versions of typer keep the range
    least = getattr(parameter, "min", None) or getattr(kind, "min", None)
    if least is not None and least >= 1:
        facts.append(f"at least {least:g}")
    if default := _default(parameter):
        facts.append(f"default: {default}")
    if parameter.required:
        facts.append("required")
    if facts:
        text.append(" " * bool(text.plain)).append(f"[{', '.join(facts)}]", FAINT)
    return text


def _default(parameter: Any) -> str:
    """Return the default as it would be typed; nothing for what is off or empty."""
    value = parameter.default
    if value is None or callable(value) or (isinstance(value, list | tuple) and not value):
        return ""
    if isinstance(value, bool):
        return str(parameter.opts[0]) if value else ""
    return str(value)


def _paragraphs(text: str | None) -> list[str]:
    """Return the paragraphs of a docstring, each on one line."""
    return [" ".join(part.split()) for part in inspect.cleandoc(text or "").split("\n\n")]
