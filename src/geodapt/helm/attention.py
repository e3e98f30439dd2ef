"""Hyperbolic attention as ordinary scaled-dot-product attention.

The score of a query and a key is ``(2/c + 2 <q, k>_L) / tau + bias`` with the Minkowski product
``<q, k>_L = q.k - t(q) t(k)``. With ``t(k) = 1/sqrt(c) + u(k)`` it is::

    2/tau (q.k - t(q) u(k))  +  a part that is the same for every key, which softmax drops

so that the query ``2/tau (q, -t(q))`` and the key ``(k, u(k))`` give it as one dot product: one
component more per head, and every attention kernel can compute it. The excess ``u(k)`` instead of
``t(k)`` keeps the score exact where curvature is small: no large constant takes up the mantissa.

The output is the Lorentz centroid of the values under the softmax. The kernel sums ``(v, u(v))``;
the sum's last component is what the centroid's norm needs beside it.

**Where the time goes.** It is the last component of a head, and it is counted: a head of size 64
is 63 space components and one time. Kernels are built for head sizes 32, 64, 128, 256 and for
rows of a multiple of 16 bytes; with 65 a flash kernel runs at the next larger size, half as much
work again. The 63 columns per head cost nothing: all heads together are one product whose width is
a multiple of the number of heads.

Source: HELM, sections 4.1 and 4.2; Chen et al. 2022, "Fully hyperbolic neural networks".
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import repeat_kv

from geodapt.helm import hope, points
from geodapt.helm.config import HelmConfig
from geodapt.helm.hope import Rotation
from geodapt.helm.layers import LearnedScalar, LorentzLinear
from geodapt.helm.points import Curvature


class HelmAttention(nn.Module):
    """HMHA: hyperbolic multi-head attention, with grouped queries where keys have fewer heads."""

    is_causal = True

    def __init__(self, config: HelmConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        heads, groups, size = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        assert groups
        assert size  # both are filled in by the configuration
        self.num_key_value_groups = heads // groups
        self.space = size - 1
        d, bias = config.hidden_size, config.attention_bias
        self.q_proj = LorentzLinear(d, heads * self.space, bias)
        self.k_proj = LorentzLinear(d, groups * self.space, bias)
        self.v_proj = LorentzLinear(d, groups * self.space, bias)
        self.o_proj = LorentzLinear(heads * self.space, d, bias)
        self.temperature = LearnedScalar(math.sqrt(heads * size))

    def forward(
        self,
        hidden_states: Float[Tensor, "rows n d"],
        time: Float[Tensor, "rows n"],
        c: Curvature,
        rotation: Rotation | None = None,
        attention_mask: Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "rows n d"], Tensor | None]:
        heads = (*hidden_states.shape[:-1], -1, self.space)
        q, k, v = (
            projection(hidden_states, time).view(heads)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q = hope.queries(q, rotation, 2 / self.temperature(), c)
        k, v = hope.keys(k, rotation, c), hope.keys(v, None, c)
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        out, weights = attend(self, q, k, v, attention_mask, **kwargs)
        out, out_time = centroid(out, c)
        return self.o_proj(out, out_time), weights


def attend(
    module: Any,
    q: Float[Tensor, "rows heads n size"],
    k: Float[Tensor, "rows groups m size"],
    v: Float[Tensor, "rows groups m value"],
    mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "rows n heads value"], Tensor | None]:
    """The weighted sums of whole values, by the kernel that the configuration names."""
    name = module.config._attn_implementation
    size, more = v.shape[-1], k.shape[-1] - v.shape[-1]
    if more > 0:  # flash kernels want values as long as keys
        v = F.pad(v, (0, more))
    interface = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention)
    out, weights = interface(module, q, k, v, mask, scaling=1.0, dropout=0.0, **kwargs)
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
    """Attention step by step, for those who want to see its weights."""
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
    return points.wide(scores).softmax(-1).to(scores.dtype)


def centroid(
    sums: Float[Tensor, "rows n heads d+1"], c: Curvature
) -> tuple[Float[Tensor, "rows n heads*d"], Float[Tensor, "rows n"]]:
    """Each head's Lorentz centroid from its sums ``(s, sum of u)``; then all heads' Lorentz
    concatenation (their space components side by side), and its time."""
    s, u = sums[..., :-1], points.wide(sums[..., -1])
    s2 = points.square(s)
    norm = points.inverse_norm(s2, u, 1.0, c)
    return points.scaled(s, norm).flatten(-2), points.time_of((s2 * norm * norm).sum(-1), c)
