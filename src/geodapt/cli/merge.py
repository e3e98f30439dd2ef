"""``geodapt merge``: many adapters into one."""

from pathlib import Path
from typing import Annotated, Any

import typer

from geodapt.cli.endings import by_the_same_command
from geodapt.cli.idle import refuse_idle
from geodapt.cli.importing import importing
from geodapt.errors import InputError
from geodapt.extras import require_optuna

CALIBRATED_ON = 256
"""Largest number of texts for atoms to choose by."""


def merge_command(
    adapters: Annotated[
        list[str] | None, typer.Argument(help="PEFT folders or hub names.", show_default=False)
    ] = None,
    method: Annotated[str | None, typer.Option(help="A name that --list explains [svd].")] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="One number per adapter: .5 .3 .2, or, with negative ones, =.5,-.3,.2"),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the result.")] = None,
    energy: Annotated[
        float | None, typer.Option(help="Instead of a rank: the share of the norm to keep.")
    ] = None,
    density: Annotated[
        float | None, typer.Option(help="Share of entries or tiles that stay.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Of what is drawn at random.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder for the merged adapter.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the adapter that is in that folder.")
    ] = False,
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
    metric: Annotated[
        str | None, typer.Option(help="Of the search: loss, perplexity or accuracy [loss].")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="How many merges the search tries [50].")
    ] = None,
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
    """Merge LoRA adapters of one base into one that PEFT loads.

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
    one = {"--method": method, "--weights": numbers, "--rank": rank, "--energy": energy}
    one |= {"--density": density, "--calibration": calibration}
    refuse_idle(one, search is None, "for one merge; a search tries its own: leave it out")
    of_search = {"--metric": metric, "--budget": budget}
    refuse_idle(of_search, search, "for a search; name its texts (--search)")
    texts = search or calibration
    refuse_idle({"--base": base}, texts, "for texts; name them (--search, --calibration)")
    if search is not None:
        require_optuna()
    if heads not in (None, "first", "none"):
        raise InputError(f"--heads {heads}: give first or none")
    folder = _checked(out, force, going_on=search is not None)
    from geodapt.data.corpus.sources import named
    from geodapt.models.hub import adapter_folder, locate_base

    for source in sources:
        adapter_folder(source)  # a wrong name is told before torch is imported
    rows = _rows(search) if search is not None else []
    corpus = named(calibration) if calibration is not None else None
    if base is not None:
        locate_base(base)

    with importing():
        from geodapt.adapters import Adapter
        from geodapt.adapters import merge as merge_adapters

    loaded = [Adapter.from_pretrained(source) for source in sources]
    if heads is not None:
        kept = 1 if heads == "first" else 0
        loaded = [*loaded[:kept], *(adapter.without_heads() for adapter in loaded[kept:])]
    if search is not None:
        options = {"budget": 50 if budget is None else budget, "base": base, "seed": seed or 0}
        merged, method = _search(
            loaded, rows, folder, metric or "loss", same_base=same_base, **options
        )
    else:
        method = method or "svd"
        inputs = None
        if corpus is not None:
            inputs = _calibrate(loaded, corpus, base)
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
    merged.save_pretrained(folder)
    _report(merged, method, out, layers)


def _checked(out: str, force: bool, going_on: bool) -> Path:
    """The folder for the result.

    Raises :class:`InputError`, before any work, where it cannot be made or written to, and where
    it holds something already: an adapter is replaced with ``force`` or when the same search goes
    on, other files never.
    """
    import os
    import tempfile

    from geodapt.models.hub import ADAPTER_CONFIG as CONFIG
    from geodapt.paths import LONGEST, given

    folder = given(out).resolve()
    if len(os.fsencode(folder.name)) > LONGEST:
        raise InputError(f"--out '{folder.name[:40]}...' is too long; give a shorter name")
    existing = folder
    while not os.path.lexists(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"--out {out}: {existing} is a file; give a folder")
    try:
        inside = list(folder.iterdir()) if existing == folder else []
        with tempfile.TemporaryDirectory(dir=existing):
            pass
    except OSError as error:
        raise InputError(
            f"--out {out}: nothing can be written in {existing} ({error.strerror}); give another "
            "folder"
        ) from error
    if inside and not (folder / CONFIG).exists():
        raise InputError(
            f"--out {out} holds other files ({inside[0].name}); give a folder of its own"
        )
    going_on = going_on and folder.with_name(folder.name + ".search").is_dir()
    if inside and not (force or going_on):
        raise InputError(f"--out {out} holds an adapter; give another folder, or --force")
    return folder


def _split(arguments: list[str], first: str | None) -> tuple[list[str], list[float] | None]:
    """Separate adapters from weights: the shell passes all weights but the first along with the
    names."""
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
    """A method per paragraph, whatever the width of the terminal: nothing is cut."""
    from rich.padding import Padding

    from geodapt.adapters import METHODS
    from geodapt.console import Console

    console = Console(markup=False, highlight=False)
    for method in METHODS.values():
        options = [*method.options, *(["rank", "energy"] if method.truncates else [])]
        console.print(method.name, style="bold")
        console.print(Padding(f"{method.line[0].upper()}{method.line[1:]}.", (0, 0, 0, 2)))
        if options:
            console.print(Padding(f"Options: {', '.join(options)}.", (0, 0, 0, 2)))
        console.print(Padding(f"Source: {method.source}.", (0, 0, 0, 2)))


def _report(merged: Any, method: str, out: str, layers: bool) -> None:
    from geodapt.adapters import METHODS
    from geodapt.console import Console, plain_table

    console = Console(markup=False)
    if layers:
        numbers = ("rank", "norm", "lost")
        table = plain_table("layer", *numbers, numbers=numbers)
        for path, factors in merged.factors.items():
            lost = f"{100 * merged.errors[path]:.2f} %"
            table.add_row(path, str(factors.rank), f"{factors.norm():.4g}", lost)
        console.print(table)
    if METHODS[method].exact:
        loss = "the exact weighted sum"
    elif METHODS[method].truncates:
        loss = f"the cut to this rank lost {100 * merged.error:.2f} % of the merged update"
    else:
        loss = f"it differs from the weighted sum by {100 * merged.error:.2f} %"
    norm = "" if METHODS[method].exact else " (Frobenius norm)"
    console.print(
        f"{out}: {len(merged.factors)} layers, rank {merged.rank}; {loss}{norm}", soft_wrap=True
    )
    if merged.heads:
        console.print(f"trained in full, and carried over: {', '.join(merged.heads)}")


def _search(
    loaded: list[Any], rows: list[dict[str, Any]], out: Path, metric: str, **options: Any
) -> tuple[Any, str]:
    """The best merge, and its method."""
    from geodapt.adapters import search_on_texts
    from geodapt.console import Console, plain_table

    folder = out.with_name(out.name + ".search")
    with by_the_same_command(folder):
        best, trials = search_on_texts(loaded, rows, folder, metric, **options)
    table = plain_table(metric, "method", "weights", "rank", "density")
    for trial in trials[:10]:
        table.add_row(
            "not finite" if trial.value is None else f"{trial.value:.5g}",
            trial.method,
            " ".join(f"{weight:.2f}" for weight in trial.weights),
            "" if trial.rank is None else str(trial.rank),
            "" if trial.density is None else f"{trial.density:.2f}",
        )
    console = Console(markup=False)
    console.print(table)
    console.print(f"all {len(trials)} trials: {folder}/trials.json")
    return best, trials[0].method


def _calibrate(loaded: list[Any], corpus: Any, base: str | None) -> dict[str, Any]:
    from geodapt.adapters import calibrate_on_texts
    from geodapt.adapters.on_texts import MAX_TOKENS
    from geodapt.data.corpus.sample import draw

    return calibrate_on_texts(loaded, draw(corpus, CALIBRATED_ON, MAX_TOKENS), base)


def _rows(path: Path) -> list[dict[str, Any]]:
    from geodapt.data.text_files import filled, json_object, records

    if not path.is_file():
        raise InputError(
            f"{path} does not exist or is a folder; give a JSONL file with one text per line"
        )

    def row(line: str) -> dict[str, Any]:
        found = json_object(line)
        text = found["text"]
        return {**found, "text": text if isinstance(text, str) else str(filled(text, "text"))}

    rows = list(records(path, row, 'a JSON object with a "text"'))
    if not rows:
        raise InputError(f"{path} is empty")
    return rows
