"""The passes of a model that an engine needs: reading prompts, and one more token for each row."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from geodapt.errors import InputError
from geodapt.serve.row_cache import RowCache, check_layers


class Passes:
    """A causal or an encoder-decoder language model, row by row padded and masked.

    Raises :class:`InputError` for a model whose rows cannot be padded on the left.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        config: Any = model.config
        self.encodes = bool(getattr(config, "is_encoder_decoder", False))
        named = inspect.signature(self.model.forward).parameters
        self._cache_name = "cache" if "cache" in named else "past_key_values"
        if hasattr(config, "expert_capacity"):
            raise InputError(
                f"{type(model).__name__}'s experts take so many tokens and drop the others, so "
                "that padding and other rows would change an answer; the engine serves models "
                "whose experts take all"
            )
        if self._cache_name not in named:
            raise InputError(
                f"{type(model).__name__} takes no cache, so that each token would read the whole "
                "text again; the engine serves models that take one"
            )
        self._keeps = "logits_to_keep" in named
        if self.encodes and not hasattr(config, "relative_attention_num_buckets"):
            raise InputError(
                f"{type(model).__name__} counts its decoder's positions from the first column, so "
                "that rows cannot join and leave; the engine serves encoder-decoders with relative "
                "positions (T5 and its kin) and causal language models"
            )
        if not self.encodes and "position_ids" not in named:
            raise InputError(
                f"{type(model).__name__} takes no position_ids, so that rows of unequal length "
                "cannot run together; the engine serves models that take them"
            )
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        self.vocabulary = int(text.vocab_size)
        self.longest: int | None = (
            None if self.encodes else getattr(text, "max_position_embeddings", None)
        )
        check_layers(self._new_cache())
        ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        ends = getattr(text, "eos_token_id", None) if ends is None else ends
        self.ends: frozenset[int] = frozenset([ends] if isinstance(ends, int) else ends or ())
        self._start: Any = getattr(config, "decoder_start_token_id", None)
        if self.encodes and self._start is None:
            raise InputError(
                f"{type(model).__name__}'s configuration has no decoder_start_token_id"
            )

    @property
    def device(self) -> torch.device:
        return self.model.device

    def empty(self, rows: int) -> RowCache:
        """A cache of rows that have read nothing."""
        mask = torch.zeros(rows, 0, dtype=torch.bool, device=self.device)
        return RowCache(self._new_cache(), mask)

    def read(
        self, cache: RowCache, prompts: Sequence[Sequence[int]], every: bool = False
    ) -> Float[Tensor, "rows tokens vocabulary"]:
        """Read tokens into a cache; the logits after the last one, or, with ``every``, after each.

        Several prompts of unequal length only into an empty cache. An encoder reads its prompts
        whole; the logits are those of the first token of the answer.
        """
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
        for i, prompt in enumerate(prompts):
            where = slice(0, len(prompt)) if self.encodes else slice(longest - len(prompt), None)
            ids[i, where] = torch.tensor(prompt)
            mask[i, where] = True
        ids, mask = ids.to(self.device), mask.to(self.device)
        if not self.encodes:
            return self._forward(cache, ids, mask, every)
        encoder = self.model.get_encoder()
        cache.encoded = encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        cache.encoded_mask = mask
        return self.step(cache, [self._start] * len(prompts))

    def step(self, cache: RowCache, tokens: Sequence[int]) -> Float[Tensor, "rows 1 vocabulary"]:
        """One more token for each row; the logits of the next."""
        ids = torch.tensor(tokens, device=self.device)[:, None]
        return self._forward(cache, ids, torch.ones_like(ids, dtype=torch.bool), False)

    def _forward(self, cache: RowCache, ids: Tensor, new: Tensor, every: bool) -> Tensor:
        before = cache.mask.shape[1]
        mask = torch.cat([cache.mask, new], 1)
        inputs: dict[str, Any] = {self._cache_name: cache.cache, "use_cache": True}
        if self.encodes:
            inputs |= {
                "encoder_outputs": BaseModelOutput(last_hidden_state=cache.encoded),
                "attention_mask": cache.encoded_mask.long(),  # type: ignore[union-attr]
                "decoder_input_ids": ids,
                "decoder_attention_mask": mask.long(),
            }
        else:
            positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, before:]
            inputs |= {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions}
        if self._keeps and not every:
            inputs["logits_to_keep"] = 1
        try:
            logits = self.model(**inputs).logits
        except BaseException:
            cache.rewind(before)
            raise
        cache.mask = mask
        return logits if every else logits[:, -1:]

    def _new_cache(self) -> Any:
        config = self.model.config
        if self.encodes:
            return EncoderDecoderCache(DynamicCache(), DynamicCache())
        return DynamicCache(config=config)
