"""``geodapt score``: a file of requests, answered without a server."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from geodapt.cli.endings import by_the_same_command
from geodapt.cli.idle import refuse_idle
from geodapt.cli.quiet import quiet
from geodapt.cli.replicas import COUNT, Address, Cores, Count, refuse_without_ray
from geodapt.cli.run import Debug
from geodapt.cli.serve import Capacity
from geodapt.errors import InputError
from geodapt.paths import given


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
    generate: Annotated[
        str | None,
        typer.Option(help="A language model: texts for {prompt}, each line with its own gate."),
    ] = None,
    adapters: Annotated[
        Path | None, typer.Option(help="With --generate, a folder of PEFT folders.")
    ] = None,
    capacity: Capacity = None,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Texts that are made at once [16].")
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="Of --generate; in float32 company hardly ever changes an answer."),
    ] = "auto",
    shard: Annotated[int, typer.Option(min=1, help="Lines in a file of answers.")] = 1000,
    ray: Annotated[
        bool, typer.Option("--ray", help="Several processes that Ray runs (extra 'ray').")
    ] = False,
    replicas: Count = None,
    replica_cores: Cores = None,
    ray_address: Address = None,
    debug: Debug = False,
) -> None:
    """Answer a file of requests, without a server.

    Started again, it goes on where it was stopped.

    \b
    Examples:
      geodapt score texts.jsonl --embed minilm --out vectors/
      geodapt score users.jsonl --rank runs/demo --out ranks/
      geodapt score prompts.jsonl --generate my/model --adapters adapters/ --out texts/
    \b
    A line of prompts.jsonl is what /v1/completions takes:
      {"prompt": "...", "model": "toys:0.5+tools:0.5", "max_tokens": 40}
    """
    asked = {"embed": embed, "classify": classify, "rank": rank, "generate": generate}
    named: list[Any] = [(task, model) for task, model in asked.items() if model]
    if len(named) != 1:
        raise InputError("give one of --embed, --classify, --rank and --generate")
    refuse_idle(
        {
            "--adapters": adapters,
            "--slots": slots,
            "--capacity": capacity,
            "--dtype": dtype if dtype != "auto" else None,
        },
        generate,
        "for a language model; name it (--generate)",
    )
    refuse_idle({"--capacity": capacity}, adapters, "for adapters; name their folder (--adapters)")
    refuse_without_ray(ray, replicas, replica_cores, ray_address)
    if not given(source).is_file():
        raise InputError(f"{source} does not exist or is no file; give one with a request a line")
    (task, model) = named[0]
    with quiet(debug):
        from geodapt.serve.served import Served

        if ray:
            import geodapt.serve.replicas  # noqa: F401  # says which extra is missing
        served = Served(
            base=generate,
            adapters=adapters,
            embed=embed,
            classify=classify,
            rank=rank,
            capacity=capacity,
            slots=slots or Served.slots,
        )
        served.check()  # a wrong name is told before torch is imported
        from geodapt.models import dtype_of
        from geodapt.serve.bulk import score_file
        from geodapt.serve.contents import contents_of
        from geodapt.serve.loading import load_for_bulk

        # one type in all processes, and on whatever machine the rest is answered
        numbers: Any = str(dtype_of(dtype)).removeprefix("torch.")
        served = replace(served, dtype=numbers)
        name = f"{model}, {numbers}" if generate else model
        name += f" with {adapters}" if adapters is not None else ""
        if ray:
            from geodapt.serve.replicas.bulk import score_file_by_ray
            from geodapt.serve.replicas.cluster import Replicas

            wanted = Replicas(replicas or COUNT, ray_address, replica_cores)
            with by_the_same_command(out):
                count, failed = score_file_by_ray(source, out, served, task, name, shard, wanted)
        else:
            model, contents = load_for_bulk(served), partial(contents_of, served)
            with by_the_same_command(out):
                count, failed = score_file(source, out, model, task, name, shard, contents)
        typer.echo(f"{count:,} lines answered in {out}")
        if failed:
            typer.echo(f"{failed:,} of these answers hold an 'error' instead", err=True)
            raise typer.Exit(1)
