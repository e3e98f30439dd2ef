"""The options of commands that may run in several processes, by Ray."""

from typing import Annotated

import typer

from geodapt.cli.idle import refuse_idle

COUNT = 2
"""Processes where ``--ray`` comes without a number."""

Count = Annotated[
    int | None, typer.Option("--replicas", min=1, help=f"How many, with --ray [{COUNT}].")
]
Cores = Annotated[
    int | None,
    typer.Option(
        "--replica-cores", min=1, help="Of each, with --ray [this machine's, shared out]."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--ray-address", help="With --ray, a cluster, host:port [one of this machine alone]."
    ),
]


def refuse_without_ray(
    ray: bool, count: int | None, cores: int | None, address: str | None
) -> None:
    """Raises :class:`InputError` for options that would have no effect."""
    options = {"--replicas": count, "--replica-cores": cores, "--ray-address": address}
    refuse_idle(options, ray, "for several processes; give --ray, too")
