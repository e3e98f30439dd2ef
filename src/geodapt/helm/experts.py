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

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.integrations.moe import _grouped_mm

from geodapt.helm.config import HelmConfig
from geodapt.helm.lorentz_layers import (
    Curvature,
    HelmMLP,
    LorentzResidual,
    excess,
    inverse_norm,
    lorentz_residual,
    scale_points,
    squared_norm,
    wide,
)
from geodapt.helm.router import HelmRouter, expert_load


class Dispatch(NamedTuple):
    """Which token and which of its choices each row belongs to: one row per choice, sorted by
    expert."""

    expert: Int[Tensor, " rows"]  # ascending
    order: Int[Tensor, " rows"]  # k times the token, and which of its k choices
    place: Int[Tensor, "tokens k"]  # where the rows of a token are
    ends: Int[Tensor, " e"]  # where the rows of an expert end

    @classmethod
    def of(cls, chosen: Int[Tensor, "tokens k"], experts: int) -> "Dispatch":
        """The rows for each token's k chosen experts, of a given number of experts."""
        expert, order = torch.sort(chosen.flatten(), stable=True)
        ordinals = torch.arange(order.shape[0], device=order.device)  # len() is no symbol
        place = torch.empty_like(order).scatter(0, order, ordinals)  # no need to sort again
        ends = expert_load(chosen, experts).cumsum(0).to(torch.int32)
        return cls(expert, order, place.view(chosen.shape), ends)

    def to_rows(self, x: Float[Tensor, " tokens *d"]) -> Float[Tensor, " rows *d"]:
        """For each row its token."""
        return x.index_select(0, self.order // self.place.shape[1])

    def to_tokens(self, y: Float[Tensor, " rows *d"]) -> Float[Tensor, " tokens *d"]:
        """For each token the sum of its rows."""
        return y.index_select(0, self.place.flatten()).view(*self.place.shape, *y.shape[1:]).sum(1)


def one_hot(
    expert: Int[Tensor, " rows"], experts: int, dtype: torch.dtype
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
        self.gate_up_bias = nn.Parameter(torch.zeros(e, 2 * inner)) if config.expert_bias else None
        self.down_bias = nn.Parameter(torch.zeros(e, d)) if config.expert_bias else None
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(
        self,
        x: Float[Tensor, "tokens d"],
        chosen: Int[Tensor, "tokens k"],
        weights: Float[Tensor, "tokens k"],
        spaces: "Spaces",
        c: Curvature,
    ) -> tuple[Float[Tensor, "tokens d"], Float[Tensor, "tokens 1"]]:
        """Each token's weighted sum of its experts' results: space components, time excesses."""
        rows = Dispatch.of(chosen, len(self.down_proj))
        y, back = self._results(x, rows, spaces)
        gated = weights.reshape(-1, 1).index_select(0, rows.order)
        u = excess(squared_norm(y) * back**2, c)
        return rows.to_tokens(scale_points(y, gated * back)), rows.to_tokens(gated * u)

    def one_by_one(
        self, x: Float[Tensor, "tokens d"], chosen: Int[Tensor, "tokens k"], spaces: "Spaces"
    ) -> Float[Tensor, "k tokens d"]:
        """The result of every choice, in the order of ``chosen``."""
        rows = Dispatch.of(chosen, len(self.down_proj))
        y = scale_points(*self._results(x, rows, spaces))
        return y.index_select(0, rows.place.T.flatten()).view(-1, *x.shape)

    def _results(
        self, x: Float[Tensor, "tokens d"], rows: Dispatch, spaces: "Spaces"
    ) -> tuple[Float[Tensor, "rows d"], Float[Tensor, "rows 1"]]:
        """Each row's result in its expert's space, and the factor that brings it back."""
        space, inputs = spaces.of(rows.expert), rows.to_rows(x)
        r, time = space.lift(squared_norm(inputs) * space.scale**2)
        gate, up = grouped_linear(
            scale_points(inputs, space.scale * r),
            time * r,
            self.gate_up_proj,
            self.gate_up_time,
            rows,
            self.gate_up_bias,
        ).chunk(2, dim=-1)
        h = self.act_fn(gate) * up
        r, time = space.lift(squared_norm(h))
        biased = self.down_bias is not None
        if biased:  # else r, which is one number per row, multiplies the results
            h, time = scale_points(h, r), time * r
        y = grouped_linear(h, time, self.down_proj, self.down_time, rows, self.down_bias)
        return y, (1.0 if biased else r) / space.scale


def grouped_linear(
    x: Float[Tensor, "rows d_in"],
    time: Float[Tensor, "rows 1"],
    weight: Float[Tensor, "e d_out d_in"],
    time_weight: Float[Tensor, "e d_out"],
    rows: Dispatch,
    bias: Float[Tensor, "e d_out"] | None = None,
) -> Float[Tensor, "rows d_out"]:
    """``W_e x + w_e t + b_e``: each row by its expert's weights."""
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
    whose = one_hot(rows.expert, len(weight), y.dtype)
    y = torch.addmm(y, whose * time.to(y.dtype), time_weight.to(y.dtype))
    return y if bias is None else torch.addmm(y, whose, bias.to(y.dtype))


class Spaces(NamedTuple):
    """The space that each expert, or each row by its expert, computes in: ``e``, or ``rows 1``."""

    scale: Tensor  # a: from the model's space into this one
    radius2: Tensor  # 1/c_i, and 1 where the space is flat
    # None where all are hyperbolic, else:
    hyperbolic: Tensor | None = None  # 1 or 0
    spherical: Tensor | None = None  # c_i or 0

    def of(self, expert: Int[Tensor, " rows"]) -> "Spaces":
        # One-hot products: indexing has a slow scatter-add in its backward pass.
        own = one_hot(expert, len(self.scale), self.scale.dtype)
        return Spaces._make(part if part is None else (own * part).sum(-1, True) for part in self)

    def lift(
        self, square: Float[Tensor, "rows 1"]
    ) -> tuple[Float[Tensor, "rows 1"] | float, Float[Tensor, "rows 1"]]:
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
        self.shared_curved = config.shared_experts_curved
        self.start = config.curvature_of_experts()
        self.geometry = config.geometry_of_experts()
        self.gate = HelmRouter(config)
        self.experts = HelmExperts(config)
        self.shared_experts = nn.ModuleList(
            HelmMLP(config, config.moe_intermediate_size) for _ in range(self.shared)
        )
        self.curvature_offset = nn.Parameter(
            torch.zeros(config.curved_experts), requires_grad=config.learn_expert_curvatures
        )
        self.join = LorentzResidual() if config.expert_sum == "nested" else None

    def curvatures(self) -> Float[Tensor, " experts"]:
        """``c_i`` of every expert that has its own, shared ones first."""
        offset = wide(self.curvature_offset)
        return offset.new_tensor(self.start) * torch.exp(offset)

    def spaces(self, c_i: Float[Tensor, " e"], c: Curvature) -> Spaces:
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
        time: Float[Tensor, "rows n 1"],
        c: Curvature,
        counted: Bool[Tensor, "rows n"] | None = None,
    ) -> tuple[Float[Tensor, "rows n d"], Float[Tensor, "tokens e"]]:
        """The centroid, and the gate's logits for the balance loss."""
        c_i = self.curvatures()
        counted = None if counted is None else counted.flatten()
        logits, weights, chosen = self.gate(x.flatten(0, -2), counted)
        spaces = self.spaces(c_i[-self.routed :], c)
        if self.join is not None:
            return self._nested(x, time, weights, chosen, spaces, c), logits
        s, u = self.experts(x.flatten(0, -2), chosen, weights, spaces, c)
        # Shared experts get whole rows, as other layers do, so that rows can have different
        # adapters.
        s, u = s.view(x.shape), u.view(time.shape)
        for y in self._shared(x, time, c_i, c):
            s, u = s + y, u + excess(squared_norm(y), c)
        mass = self.shared + weights.sum(-1).view(time.shape)
        norm = inverse_norm(squared_norm(s), u, c, mass)
        return scale_points(s, norm), logits

    def _shared(self, x: Tensor, time: Tensor, c_i: Tensor, c: Curvature) -> Iterator[Tensor]:
        """The shared experts' results, in the model's space."""
        for index, expert in enumerate(self.shared_experts):
            if self.shared_curved:
                a = torch.sqrt(c.c / c_i[index])
                y = expert(scale_points(x, a), time * a, Curvature.of(c_i[index], c.smooth))
                yield scale_points(y, 1 / a)
            else:
                yield expert(x, time, c)

    def _nested(
        self,
        x: Float[Tensor, "rows n d"],
        time: Float[Tensor, "rows n 1"],
        weights: Float[Tensor, "tokens k"],
        chosen: Int[Tensor, "tokens k"],
        spaces: Spaces,
        c: Curvature,
    ) -> Float[Tensor, "rows n d"]:
        """As the released code joins results: from the origin on, one residual of scale 2 after
        another in the order of the experts, and a last one with the shared expert's result."""
        assert self.join is not None
        chosen, order = chosen.sort(dim=-1)
        weights = weights.gather(-1, order)
        tokens, twice = x.flatten(0, -2), weights.new_tensor(2.0)
        sum_ = torch.zeros_like(tokens)
        results = self.experts.one_by_one(tokens, chosen, spaces)
        for y, w in zip(results, weights.T.unsqueeze(-1), strict=True):
            sum_ = lorentz_residual(sum_, y, w / (1 + w), twice, c)
        (shared,) = self._shared(x, time, self.curvatures(), c)
        return self.join(shared, sum_.view(x.shape), c)
