"""``geodapt compare``: several runs in one table and on one page."""

from pathlib import Path
from typing import Annotated

import typer

from geodapt.cli.quiet import quiet
from geodapt.cli.run import Debug


def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER", help="Finished runs' folders.")
    ],
    out: Annotated[
        Path, typer.Option(help="Where to write the page with the table and all curves.")
    ] = Path("comparison.html"),
    debug: Debug = False,
) -> None:
    """Put finished runs into one table and one chart per quantity.

    \b
    Examples:
      geodapt compare runs/demo runs/two-sources
      geodapt compare runs/seed-* --out seeds.html
    """
    with quiet(debug):
        from geodapt.paths import given, page_to_write
        from geodapt.report import print_table
        from geodapt.report.compared_runs import Compared

        target = page_to_write(out)
        compared = Compared([given(folder) for folder in folders])
        results = compared.results()
        page = compared.write_page(target)
        print_table(results, compared.system_page)
        for key, values in compared.settings():
            typer.echo(f"{key}: {' | '.join(values)}")
        typer.echo(f"\n{page}")
