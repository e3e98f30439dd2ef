"""The inputs of a model's layers: a random sample, and second moments.

Where a batch has an attention mask, padding does not count.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from geodapt.errors import InputError
from geodapt.progress import track


@dataclass
class Moments:
    """``E[x x^T]`` over the tokens that a layer saw, on the CPU in float32."""

    matrix: Float[Tensor, "in in"]
    tokens: int


@torch.no_grad()
def sample_inputs(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    batches: Iterable[Mapping[str, Any]],
    tokens: int = 1024,
) -> dict[str, Float[Tensor, "tokens in_features"]]:
    """Up to ``tokens`` inputs of each layer while the model reads the batches.

    Every token has the same chance to be kept; where there are no more than ``tokens``, all are,
    in their order. On the CPU in float32. A layer that the model never calls is left out.
    """
    kept: dict[str, Tensor] = {}
    keys: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    mask: Tensor | None = None

    def keep(path: str, x: Tensor) -> None:
        # A random key for each token; those with the largest keys are a uniform sample.
        rows = _token_rows(x, mask).cpu()
        new = torch.rand(len(rows), generator=generator)
        key = torch.cat([keys[path], new]) if path in keys else new
        rows = torch.cat([kept[path], rows]) if path in kept else rows
        chosen = key.topk(min(tokens, len(key))).indices.sort().values
        kept[path], keys[path] = rows[chosen], key[chosen]

    with _hooked(layers, keep):
        for batch in track(batches, "calibration"):
            mask = _mask(batch)
            model(**batch)
    return kept


@torch.no_grad()
def second_moments(
    model: nn.Module, layers: Mapping[str, nn.Module], batches: Iterable[Mapping[str, Any]]
) -> dict[str, Moments]:
    """The second moments of these layers' inputs while the model reads the batches once.

    A forward pass is cut short as soon as the layers have seen the batch. A layer that the model
    never calls has no moments. Raises :class:`InputError` when a layer sees fewer tokens than it
    has inputs, so that its moments would not have full rank, or sees a NaN.
    """
    sums = _ProductSums(layers)
    with _hooked(layers, sums.add):
        for batch in batches:
            sums.begin(_mask(batch))
            try:
                model(**batch)
            except _BatchSeen:
                continue
            sums.end()
    return {path: sums.moments(path) for path in layers if sums.tokens[path]}


def require_tokens(path: str, inputs: int, tokens: int) -> None:
    """Raise :class:`InputError` for fewer calibration tokens than a layer has inputs."""
    if tokens < inputs:
        raise InputError(
            f"the calibration set is too small: layer {path} has {inputs:,} inputs and saw "
            f"{tokens:,} tokens; give at least {inputs:,}, better ten times as many"
        )


class _BatchSeen(Exception):
    """Raised once all wanted layers have seen the batch, so that the rest of the model is
    skipped."""


class _ProductSums:
    """Sums of ``x x^T``, added up in float64 from products in float32."""

    def __init__(self, layers: Iterable[str]) -> None:
        self.sums: dict[str, Tensor] = {}
        self.tokens = dict.fromkeys(layers, 0)
        self.calls = 0
        self.expected: int | None = None  # calls per batch, counted over the whole first one
        self.mask: Tensor | None = None
        self.last: Tensor | None = None

    def begin(self, mask: Tensor | None) -> None:
        self.mask, self.calls, self.last = mask, 0, None

    def end(self) -> None:
        self.expected, self.last = self.calls, None

    def add(self, path: str, x: Tensor) -> None:
        if x is not self.last:  # query, key and value read the very same tensor
            rows = _token_rows(x, self.mask)
            self.product, self.count = (rows.T @ rows).cpu().double(), len(rows)
            self.last = x
        if path in self.sums:
            self.sums[path] += self.product
        else:
            self.sums[path] = self.product.clone()
        self.tokens[path] += self.count
        self.calls += 1
        if self.calls == self.expected:
            raise _BatchSeen

    def moments(self, path: str) -> Moments:
        tokens = self.tokens[path]
        require_tokens(path, len(self.sums[path]), tokens)
        matrix = (self.sums.pop(path) / tokens).float()
        if not torch.isfinite(matrix).all():
            raise InputError(
                f"layer {path} sees NaN or infinite inputs on the calibration texts; load the "
                f"model with --precision float32, and check that it works at all"
            )
        return Moments(matrix, tokens)


@contextmanager
def _hooked(layers: Mapping[str, nn.Module], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """``see(path, input)`` at every call of a layer while the block lasts."""
    handles = [
        layer.register_forward_pre_hook(lambda module, args, path=path: see(path, args[0]))
        for path, layer in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mask(batch: Mapping[str, Any]) -> Bool[Tensor, "rows n"] | None:
    mask = batch.get("attention_mask")
    return None if mask is None else mask.bool()


def _token_rows(x: Tensor, mask: Tensor | None) -> Float[Tensor, "tokens in"]:
    rows = x.detach()
    if mask is not None and rows.shape[:-1] == mask.shape:
        rows = rows[mask]
    return rows.reshape(-1, rows.shape[-1]).float()
