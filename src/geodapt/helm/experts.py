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
is smooth. As ``r`` is one number a token it multiplies the products instead of their inputs.

Experts run grouped: tokens are sorted by expert, and a layer is one grouped product over those
that were chosen.

Source: HELM, section 4.2; DeepSeek-V3, section 2.1.2 (gates and balance).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from geodapt.helm import points
from geodapt.helm.config import HelmConfig
from geodapt.helm.grouped import grouped_linear
from geodapt.helm.layers import HelmMLP, gated_product
from geodapt.helm.points import Curvature
from geodapt.helm.rows import Rows, gather, load, member, spread


class HelmRouter(nn.Module):
    """The gate: which routed experts a token goes to, and with what weights.

    ``e_score_correction_bias`` takes part in the choice alone. :meth:`balance` moves it, against
    the load since the last time.
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
        self, x: Float[Tensor, "tokens d"]
    ) -> tuple[Float[Tensor, "tokens e"], Float[Tensor, "tokens k"], Int[Tensor, "tokens k"]]:
        """Logits, weights of the chosen experts, and which they are; in float32 or wider."""
        config = self.config
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(points.wide(x), points.wide(self.weight))
        scores = affinities(logits, config)
        chosen = self._choose(scores.detach() + self.e_score_correction_bias)
        if self.training:
            self.load.add_(load(chosen, config.n_routed_experts))
        weights = scores.gather(-1, chosen)
        if config.norm_topk_prob:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return logits, weights * config.routed_scaling_factor, chosen

    def _choose(self, scores: Float[Tensor, "tokens e"]) -> Int[Tensor, "tokens k"]:
        """The best experts of the best groups; a group counts by its two best."""
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


def sequence_balance_loss(
    router_logits: tuple[Float[Tensor, "tokens e"], ...],
    config: HelmConfig,
    rows: int,
    attention_mask: Tensor | None = None,
) -> Float[Tensor, ""]:
    """Sequence-wise balance loss, the mean over layers and rows of ``sum_i f_i P_i``.

    With T tokens in a row, ``f_i = e / (k T)`` times the number of tokens whose k best affinities
    include expert i, and ``P_i`` the mean of the affinities, each token's divided by their sum.
    Equal shares give 1. Padding is left out (DeepSeek-V3, eq. 17 to 20).
    """
    logits = torch.stack(router_logits)
    scores = affinities(logits.view(len(router_logits), rows, -1, logits.shape[-1]), config)
    experts, k = scores.shape[-1], config.num_experts_per_tok
    best = torch.zeros_like(scores).scatter(-1, scores.topk(k, dim=-1).indices, 1.0)
    shares = scores / scores.sum(-1, keepdim=True)
    if attention_mask is not None and attention_mask.dim() == 2:
        mask = attention_mask[:, -scores.shape[2] :, None].to(scores.dtype)
        count = mask.sum(1).clamp_min(1)
        f, p = (best * mask).sum(2) / count, (shares * mask).sum(2) / count
    else:
        f, p = best.mean(2), shares.mean(2)
    return experts / k * (f * p).sum(-1).mean()


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
        rows = Rows.of(chosen, len(self.down_proj))
        space, token = spaces.of(rows.expert), rows.token

        square = spread(points.square(x), token, rows.place)
        r, time = space.lift(square * space.scale**2)
        inputs = dispatch(x, space.scale * r, token, rows.place)
        runs = (rows.expert, rows.ends)
        both = grouped_linear(inputs, time * r, self.gate_up_proj, self.gate_up_time, *runs)
        h, h2 = gated_product(self.act_fn, both)
        r, time = space.lift(h2)
        y = grouped_linear(h, time, self.down_proj, self.down_time, *runs)
        return combine(y, r / space.scale, weights, rows.order, rows.place, c)


def dispatch(
    x: Float[Tensor, "tokens d"],
    factor: Float[Tensor, "rows"],
    token: Int[Tensor, "rows"],
    place: Int[Tensor, "tokens k"],
) -> Float[Tensor, "rows d"]:
    """Each row its token times a factor."""
    return points.scaled(spread(x, token, place), factor)


def combine(
    y: Float[Tensor, "rows d"],
    back: Float[Tensor, "rows"],
    weights: Float[Tensor, "tokens k"],
    order: Int[Tensor, "rows"],
    place: Int[Tensor, "tokens k"],
    c: Curvature,
) -> tuple[Float[Tensor, "tokens d"], Float[Tensor, "tokens"]]:
    """Each token's weighted sum of ``back y``, in the model's space, and that of time excesses."""
    u = points.excess(points.square(y) * back**2, c)
    gated = spread(weights.flatten(), order, place.view(-1, 1))
    tokens = (order // place.shape[1], place)
    return gather(points.scaled(y, gated * back), *tokens), gather(gated * u, *tokens)


class Spaces(NamedTuple):
    """The space that each expert, or each row by its expert, computes in."""

    scale: Float[Tensor, "n"]  # a: from the model's space into this one
    radius2: Float[Tensor, "n"]  # 1/c_i, and 1 where the space is flat
    # None where all are hyperbolic, else:
    hyperbolic: Float[Tensor, "n"] | None = None  # 1 or 0
    spherical: Float[Tensor, "n"] | None = None  # c_i or 0

    def of(self, expert: Int[Tensor, "rows"]) -> "Spaces":
        # One-hot products: indexing has a slow scatter-add in its backward pass.
        own = member(expert, len(self.scale), self.scale.dtype)
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
        offset = points.wide(self.curvature_offset)
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
        self, x: Float[Tensor, "rows n d"], time: Float[Tensor, "rows n"], c: Curvature
    ) -> tuple[Float[Tensor, "rows n d"], Float[Tensor, "tokens e"]]:
        """The centroid, and the gate's logits for the balance loss."""
        c_i = self.curvatures()
        logits, weights, chosen = self.gate(x.flatten(0, -2))
        spaces = self.spaces(c_i[self.shared :], c)
        s, u = self.experts(x.flatten(0, -2), chosen, weights, spaces, c)
        # Shared experts see rows of tokens, as any layer does: adapters may differ between rows.
        s, u = s.view(x.shape), u.view(time.shape)
        for expert, c_e in zip(self.shared_experts, c_i[: self.shared], strict=True):
            a = torch.sqrt(c.c / c_e).expand_as(time)
            y = expert(points.scaled(x, a), time * a, Curvature.of(c_e))
            y = points.scaled(y, 1 / a)
            s, u = s + y, u + points.excess(points.square(y), c)
        mass = self.shared + weights.sum(-1).view(time.shape)
        norm = points.inverse_norm(points.square(s), u, mass, c)
        return points.scaled(s, norm), logits
