"""``geodapt adapters``: what is in an adapter, and how several overlap."""

from pathlib import Path
from typing import Annotated, Any

import typer

from geodapt.cli.importing import importing

app = typer.Typer(no_args_is_help=True, help="Look at LoRA adapters.")


@app.callback()
def adapters() -> None:
    """Look at LoRA adapters."""


@app.command()
def info(
    paths: Annotated[list[str], typer.Argument(help="PEFT folders or hub names.")],
    layers: Annotated[bool, typer.Option("--layers", help="Layer by layer.")] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Write the comparison as a page (HTML).")
    ] = None,
) -> None:
    """Show rank, targets, norm and spectrum, and how much adapters overlap.

    Two adapters that share their row spaces act on the same inputs. If their updates then agree
    (cosine near 1) they add up; if they oppose each other (near -1), no weighted sum of the two
    does justice to both.

    \b
    Examples:
      geodapt adapters info toys/
      geodapt adapters info toys/ tools/ books/ --picture overlap.html
    """
    from geodapt.console import Console
    from geodapt.errors import InputError
    from geodapt.models.hub import adapter_folder
    from geodapt.paths import page_to_write

    target = page_to_write(picture) if picture is not None else None
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is given twice; give each adapter once")
    for path in paths:
        adapter_folder(path)  # a wrong name is told before torch is imported
    with importing():
        from geodapt.adapters import Adapter

    loaded = {_label(path, paths): Adapter.from_pretrained(path) for path in paths}
    console = Console(markup=False)
    for name, adapter in loaded.items():
        _describe(console, name, adapter, layers)
    if len(loaded) > 1:
        _compare(console, loaded, layers)
    if target is not None:
        from geodapt.adapters.report import overlap_page
        from geodapt.files import write_text

        write_text(target, overlap_page(loaded))
        console.print(f"picture: {picture}")


def _label(path: str, paths: list[str]) -> str:
    """The folder's name where it tells the adapters apart, else the whole path."""
    name = Path(path).name or path
    return name if sum((Path(other).name or other) == name for other in paths) == 1 else path


def _beside(adapter: Any) -> str:
    """What an adapter adds beside its factors, which norms and overlaps leave out."""
    added = list(adapter.additions.values())
    biases = sum(each.bias is not None or each.lora_bias is not None for each in added)
    rows = sum(len(each.tokens.ids) for each in added if each.tokens is not None)
    parts = [f"biases of {biases} modules"] if biases else []
    return ", ".join([*parts, *([f"{rows} rows of tokens"] if rows else [])])


def _describe(console: Any, name: str, adapter: Any, layers: bool) -> None:
    from geodapt.adapters.lowrank import effective_rank
    from geodapt.adapters.overlap import spectrum

    ranks = sorted({factors.rank for factors in adapter.factors.values()})
    console.print(name, soft_wrap=True)
    base = adapter.config.base_model_name_or_path or "not said"
    for label, text in (
        ("base", base),
        ("rank", " to ".join(str(rank) for rank in {ranks[0], ranks[-1]})),
        ("targets", ", ".join(adapter.targets)),
        ("layers", str(len(adapter.factors))),
        ("parameters", f"{adapter.parameters:,}"),
        ("norm", f"{adapter.norm():.4g}"),
        *([("in full", ", ".join(adapter.heads))] if adapter.heads else []),
        *([("beside", _beside(adapter))] if adapter.additions else []),
    ):
        console.print(f"  {label:<11}{text}", soft_wrap=True)
    shares = [spectrum(factors) for factors in adapter.factors.values()]
    effective = [effective_rank(d) for d in shares]
    console.print(
        f"  {'spectrum':<11}effective rank {min(effective):.1f} to {max(effective):.1f} "
        "(exponential of the entropy of d^2)"
    )
    if layers:
        for path, d in zip(adapter.factors, shares, strict=True):
            values = " ".join(f"{value:.3g}" for value in d[:8].tolist())
            more = " ..." if len(d) > 8 else ""
            console.print(f"    {path}: {values}{more}", soft_wrap=True)


def _compare(console: Any, loaded: dict[str, Any], layers: bool) -> None:
    """A line per pair, or with ``layers`` a table per pair; long names wrap onto the next line."""
    from itertools import combinations

    from geodapt.adapters import overlaps

    pairs = {(one, two): overlaps(loaded[one], loaded[two]) for one, two in combinations(loaded, 2)}
    if not layers:
        rows = [
            (f"{one}, {two}", *(_cells(list(found.values())) if found else NOTHING))
            for (one, two), found in pairs.items()
        ]
        _print_table(console, "pair", rows)
        return
    for (one, two), found in pairs.items():
        console.print(f"{one}, {two}", soft_wrap=True)
        rows = [(path, *_cells([overlap])) for path, overlap in found.items()]
        mean = _cells(list(found.values())) if found else NOTHING
        _print_table(console, "layer", [*rows, ("mean", *mean)])


NOTHING = ("no common layer", "", "")
NUMBERS = 40  # columns that the numbers take with wrapped headings


def _print_table(console: Any, first: str, rows: list[tuple[str, ...]]) -> None:
    from geodapt.console import plain_table

    numbers = ("row space shared", "smallest angle", "agreement")
    # In a narrow terminal the headings wrap rather than the names, where that is enough.
    longest = max(len(name) for name, *_ in rows)
    whole = (first,) if longest + NUMBERS <= console.width else ()
    table = plain_table(first, *numbers, numbers=numbers, whole=whole)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _cells(found: list[Any]) -> list[str]:
    import math

    count = len(found)
    first = [float(f.cosines[0]) if len(f.cosines) else 0.0 for f in found]
    angle = sum(math.degrees(math.acos(min(c, 1.0))) for c in first) / count
    return [
        f"{100 * sum(f.shared for f in found) / count:.1f} %",
        f"{angle:.1f}°",
        f"{sum(f.agreement for f in found) / count:+.3f}",
    ]
