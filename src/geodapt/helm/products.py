"""Linear maps, by the faster of the two libraries that PyTorch has for them on a CPU.

PyTorch leaves float32 to MKL, which is built for Intel's processors. It brings oneDNN along, too,
which makes its kernels for the sizes at hand and takes a tenth to a quarter less time for products
of many rows (AMD EPYC). A new size costs a third of a millisecond, once, so it is for training,
where sizes return. The gradient of a weight is MKL's: for oneDNN it would have to be transposed.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from geodapt.helm import fused, passes

MANY = 64
"""Rows from which on oneDNN is the faster."""
HAVE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """``W x + b``."""

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        if suits(x, self.weight):
            return _Linear.apply(x, self.weight, self.bias, None, None)
        return super().forward(x)


class LorentzLinear(nn.Linear):
    """``y = W x + w t(x) + b``: the space components of a point from those of another.

    Every ``y`` is a point, so the result lies on the manifold by construction. The time is handed
    in, since layers that read the same point share it. W is ``weight``, as in any linear layer,
    so that LoRA and quantization find it; w, ``time_weight``, starts at 0.

    Source: Chen et al. 2022, "Fully hyperbolic neural networks"; HELM.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias)
        self.time_weight = nn.Parameter(torch.zeros(out_features))

    def forward(  # type: ignore[override]  # a linear layer that reads one component more
        self, x: Float[Tensor, "*batch d_in"], time: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch d_out"]:
        if suits(x, self.weight):
            return _Linear.apply(x, self.weight, self.bias, time, self.time_weight)
        return fused.add_time(super().forward(x), time, self.time_weight)


class PointLinear(Linear):
    """:class:`LorentzLinear` in one matrix, for points that come with their time as last component.

    The time's column starts at 0, too. A point's time is about as long as all of its space
    components together, so drawn like theirs its weights would add as much as all of them: an
    offset that hardly differs between tokens.
    """


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is the faster: many rows of float32 on a CPU, in training."""
    return (
        HAVE
        and passes.plain(x, weight)  # quantized weights multiply otherwise
        and x.numel() >= MANY * x.shape[-1]
        and not fused.formula_suffices()
        and not torch.is_autocast_enabled("cpu")
    )


class _Linear(Function):
    """``W x + b + w t``, the last of which may be missing."""

    @staticmethod
    def forward(ctx, x, weight, bias, time, time_weight):
        ctx.save_for_backward(x, weight, time, time_weight)
        y = times(x, weight, bias)
        return y if time is None else y.addcmul_(time.unsqueeze(-1), time_weight)

    @staticmethod
    def backward(ctx, g):
        x, weight, time, time_weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        rows = g.flatten(0, -2)
        return (
            times(g, weight.mT) if needs[0] else None,
            rows.mT @ x.flatten(0, -2) if needs[1] else None,
            rows.sum(0) if needs[2] else None,
            (rows @ time_weight).view(time.shape) if needs[3] else None,
            time.flatten() @ rows if needs[4] else None,
        )


def times(
    x: Float[Tensor, "*batch d_in"],
    weight: Float[Tensor, "d_out d_in"],
    bias: Float[Tensor, "d_out"] | None = None,
) -> Float[Tensor, "*batch d_out"]:
    """``W x + b`` of what :func:`suits`, by oneDNN if the rows are many."""
    # With gradients, this is the gradient of a gradient.
    if torch.is_grad_enabled() or x.numel() < MANY * x.shape[-1]:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
