"""MiCE: a mixture of experts, each in a space of its own curvature.

A token ``x`` of curvature -c goes to the shared experts and to the few routed ones that its gate
chooses. Expert i works at curvature ``-c_i``: it reads the same point there, ``a x`` with
``a = sqrt(c / c_i)`` (whose time is ``a t(x)``), runs an HFFN, and its result comes back as
``y / a``. The results' centroid, weighted by 1 for a shared expert and by the gate for a routed
one, is the layer's output.

**Geometries.** ``P(u) = r (u, t)`` lifts space components to a point of the expert's space:

    hyperbolic   t = sqrt(|u|^2 + 1/c_i)    r = 1
    euclidean    t = 1                      r = 1           a = 1; t's weights are a bias
    spherical    t = 1/sqrt(c_i)            r = 1/sqrt(1 + c_i |u|^2)

The sphere of radius ``1/sqrt(c_i)`` is reached by central projection, which takes any vector and
is smooth. As ``r`` is one number per token it multiplies the products instead of their inputs.

Experts run grouped: tokens are sorted by expert, and a layer is one grouped product over those
that were chosen.

Source: HELM, section 4.2; DeepSeek-V3, section 2.1.2 (gates and balance).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.integrations.moe import _grouped_mm

from geodapt.helm.config import HelmConfig
from geodapt.helm.lorentz_layers import (
    Curvature,
    HelmMLP,
    excess,
    gated_product,
    inverse_norm,
    scale_points,
    squared_norm,
    wide,
)


class HelmRouter(nn.Module):
    """The gate: which routed experts a token goes to, and with what weights.

    ``e_score_correction_bias`` affects only the choice, not the weights. :meth:`balance` moves it
    against the load since the last call.
    """

    e_score_correction_bias: Tensor
    load: Tensor

    def __init__(self, config: HelmConfig) -> None:
        super().__init__()
        self.config = config
        experts = config.n_routed_experts
        self.weight = nn.Parameter(torch.zeros(experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(experts))
        self.register_buffer("load", torch.zeros(experts))  # kept, so that a resumed step is equal

    def forward(
        self, x: Float[Tensor, "tokens d"], counted: Bool[Tensor, "tokens"] | None = None
    ) -> tuple[Float[Tensor, "tokens e"], Float[Tensor, "tokens k"], Int[Tensor, "tokens k"]]:
        """Logits, weights of the chosen experts, and which they are; in float32 or wider.

        The load counts the tokens that ``counted`` selects, so that padding is left out.
        """
        config = self.config
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(wide(x), wide(self.weight))
        scores = affinities(logits, config)
        chosen = self._choose(scores.detach() + self.e_score_correction_bias)
        if self.training:
            self.load.add_(expert_load(chosen, config.n_routed_experts, counted))
        weights = scores.gather(-1, chosen)
        if config.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return logits, weights * config.routed_scaling_factor, chosen

    def _choose(self, scores: Float[Tensor, "tokens e"]) -> Int[Tensor, "tokens k"]:
        """The best experts of the best groups; a group is scored by its two best experts."""
        groups = self.config.n_group
        if groups > 1:
            by_group = scores.unflatten(-1, (groups, -1))
            best = by_group.topk(min(2, by_group.shape[-1]), dim=-1).values.sum(-1)
            kept = best.topk(self.config.topk_group, dim=-1, sorted=False).indices
            outside = torch.ones_like(best, dtype=torch.bool).scatter(-1, kept, False)
            scores = by_group.masked_fill(outside.unsqueeze(-1), -torch.inf).flatten(-2)
        return scores.topk(self.config.num_experts_per_tok, dim=-1, sorted=False).indices

    @torch.no_grad()
    def balance(self) -> None:
        """One step of the bias towards equal loads (DeepSeek-V3, section 2.1.2)."""
        step = torch.sign(self.load.mean() - self.load) * self.config.bias_update_speed
        self.e_score_correction_bias.add_(step.to(self.e_score_correction_bias.dtype))
        self.load.zero_()


def affinities(logits: Float[Tensor, "*batch e"], config: HelmConfig) -> Float[Tensor, "*batch e"]:
    return logits.softmax(-1) if config.scoring_func == "softmax" else logits.sigmoid()


class Dispatch(NamedTuple):
    """Which token and which of its choices each row belongs to: one row per choice, sorted by
    expert."""

    expert: Int[Tensor, "rows"]  # ascending
    order: Int[Tensor, "rows"]  # k times the token, and which of its k choices
    place: Int[Tensor, "tokens k"]  # where the rows of a token are
    ends: Int[Tensor, "e"]  # where the rows of an expert end

    @classmethod
    def of(cls, chosen: Int[Tensor, "tokens k"], experts: int) -> "Dispatch":
        """The rows for each token's k chosen experts, of a given number of experts."""
        expert, order = torch.sort(chosen.flatten(), stable=True)
        ordinals = torch.arange(len(order), device=order.device)
        place = torch.empty_like(order).scatter(0, order, ordinals)  # no need to sort again
        ends = expert_load(chosen, experts).cumsum(0).to(torch.int32)
        return cls(expert, order, place.view(chosen.shape), ends)

    def to_rows(self, x: Float[Tensor, "tokens *d"]) -> Float[Tensor, "rows *d"]:
        """For each row its token."""
        return x.index_select(0, self.order // self.place.shape[1])

    def to_tokens(self, y: Float[Tensor, "rows *d"]) -> Float[Tensor, "tokens *d"]:
        """For each token the sum of its rows."""
        return y.index_select(0, self.place.flatten()).view(*self.place.shape, *y.shape[1:]).sum(1)


def expert_load(
    chosen: Int[Tensor, "tokens k"], experts: int, counted: Bool[Tensor, "tokens"] | None = None
) -> Float[Tensor, "e"]:
    """How many tokens went to each expert, of those that ``counted`` selects."""
    if counted is not None:
        chosen = torch.where(counted.unsqueeze(-1), chosen, -1)
    return torch.histc(chosen.float(), bins=experts, min=0, max=experts - 1)


def one_hot(
    expert: Int[Tensor, "rows"], experts: int, dtype: torch.dtype
) -> Float[Tensor, "rows e"]:
    """1 where a row is the expert's, else 0."""
    return (expert.unsqueeze(-1) == torch.arange(experts, device=expert.device)).to(dtype)


class HelmExperts(nn.Module):
    """The routed experts' weights, stacked: SwiGLU with a column for the time in each product."""

    def __init__(self, config: HelmConfig) -> None:
        super().__init__()
        e, d, inner = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(e, 2 * inner, d))
        self.gate_up_time = nn.Parameter(torch.zeros(e, 2 * inner))
        self.down_proj = nn.Parameter(torch.empty(e, d, inner))
        self.down_time = nn.Parameter(torch.zeros(e, d))
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(
        self,
        x: Float[Tensor, "tokens d"],
        chosen: Int[Tensor, "tokens k"],
        weights: Float[Tensor, "tokens k"],
        spaces: "Spaces",
        c: Curvature,
    ) -> tuple[Float[Tensor, "tokens d"], Float[Tensor, "tokens"]]:
        """Each token's weighted sum of its experts' results: space components, time excesses."""
        rows = Dispatch.of(chosen, len(self.down_proj))
        space, inputs = spaces.of(rows.expert), rows.to_rows(x)
        r, time = space.lift(squared_norm(inputs) * space.scale**2)
        both = grouped_linear(
            scale_points(inputs, space.scale * r),
            time * r,
            self.gate_up_proj,
            self.gate_up_time,
            rows,
        )
        h, h2 = gated_product(self.act_fn, both)
        r, time = space.lift(h2)
        y = grouped_linear(h, time, self.down_proj, self.down_time, rows)
        back, gated = r / space.scale, weights.flatten().index_select(0, rows.order)
        u = excess(squared_norm(y) * back**2, c)
        return rows.to_tokens(scale_points(y, gated * back)), rows.to_tokens(gated * u)


