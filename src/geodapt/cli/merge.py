"""``geodapt merge``: many adapters into one."""

from pathlib import Path
from typing import Annotated, Any

import typer

from geodapt.errors import InputError

CALIBRATED_ON, MAX_TOKENS = 256, 512
"""Texts by which atoms chooses at most, and how much is read of each."""


def merge(
    adapters: Annotated[
        list[str] | None, typer.Argument(help="PEFT folders or hub names.", show_default=False)
    ] = None,
    method: Annotated[str, typer.Option(help="A name that --list explains.")] = "svd",
    weights: Annotated[
        str | None,
        typer.Option(help="One number an adapter: .5 .3 .2, or, with negative ones, =.5,-.3,.2"),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the result.")] = None,
    energy: Annotated[
        float | None, typer.Option(help="Instead of a rank: the share of the norm to keep.")
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="Share of entries or tiles that stay.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of what is drawn at random.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the merged adapter.")] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Print the cut's error layer by layer.")
    ] = False,
    list_methods: Annotated[
        bool, typer.Option("--list", help="Explain each method in a line.")
    ] = False,
    search: Annotated[
        Path | None,
        typer.Option(help="JSONL with text (and label): try many merges, keep the best on it."),
    ] = None,
    metric: Annotated[str, typer.Option(help="loss, perplexity or accuracy.")] = "loss",
    budget: Annotated[int, typer.Option(help="How many merges the search tries.")] = 50,
    base: Annotated[
        str | None, typer.Option(help="The base to search or calibrate on, if not the adapters'.")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Texts by whose inputs atoms chooses: a file or folder (text, JSONL, Parquet), "
            "api-calls or docs (built in), or a hub data set as owner/name:config."
        ),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            help="Where adapters bring modules trained in full (modules_to_save) that differ: "
            "take those of the first, or none."
        ),
    ] = None,
    same_base: Annotated[
        bool, typer.Option("--same-base", help="The bases are one although named differently.")
    ] = False,
) -> None:
    """Merge LoRA adapters of one base into a single adapter that PEFT loads.

    \b
    Examples:
      geodapt merge --list
      geodapt merge A B C --method svd --rank 16 --weights .5 .3 .2 --out merged/
      geodapt merge A B --search held-out.jsonl --metric perplexity --budget 50 --out best/
    """
    if list_methods:
        _list()
        return
    sources, numbers = _split(adapters or [], weights)
    if not sources:
        raise InputError("no adapters given; geodapt merge A B --out merged/ (or --list)")
    if out is None:
        raise InputError("give the folder for the result: --out merged/")

    from geodapt.adapters import Adapter
    from geodapt.adapters import merge as merge_adapters

    if heads not in (None, "first", "none"):
        raise InputError(f"--heads {heads}: give first or none")
    loaded = [Adapter.from_pretrained(source) for source in sources]
    if heads is not None:
        kept = 1 if heads == "first" else 0
        loaded = [*loaded[:kept], *(adapter.without_heads() for adapter in loaded[kept:])]
    if search is not None:
        merged = _search(loaded, search, metric, budget, base, out, seed or 0, same_base)
    else:
        inputs = None
        if calibration is not None:
            inputs = _calibrate(loaded, calibration, base)
        merged = merge_adapters(
            loaded,
            method,
            numbers,
            rank=rank,
            energy=energy,
            density=density,
            seed=seed,
            calibration=inputs,
            same_base=same_base,
        )
    merged.save_pretrained(out)
    _report(merged, out, layers)


def _split(arguments: list[str], first: str | None) -> tuple[list[str], list[float] | None]:
    """Adapters and weights apart: the shell hands over all but the first weight with the names."""
    if first is None:
        return arguments, None
    texts = first.split(",")
    sources = list(arguments)
    if len(texts) == 1:
        while sources and _number(sources[-1]) is not None and not Path(sources[-1]).exists():
            texts.insert(1, sources.pop())
    numbers = [number for text in texts if (number := _number(text)) is not None]
    if len(numbers) < len(texts):
        raise InputError(f"--weights {first} is not a list of numbers such as .5 .3 .2")
    return sources, numbers


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _list() -> None:
    from rich.table import Table

    from geodapt.adapters import METHODS
    from geodapt.console import Console

    table = Table(box=None, padding=(0, 3, 0, 0))
    for heading in ("method", "what it does", "options", "source"):
        table.add_column(heading, no_wrap=heading == "method")
    for method in METHODS.values():
        options = [*method.options, *(["rank", "energy"] if method.truncates else [])]
        table.add_row(method.name, method.line, ", ".join(options), method.source)
    Console(markup=False).print(table)


