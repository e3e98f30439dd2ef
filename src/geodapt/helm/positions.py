"""Positions: HoPE, the rotation of a point's space components, and a learned relative bias.

    HoPE(x, i) = [sqrt(|R_i x|^2 + 1/c), R_i x] = [t(x), R_i x]

with the rotary matrix ``R_i`` of position i: a rotation keeps the norm, so it keeps the time.
``<HoPE(q, i), HoPE(k, j)>_L`` depends only on q, k and ``i - j``.
"""

import copy
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from geodapt.helm.config import HelmConfig
from geodapt.helm.lorentz_layers import Curvature, excess, in_type_of, squared_norm, time_component

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, ``rows n 1 pairs``: one of each per rotated pair of components."""


class HelmRotaryEmbedding(LlamaRotaryEmbedding):
    """Cosines and sines of each position's angles, one per rotated pair.

    Takes every ``rope_type`` of transformers. Their extra factor on cosine and sine is left out:
    with it ``R_i`` would be no rotation, and the temperature of attention is learned anyway.
    """

    def __init__(self, config: HelmConfig, rotated: int) -> None:
        config = copy.copy(config)
        config.head_dim = rotated
        super().__init__(config)  # type: ignore[arg-type]  # reads what both configurations have

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Int[Tensor, "rows n"]) -> Rotation:
        self.attention_scaling = 1.0
        cos, sin = super().forward(x, position_ids)
        half = cos.shape[-1] // 2  # both halves of a Llama rotation have the same angles
        return cos[..., None, :half], sin[..., None, :half]


def query_points(
    x: Float[Tensor, "rows n heads d"],
    rotation: Rotation | None,
    temperature: Float[Tensor, "1"],
    c: Curvature,
) -> Float[Tensor, "rows heads n d+1"]:
    """``(R x, -t(x)) / temperature``, as :func:`geodapt.helm.attention` multiplies it with keys."""
    time = time_component(x, c)
    whole = torch.cat([*_turned(x, rotation), in_type_of(x, -time)], dim=-1)
    return (whole / in_type_of(x, temperature)).transpose(1, 2)


def key_points(
    x: Float[Tensor, "rows n heads d"], rotation: Rotation | None, c: Curvature
) -> Float[Tensor, "rows heads n d+1"]:
    """``(R x, u(x))``, with the time excess as the last component; values have the same form,
    without rotation."""
    u = excess(squared_norm(x), c)
    return torch.cat([*_turned(x, rotation), in_type_of(x, u)], dim=-1).transpose(1, 2)


def rotate(x: Float[Tensor, "rows n heads d"], rotation: Rotation | None) -> Tensor:
    """``R x``: turns the pairs ``(x_i, x_(i + p))``, i < p, and leaves the other components."""
    return x if rotation is None else torch.cat(_turned(x, rotation), dim=-1)


def _turned(x: Float[Tensor, "rows n heads d"], rotation: Rotation | None) -> list[Tensor]:
    """``R x`` in parts, to be concatenated only once, together with the time."""
    if rotation is None:
        return [x]
    cos, sin = rotation  # may be wider than x
    pairs = cos.shape[-1]
    a, b, rest = x.split_with_sizes([pairs, pairs, x.shape[-1] - 2 * pairs], dim=-1)
    first = torch.addcmul(a * cos, b, sin, value=-1)
    return [in_type_of(x, first), in_type_of(x, torch.addcmul(b * cos, a, sin)), rest]


class RelativeBias(nn.Module):
    """A learned bias of the scores per head and distance, in T5's buckets: one per distance for
    short ones, logarithmic for long ones.

    Source: Raffel et al. 2020, section 2.1; the ablation of HoPE.
    """

    def __init__(self, config: HelmConfig) -> None:
        super().__init__()
        self.buckets = config.relative_attention_num_buckets
        self.max_distance = config.relative_attention_max_distance
        self.weight = nn.Parameter(torch.zeros(self.buckets, config.num_attention_heads))

    def forward(self, first: int | Tensor, queries: int, keys: int) -> Float[Tensor, "1 h n m"]:
        """The bias of ``queries`` queries, the first at cache index ``first``, to all keys."""
        device = self.weight.device
        at = torch.arange(queries, device=device).unsqueeze(1) + first
        distance = (at - torch.arange(keys, device=device)).clamp_min(0)
        exact = self.buckets // 2
        steps = torch.log(distance.clamp_min(1) / exact) / math.log(self.max_distance / exact)
        far = (exact + steps * (self.buckets - exact)).long().clamp_max(self.buckets - 1)
        bucket = torch.where(distance < exact, distance, far)
        return self.weight[bucket].permute(2, 0, 1).unsqueeze(0)