def grouped_linear(
    x: Float[Tensor, "rows d_in"],
    time: Float[Tensor, "rows"],
    weight: Float[Tensor, "e d_out d_in"],
    time_weight: Float[Tensor, "e d_out"],
    rows: Dispatch,
) -> Float[Tensor, "rows d_out"]:
    """``W_e x + w_e t``: each row by its expert's weights."""
    if torch.is_autocast_enabled(x.device.type):  # which does not know grouped products
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    aligned = all(size * x.element_size() % 16 == 0 for size in weight.shape[1:])
    if x.dtype != torch.float64 and aligned:  # PyTorch's own kernels take nothing else
        y = _grouped_mm(x, weight.mT, rows.ends)
    elif torch.compiler.is_compiling():
        y = torch.ops.transformers.grouped_mm_fallback(x, weight.mT, rows.ends)
    else:  # whose gradient, unlike that operator's, has one
        sizes = rows.ends.diff(prepend=rows.ends.new_zeros(1)).tolist()
        y = torch.cat([part @ w.mT for part, w in zip(x.split(sizes), weight, strict=True)])
    # One-hot product: indexing time_weight copies it for each row, and its gradient adds row by row
    own = one_hot(rows.expert, len(weight), y.dtype) * time.unsqueeze(-1).to(y.dtype)
    return torch.addmm(y, own, time_weight.to(y.dtype))


