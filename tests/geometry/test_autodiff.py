"""Gradients of every order, in every way that PyTorch takes them."""

import cases
import pytest
import torch
from torch import func

from geodapt.geometry import cones, lorentz, poincare


def arguments(name, dtype=torch.float64, rows=2):
    function = cases.FUNCTIONS[name]
    return function.ours, tuple(
        a.to(dtype) for a in cases.arguments(function.takes, "far", 0.6, 1.0, rows, d=4)
    )


@pytest.mark.parametrize("name", cases.FUNCTIONS)
def test_first_and_second_derivatives(name):
    function, args = arguments(name)
    c = torch.tensor(1.3, dtype=torch.float64)
    if name in ("cones.exterior_angle", "cones.half_aperture", "lorentz.rms_norm"):
        leaves = tuple(a.requires_grad_() for a in args)  # no curvature in these

        def call(*points):
            return function(*points, 1.3)

    else:
        leaves = (*(a.requires_grad_() for a in args), c.requires_grad_())
        call = function
    assert torch.autograd.gradcheck(call, leaves, rtol=1e-4, atol=1e-7)
    assert torch.autograd.gradgradcheck(call, leaves, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", cases.FUNCTIONS)
def test_vmap_grad_and_forward_mode(name):
    function, args = arguments(name, torch.float32, rows=3)
    leaves = tuple(a.clone().requires_grad_() for a in args)
    function(*leaves, 1.0).sum().backward()

    def one_row(*row):
        return function(*(r[None] for r in row), 1.0).sum()

    positions = tuple(range(len(args)))
    gradients = func.vmap(func.grad(one_row, argnums=positions))(*args)
    forward = func.vmap(func.jacfwd(one_row, argnums=positions))(*args)
    for leaf, gradient, tangent in zip(leaves, gradients, forward, strict=True):
        if leaf.grad is None:
            continue
        torch.testing.assert_close(gradient, leaf.grad, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(tangent, leaf.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", cases.FUNCTIONS)
def test_dynamo_traces_one_graph(name):
    function, args = arguments(name, torch.float32)
    torch._dynamo.reset()
    traced = torch.compile(function, backend="aot_eager", fullgraph=True)
    leaves = [a.clone().requires_grad_() for a in args]
    out = traced(*leaves, 1.0)
    torch.testing.assert_close(out, function(*args, 1.0))
    out.sum().backward()
    assert all(torch.isfinite(a.grad).all() for a in leaves if a.grad is not None)


def test_inductor_compiles_the_distance_with_learned_curvature():
    x, y, c = torch.randn(8, 16), torch.randn(8, 16), torch.tensor(0.7, requires_grad=True)
    compiled = torch.compile(lorentz.distance, fullgraph=True)
    out = compiled(x, y, c)
    torch.testing.assert_close(out, lorentz.distance(x, y, c))
    (grad,) = torch.autograd.grad(out.sum(), c)
    (expected,) = torch.autograd.grad(lorentz.distance(x, y, c).sum(), c)
    torch.testing.assert_close(grad, expected)


EDGE = 1 - 2.0**-23
SPECIAL = {
    "coincident": (torch.tensor([[0.3, -0.4]]), torch.tensor([[0.3, -0.4]])),
    "origin": (torch.zeros(1, 2), torch.zeros(1, 2)),
    "one at the origin": (torch.zeros(1, 2), torch.tensor([[0.5, 0.1]])),
    "edge of the ball": (torch.tensor([[EDGE, 0.0]]), torch.tensor([[-EDGE, 0.0]])),
    "same point at the edge": (torch.tensor([[EDGE, 0.0]]), torch.tensor([[EDGE, 0.0]])),
    "opposite": (torch.tensor([[0.6, 0.0]]), torch.tensor([[-0.6, 0.0]])),
    "tiny": (torch.tensor([[1e-15, 0.0]]), torch.tensor([[0.0, 1e-15]])),
}


@pytest.mark.parametrize("where", SPECIAL)
@pytest.mark.parametrize("native", [True, False])
def test_gradients_are_finite_everywhere(where, native, monkeypatch):
    if not native:
        monkeypatch.setattr("geodapt.geometry._native.library", lambda: None)
    matrix = torch.eye(2) * 1.5
    two = [
        lorentz.inner, lorentz.distance, lorentz.pairwise_distance, lorentz.exp, lorentz.log,
        lambda x, y: lorentz.transport(x, y, x), lambda x, y: lorentz.residual(x, y, 0.5),
        lambda x, y: lorentz.centroid(torch.stack([x, y], -2)),
        poincare.mobius_add, poincare.distance, poincare.pairwise_distance, poincare.log,
        lambda x, y: poincare.exp(x, y * 1e-3),
        cones.lorentz_exterior_angle, cones.poincare_exterior_angle,
        lambda x, y: cones.exterior_angle(x, y, torch.zeros_like(x)),
        lambda x, y: cones.half_aperture(x, y),
    ]  # fmt: skip
    one = [
        lorentz.time, lorentz.exp0, lorentz.log0, lorentz.to_poincare, lorentz.rms_norm,
        poincare.exp0, poincare.log0, poincare.radius, poincare.project, poincare.to_lorentz,
        poincare.conformal_factor, lambda x: poincare.mobius_matvec(matrix, x),
        lambda x: poincare.mobius_scalar(3.0, x), cones.lorentz_half_aperture,
        cones.poincare_half_aperture,
    ]  # fmt: skip
    for function in [*two, *(lambda x, y, f=f: f(x) + 0 * y.sum() for f in one)]:
        x, y = (p.clone().requires_grad_() for p in SPECIAL[where])
        out = function(x, y)
        assert torch.isfinite(out).all(), function
        first = torch.autograd.grad(out.sum(), (x, y), create_graph=True)
        assert all(torch.isfinite(g).all() for g in first), (function, first)
        if where not in ("edge of the ball", "same point at the edge"):  # beyond float32 there
            second = torch.autograd.grad(
                sum(g.sum() for g in first), (x, y), allow_unused=True, materialize_grads=True
            )
            assert all(torch.isfinite(g).all() for g in second), (function, second)


def test_curvature_learns_per_head():
    x, y = torch.randn(2, 4, 7, 5)
    c = torch.rand(4, 1).add(0.1).requires_grad_()
    out = lorentz.distance(x, y, c)
    assert out.shape == (4, 7)
    for head in range(4):
        each = lorentz.distance(x[head], y[head], c[head].item())
        torch.testing.assert_close(out[head], each)
    out.sum().backward()
    assert c.grad.shape == c.shape
    assert (c.grad != 0).all()
    pairs = lorentz.pairwise_distance(x, y, c.detach()[..., None])
    torch.testing.assert_close(pairs.diagonal(dim1=-2, dim2=-1), out.detach())


def test_pairwise_in_blocks_equals_in_one(monkeypatch):
    x, y = torch.randn(9, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    whole = lorentz.pairwise_distance(x, y)
    gradients = torch.autograd.grad(whole.sum(), (x, y))
    monkeypatch.setattr("geodapt.geometry._native.library", lambda: None)
    monkeypatch.setattr("geodapt.geometry._rows.BLOCK", 50)
    blocks = lorentz.pairwise_distance(x, y)
    torch.testing.assert_close(blocks, whole)
    for a, b in zip(torch.autograd.grad(blocks.sum(), (x, y)), gradients, strict=True):
        torch.testing.assert_close(a, b)
    each = lorentz.distance(x[:, None], y)
    torch.testing.assert_close(whole, each)
    for a, b in zip(torch.autograd.grad(each.sum(), (x, y)), gradients, strict=True):
        torch.testing.assert_close(a, b)
