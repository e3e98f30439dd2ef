"""Lorentz layers: the formulas of points that a network uses, and the layers made of them.

:mod:`geodapt.geometry.lorentz` in float64 is the reference. A network computes in float32 or less,
so its formulas are written in the **time excess** of a point, ``u(x) = t(x) - 1/sqrt(c)``, in the
form ``|x|^2 / (t(x) + 1/sqrt(c))``, which does not subtract. Where curvature is small or a
point near the origin, ``t`` is a large constant plus a small number, and only the small number
carries information; in bfloat16 it would be lost.

Everywhere: a point is its space components ``x``, the space has curvature ``-c`` with ``c`` above
0; scalars (times, excesses, norms) are float32 or wider, whatever type the vectors have.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN

from geodapt.helm.config import HelmConfig


class Curvature(NamedTuple):
    """The curvature ``-c`` of a space, with the two powers of c that its formulas are made of.

    Each power is a tensor of one number: adding a Python number takes PyTorch twice as long.
    """

    c: Tensor
    radius: Tensor  # 1/sqrt(c), the time of the origin
    radius2: Tensor  # 1/c
    smooth: bool = True  # whether formulas must be as good for gradients as for values

    @classmethod
    def of(cls, c: float | Tensor, smooth: bool = True) -> "Curvature":
        c = torch.as_tensor(c, dtype=torch.float64) if isinstance(c, float) else c
        return cls(c, torch.rsqrt(c), torch.reciprocal(c), smooth)


def wide(x: Tensor) -> Tensor:
    """The tensor in the type that scalars are computed in: float32 or wider."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def in_type_of(x: Tensor, y: Tensor) -> Tensor:
    """``y`` in the type of ``x``. Without a call where it has that type already: decoding one token
    takes hundreds of these."""
    return y if y.dtype == x.dtype else y.to(x.dtype)


def squared_norm(x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch 1"]:
    """``|x|^2``, in float32 or wider."""
    return wide(x).square().sum(-1, keepdim=True)


def scale_points(
    x: Float[Tensor, "*batch d"], k: Float[Tensor, "*batch 1"] | float
) -> Float[Tensor, "*batch d"]:
    """``k x`` in the type of x, without rounding k to it."""
    return in_type_of(x, x * k)


def time_component(x: Float[Tensor, "*batch d"], c: Curvature) -> Float[Tensor, "*batch 1"]:
    """``t(x) = sqrt(|x|^2 + 1/c)``."""
    if c.smooth:
        return time_of(squared_norm(x), c)
    # The same in two calls instead of four. Its second derivative at the origin would be wrong.
    dtype = None if x.dtype in (torch.float32, torch.float64) else torch.float32
    return torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype), c.radius)


def time_of(square: Float[Tensor, "*batch 1"], c: Curvature) -> Float[Tensor, "*batch 1"]:
    """Time of points with this ``|x|^2``."""
    return torch.sqrt(square + c.radius2)


def excess(square: Float[Tensor, "*batch 1"], c: Curvature) -> Float[Tensor, "*batch 1"]:
    """Time excess ``u = t - 1/sqrt(c)`` of points with this ``|x|^2``."""
    return square / (time_of(square, c) + c.radius)


def inverse_norm(
    square: Float[Tensor, "*batch 1"],
    excess: Float[Tensor, "*batch 1"],
    c: Curvature,
    mass: Float[Tensor, "*batch 1"] | None = None,
) -> Float[Tensor, "*batch 1"]:
    """``1 / sqrt(-c <s, s>_L)`` of a weighted sum of points: times ``s`` it is their centroid.

    ``square`` is ``|s|^2`` of the sum's space part, ``excess`` the weighted sum of excesses,
    ``mass`` the sum of weights, 1 if None, so that ``s_t = mass / sqrt(c) + excess`` and::

        -<s, s>_L = s_t^2 - |s|^2 = mass^2 / c + excess (2 mass / sqrt(c) + excess) - |s|^2

    All but the first is 0 or more (the inverse triangle inequality); rounding must not take it
    lower.
    """
    origin = c.radius if mass is None else mass * c.radius
    bracket = (excess * torch.add(excess, origin, alpha=2) - square).clamp_min(0)
    return c.radius * torch.rsqrt(torch.addcmul(bracket, origin, origin))


