"""The command line's commands, and what happens to their errors.

The modules of commands import torch and transformers inside their functions, so that help and
listings appear at once.
"""

import sys
from typing import Annotated

import typer

from geodapt import __version__
from geodapt.cli import adapters
from geodapt.cli.catalog import cp, ls
from geodapt.cli.compare import compare
from geodapt.cli.compress import compress
from geodapt.cli.convert_helm import convert_helm
from geodapt.cli.endings import Commands
from geodapt.cli.merge import merge_command
from geodapt.cli.pictures import detect, panoptic, segment
from geodapt.cli.probe import probe
from geodapt.cli.quiet import leave_foreign_backend, silence
from geodapt.cli.run import report, run
from geodapt.cli.score import score
from geodapt.cli.serve import serve

app = typer.Typer(
    name="geodapt",
    cls=Commands,
    no_args_is_help=True,
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
    Put runs side by side:         geodapt compare runs/demo runs/mine
    Look at adapters, merge them:  geodapt adapters info toys/ tools/
                                   geodapt merge toys/ tools/ --out merged/
    Shrink a model:                geodapt compress minilm --bits-per-weight 4.5 --out small/
    Is this data hyperbolic?       geodapt probe minilm
    Serve models and adapters:     geodapt serve --rank runs/demo --embed minilm
    """


for _command in (
    ls,
    cp,
    run,
    report,
    compare,
    merge_command,
    compress,
    probe,
    segment,
    detect,
    panoptic,
    serve,
    score,
    convert_helm,
):
    app.command(_command.__name__.removesuffix("_command").replace("_", "-"))(_command)
app.add_typer(adapters.app, name="adapters")


def run_app() -> None:
    """Run the command that was given."""
    leave_foreign_backend()
    if "--debug" not in sys.argv:
        silence()
    app(prog_name="geodapt")
