"""The text side of a CLIP or SigLIP: texts, tokens, or token embeddings to unit vectors."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.errors import InputError
from geodapt.models import TextEncoder
from geodapt.vision.deep_prompts import active_prompts, prompts_on
from geodapt.vision.towers import is_siglip


class ClipTextEncoder(TextEncoder):
    """A CLIP's or SigLIP's text tower as a :class:`~geodapt.models.TextEncoder`.

    SigLIP was trained on texts that are padded to its full length, without a mask, and reads the
    last position; CLIP reads the end token, after which no padding matters.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str = "", pooling: Any = None) -> None:
        training = model.training
        super().__init__(model, tokenizer, name)
        model.train(training)  # left as it was: somebody may be training the whole model
        self.inputs = ("input_ids",) if is_siglip(model) else ("input_ids", "attention_mask")
        self.padding = "max_length" if is_siglip(model) else True

    def _pooling(self, pooling: Any) -> None:
        """The towers pool by themselves."""

    def vectors(self, tokens: dict[str, Tensor]) -> Float[Tensor, "n d"]:
        """The projected vectors of tokens, before they are scaled to length 1."""
        return pooled(self.model.get_text_features(**tokens))

    def forward(self, **tokens: Tensor) -> Float[Tensor, "n d"]:
        """Unit vectors of tokens; raises :class:`InputError` while prompts differ between rows."""
        self._require_equal_rows()
        return super().forward(**tokens)

    def embed(self, texts: Sequence[str], label: str = "embedding") -> Float[Tensor, "n d"]:
        """As in :class:`TextEncoder`; raises :class:`InputError` while prompts differ by row."""
        self._require_equal_rows()
        return super().embed(texts, label)

    def _require_equal_rows(self) -> None:
        # Rows pass in an order of their own, so a row's prompts would meet another row's text.
        if active_prompts(self.model).by_row:
            raise InputError(
                "the prompts that are on differ between rows, which are reordered here by length; "
                "call Clip.text_vectors on tokens instead"
            )


def text_vectors(model: Any, tokens: dict[str, Tensor]) -> Float[Tensor, "n d"]:
    """Unit vectors of tokens, in their order, with gradients and the prompts that are on."""
    return nn.functional.normalize(pooled(model.get_text_features(**tokens)).float(), dim=-1)


def text_from_embeddings(
    model: Any, embeddings: Float[Tensor, "n tokens width"], tokens: dict[str, Tensor]
) -> Float[Tensor, "n d"]:
    """Unit vectors of texts whose token embeddings are given, with gradients.

    ``tokens`` are those that the embeddings stand for (:meth:`ClipTextEncoder.tokens`): they say
    where a text ends, which CLIP reads, and what is padding. Positions are added, and CLIP's causal
    mask and SigLIP's pooling act, as in the model's own forward. Source: CoOp (Zhou et al. 2022).
    """
    given = replace(active_prompts(model), token_embeddings=embeddings)
    with prompts_on(model, given):
        return text_vectors(model, tokens)


def pooled(features: Any) -> Tensor:
    """The vectors in what transformers' ``get_*_features`` return, a tensor in some models."""
    return features if isinstance(features, torch.Tensor) else features.pooler_output