def lorentz_residual(
    x: Float[Tensor, "*batch d"],
    y: Float[Tensor, "*batch d"],
    share: Tensor,
    scale: Tensor,
    c: Curvature,
) -> Float[Tensor, "*batch d"]:
    """Lorentzian residual connection: ``scale`` times the centroid of x and y.

    ``share`` is y's share ``a`` of the weights, from 0 to 1, one number or one per point, so that
    with ``s = x + a (y - x)``::

        -c <s, s>_L = 1 + a (1 - a) c (|x - y|^2 - (t(x) - t(y))^2)

    The bracket is 0 or more (times differ less than places); rounding must not take it lower.
    """
    y = in_type_of(x, y)
    later = time_component(x, c) - time_component(y, c)
    apart = squared_norm(wide(x) - wide(y))
    bracket = torch.addcmul(apart, later, later, value=-1).clamp_min(0)
    both = torch.addcmul(share, share, share, value=-1)
    norm = torch.rsqrt(torch.addcmul(c.radius2, both, bracket))  # without the factor 1/sqrt(c)
    return scale_points(torch.lerp(x, y, in_type_of(x, share)), scale * c.radius * norm)


def lorentz_rms_norm(
    x: Float[Tensor, "*batch d"], weight: Float[Tensor, " d"], eps: float, c: Curvature
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch 1"]]:
    """RMSNorm of the space components, and the time of the result."""
    if x.dtype != weight.dtype:  # under autocast
        x, weight = wide(x), wide(weight)
    h = F.rms_norm(x, weight.shape, weight, eps)
    return h, time_component(h, c)


def head_centroids(
    sums: Float[Tensor, "rows n heads d+1"], c: Curvature, each_time: bool = False
) -> tuple[Float[Tensor, "rows n heads*d"], Float[Tensor, "rows n times"]]:
    """Each head's Lorentz centroid from its sums ``(s, sum of u)``; then all heads' Lorentz
    concatenation (their space components side by side), and its time.

    With ``each_time`` the heads' own times instead.
    """
    s, u = sums.split_with_sizes([sums.shape[-1] - 1, 1], dim=-1)
    each = scale_points(s, inverse_norm(squared_norm(s), wide(u), c))
    points = each.flatten(-2)
    return points, time_component(each, c).squeeze(-1) if each_time else time_component(points, c)


class LorentzLinear(nn.Linear):
    """``y = W x + w t(x) + b``: the space components of a point from those of another.

    Every ``y`` is a point, so the result lies on the manifold by construction. The time is an
    argument, since layers that read the same point share it. W is ``weight``, as in any linear
    layer, so that LoRA and quantization find it; w, ``time_weight``, starts at 0.

    Source: Chen et al. 2022, "Fully hyperbolic neural networks"; HELM.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias)
        self.time_weight = nn.Parameter(torch.zeros(out_features))

    def forward(  # type: ignore[override]  # a linear layer that reads one more component
        self, x: Float[Tensor, "*batch d_in"], time: Float[Tensor, "*batch 1"]
    ) -> Float[Tensor, "*batch d_out"]:
        y = super().forward(x)
        return torch.addcmul(y, in_type_of(y, time), in_type_of(y, self.time_weight))


class HeadsLinear(LorentzLinear):
    """:class:`LorentzLinear` of several points side by side, which reads the time of each: so the
    released code's output projection."""

    def __init__(self, in_features: int, out_features: int, bias: bool, points: int) -> None:
        super().__init__(in_features, out_features, bias)
        self.time_weight = nn.Parameter(torch.zeros(out_features, points))

    def forward(  # type: ignore[override]  # a linear layer that reads more components
        self, x: Float[Tensor, "*batch d_in"], time: Float[Tensor, "*batch points"]
    ) -> Float[Tensor, "*batch d_out"]:
        y = nn.Linear.forward(self, x)
        return y + F.linear(in_type_of(y, time), in_type_of(y, self.time_weight))


def output_projection(config: HelmConfig, head_space: int) -> LorentzLinear:
    """From all heads' points to the block's."""
    heads, d, bias = config.num_attention_heads, config.hidden_size, config.attention_bias
    if config.output_reads_head_times:
        return HeadsLinear(heads * head_space, d, bias, heads)
    return LorentzLinear(heads * head_space, d, bias)


class PointLinear(nn.Linear):
    """:class:`LorentzLinear` in one matrix, for points that come with their time as last component.

    The time's column starts at 0, too. A point's time is about as long as all of its space
    components together, so drawn like theirs its weights would add as much as all of them: an
    offset that hardly differs between tokens.
    """


class LearnedScalar(nn.Module):
    """``start exp(offset)``: always positive, whatever the optimizer does.

    All learned scalars of a HELM (curvature, temperatures, weights of residuals) are such
    log-offsets that start at 0, so that they move in proportion to their size and weight decay
    pulls them to their initial values.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start
        self.offset = nn.Parameter(torch.zeros(1))  # FSDP2 shards no parameter without a dimension

    def growth(self) -> Float[Tensor, "1"]:
        """``exp(offset)``: how many times its start it is."""
        return torch.exp(wide(self.offset))

    def forward(self) -> Float[Tensor, "1"]:
        growth = self.growth()
        # a product with a Python number would take PyTorch twice as long
        return torch.add(growth, growth, alpha=self.start - 1)


class HelmRMSNorm(nn.Module):
    """RMSNorm of the space components; gives the point and its time."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(
        self, x: Float[Tensor, "*batch d"], c: Curvature
    ) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch 1"]]:
        return lorentz_rms_norm(x, self.weight, self.eps, c)


