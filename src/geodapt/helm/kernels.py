"""The attention kernels that a configuration can name, called alike; and attention step by step."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import repeat_kv

from geodapt.helm.lorentz_layers import wide


def attend(
    module: Any,
    q: Float[Tensor, "rows heads n size"],
    k: Float[Tensor, "rows groups m size"],
    v: Float[Tensor, "rows groups m value"],
    mask: Tensor | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[Float[Tensor, "rows n heads value"], Tensor | None]:
    """The weighted sums of whole values, by the kernel that the configuration names."""
    name = module.config._attn_implementation
    size, more = v.shape[-1], k.shape[-1] - v.shape[-1]
    if more > 0:  # flash kernels want values as long as keys
        v = F.pad(v, (0, more))
    interface = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention)
    out, weights = interface(module, q, k, v, mask, scaling=scaling, dropout=0.0, **kwargs)
    return out[..., :size], weights


def eager_attention(
    module: Any,
    query: Float[Tensor, "rows heads n size"],
    key: Float[Tensor, "rows groups m size"],
    value: Float[Tensor, "rows groups m size"],
    attention_mask: Tensor | None,
    scaling: float,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "rows n heads size"], Float[Tensor, "rows heads n m"]]:
    """Attention step by step, which can return its weights."""
    key, value = (repeat_kv(x, module.num_key_value_groups) for x in (key, value))
    weights = softmax(query @ key.mT * scaling, attention_mask, position_bias)
    return (weights @ value).transpose(1, 2), weights


def softmax(
    scores: Float[Tensor, "rows heads n m"],
    attention_mask: Tensor | None,
    position_bias: Tensor | None,
) -> Float[Tensor, "rows heads n m"]:
    """Softmax in float32 or wider, under a mask that is added or, if boolean, that selects."""
    if position_bias is not None:
        scores = scores + position_bias
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    return wide(scores).softmax(-1).to(scores.dtype)
