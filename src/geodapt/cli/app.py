"""The command line's commands, and what happens to their errors.

The modules of commands import torch and transformers inside their functions, so that help and
listings appear at once.
"""

import importlib
import importlib.util
import sys
from typing import Annotated

import typer

from geodapt import __version__
from geodapt.cli.catalog import cp, ls
from geodapt.cli.run import report, run
from geodapt.errors import InputError
from geodapt.processes import is_main_process

app = typer.Typer(
    name="geodapt",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 96},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"geodapt {__version__}")
        raise typer.Exit


@app.callback()
def geodapt(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Adapt frozen foundation models: compose LoRA adapters across domains.

    \b
    See what is ready to run:      geodapt ls
    Run it:                        geodapt run demo
    Make it yours:                 geodapt cp xcross my.yaml
                                   geodapt run my.yaml base=microsoft/deberta-v3-base
    """


for _command in (ls, cp, run, report):
    app.command()(_command)
# Commands of single systems, each in a module of its own.
for _name in ("merge", "probe"):
    if importlib.util.find_spec(f"geodapt.cli.{_name}"):
        app.command()(getattr(importlib.import_module(f"geodapt.cli.{_name}"), _name))
if importlib.util.find_spec("geodapt.cli.adapters"):
    app.add_typer(importlib.import_module("geodapt.cli.adapters").app, name="adapters")


def main() -> None:
    """Run the command line. What the user can mend ends with status 2 and no traceback."""
    try:
        app(prog_name="geodapt")
    except InputError as error:
        if is_main_process():
            typer.echo(f"error: {error}", err=True)
        sys.exit(2)
