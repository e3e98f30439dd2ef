"""What rows that run together share: their caches, which rows join and leave at every step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache

from geodapt.errors import InputError


@dataclass
class RowCache:
    """Keys and values of some rows, padded at the left to one length.

    Left, so that the last token of every row stands in the last column.
    """

    cache: Cache
    mask: Bool[Tensor, "rows tokens"]
    """Where there is a token."""
    encoded: Float[Tensor, "rows source d"] | None = None
    """An encoder's output, padded at the right."""
    encoded_mask: Bool[Tensor, "rows source"] | None = None

    @property
    def tokens(self) -> int:
        """Places in the cache, padding among them."""
        return self.mask.numel()

    def join(self, other: "RowCache") -> None:
        """Add the rows of another cache below."""
        length = max(self.mask.shape[1], other.mask.shape[1])
        for ours, theirs in zip(_own(self.cache), _own(other.cache), strict=True):
            both = [(_left(a, length), _left(b, length)) for a, b in _tensors(ours, theirs)]
            ours.keys, ours.values = (torch.cat(pair) for pair in both)
        self.mask = torch.cat([pad(m, (length - m.shape[1], 0)) for m in (self.mask, other.mask)])
        if self.encoded is None or other.encoded is None:
            return
        assert self.encoded_mask is not None
        assert other.encoded_mask is not None
        source = max(self.encoded.shape[1], other.encoded.shape[1])
        for ours, theirs in zip(_cross(self.cache), _cross(other.cache), strict=True):
            both = [(_right(a, source), _right(b, source)) for a, b in _tensors(ours, theirs)]
            ours.keys, ours.values = (torch.cat(pair) for pair in both)
        self.encoded = torch.cat([_right(e, source) for e in (self.encoded, other.encoded)])
        masks = self.encoded_mask, other.encoded_mask
        self.encoded_mask = torch.cat([pad(m, (0, source - m.shape[1])) for m in masks])

    def select(self, rows: Sequence[int]) -> "RowCache":
        """Some of the rows, without the columns that none of them uses. This one stays."""
        index = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[index]
        unused = int(mask.any(0).int().argmax()) if mask.numel() else 0
        encoded = encoded_mask = None
        used = None
        if self.encoded is not None and self.encoded_mask is not None:
            encoded_mask = self.encoded_mask[index]
            used = int(encoded_mask.sum(1).max())
            encoded, encoded_mask = self.encoded[index, :used], encoded_mask[:, :used]
        own, cross = DynamicCache(), DynamicCache()
        own.layers = [_part(layer, index, slice(unused, None)) for layer in _own(self.cache)]
        if isinstance(self.cache, EncoderDecoderCache):
            cross.layers = [_part(layer, index, slice(used)) for layer in _cross(self.cache)]
            both = EncoderDecoderCache(own, cross)
            both.is_updated = dict(self.cache.is_updated)
            cache: Cache = both
        else:
            cache = own
        return RowCache(cache, mask[:, unused:], encoded, encoded_mask)

    def rewind(self, length: int) -> None:
        """Take off what a pass that failed left behind the first columns."""
        for layer in _own(self.cache):
            if layer.is_initialized and layer.get_seq_length() > length:
                layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]
        self.mask = self.mask[:, :length]


def check_layers(cache: Cache) -> None:
    """Raises :class:`InputError` for caches that rows cannot join and leave."""
    for layer in [*_own(cache), *_cross(cache)]:
        if type(layer) is not DynamicLayer:
            raise InputError(
                f"this model keeps a {type(layer).__name__} in its cache, where rows of unequal "
                "length cannot be joined; the engine serves models with full attention"
            )


def _own(cache: Cache) -> list:
    return (
        cache.self_attention_cache.layers
        if isinstance(cache, EncoderDecoderCache)
        else cache.layers
    )


def _cross(cache: Cache) -> list:
    return cache.cross_attention_cache.layers if isinstance(cache, EncoderDecoderCache) else []


def _tensors(ours: DynamicLayer, theirs: DynamicLayer) -> list[tuple[Tensor, Tensor]]:
    return [(ours.keys, theirs.keys), (ours.values, theirs.values)]  # type: ignore[list-item]


def _left(x: Tensor, length: int) -> Tensor:
    return pad(x, (0, 0, length - x.shape[-2], 0))


def _right(x: Tensor, length: int) -> Tensor:
    return pad(x, (0, 0, 0, length - x.shape[-2]))


def _part(layer: DynamicLayer, index: Tensor, columns: slice) -> DynamicLayer:
    part = DynamicLayer()
    part.lazy_initialization(layer.keys, layer.values)  # type: ignore[arg-type]
    assert layer.keys is not None
    assert layer.values is not None
    part.keys, part.values = (t[index][:, :, columns] for t in (layer.keys, layer.values))
    return part
