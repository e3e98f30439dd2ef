"""What an adapter changes, layer by layer, where that is not the weight of a linear layer.

Whatever the kind, an update is kept as two factors ``A (rank, in)`` and ``B (out, rank)``, so
that everything that works in the factors works for every kind:

- an embedding is a linear layer on one-hot vectors: ``in`` is the number of its rows;
- a convolution is a linear layer on patches: ``in`` is channels times the kernel's places;
- fused experts are one matrix per expert, and each has its own factors, under a path
  ``...experts.gate_up_proj[3]``;
- any other parameter is a matrix, under its own name.
"""

import re
from typing import Literal, NamedTuple

INDEXED = re.compile(r"^(.+)\[(\d+)\]$")


class LayerKind(NamedTuple):
    """What a pair of factors belongs to."""

    name: Literal["linear", "embedding", "convolution", "parameter", "bias"] = "linear"
    kernel: tuple[int, ...] = ()
    """Of a convolution, the size of its kernel."""
    groups: int = 1
    """Of a convolution, the groups of its channels. PEFT's A reads all channels whatever they are,
    and its B gives each group of outputs a group of the rank."""


LINEAR, EMBEDDING, PARAMETER = LayerKind(), LayerKind("embedding"), LayerKind("parameter")
BIAS = LayerKind("bias")
"""A module of which only the bias is changed, such as a norm; it has no factors."""


def indexed(path: str) -> tuple[str, int | None]:
    """The path of a parameter, and which of its matrices is meant where it holds several."""
    match = INDEXED.match(path)
    return (match[1], int(match[2])) if match else (path, None)


def module_of(path: str, kind: LayerKind) -> str:
    """The module that owns what a path names: the layer itself, or the parameter's owner."""
    return indexed(path)[0].rpartition(".")[0] if kind.name == "parameter" else path


def describe_kind(kind: LayerKind) -> str:
    """A kind in words, with its article."""
    if kind == LINEAR:
        return "a linear layer"
    if kind.kernel:
        groups = f" in {kind.groups} groups" if kind.groups > 1 else ""
        return f"a convolution of {' x '.join(map(str, kind.kernel))}{groups}"
    return "an embedding" if kind == EMBEDDING else "a parameter"
