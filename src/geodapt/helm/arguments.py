"""What a HELM's ``forward`` takes beside its named arguments; anything else is an error.

transformers hands keywords through ``**kwargs``, and renames them from time to time: the cache was
``past_key_values`` and is ``cache``. A keyword that is silently ignored would change the result, so
each is either used or refused.
"""

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedConfig
from transformers.modeling_outputs import MoeModelOutputWithPast

from geodapt.errors import InputError

CACHE = "cache"
"""What the installed transformers calls the cache in a model's outputs."""
if CACHE not in {field.name for field in fields(MoeModelOutputWithPast)}:
    CACHE = "past_key_values"

RECORDED = {"output_attentions", "output_hidden_states"}
"""Read by transformers around ``forward``."""
PACKING = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx"}
"""Where the rows of a packed batch start; only flash attention reads them, all but the last."""
LOSS = {"num_items_in_batch", "ignore_index", "shift_labels"}
"""Read by transformers' loss of a causal language model."""


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """The cache, under whichever of its two names it came."""
    if past_key_values is None or past_key_values is cache:
        return cache
    if cache is not None:
        raise TypeError("forward() got both 'cache' and 'past_key_values'; give one of them")
    return past_key_values


def require_known(model: Any, kwargs: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise TypeError for a keyword that the model does not read. A value of None is ignored."""
    unknown = [name for name, value in kwargs.items() if name not in known and value is not None]
    if unknown:
        raise TypeError(
            f"{type(model).__name__}.forward() got an unexpected keyword argument '{unknown[0]}'"
        )


def require_positions(
    kwargs: Mapping[str, Any], position_ids: Tensor | None, implementation: str
) -> None:
    """Raise :class:`InputError` for a packed batch that the attention could not recognise as
    packed."""
    packed = sorted(name for name in PACKING if kwargs.get(name) is not None)
    if packed and position_ids is None and "flash" not in implementation:
        raise InputError(
            f"'{packed[0]}' says that rows are packed, but attention '{implementation}' "
            f"recognises them by position_ids, which are missing; give position_ids that start "
            f"again at 0 in "
            "every row"
        )


def require_scores(config: PreTrainedConfig) -> None:
    """Raise :class:`InputError` for an attention kernel that takes no bias of scores."""
    implementation = config._attn_implementation
    if config.position == "relative" and implementation not in ("sdpa", "eager"):
        raise InputError(
            f"position 'relative' adds a bias to scores, which attention '{implementation}' "
            "does not take; use 'sdpa'"
        )


def require_vocabulary(input_ids: Tensor | None, vocabulary: int) -> None:
    """Raise :class:`InputError` for tokens that the vocabulary lacks."""
    # Checking would synchronise a GPU, whose embedding kernel asserts anyway.
    if torch.compiler.is_compiling() or input_ids is None or input_ids.device.type != "cpu":
        return
    outside = (input_ids < 0) | (input_ids >= vocabulary)
    if outside.any():
        raise InputError(
            f"input_ids holds token {int(input_ids[outside][0])}, but the model's vocabulary "
            f"has {vocabulary}; is the tokenizer another model's?"
        )


def require_length(past: int | Tensor, tokens: int, limit: int) -> None:
    """Raise :class:`InputError` for more positions than the model has."""
    if tokens + (past if isinstance(past, int) else 0) > limit:
        raise InputError(
            f"the sequence has {tokens + past} tokens, but max_position_embeddings is {limit}; "
            "shorten it, or make the model with a larger max_position_embeddings"
        )
