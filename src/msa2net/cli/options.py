"""Options and arguments that several commands have, and how options are declared."""

from pathlib import Path
from typing import Annotated, Any

import typer


def option(help: str, metavar: str, *names: str, min: float | None = None) -> Any:
    """Declare an option with a value.

    Args:
        help: what it is for.
        metavar: stands for the value.
        names: of the option, where they are not the parameter's.
        min: the least value.
    """
    return typer.Option(*names, help=help, metavar=metavar, min=min)


def flag(help: str, *names: str) -> Any:
    """Declare an option without a value; `names` as for `option`."""
    return typer.Option(*names, help=help, metavar="")


RunArgument = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]
SettingsOption = Annotated[
    list[str] | None,
    option(
        "Change a setting, such as train.epochs=5; may be repeated, and of one key the last "
        "counts. `msa2net settings` lists them.",
        "KEY=VALUE",
        "--set",
    ),
]
OverwriteOption = Annotated[bool, flag("Replace what is there already.", "--overwrite")]
DeviceOption = Annotated[
    str, option("Where to compute: auto, cpu, cuda, cuda:1, mps.", "NAME", "--device")
]
ThreadsOption = Annotated[
    int | None, option("CPU threads; all cores if not given.", "NUMBER", "--threads", min=1)
]
VerboseOption = Annotated[
    bool, flag("Show the libraries' own messages and warnings.", "--verbose", "-v")
]
NetworkOption = Annotated[str, option("A name from `msa2net models`.", "NAME")]
SeedOption = Annotated[
    int, option("Seed of the random numbers; another gives other results.", "NUMBER", min=0)
]
CommonOption = Annotated[
    bool, flag("Use only the cases that all of them have, and list the others.", "--common")
]
CompileOption = Annotated[
    bool, flag("Compile the network first; takes minutes, pays for many slices.", "--compile")
]
WorkersOption = Annotated[
    int | None, option("Cases in work at once; one a core if not given.", "NUMBER", min=1)
]
