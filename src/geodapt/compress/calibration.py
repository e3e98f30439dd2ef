"""What the layers see: second moments of their inputs, a few layers at a time."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.compress.layers import Layer, shape_of
from geodapt.errors import InputError
from geodapt.progress import bar


@dataclass
class Moments:
    """``E[x x^T]`` over the tokens that a layer saw, on the CPU in float32."""

    matrix: Float[Tensor, "in in"]
    tokens: int


def passes(layers: Mapping[str, nn.Module]) -> list[list[str]]:
    """The layers in groups whose moments are held at the same time.

    A group's moments take at most twice the memory of the largest layer's, so that the peak does
    not grow with the depth of the model; each group costs a pass over the texts.
    """
    room = 2 * max(_inputs(layer) ** 2 for layer in layers.values())
    groups: list[list[str]] = []
    taken = 0
    for path, layer in layers.items():
        size = _inputs(layer) ** 2
        if not groups or taken + size > room:
            groups.append([])
            taken = 0
        groups[-1].append(path)
        taken += size
    return groups


@torch.no_grad()
def second_moments(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: Iterable[Mapping[str, Any]]
) -> dict[str, Moments]:
    """The moments of these layers' inputs while the model reads the batches once.

    Where a batch has an attention mask, padding does not count. A batch is left as soon as the
    layers have seen it. A layer that the model never calls has no moments. Raises
    :class:`InputError` when a layer sees fewer tokens than it has inputs, so that its moments
    would not have full rank, or sees a NaN.
    """
    seen = _Seen(layers)
    handles = [
        layer.register_forward_pre_hook(lambda module, args, path=path: seen.add(path, args[0]))
        for path, layer in layers.items()
    ]
    try:
        for batch in batches:
            seen.begin(batch.get("attention_mask"))
            try:
                model(**batch)
            except _Enough:
                continue
            seen.end()
    finally:
        for handle in handles:
            handle.remove()
    return {
        path: seen.moments(path, _inputs(layer))
        for path, layer in layers.items()
        if seen.tokens[path]
    }


def observable(layers: Mapping[str, Layer]) -> dict[str, nn.Module]:
    """The layers whose inputs can be seen: fused experts take them out of a stack."""
    return {path: layer for path, layer in layers.items() if isinstance(layer, nn.Module)}


class _Enough(Exception):
    """The wanted layers have seen the batch: the rest of the model need not."""


class _Seen:
    """Sums of ``x x^T``, added up in float64 from products in float32."""

    def __init__(self, layers: Iterable[str]) -> None:
        self.sums: dict[str, Tensor] = {}
        self.tokens = dict.fromkeys(layers, 0)
        self.calls = 0
        self.expected: int | None = None  # calls a batch, counted over a whole first one
        self.mask: Tensor | None = None
        self.last: Tensor | None = None

    def begin(self, mask: Tensor | None) -> None:
        self.mask = None if mask is None else mask.bool()
        self.calls = 0
        self.last = None

    def end(self) -> None:
        self.expected, self.last = self.calls, None

    def add(self, path: str, x: Tensor) -> None:
        if x is not self.last:  # query, key and value read the very same tensor
            rows = x.detach()
            if self.mask is not None and rows.shape[:-1] == self.mask.shape:
                rows = rows[self.mask]
            rows = rows.reshape(-1, rows.shape[-1]).float()
            self.product, self.count = (rows.T @ rows).cpu().double(), len(rows)
            self.last = x
        if path in self.sums:
            self.sums[path] += self.product
        else:
            self.sums[path] = self.product.clone()
        self.tokens[path] += self.count
        self.calls += 1
        if self.calls == self.expected:
            raise _Enough

    def moments(self, path: str, inputs: int) -> Moments:
        tokens = self.tokens[path]
        _require_tokens(path, inputs, tokens)
        matrix = (self.sums.pop(path) / tokens).float()
        if not torch.isfinite(matrix).all():
            raise InputError(
                f"layer {path} sees NaN or infinite inputs on the calibration texts; load the "
                "model with --precision float32, and look whether it works at all"
            )
        return Moments(matrix, tokens)


def calibrate(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: list[Mapping[str, Any]]
) -> Iterator[dict[str, Moments]]:
    """The moments of all layers, a group of :func:`passes` at a time."""
    groups = passes(layers)
    with bar("calibrating", len(groups) * len(batches)) as progress:
        for group in groups:
            yield second_moments(
                model, {path: layers[path] for path in group}, _ticking(batches, progress)
            )


def _ticking(batches: list[Mapping[str, Any]], progress) -> Iterator[Mapping[str, Any]]:
    for batch in batches:
        yield batch
        progress.advance()


def check_size(layers: Mapping[str, nn.Module], batches: list[Mapping[str, Any]]) -> None:
    """Raise :class:`InputError` when there are fewer tokens than the widest layer has inputs."""
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    widest = max(layers, key=lambda path: _inputs(layers[path]))
    _require_tokens(widest, _inputs(layers[widest]), tokens)


def _require_tokens(path: str, inputs: int, tokens: int) -> None:
    if tokens < inputs:
        raise InputError(
            f"the calibration set is too small: layer {path} has {inputs:,} inputs and saw "
            f"{tokens:,} tokens; give at least {inputs:,}, better ten times as many"
        )


def _inputs(layer: nn.Module) -> int:
    return shape_of(layer)[1]
