"""The layers that a HELM block is made of: curvature, linear, norm, residual, feed-forward."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.activations import ACT2FN

from geodapt.helm import points
from geodapt.helm.config import HelmConfig
from geodapt.helm.points import Curvature


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

    def forward(  # type: ignore[override]  # a linear layer that reads one component more
        self, x: Float[Tensor, "*batch d_in"], time: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch d_out"]:
        y = super().forward(x)
        return torch.addcmul(y, time.unsqueeze(-1).to(y.dtype), self.time_weight.to(y.dtype))


class PointLinear(nn.Linear):
    """:class:`LorentzLinear` in one matrix, for points that come with their time as last component.

    The time's column starts at 0, too. A point's time is about as long as all of its space
    components together, so drawn like theirs its weights would add as much as all of them: an
    offset that hardly differs between tokens.
    """


class LearnedScalar(nn.Module):
    """``start exp(offset)``: positive whatever the optimizer does.

    All learned scalars of a HELM (curvature, temperatures, weights of residuals) are such
    log-offsets that start at 0, so that they move in proportion to their size and weight decay
    pulls them to their initial values.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start
        self.offset = nn.Parameter(torch.zeros(1))  # FSDP2 shards no parameter without a dimension

    def forward(self) -> Float[Tensor, ""]:
        return self.start * torch.exp(points.wide(self.offset[0]))


class HelmRMSNorm(nn.Module):
    """RMSNorm of the space components; gives the point and its time."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(
        self, x: Float[Tensor, "*batch d"], c: Curvature
    ) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch"]]:
        return points.rms_norm(x, self.weight, self.eps, c)


class LorentzResidual(nn.Module):
    """``x (+) y``: the centroid of ``x + w y``, scaled by ``g``; both are learned.

    ``w`` starts at 1 and ``g`` at ``1 + w = 2``: as c tends to 0 it starts as ``x + y``.

    Source: He et al. 2025, "Lorentzian residual neural networks".
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.scale = LearnedScalar(1.0), LearnedScalar(2.0)

    def forward(
        self, x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], c: Curvature
    ) -> Float[Tensor, "*batch d"]:
        return points.residual(x, y, self.weight(), self.scale(), c)


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
        self, x: Float[Tensor, "*batch d"], time: Float[Tensor, "*batch"], c: Curvature
    ) -> Float[Tensor, "*batch d"]:
        h, h2 = gated_product(self.act_fn, self.gate_proj(x, time), self.up_proj(x, time))
        return self.down_proj(h, points.time_of(h2, c))


def gated_product(
    activation: nn.Module, *gate_up: Float[Tensor, "*batch d"]
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch"]]:
    """``h = activation(gate) up`` and ``|h|^2``; gate and up may be one tensor, side by side."""
    gate, up = gate_up if len(gate_up) == 2 else gate_up[0].chunk(2, dim=-1)
    h = activation(gate) * up
    return h, points.square(h)