class LorentzResidual(nn.Module):
    """``x (+) y``: the centroid of ``x + w y``, scaled by ``g``; both are learned.

    ``w`` starts at 1 and ``g`` at ``1 + w = 2``: as c tends to 0 it starts as ``x + y``. With
    ``learned`` False, ``g`` stays at its start.

    Source: He et al. 2025, "Lorentzian residual neural networks".
    """

    def __init__(self, scale: float = 2.0, learned: bool = True) -> None:
        super().__init__()
        self.weight, self.scale = LearnedScalar(1.0), LearnedScalar(scale)
        self.scale.offset.requires_grad_(learned)

    def forward(
        self, x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: Curvature
    ) -> Float[Tensor, "*batch d"]:
        share = torch.sigmoid(wide(self.weight.offset))  # w / (1 + w) of w = exp(offset)
        return lorentz_residual(x, y, share, self.scale(), c)


class HelmMLP(nn.Module):
    """HFFN: SwiGLU with Lorentz linears; the gated product is the space part of a point."""

    def __init__(self, config: HelmConfig, intermediate_size: int) -> None:
        super().__init__()
        d, bias = config.hidden_size, config.mlp_bias
        self.gate_proj = LorentzLinear(d, intermediate_size, bias)
        self.up_proj = LorentzLinear(d, intermediate_size, bias)
        self.down_proj = LorentzLinear(intermediate_size, d, bias)
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(
        self, x: Float[Tensor, "*batch d"], time: Float[Tensor, "*batch 1"], c: Curvature
    ) -> Float[Tensor, "*batch d"]:
        h = self.act_fn(self.gate_proj(x, time)) * self.up_proj(x, time)
        return self.down_proj(h, time_component(h, c))
