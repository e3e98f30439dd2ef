"""``geodapt score``: a file of requests for scores."""

from pathlib import Path
from typing import Annotated, Any

import typer

from geodapt.cli.quiet import quiet
from geodapt.cli.run import Debug
from geodapt.errors import InputError


def score(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Requests, one JSON a line.")],
    out: Annotated[Path, typer.Option(help="Folder for the answers.")],
    embed: Annotated[
        str | None, typer.Option(help="An encoder: vectors and radii of {text}.")
    ] = None,
    classify: Annotated[
        str | None, typer.Option(help="An X-Cross that classifies: labels of {text}.")
    ] = None,
    rank: Annotated[
        str | None, typer.Option(help="An X-Cross that ranks: scores of {history, candidates}.")
    ] = None,
    shard: Annotated[int, typer.Option(min=1, help="Lines in a file of answers.")] = 1000,
    debug: Debug = False,
) -> None:
    """Answer a file of requests; started again, go on where it was stopped.

    \b
    Examples:
      geodapt score texts.jsonl --embed minilm --out vectors/
      geodapt score users.jsonl --rank runs/demo --out ranks/
    """
    asked = {"embed": embed, "classify": classify, "rank": rank}
    named: list[Any] = [(task, model) for task, model in asked.items() if model]
    if len(named) != 1:
        raise InputError("give one of --embed, --classify and --rank")
    (task, model) = named[0]
    with quiet(debug):
        from geodapt.serve.bulk import score_file
        from geodapt.serve.loading import Served, load_scoring

        served = Served(embed=embed, classify=classify, rank=rank)
        count = score_file(source, out, load_scoring(served), task, model, shard)
        typer.echo(f"{count:,} lines answered in {out}")
