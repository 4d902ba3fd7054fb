"""The command line: only here things are printed and exit codes chosen.

Exit codes: 0 done, 1 our fault (with a traceback), 2 the user can mend it (one sentence).
"""

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from msa2net.cli.benchmark import benchmark
from msa2net.cli.check import check
from msa2net.cli.compare import compare
from msa2net.cli.console import print_error, silence_libraries
from msa2net.cli.demo import demo
from msa2net.cli.evaluate import evaluate
from msa2net.cli.export import export
from msa2net.cli.import_weights import import_weights
from msa2net.cli.models import models
from msa2net.cli.phantom import phantom
from msa2net.cli.predict import predict
from msa2net.cli.prepare import prepare
from msa2net.cli.settings import settings
from msa2net.cli.train import train
from msa2net.errors import Msa2NetError, memory_guard

WITHOUT_EXPORTED = ("torch", "torchvision", "timm", "lightning", "monai")
"""Left out by those who only apply exported networks, see docs/export.md."""

# What the system refuses wherever a command comes across it, such as a file in a locked folder.
_NAMES = ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "ENAMETOOLONG")
_THE_USER_S = {getattr(errno, name) for name in _NAMES if hasattr(errno, name)}

app = typer.Typer(
    name="msa2net",
    help="MSA²Net segments medical images. Research use only, not a medical device.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def about(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Do what comes before any command."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"msa2net {installed('msa2net')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_DATA = (demo, models, settings, phantom, prepare, check)
_RUNS = (train, evaluate, compare, predict, export, benchmark)
for command in (*_DATA, *_RUNS):
    app.command()(command)
app.command("import-weights")(import_weights)


def main() -> None:
    """Run the command line."""
    _run(app, "msa2net")


def run_command(command: Callable[..., None]) -> None:
    """Run one function as a command line of its own, as `train.py` and `test.py` do."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command()(command)
    _run(alone, Path(sys.argv[0]).name)


def _run(commands: typer.Typer, name: str) -> None:
    try:
        with silence_libraries(), memory_guard("doing this"):
            commands(prog_name=name)
    except Msa2NetError as error:
        print_error(str(error))
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name not in WITHOUT_EXPORTED:
            raise
        print_error(
            f"this needs {error.name}, which is not installed (only exported networks go without); "
            "pip install . in the project's folder brings it"
        )
        sys.exit(2)
    except OSError as error:
        if error.errno not in _THE_USER_S:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print_error(f"{where}{error.strerror}; check permissions and the room on the disk")
        sys.exit(2)
