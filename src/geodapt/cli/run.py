"""``geodapt run`` and ``geodapt report``: from a recipe to its results and their page."""

import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from geodapt.cli.endings import NOTHING, noting
from geodapt.cli.importing import importing
from geodapt.cli.quiet import quiet
from geodapt.paths import child, given
from geodapt.processes import is_main_process, join_processes
from geodapt.progress import bar

Debug = Annotated[
    bool, typer.Option("--debug", help="Show tracebacks, warnings and all libraries' messages.")
]


def run(
    recipe: Annotated[
        str,
        typer.Argument(metavar="NAME|FILE", help="A recipe that `geodapt ls` lists, or a file."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Values to use instead of the recipe's: dots separate keys, the value is YAML.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for everything that the run leaves [runs/NAME].")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder, if there is one.")
    ] = False,
    smoke: Annotated[
        bool,
        typer.Option("--smoke", help="Every part on a few rows for two steps: does it run here?"),
    ] = False,
    debug: Debug = False,
) -> None:
    """Run a recipe; leave its figures, model and page in a folder.

    \b
    Examples:
      geodapt run demo
      geodapt run demo --smoke                  (does everything run here? a minute or two)
      geodapt run my.yaml base=microsoft/deberta-v3-base training.steps=500
      geodapt run my.yaml 'sources=[toys, tools]' --out runs/two-sources
      geodapt run demo --resume                 (after a stop of any kind)
      accelerate launch -m geodapt run my.yaml  (on several devices)
    """
    with quiet(debug):
        from geodapt.recipes.place import check_place
        from geodapt.recipes.running import prepare_recipe

        loaded = prepare_recipe(recipe, overrides or [], smoke, resume)
        out = given(out) if out else child(Path("runs"), loaded.name)
        check_place(loaded.recipe, out, resume)
        with bar("starting"), importing():  # torch and transformers take their seconds
            from geodapt.recipes.execution import execute

        join_processes()
        with resumable(out):
            execute(loaded.recipe, out, resume)
        if is_main_process():
            show(out)


def resumable(out: Path) -> AbstractContextManager[None]:
    """When the block ends early, adds to the error how its run can be continued."""
    return noting(lambda: _go_on(out))


def _go_on(out: Path) -> str:
    """What an unfinished run left, and how to continue it."""
    config = out / "config.yaml"
    if not config.is_file():
        return NOTHING
    command = shlex.join(["geodapt", "run", str(config), "--out", str(out), "--resume"])
    return f"{out} is usable; continue with: {command}"


def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A finished run's folder.")],
    debug: Debug = False,
) -> None:
    """Draw a finished run's page again and print its table.

    \b
    Example:
      geodapt report runs/demo
    """
    with quiet(debug):
        show(folder)


def show(folder: Path) -> None:
    """Write a run's page, print its table and say where the page is."""
    from geodapt.report import print_table, write_report
    from geodapt.runs import RunFolder

    results = RunFolder(folder).results()
    page = write_report(folder)
    print_table(results)
    typer.echo(f"\n{page}")
