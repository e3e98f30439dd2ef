"""`geodapt compress`: a smaller model, and what it costs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from geodapt.cli.importing import importing
from geodapt.cli.quiet import quiet
from geodapt.cli.run import Debug
from geodapt.errors import InputError
from geodapt.paths import given


def compress(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(help="A folder, a hub name, or minilm.", show_default=False),
    ] = None,
    method: Annotated[str, typer.Option(help="A name that --list explains.")] = "lowrank_plus_int4",
    bits_per_weight: Annotated[
        float | None, typer.Option(help="Size of the compressed weights, everything counted in.")
    ] = None,
    megabytes: Annotated[float | None, typer.Option(help="The same in MB, all together.")] = None,
    loss: Annotated[
        float | None, typer.Option(help="Instead: the share of the layers' outputs to lose.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Instead: one rank for all layers.")] = None,
    group: Annotated[int | None, typer.Option(help="Inputs that share an integer scale.")] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="Texts that show which errors matter: a file or folder (text, JSONL, Parquet), "
            "api-calls or docs (built in), or a hub data set as owner/name:config."
        ),
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(help="Texts to measure on, likewise, if not a tenth of --calibrate."),
    ] = None,
    texts: Annotated[int | None, typer.Option(help="How many texts to calibrate on [256].")] = None,
    adapter: Annotated[
        str | None, typer.Option(help="A LoRA adapter to merge into the model first.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32 or bfloat16: how to load the model [float32].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draw of calibration texts.")] = None,
    analyse: Annotated[
        bool,
        typer.Option("--analyse", help="Compare the errors of SVD and integers at this size."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the model and its report.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder, if there is one.")
    ] = False,
    list_methods: Annotated[
        bool, typer.Option("--list", help="Explain each method in a line.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Compress a model's linear layers by SVD, integers, or both.

    \b
    Examples:
      geodapt compress --list
      geodapt compress minilm --method int8 --out small/
      geodapt compress minilm --bits-per-weight 4.5 --calibrate api-calls --out small/ --analyse
    """
    if list_methods:
        _list()
        return
    if model is None or out is None:
        raise InputError("give a model and a folder: geodapt compress minilm --out small/")
    with quiet(debug):
        from geodapt.cli.run import resumable, show
        from geodapt.recipes.place import check_place

        asked = _recipe(context.params)
        if not resume:
            asked.require_inputs()
        check_place(asked, given(out), resume)
        with importing():
            from geodapt.recipes.execution import execute

        with resumable(out):
            execute(asked, out, resume)
        show(out)


def _recipe(options: dict[str, Any]) -> Any:
    """The recipe for the options that are its keys; pydantic's errors name the options."""
    from pydantic import ValidationError

    from geodapt.systems import recipe_class

    recipe = recipe_class("compress")
    keys = recipe.model_fields
    values = {key: value for key, value in options.items() if key in keys and value is not None}
    try:
        return recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + "-".join(str(first["loc"][0]).split("_"))
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{option} {first['input']}: {message}") from None


def _list() -> None:
    from geodapt.console import Console, plain_table
    from geodapt.registration import settings_only

    with settings_only():  # a list needs no torch
        from geodapt.compress.layer_format import METHODS

    table = plain_table("method", "what it does")
    for name, line in METHODS.items():
        table.add_row(name, line)
    Console(markup=False).print(table)
