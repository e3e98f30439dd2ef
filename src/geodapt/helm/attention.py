"""Hyperbolic attention as ordinary scaled-dot-product attention.

The score of a query and a key is ``(2/c + 2 <q, k>_L) / tau + bias`` with the Minkowski product
``<q, k>_L = q.k - t(q) t(k)``. With ``t(k) = 1/sqrt(c) + u(k)`` it is::

    2/tau (q.k - t(q) u(k))  +  a part that is the same for every key, which softmax drops

so that the query ``2/tau (q, -t(q))`` and the key ``(k, u(k))`` give it as one dot product: one
component more per head, and every attention kernel can compute it. The excess ``u(k)`` instead of
``t(k)`` keeps the score exact where curvature is small: no large constant uses up the mantissa.

The output is the Lorentz centroid of the values under the softmax. The kernel sums ``(v, u(v))``;
the sum's last component is what the centroid's norm needs beside it.

**Where the time is stored.** It is the last component of a head and counts in its size: a head of
size 64 has 63 space components and one time. Kernels are built for head sizes 32, 64, 128, 256 and
for rows of a multiple of 16 bytes; with 65 a flash kernel runs at the next larger size, half as
much work again. The 63 columns per head cost nothing: all heads together are one product whose
width is a multiple of the number of heads.

Source: HELM, sections 4.1 and 4.2; Chen et al. 2022, "Fully hyperbolic neural networks".
"""

import math
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers import Cache

from geodapt.helm.config import HelmConfig
from geodapt.helm.kernels import attend
from geodapt.helm.lorentz_layers import (
    Curvature,
    LearnedScalar,
    LorentzLinear,
    head_centroids,
    output_projection,
)
from geodapt.helm.positions import Rotation, key_points, query_points


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
        self.o_proj = output_projection(config, self.space)
        self.temperature = LearnedScalar(math.sqrt(heads * size))

    def forward(
        self,
        hidden_states: Float[Tensor, "rows n d"],
        time: Float[Tensor, "rows n 1"],
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
        q = query_points(q, rotation, self.temperature.growth(), c)
        k, v = key_points(k, rotation, c), key_points(v, None, c)
        if cache is not None:
            k, v = cache.update(k, v, self.layer_idx)
        scaling = 2 / self.temperature.start
        out, weights = attend(self, q, k, v, attention_mask, scaling, **kwargs)
        out, out_time = head_centroids(out, c, self.config.output_reads_head_times)
        return self.o_proj(out, out_time), weights