class Spaces(NamedTuple):
    """The space that each expert, or each row by its expert, computes in."""

    scale: Float[Tensor, "n"]  # a: from the model's space into this one
    radius2: Float[Tensor, "n"]  # 1/c_i, and 1 where the space is flat
    # None where all are hyperbolic, else:
    hyperbolic: Float[Tensor, "n"] | None = None  # 1 or 0
    spherical: Float[Tensor, "n"] | None = None  # c_i or 0

    def of(self, expert: Int[Tensor, "rows"]) -> "Spaces":
        # One-hot products: indexing has a slow scatter-add in its backward pass.
        own = one_hot(expert, len(self.scale), self.scale.dtype)
        return Spaces._make(part if part is None else (own * part).sum(-1) for part in self)

    def lift(
        self, square: Float[Tensor, "n"]
    ) -> tuple[Float[Tensor, "n"] | float, Float[Tensor, "n"]]:
        """``r`` and ``t`` of ``P(u) = r (u, t)``, from ``|u|^2``."""
        if self.hyperbolic is None or self.spherical is None:
            return 1.0, torch.sqrt(square + self.radius2)
        r = torch.rsqrt(1 + self.spherical * square)
        return r, torch.sqrt(self.hyperbolic * square + self.radius2)


class HelmMoE(nn.Module):
    """MiCE: gate, shared experts and routed experts, and the centroid of their results."""

    def __init__(self, config: HelmConfig) -> None:
        super().__init__()
        self.shared, self.routed = config.n_shared_experts, config.n_routed_experts
        self.start = config.curvature_of_experts()
        self.geometry = config.geometry_of_experts()
        self.gate = HelmRouter(config)
        self.experts = HelmExperts(config)
        self.shared_experts = nn.ModuleList(
            HelmMLP(config, config.moe_intermediate_size) for _ in range(self.shared)
        )
        self.curvature_offset = nn.Parameter(
            torch.zeros(self.shared + self.routed), requires_grad=config.learn_expert_curvatures
        )

    def curvatures(self) -> Float[Tensor, "experts"]:
        """``c_i`` of every expert, shared ones first."""
        offset = wide(self.curvature_offset)
        return offset.new_tensor(self.start) * torch.exp(offset)

    def spaces(self, c_i: Float[Tensor, "e"], c: Curvature) -> Spaces:
        """The routed experts' spaces."""
        kinds = self.geometry[self.shared :]
        if set(kinds) == {"hyperbolic"}:
            return Spaces(torch.sqrt(c.c / c_i), 1 / c_i)
        flat, hyperbolic, spherical = (
            torch.tensor([kind == name for kind in kinds], device=c_i.device)
            for name in ("euclidean", "hyperbolic", "spherical")
        )
        return Spaces(
            scale=torch.where(flat, 1.0, torch.sqrt(c.c / c_i)),
            radius2=torch.where(flat, 1.0, 1 / c_i),
            hyperbolic=hyperbolic.to(c_i.dtype),
            spherical=c_i * spherical,
        )

    def forward(
        self,
        x: Float[Tensor, "rows n d"],
        time: Float[Tensor, "rows n"],
        c: Curvature,
        counted: Bool[Tensor, "rows n"] | None = None,
    ) -> tuple[Float[Tensor, "rows n d"], Float[Tensor, "tokens e"]]:
        """The centroid, and the gate's logits for the balance loss."""
        c_i = self.curvatures()
        counted = None if counted is None else counted.flatten()
        logits, weights, chosen = self.gate(x.flatten(0, -2), counted)
        spaces = self.spaces(c_i[self.shared :], c)
        s, u = self.experts(x.flatten(0, -2), chosen, weights, spaces, c)
        # Shared experts get whole rows, as other layers do, so that rows can have different
        # adapters.
        s, u = s.view(x.shape), u.view(time.shape)
        for expert, c_e in zip(self.shared_experts, c_i[: self.shared], strict=True):
            a = torch.sqrt(c.c / c_e).expand_as(time)
            y = expert(scale_points(x, a), time * a, Curvature.of(c_e))
            y = scale_points(y, 1 / a)
            s, u = s + y, u + excess(squared_norm(y), c)
        mass = self.shared + weights.sum(-1).view(time.shape)
        norm = inverse_norm(squared_norm(s), u, c, mass)
        return scale_points(s, norm), logits
