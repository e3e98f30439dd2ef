"""Linear maps, by the faster of the two libraries that PyTorch has for them on a CPU.

PyTorch leaves float32 to MKL, which is built for Intel's processors. It brings oneDNN along, too,
which takes half the time for products of many rows on an AMD EPYC (Zen 5), and a tenth to a quarter
less on another. A new size costs a third of a millisecond, once, while a kernel is made for it: a
training's sizes return, a prompt's pay for it if it is long.

oneDNN is reached by operators of our own, so that a compiler, which cannot look into a library,
leaves them as they are.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from geodapt.helm import fused, passes

MANY = 64
"""Rows from which on oneDNN is the faster."""
LONG = 256
"""Rows from which on a size that may never return is worth its kernel."""
HAVE = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and hasattr(torch.ops.aten, "mkldnn_linear_backward_weights")
)


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
    """Whether oneDNN is the faster: many rows of float32 on a CPU."""
    return (
        HAVE
        and passes.plain(x, weight)  # quantized weights multiply otherwise
        and x.numel() >= (MANY if torch.is_grad_enabled() else LONG) * x.shape[-1]
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_exporting()  # an exported graph should not need this package
    )


class _Linear(Function):
    """``W x + b + w t``, the last of which may be missing."""

    @staticmethod
    def forward(ctx, x, weight, bias, time, time_weight):
        ctx.save_for_backward(x, weight, bias, time, time_weight)
        y = torch.ops.geodapt.linear(x, weight, bias)
        return y if time is None else y.addcmul_(time.unsqueeze(-1), time_weight)

    @staticmethod
    def backward(ctx, g):
        wanted, inputs = ctx.needs_input_grad, ctx.saved_tensors
        if passes.creates_graph():
            return tuple(passes.gradients_by(_formula, inputs, wanted, [g]))
        x, weight, _, time, time_weight = inputs
        rows = g.flatten(0, -2)
        return (
            torch.ops.geodapt.linear(g, weight.mT, None) if wanted[0] else None,
            torch.ops.geodapt.linear_gradient(rows, x.flatten(0, -2)) if wanted[1] else None,
            rows.sum(0) if wanted[2] else None,
            (rows @ time_weight).view(time.shape) if wanted[3] else None,
            time.flatten() @ rows if wanted[4] else None,
        )


def _formula(x: Tensor, weight: Tensor, bias: Tensor | None, time: Any, time_weight: Any) -> Tensor:
    y = F.linear(x, weight, bias)
    return y if time is None else fused.add_time(y, time, time_weight)


OPERATORS = torch.library.Library("geodapt", "FRAGMENT")
OPERATORS.define("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor")
OPERATORS.define("linear_gradient(Tensor g, Tensor x) -> Tensor")


@torch.library.impl(OPERATORS, "linear", "CPU")
def linear(
    x: Float[Tensor, "*batch d_in"],
    weight: Float[Tensor, "d_out d_in"],
    bias: Float[Tensor, "d_out"] | None = None,
) -> Float[Tensor, "*batch d_out"]:
    """``W x + b``, without a gradient."""
    if x.numel() < MANY * x.shape[-1]:
        return F.linear(x, weight, bias)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@torch.library.impl(OPERATORS, "linear_gradient", "CPU")
def linear_gradient(
    g: Float[Tensor, "rows d_out"], x: Float[Tensor, "rows d_in"]
) -> Float[Tensor, "d_out d_in"]:
    """``g^T x``, the gradient of W."""
    if len(x) < MANY:
        return g.mT @ x
    like = g.new_empty(g.shape[1], x.shape[1])
    g, x = g.to_mkldnn(), x.to_mkldnn()
    return torch.ops.aten.mkldnn_linear_backward_weights(g, x, like, False)[0]


@torch.library.register_fake("geodapt::linear", lib=OPERATORS)
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


@torch.library.register_fake("geodapt::linear_gradient", lib=OPERATORS)
def _(g: Tensor, x: Tensor) -> Tensor:
    return g.new_empty(g.shape[1], x.shape[1])
