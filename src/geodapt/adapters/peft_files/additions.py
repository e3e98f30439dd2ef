"""What an adapter adds to a module's output beside its factors: biases, and rows of tokens.

- ``bias="lora_only"`` and ``bias="all"``: trained biases that replace the base's;
- ``lora_bias=True``: a bias of ``lora_B``, added times the layer's scale;
- ``trainable_token_indices``: some rows of an embedding, and of a head that is tied to it, that
replace the base's.

All three are linear in the adapter's weight g: ``y += g (b - b_base)``, ``y += g s b_lora`` and
``y += g (v - w)[token]``, or ``y[token] += g (v - w) x`` at a head. So a mixture of several
adapters is one of their parameters, and what a gate computes is what merging gives.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class TokenRows(NamedTuple):
    """Rows of a weight ``(vocabulary, width)``, by the ids of their tokens."""

    ids: Int[Tensor, " k"]
    rows: Float[Tensor, "k width"]


@dataclass(frozen=True)
class Addition:
    """What an adapter brings for one module beside its factors."""

    bias: Float[Tensor, " out"] | None = None
    """Replaces the module's own bias."""
    lora_bias: Float[Tensor, " out"] | None = None
    """The bias of ``lora_B``, without the layer's scale."""
    tokens: TokenRows | None = None
    """Replace the module's own rows."""
    base_bias: Float[Tensor, " out"] | None = None
    """The base's own bias, where a bank has seen it: only a merge needs it."""
    base_rows: Float[Tensor, "k width"] | None = None
    """The base's own rows of ``tokens``, where a bank has seen them."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What the adapter brings, by name, without what is the base's."""
        if self.bias is not None:
            yield "bias", self.bias
        if self.lora_bias is not None:
            yield "lora_bias", self.lora_bias
        if self.tokens is not None:
            yield "token_ids", self.tokens.ids
            yield "token_rows", self.tokens.rows
