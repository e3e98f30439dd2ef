"""Kernels compute what the operators compute in float64, and take the same models' steps."""

import math

import pytest
import torch
from transformers.activations import ACT2FN

from geodapt.helm import passes, points
from geodapt.helm.experts import combine, dispatch
from geodapt.helm.layers import gated_product
from geodapt.helm.points import Curvature
from tests.helm import small

pytestmark = pytest.mark.skipif(passes.library() is None, reason="no compiler")
SILU = ACT2FN["silu"]
SHAPES = [(2, 5, 7), (37, 24), (300, 64), (0, 8)]


def residual(x, y, weight, scale, c):
    return points.residual(x, y, weight, scale, Curvature.of(c))


def rms_norm(x, weight, c):
    return points.rms_norm(x, weight, 1e-6, Curvature.of(c))


def order_and_place(rows):
    order = torch.randperm(rows)
    return order, torch.argsort(order).view(-1, 2)


def dispatch_to_two(x, factor):
    order, place = order_and_place(len(factor))
    return dispatch(x, factor, order // 2, place)


def combine_two(y, back, weights, c):
    return combine(y, back, weights, *order_and_place(len(y)), Curvature.of(c))


def calls(*shape):
    """Each pass, and its inputs."""
    x, y, c = torch.randn(shape), torch.randn(shape), torch.tensor(0.7)
    tokens = math.prod(shape[:-1])
    rows, factor = torch.randn(2 * tokens, shape[-1]), torch.rand(2 * tokens)
    both = torch.randn(*shape[:-1], 2 * shape[-1])
    return {
        "residual": (residual, x, y, torch.tensor(0.8), torch.tensor(1.9), c),
        "residual-strided": (residual, both[..., ::2], both[..., 1::2], c, c, c),
        "rms_norm": (rms_norm, x, torch.randn(shape[-1]), c),
        "swiglu": (lambda gate, up: gated_product(SILU, gate, up), x, y),
        "swiglu-side-by-side": (lambda both: gated_product(SILU, both), both),
        "dispatch": (dispatch_to_two, x.flatten(0, -2), factor),
        "combine": (combine_two, rows, factor, torch.rand(tokens, 2), c),
    }


def outputs_and_gradients(function, inputs):
    torch.manual_seed(0)  # the order of rows
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs)
    out = out if isinstance(out, tuple) else (out,)
    slopes = [torch.linspace(-1, 2, o.numel()).to(o.dtype).view(o.shape) for o in out]
    return *out, *torch.autograd.grad(out, inputs, slopes)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", calls(1, 1))
def test_values_and_gradients_are_those_of_the_definition(name, shape):
    function, *inputs = calls(*shape)[name]
    assert passes.suit(*inputs)
    ours = outputs_and_gradients(function, inputs)
    exact = outputs_and_gradients(function, [x.double() for x in inputs])
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", calls(1, 1))
def test_gradients_of_gradients(name):
    function, *inputs = calls(3, 4)[name]

    def slopes(*inputs):
        torch.manual_seed(0)
        total = sum((o * o).sum() for o in torch.utils._pytree.tree_leaves(function(*inputs)))
        return torch.autograd.grad(total, inputs, create_graph=True)

    ours = outputs_and_gradients(slopes, inputs)
    exact = outputs_and_gradients(slopes, [x.double() for x in inputs])
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-3)


def test_what_the_kernels_leave_to_the_operators():
    x = torch.randn(3, 4)
    assert passes.suit(x)
    assert not passes.suit(x, x.double())
    assert not passes.suit(x.bfloat16())
    assert not passes.suit(x.to("meta"))


def test_torch_func_sees_the_operators():
    x, weight, c = torch.randn(5, 3, 4), torch.randn(4), torch.tensor(0.7)
    with torch.no_grad():
        for each, whole in zip(
            torch.func.vmap(lambda x: rms_norm(x, weight, c))(x),
            rms_norm(x, weight, c),
            strict=True,
        ):
            torch.testing.assert_close(each, whole)


@pytest.mark.parametrize("kind", ["mice", "mixed", "learned-curvature"])
def test_models_learn_what_they_learn_without_kernels(kind, monkeypatch):
    def gradients():
        helm, ids = small.model(kind).train(), small.tokens()
        loss = helm(ids, labels=ids).loss
        loss.backward()
        return {"loss": loss, **{name: p.grad for name, p in helm.named_parameters()}}

    ours = gradients()
    monkeypatch.setattr(passes, "library", lambda: None)
    for name, expected in gradients().items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-3, atol=1e-5, msg=name)
