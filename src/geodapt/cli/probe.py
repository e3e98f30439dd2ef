"""`geodapt probe`: is this data hyperbolic?"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from geodapt.cli.importing import importing
from geodapt.console import Console, plain_table


class SourceKind(StrEnum):
    vectors = "vectors"
    distances = "distances"
    edges = "edges"


def probe(
    source: Annotated[
        str,
        typer.Argument(
            help="A model (minilm, a folder, a hub name), a .npy, .safetensors, .csv, .tsv or "
            ".txt file, 'classes' (Python's class hierarchy) or 'api-calls' (the built-in data)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The web page to write.")] = Path("probe.html"),
    kind: Annotated[
        SourceKind | None, typer.Option(help="What a file holds, where it is not to be guessed.")
    ] = None,
    tensor: Annotated[
        str | None,
        typer.Option(help="Which tensor of a safetensors file; 'classes' for a classifier's rows."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Of a text table the coordinates, by commas: names, numbers from 1, ranges (2-5)."
        ),
    ] = None,
    drop: Annotated[str | None, typer.Option(help="Columns of a text table to leave out.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="The column of a text table that names the rows.")
    ] = None,
    header: Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header", help="Whether a text table's first line holds the names."
        ),
    ] = None,
    sample: Annotated[int, typer.Option(min=10, max=5000, help="Points to measure.")] = 1000,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the sample and of the control.")
    ] = 0,
    json: Annotated[bool, typer.Option(help="Print the figures as JSON instead.")] = False,
) -> None:
    """Measure how hyperbolic embeddings, vectors or a graph are.

    Prints the figures beside those of a Euclidean random control, says whether hyperbolic methods
    are likely to pay, and writes a web page with the pictures.

    \b
    Examples:
      geodapt probe minilm --out minilm.html
      geodapt probe iris.csv --labels species
    """
    from geodapt.extras import require_transport
    from geodapt.paths import page_to_write

    require_transport()
    target = page_to_write(out)
    from geodapt.probe import load_source
    from geodapt.progress import console

    with importing():  # of torch, once the source is read: what is wrong with it is told quickly
        read = load_source(
            source,
            kind.value if kind else None,
            tensor,
            sample,
            seed,
            columns=columns.split(",") if columns is not None else None,
            drop=drop.split(",") if drop is not None else (),
            labels=labels,
            header=header,
        )
        from geodapt.probe import Probed, measure, verdict
    for note in read.notes:  # before the minutes that measuring takes
        console.print(f"{read.name}: {note}", highlight=False, markup=False)
    figures = measure(read, seed)
    probed = Probed(figures, verdict(figures))
    probed.write_page(target)
    if json:
        typer.echo(probed.json)
        return
    results = Console()
    heads = ("source", "Euclidean control")
    shown = plain_table("", *heads, numbers=heads)
    for row in probed.table:
        shown.add_row(*row)
    results.print(read.name, style="italic", highlight=False, markup=False)
    results.print(shown)
    results.print(probed.measured_on, style="dim", highlight=False, markup=False)
    results.print(f"{probed.verdict.headline}.", style="bold", highlight=False)
    for reason in probed.verdict.reasons:
        results.print(f"- {reason}", highlight=False, markup=False)
    results.print(f"Pictures: {out}", highlight=False, markup=False)
