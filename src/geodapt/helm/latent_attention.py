"""HMLA: hyperbolic attention whose cache holds latents instead of keys and values.

A token's latent is a point of ``kv_lora_rank`` components, its time included, and each head's key
and value are affine maps of it (Lorentz linears, written as plain ones on whole points)::

    z = (z_s, t(z_s))          k_h = W^k_h z + b,   v_h = W^v_h z + b'

A head's key is the Lorentz concatenation of ``k_h`` and one rotary key ``r`` that all heads share,
so its excess is that of ``|k_h|^2 + |r|^2``.

**Cache.** A token keeps, per layer, ``z``, ``r`` and the excesses of each head's key and value:
``kv_lora_rank + qk_rope_head_dim + 2 heads`` numbers. They travel as the "keys" ``z`` and the
"values" ``(r, excesses)`` of one head, so that every cache of transformers takes them.

**Decoding.** The maps move to the other side: ``q.k_h = (W^k_h^T q).z + q.b`` and ``sum_j p_j v_hj
= W^v_h (sum_j p_j z_j) + b'``. The constant ``q.b`` leaves the softmax. So a step reads only the
cache and never builds a key or a value; the excesses, which are not affine in z, are the cached
ones. With many queries at once, building keys and values is less work; where a map is more than its
weight (it has an adapter or is quantized), it is the only way.

Source: HELM, section 4.3; DeepSeek-V2, section 2.1 and appendix C.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import Cache

from geodapt.helm.config import HelmConfig
from geodapt.helm.kernels import attend, softmax
from geodapt.helm.lorentz_layers import (
    Curvature,
    HelmRMSNorm,
    LearnedScalar,
    LorentzLinear,
    PointLinear,
    excess,
    head_centroids,
    in_type_of,
    output_projection,
    squared_norm,
)
from geodapt.helm.positions import Rotation, query_points, rotate


class HelmLatentAttention(nn.Module):
    """Hyperbolic multi-head latent attention."""

    is_causal = True
    num_key_value_groups = 1

    def __init__(self, config: HelmConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.heads, self.rank = config.num_attention_heads, config.kv_lora_rank
        # A head's query and key: nope and rope parts, and one time for both.
        self.nope, self.rope = config.qk_nope_head_dim - 1, config.qk_rope_head_dim
        self.value = config.v_head_dim - 1
        d, bias, eps = config.hidden_size, config.attention_bias, config.rms_norm_eps
        queries = self.heads * (self.nope + self.rope)
        if config.q_lora_rank is None:
            self.q_proj = LorentzLinear(d, queries, config.latent_query_bias)
        else:
            self.q_a_proj = LorentzLinear(d, config.q_lora_rank, bias)
            self.q_a_layernorm = HelmRMSNorm(config.q_lora_rank, eps)
            self.q_b_proj = LorentzLinear(config.q_lora_rank, queries, config.latent_query_bias)
        self.kv_a_proj_with_mqa = LorentzLinear(d, self.rank - 1 + self.rope, bias)
        self.kv_a_layernorm = HelmRMSNorm(self.rank - 1, eps)
        self.kv_b_proj = PointLinear(self.rank, self.heads * (self.nope + self.value), bias)
        self.o_proj = output_projection(config, self.value)
        size = config.qk_nope_head_dim + config.qk_rope_head_dim
        self.temperature = LearnedScalar(math.sqrt(self.heads * size))

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
        rows, n, _ = hidden_states.shape
        # Rope part first: HoPE turns the leading components.
        q = self._queries(hidden_states, time, c).view(rows, n, self.heads, -1)
        q = query_points(q, rotation, self.temperature.growth(), c)
        scaling = 2 / self.temperature.start
        latent, rope = self.kv_a_proj_with_mqa(hidden_states, time).split(
            [self.rank - 1, self.rope], dim=-1
        )
        z, z_time = self.kv_a_layernorm(latent, c)
        z = torch.cat([z, in_type_of(z, z_time)], dim=-1)
        rope = rotate(rope.unsqueeze(2), rotation)
        k, v = self._expand(z)
        k_excess = in_type_of(k, excess(squared_norm(k) + squared_norm(rope), c))
        v_excess = in_type_of(v, excess(squared_norm(v), c))
        if cache is not None:
            kept = torch.cat([rope.squeeze(2), k_excess.squeeze(-1), v_excess.squeeze(-1)], dim=-1)
            z, kept = cache.update(z.unsqueeze(1), kept.unsqueeze(1), self.layer_idx)
            z, kept = z.squeeze(1), kept.squeeze(1)
            if self._absorbs(n, z.shape[1], attention_mask):
                out, seen = self._decode(q, z, kept, attention_mask, scaling, **kwargs)
                return self._output(out, c), seen
            rope, k_excess, v_excess = kept.split([self.rope, self.heads, self.heads], dim=-1)
            rope, k_excess, v_excess = rope.unsqueeze(2), k_excess[..., None], v_excess[..., None]
            if z.shape[1] != n:
                k, v = self._expand(z)
        rope = rope.expand(-1, -1, self.heads, -1)
        k = torch.cat([rope, k, k_excess], dim=-1).transpose(1, 2)
        v = torch.cat([v, v_excess], dim=-1).transpose(1, 2)
        out, weights = attend(self, q, k, v, attention_mask, scaling, **kwargs)
        return self._output(out, c), weights

    def _queries(self, x: Tensor, time: Tensor, c: Curvature) -> Float[Tensor, "rows n queries"]:
        if self.config.q_lora_rank is None:
            return self.q_proj(x, time)
        return self.q_b_proj(*self.q_a_layernorm(self.q_a_proj(x, time), c))

    def _expand(
        self, z: Float[Tensor, "rows n rank"]
    ) -> tuple[Float[Tensor, "rows n heads nope"], Float[Tensor, "rows n heads value"]]:
        """The heads' keys (without the rotary part) and values, computed from latents."""
        both = self.kv_b_proj(z).unflatten(-1, (self.heads, -1))
        return both.split([self.nope, self.value], dim=-1)

    def _output(
        self, sums: Float[Tensor, "rows n heads size"], c: Curvature
    ) -> Float[Tensor, "rows n d"]:
        return self.o_proj(*head_centroids(sums, c, self.config.output_reads_head_times))

    def _absorbs(self, queries: int, keys: int, mask: Tensor | None) -> bool:
        """Whether attending to the latents is less work than building all keys and values.

        Flash kernels describe their mask in another way, and several queries without a mask are a
        prefill into an empty static cache.
        """
        if self.config._attn_implementation not in ("sdpa", "eager"):
            return False
        if not is_its_weight(self.kv_b_proj):
            return False
        if queries > 1 and (mask is None or queries == keys):
            return False
        built = self.nope + self.value
        return queries * (2 * self.rank - built) < self.rank * built

    def _decode(
        self,
        q: Float[Tensor, "rows heads n size"],
        z: Float[Tensor, "rows m rank"],
        kept: Float[Tensor, "rows m kept"],
        attention_mask: Tensor | None,
        scaling: float,
        position_bias: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "rows n heads value+1"], Float[Tensor, "rows heads n m"]]:
        """Attention over the latents themselves."""
        rows, heads, n, _ = q.shape
        w_k, w_v = self.kv_b_proj.weight.view(heads, -1, self.rank).split(
            [self.nope, self.value], dim=1
        )
        rope, nope, time = q.split([self.rope, self.nope, 1], dim=-1)
        q_z = torch.einsum("bhnk,hkr->bhnr", nope, w_k)
        # Head h reads only its own excess: its time is the h-th of ``heads`` entries, the rest 0.
        own = torch.eye(heads, dtype=q.dtype, device=q.device).unsqueeze(1)
        q_kept = torch.cat([rope, time * own], dim=-1)
        excess = kept[..., self.rope + heads :].mT.unsqueeze(2)
        kept = kept[..., : self.rope + heads].mT
        scores = torch.baddbmm(
            q_z.flatten(1, 2) @ z.mT, q_kept.flatten(1, 2), kept, beta=scaling, alpha=scaling
        )
        weights = softmax(scores.view(rows, heads, n, -1), attention_mask, position_bias)
        latents = (weights.flatten(1, 2) @ z).view(rows, heads, n, -1)
        v = torch.einsum("bhnr,hvr->bnhv", latents, w_v)
        if self.kv_b_proj.bias is not None:
            v = v + self.kv_b_proj.bias.view(heads, -1)[:, self.nope :]
        excess = (weights * excess).sum(-1).mT  # no product: its matrices would have one column
        return torch.cat([v, excess.unsqueeze(-1)], dim=-1), weights


def is_its_weight(layer: Any) -> bool:
    """Whether a layer computes exactly what its weight and bias say, so that these may be used
    directly.

    Not so where something wraps or replaces it: an adapter of PEFT or of a bank, a
    hook, a parametrization, a quantized or an offloaded weight.
    """
    return (
        type(layer) is PointLinear
        and type(layer.weight) is nn.Parameter
        and layer.weight.device.type != "meta"
        and "forward" not in layer.__dict__
        and not layer._forward_hooks
        and not layer._forward_pre_hooks
    )
