"""Texts as batches of tokens."""

from collections.abc import Iterator, Sequence
from typing import Any

from jaxtyping import Shaped
from torch import Tensor
from transformers import PreTrainedModel


def text_batches(
    tokenizer: Any,
    texts: Sequence[str],
    model: PreTrainedModel,
    max_tokens: int = 512,
) -> Iterator[dict[str, Shaped[Tensor, "rows tokens"]]]:
    """Token batches of 16 texts, cut to ``max_tokens`` and padded on the right.

    Padding on the right leaves a causal model's predictions and absolute positions as they are
    without padding.
    """
    for start in range(0, len(texts), 16):
        batch = tokenizer(
            list(texts[start : start + 16]),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=max_tokens,
            return_tensors="pt",
        ).to(model.device)
        batch.pop("token_type_ids", None)  # all zeros, and some models do not accept it
        if model.config.is_encoder_decoder:
            batch["decoder_input_ids"] = batch["input_ids"]
        yield dict(batch)
