"""``geodapt serve``: adapters, gates and scoring models over HTTP."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from geodapt.cli.idle import refuse_idle
from geodapt.cli.quiet import quiet
from geodapt.cli.replicas import COUNT, Address, Cores, Count, refuse_without_ray
from geodapt.cli.run import Debug

Capacity = Annotated[
    int | None, typer.Option("--capacity", min=1, help="Adapters on the device at once [all].")
]


def serve(
    base: Annotated[
        str | None,
        typer.Argument(help="A language model: a folder or a hub name.", show_default=False),
    ] = None,
    adapters: Annotated[
        Path | None,
        typer.Option(help="A folder of PEFT folders; their names are those that clients use."),
    ] = None,
    rank: Annotated[
        str | None, typer.Option(help="An X-Cross that ranks (/v1/rerank): a run or its model/.")
    ] = None,
    classify: Annotated[
        str | None, typer.Option(help="An X-Cross that classifies (/classify), likewise.")
    ] = None,
    embed: Annotated[
        str | None,
        typer.Option(help="An encoder (/v1/embeddings, /v1/retrieve): minilm, a run, a folder."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="A folder for catalogues and indexes that clients put [in memory]."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    name: Annotated[
        str, typer.Option(help="What /v1/models calls the base; 'base' always names it, too.")
    ] = "base",
    api_key: Annotated[
        list[str] | None,
        typer.Option(help="A key; others see it in the list of processes: better a file."),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Keys, one a line, that open all but changes.")
    ] = None,
    admin_key_file: Annotated[
        Path | None, typer.Option(help="Keys that may also put and delete adapters.")
    ] = None,
    capacity: Capacity = None,
    adapters_in_memory: Annotated[
        int | None, typer.Option(min=1, help="Adapters in memory at once [all].")
    ] = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Answers that run at once [16].")] = None,
    queue: Annotated[int | None, typer.Option(min=1, help="Requests that may wait [256].")] = None,
    kv_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens that all running answers' caches may hold [65536]."),
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="Of the model; in float32 company hardly ever changes an answer."),
    ] = "auto",
    requests_per_second: Annotated[
        float | None, typer.Option(help="For each key, or address where there are none [no limit].")
    ] = None,
    request_seconds: Annotated[
        float, typer.Option(help="An answer that takes longer is cancelled.")
    ] = 600.0,
    drain_seconds: Annotated[
        float, typer.Option(help="For answers to end after SIGTERM or Ctrl-C.")
    ] = 30.0,
    trace_to: Annotated[
        str | None,
        typer.Option(help="A span a request, to http://localhost:4318/v1/traces or so (OTLP)."),
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Several replicas that Ray keeps running (extra 'ray').")
    ] = False,
    replicas: Count = None,
    replica_cores: Cores = None,
    ray_address: Address = None,
    debug: Debug = False,
) -> None:
    """Serve models over HTTP, in the shapes of OpenAI's API.

    Every request brings its own gate: an adapter, a mixture, or weights.

    A key is needed on any address but this machine's own; GEODAPT_API_KEY and GEODAPT_ADMIN_KEY
    give one, too. Without an admin key nothing can be changed once there are keys.

    \b
    Examples:
      geodapt serve my/model --adapters adapters/
      geodapt serve --rank runs/demo --embed minilm
      geodapt serve my/model --adapters adapters/ --host 0.0.0.0 --api-key-file keys
      geodapt serve my/model --adapters adapters/ --ray --replicas 4
    \b
    A request then names an adapter, a mixture, or weights:
      {"model": "toys", "prompt": "..."}
      {"model": "toys:0.5+tools:0.5", "prompt": "..."}
      {"adapters": {"toys": 0.5, "tools": -0.2}, "atoms": {"keep": 0.5}, "prompt": "..."}
    """
    limits = {"--slots": slots, "--queue": queue, "--kv-tokens": kv_tokens}
    places = {"--capacity": capacity, "--adapters-in-memory": adapters_in_memory}
    kind = {"--dtype": dtype if dtype != "auto" else None}
    scores = rank or classify or embed
    if base or scores:
        text = {"--adapters": adapters, **limits, **places, **kind}
        refuse_idle(text, base, "for a language model; name it (BASE)")
        refuse_idle(places, adapters, "for adapters; name their folder (--adapters)")
        refuse_idle(
            {"--store": store},
            scores,
            "for catalogues and indexes; name what uses them (--rank, --embed)",
        )
    refuse_without_ray(ray, replicas, replica_cores, ray_address)
    with quiet(debug):
        import geodapt.serve.http  # says which extra is missing
        from geodapt.serve.http.serve_settings import (
            ADMIN_KEY,
            API_KEY,
            checked_settings,
            listen,
            read_keys,
        )
        from geodapt.serve.served import Served

        if ray:
            import geodapt.serve.replicas  # noqa: F401  # says which extra is missing
        settings = checked_settings(
            host=host,
            port=port,
            name=name,
            api_keys=read_keys(API_KEY, api_key or [], api_key_file),
            admin_keys=read_keys(ADMIN_KEY, [], admin_key_file),
            requests_per_second=requests_per_second,
            request_seconds=request_seconds,
            drain_seconds=drain_seconds,
            trace_to=trace_to,
        )
        served = Served(
            base=base,
            adapters=adapters,
            rank=rank,
            classify=classify,
            embed=embed,
            store=store,
            capacity=capacity,
            most_loaded=adapters_in_memory,
            slots=slots or Served.slots,
            queue=queue or Served.queue,
            kv_tokens=kv_tokens or Served.kv_tokens,
            dtype=dtype,
        )
        served.check()  # a wrong name is told before torch is imported
        with listen(settings.host, settings.port) as listening:
            from geodapt.serve.http.server import serve_until_told

            shown = f"[{host}]" if ":" in host else host
            address = f"http://{shown}:{listening.getsockname()[1]}/"

            def tell(text: str) -> None:
                typer.echo(text, err=True)

            if ray:
                from geodapt.serve.replicas.cluster import Replicas
                from geodapt.serve.replicas.serving import serve_replicas

                wanted = Replicas(replicas or COUNT, ray_address, replica_cores)
                status = serve_replicas(
                    served, settings, wanted, listening, tell, lambda: tell(f"serving on {address}")
                )
            else:
                from geodapt.serve.http.starting import start

                service = start(served, settings)
                tell(f"serving on {address}")
                status = serve_until_told(service, listening, tell)
        raise typer.Exit(status)
