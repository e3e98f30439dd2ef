"""The passes over vectors that HELM makes beside its products, each with its gradient written out.

Run operator by operator, the gradient of a norm and of what is scaled by it makes a dozen passes
over the vectors; written out it makes two or three. Scalars (one a point) stay with autograd, so
curvature, temperature and weights get their gradients without a word here.

``torch.compile`` fuses and differentiates the plain formulas better than anything written by hand,
and where no gradient is asked for there is none to write out; a token's step is then as long as the
number of its operators. Both take the formula: every function here is that in few operators, and a
Function beside it.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

Rotation = tuple[Tensor, Tensor]


def formula_suffices() -> bool:
    """Whether no gradient need be written out: it is compiled, or none is asked for."""
    return torch.compiler.is_compiling() or not torch.is_grad_enabled()


def wide(x: Tensor) -> Tensor:
    """The tensor in the type that scalars are computed in: float32 or wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def square(x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """``|x|^2``, in float32 or wider."""
    return _square(x) if formula_suffices() else _Square.apply(x)


def scale(x: Float[Tensor, "*batch d"], k: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch d"]:
    """``k x`` in the type of x, without rounding k to it."""
    if formula_suffices():
        return (x * k.unsqueeze(-1)).to(x.dtype)
    return _Scale.apply(x, k)


def weighted_sum(
    x: Float[Tensor, "*batch d"], y: Float[Tensor, "*batch d"], weight: Float[Tensor, ""]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``s = x + w y``, ``|s|^2``, ``|x|^2`` and ``|y|^2``."""
    if formula_suffices():
        s = torch.addcmul(x, y.to(x.dtype), weight.to(x.dtype))
        return s, _square(s), _square(x), _square(y)
    return _WeightedSum.apply(x, y.to(x.dtype), weight)


def rms_norm(
    x: Float[Tensor, "*batch d"], weight: Float[Tensor, "d"], eps: float
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch"]]:
    """``h = weight x / sqrt(|x|^2 / d + eps)`` and ``|h|^2``."""
    if formula_suffices():
        h = scale(x, _inverse_rms(x, eps)) * weight
        return h, _square(h)
    return _RMSNorm.apply(x, weight, eps)


def product(
    a: Float[Tensor, "*batch d"], b: Float[Tensor, "*batch d"]
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch"]]:
    """``h = a b``, component by component, and ``|h|^2``."""
    if formula_suffices():
        h = a * b
        return h, _square(h)
    return _Product.apply(a, b)


def add_time(
    y: Float[Tensor, "*batch d"], time: Float[Tensor, "*batch"], weight: Float[Tensor, "d"]
) -> Float[Tensor, "*batch d"]:
    """``y + t w``."""
    time, weight = time.to(y.dtype), weight.to(y.dtype)
    if formula_suffices():
        return torch.addcmul(y, time.unsqueeze(-1), weight)
    return _AddTime.apply(y, time, weight)


def whole(
    x: Float[Tensor, "rows n heads d"],
    last: Float[Tensor, "rows n heads"],
    rotation: Rotation | None,
    factor: Float[Tensor, ""] | None = None,
) -> Float[Tensor, "rows n heads d+1"]:
    """``factor (R x, last)``; R turns the pairs ``(x_i, x_(i + p))``, i < p, alone."""
    if formula_suffices():
        parts = [x] if rotation is None else _rotated(x, *rotation)
        out = torch.cat([*parts, last.unsqueeze(-1).to(x.dtype)], dim=-1)
        return out if factor is None else out * factor.to(x.dtype)
    cos, sin = rotation or (x[..., 0, :0], x[..., 0, :0])
    return _Whole.apply(x, last, cos, sin, factor)


def split_sums(
    sums: Float[Tensor, "*batch d+1"],
) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """The space part ``s`` of attention's sums, its ``|s|^2``, and their last component."""
    if formula_suffices():
        s = sums[..., :-1]
        return s, _square(s), wide(sums[..., -1])
    return _SplitSums.apply(sums)


def rotate(x: Float[Tensor, "rows n heads d"], rotation: Rotation | None) -> Tensor:
    """``R x``."""
    return x if rotation is None else torch.cat(_rotated(x, *rotation), dim=-1)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> list[Tensor]:
    """The parts of ``R x``, to be put side by side."""
    pairs = cos.shape[-1]
    cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    a, b, rest = x.split([pairs, pairs, x.shape[-1] - 2 * pairs], dim=-1)
    return [
        torch.addcmul(a * cos, b, sin, value=-1).to(x.dtype),  # angles may be wider
        torch.addcmul(b * cos, a, sin).to(x.dtype),
        *([rest] if rest.shape[-1] else []),
    ]


def _square(x: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return wide(x).square().sum(-1)
    norm = torch.linalg.vector_norm(x, dim=-1, dtype=_wide_type(x))
    return norm * norm


def _inverse_rms(x: Tensor, eps: float) -> Tensor:
    return torch.rsqrt(_square(x) / x.shape[-1] + eps)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    if x.dtype == y.dtype == _wide_type(x):
        return torch.linalg.vecdot(x, y)
    return (x * y).sum(-1, dtype=_wide_type(x))


def _wide_type(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _column(k: Tensor, x: Tensor) -> Tensor:
    return k.unsqueeze(-1).to(x.dtype)


class _Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return _square(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return x * _column(2 * g, x)


class _Scale(Function):
    @staticmethod
    def forward(ctx, x, k):
        ctx.save_for_backward(x, k)
        return (x * k.unsqueeze(-1)).to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        x, k = ctx.saved_tensors
        return (g * k.unsqueeze(-1)).to(x.dtype), _dot(g, x).to(k.dtype)


class _WeightedSum(Function):
    @staticmethod
    def forward(ctx, x, y, weight):
        s = torch.addcmul(x, y, weight.to(x.dtype))
        ctx.save_for_backward(x, y, s, weight)
        return s, _square(s), _square(x), _square(y)

    @staticmethod
    def backward(ctx, g, g_s, g_x, g_y):
        x, y, s, weight = ctx.saved_tensors
        g = torch.addcmul(g, s, _column(2 * g_s, s))
        dx = torch.addcmul(g, x, _column(2 * g_x, x))
        dy = (g * weight.to(g.dtype)).addcmul_(y, _column(2 * g_y, y))
        return dx, dy, _dot(g.flatten(), y.flatten()).to(weight.dtype)


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx, x, weight, eps):
        k = _inverse_rms(x, eps)
        h = (x * k.unsqueeze(-1)).to(x.dtype) * weight
        ctx.save_for_backward(x, weight, k, h)
        ctx.eps = eps
        return h, _square(h)

    @staticmethod
    def backward(ctx, g, g_h):
        x, weight, k, h = ctx.saved_tensors
        if torch.is_grad_enabled():  # what was computed in forward has no gradient
            k = _inverse_rms(x, ctx.eps)
        g = torch.addcmul(g, h, _column(2 * g_h, h))
        gx = g * x
        rows = gx.flatten(0, -2)
        d_weight = k.flatten().to(rows.dtype) @ rows
        along = (rows @ weight.to(rows.dtype)).view(k.shape) * k**3 / x.shape[-1]
        dx = (g * weight).mul_(_column(k, g)).addcmul_(x, _column(along, x), value=-1)
        return dx.to(x.dtype), d_weight.to(weight.dtype), None


class _Product(Function):
    @staticmethod
    def forward(ctx, a, b):
        h = a * b
        ctx.save_for_backward(a, b, h)
        return h, _square(h)

    @staticmethod
    def backward(ctx, g, g_h):
        a, b, h = ctx.saved_tensors
        g = torch.addcmul(g, h, _column(2 * g_h, h))
        return g * b, g * a


class _AddTime(Function):
    @staticmethod
    def forward(ctx, y, time, weight):
        ctx.save_for_backward(time, weight)
        return torch.addcmul(y, time.unsqueeze(-1), weight)

    @staticmethod
    def backward(ctx, g):
        time, weight = ctx.saved_tensors
        rows = g.reshape(-1, g.shape[-1])
        needs = ctx.needs_input_grad
        d_time = (rows @ weight).view(time.shape) if needs[1] else None
        return g, d_time, time.flatten() @ rows if needs[2] else None


class _Whole(Function):
    @staticmethod
    def forward(ctx, x, last, cos, sin, factor):
        out = x.new_empty((*x.shape[:-1], x.shape[-1] + 1))
        _turn(x, cos, sin, out)
        out[..., -1] = last
        if factor is not None:
            out.mul_(factor)
        ctx.save_for_backward(cos, sin, factor, out if ctx.needs_input_grad[4] else None)
        return out

    @staticmethod
    def backward(ctx, g):
        cos, sin, factor, out = ctx.saved_tensors
        dx, last = _turned(g[..., :-1], cos, -sin), wide(g[..., -1])
        d_factor = None
        if factor is not None:
            dx, last = dx * factor.to(dx.dtype), last * factor
            if out is not None:
                d_factor = (_dot(g, out).sum() / factor).to(factor.dtype)
        return dx, last, None, None, d_factor


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    if torch.is_grad_enabled():  # nothing is written in place where a gradient is asked for
        return rotate(x, (cos, sin))
    out = x.new_empty(x.shape)
    _turn(x, cos, sin, out)
    return out


def _turn(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
    """Write ``R x`` into the first components of ``out``."""
    pairs, d = cos.shape[-1], x.shape[-1]
    parts = [pairs, pairs, d - 2 * pairs]
    cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    a, b, rest = x.split(parts, dim=-1)
    to_a, to_b, to_rest = out[..., :d].split(parts, dim=-1)
    torch.mul(a, cos, out=to_a).addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=to_b).addcmul_(a, sin)
    to_rest.copy_(rest)


class _SplitSums(Function):
    @staticmethod
    def forward(ctx, sums):
        s = sums[..., :-1]
        ctx.save_for_backward(sums)
        return s.view_as(s), _square(s), wide(sums[..., -1]).clone()

    @staticmethod
    def backward(ctx, g, g_s, g_last):
        (sums,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            space = torch.addcmul(g, sums[..., :-1], _column(2 * g_s, sums))
            return torch.cat([space, g_last.unsqueeze(-1).to(space.dtype)], dim=-1)
        out = torch.empty_like(sums)
        torch.addcmul(g, sums[..., :-1], _column(2 * g_s, sums), out=out[..., :-1])
        out[..., -1] = g_last
        return out