def _report(merged: Any, out: Path, layers: bool) -> None:
    from rich.table import Table

    from geodapt.console import Console

    lost = merged.errors
    console = Console(markup=False)
    if layers:
        table = Table(box=None, padding=(0, 3, 0, 0))
        for heading in ("layer", "rank", "norm", "lost"):
            table.add_column(heading, justify="left" if heading == "layer" else "right")
        for path, factors in merged.factors.items():
            table.add_row(
                path, str(factors.rank), f"{factors.norm():.4g}", f"{100 * lost[path]:.2f} %"
            )
        console.print(table)
    total = merged.norm()
    # errors are relative to what was to be merged: |kept|^2 = (1 - error^2) |whole|^2
    missing = sum(
        (f.norm() * lost[path]) ** 2 / max(1 - lost[path] ** 2, 1e-12)
        for path, f in merged.factors.items()
    )
    whole = (total**2 + missing) ** 0.5
    error = 100 * missing**0.5 / whole if whole else 0.0
    console.print(
        f"{out}: {len(merged.factors)} layers, rank {merged.rank}; "
        f"the cut to this rank lost {error:.2f} % of the merged update (Frobenius norm)"
    )
    if merged.heads:
        console.print(f"trained in full, and carried over: {', '.join(merged.heads)}")


def _search(
    loaded: list[Any],
    data: Path,
    metric: str,
    budget: int,
    base: str | None,
    out: Path,
    seed: int,
    same_base: bool,
) -> Any:
    from rich.table import Table

    from geodapt.adapters import AdapterBank, search
    from geodapt.adapters.evaluation import METRICS, evaluator
    from geodapt.console import Console

    rows = _rows(data)
    model, tokenizer = _base(loaded, base, causal=metric != "accuracy")
    evaluate = evaluator(AdapterBank(model), tokenizer, rows, metric)
    best, trials = search(
        loaded,
        evaluate,
        budget,
        out.with_name(out.name + ".search"),
        maximise=METRICS[metric],
        seed=seed,
        same_base=same_base,
    )
    table = Table(box=None, padding=(0, 3, 0, 0))
    for heading in (metric, "method", "weights", "rank", "density"):
        table.add_column(heading)
    for trial in trials[:10]:
        table.add_row(
            f"{trial.value:.5g}",
            trial.method,
            " ".join(f"{weight:.2f}" for weight in trial.weights),
            "" if trial.rank is None else str(trial.rank),
            "" if trial.density is None else f"{trial.density:.2f}",
        )
    console = Console(markup=False)
    console.print(table)
    console.print(f"all {len(trials)} trials: {out.with_name(out.name + '.search')}/trials.json")
    return best


def _calibrate(loaded: list[Any], source: str, base: str | None) -> dict[str, Any]:
    from geodapt.adapters import calibrate
    from geodapt.data.corpus.sample import draw
    from geodapt.data.corpus.sources import named
    from geodapt.models import text_batches

    texts = draw(named(source), CALIBRATED_ON, MAX_TOKENS)
    model, tokenizer = _base(loaded, base, causal=False)
    batches = list(text_batches(tokenizer, texts, model, MAX_TOKENS))
    return calibrate(model, batches, dict.fromkeys(p for a in loaded for p in a.factors))


def _rows(path: Path) -> list[dict[str, Any]]:
    from geodapt.data.text_files import json_object, records

    if not path.is_file():
        raise InputError(
            f"{path} does not exist or is a folder; give a JSONL file with a text a line"
        )

    def row(line: str) -> dict[str, Any]:
        found = json_object(line)
        return {**found, "text": str(found["text"])}

    rows = list(records(path, row, 'a JSON object with a "text"'))
    if not rows:
        raise InputError(f"{path} is empty")
    return rows


def _base(loaded: list[Any], base: str | None, causal: bool) -> tuple[Any, Any]:
    """The base that the adapters name, or the one given, with a language-model head if needed."""
    from geodapt.models import load_base, locate, pretrained

    name = base or loaded[0].config.base_model_name_or_path
    if not name:
        raise InputError("the adapters do not say what their base is; give it with --base")
    model, tokenizer = load_base(name)
    if causal:
        from transformers import AutoModelForCausalLM

        try:
            model = pretrained(AutoModelForCausalLM, locate(name), use_safetensors=True)
        except (ValueError, OSError) as error:
            raise InputError(
                f"base '{name}' is no causal language model, which the metric needs; "
                "use --metric accuracy with labelled rows"
            ) from error
        model.eval()
    return model, tokenizer
