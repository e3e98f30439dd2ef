"""What can be probed: a model's embeddings, a file of vectors or distances, a graph's edges."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from geodapt.errors import InputError
from geodapt.models.hub import locate_base
from geodapt.paths import given
from geodapt.probe import tables
from geodapt.probe.table_columns import Choice

if TYPE_CHECKING:
    from geodapt.probe.source import Kind, Source


def loaded_class_edges() -> list[tuple[str, str]]:
    """Every class that is loaded, below ``object``: (base, class)."""
    edges, waiting, seen = [], [object], {object}
    while waiting:
        base = waiting.pop()
        for child in type.__subclasses__(base):
            edges.append((_qualified(base), _qualified(child)))
            if child not in seen:
                seen.add(child)
                waiting.append(child)
    return edges


def api_module_edges() -> list[tuple[str, str]]:
    """The items of the built-in data by module path: (package or module, what it holds).

    A root joins the packages.
    """
    from geodapt.data.api_calls import ApiCallSettings, load_api_calls, module_tree

    domains = load_api_calls(ApiCallSettings.model_validate({}))
    edges = module_tree(domains)
    packages = {parent for parent, _ in edges} - {child for _, child in edges}
    return [*(("packages", package) for package in sorted(packages)), *edges]


def _qualified(kind: type) -> str:
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else (f"{kind.__module__}.{kind.__qualname__}")
    )


BUILT_IN: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "classes": loaded_class_edges,
    "api-calls": api_module_edges,
}
"""Name -> its edges."""


def load_source(
    source: str,
    kind: "Kind | None" = None,
    tensor: str | None = None,
    sample: int = 1000,
    seed: int = 0,
    *,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    labels: str | None = None,
    header: bool | None = None,
) -> "Source":
    """Read a source and sample it down to ``sample`` points.

    ``source`` is ``classes`` (Python's class hierarchy), ``api-calls`` (the built-in data's items
    by module path), a ``.npy``, ``.safetensors``, ``.csv`` or ``.tsv`` file, a text file of edges,
    or a model's name or folder (its token embeddings; with ``tensor="classes"`` its classifier's).
    ``kind`` says what a file holds, instead of a guess from its content; ``tensor`` names the
    tensor of a safetensors file. Of a text table ``columns`` are the coordinates, ``drop`` is left
    out and ``labels`` names the rows: columns by name, by number from 1 or as a range (``"2-5"``);
    ``header`` says whether its first row holds the names. The source's ``notes`` say how the file
    was read. Raises :class:`InputError` for what cannot be probed.
    """
    choice = Choice(columns, tuple(drop), labels, header)
    generator = np.random.default_rng(seed)
    path = given(source)
    if choice.any and (source in BUILT_IN or not path.exists() or path.is_dir()):
        raise InputError(
            f"{source} is no text table; --columns, --drop, --labels and --header are for one"
        )
    content = None
    if path.exists() and not path.is_dir() and source not in BUILT_IN:
        content = tables.read_table(path, kind, tensor, choice)
    elif path.suffix in tables.SUFFIXES:
        raise InputError(f"{source} does not exist")
    elif source not in BUILT_IN:
        locate_base(source)
    # late: what is wrong with a source is told before torch is imported
    from geodapt.probe.embeddings import model_embeddings
    from geodapt.probe.graphs import from_edges
    from geodapt.probe.matrices import from_distances, from_vectors

    if source in BUILT_IN:
        return from_edges(source, BUILT_IN[source](), sample, generator)
    if content is None:
        vectors, tokens = model_embeddings(source, tensor)
        return from_vectors(source, vectors, tokens, sample, generator)
    if content.edges is not None:
        return from_edges(path.name, content.edges, sample, generator)
    assert content.numbers is not None  # a table holds edges or numbers
    take = from_distances if content.kind == "distances" else from_vectors
    found = take(path.name, content.numbers, content.labels, sample, generator)
    return replace(found, notes=[*content.notes, *found.notes])
