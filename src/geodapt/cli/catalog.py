"""``geodapt ls`` and ``geodapt cp``: the ready-made recipes."""

from pathlib import Path
from typing import Annotated

import typer

from geodapt.errors import InputError

WIDE = 120  # columns of a terminal in which the table of recipes has room


def ls() -> None:
    """List the ready-made recipes.

    \b
    Example:
      geodapt ls
    """
    from rich.text import Text

    from geodapt.console import Console, plain_table
    from geodapt.recipes.catalog import packaged

    console = Console(markup=False, highlight=False)
    if console.width >= WIDE:
        table = plain_table("name", "system", "what it does", "needs", whole=("name", "system"))
        for entry in packaged().values():
            table.add_row(entry.name, entry.system, entry.title, entry.needs)
    else:  # four columns would be towers of single words
        table = plain_table("name", "what it does, (its system) and what it needs", whole=("name",))
        for entry in packaged().values():
            table.add_row(entry.name, entry.title)
            table.add_row("", Text(f"({entry.system}) needs {entry.needs}", style="dim"))
    console.print(table)


def cp(
    name: Annotated[str, typer.Argument(help="A recipe that `geodapt ls` lists.")],
    file: Annotated[Path, typer.Argument(help="Where to write it.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Copy a ready-made recipe, with its comments, to edit it.

    \b
    Example:
      geodapt cp xcross my.yaml
      geodapt run my.yaml training.steps=500
    """
    from geodapt.files import write_bytes
    from geodapt.recipes.catalog import find_recipe

    if file.is_dir():
        file = file / f"{Path(name).stem}.yaml"
    if file.exists() and not force:
        raise InputError(f"{file} exists; choose another name, or replace it with --force")
    content = find_recipe(name).read_bytes()
    try:
        write_bytes(file, content)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from error
    typer.echo(f"{file} is yours to edit; run it with: geodapt run {file}")
