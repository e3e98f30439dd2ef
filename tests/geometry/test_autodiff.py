"""Gradients of every order, in every way that PyTorch takes them."""

import _geometry_cases as cases
import pytest
import torch
from torch import func

from geodapt.geometry import cones, lorentz, poincare


def arguments(name, dtype=torch.float64, rows=2):
    function = cases.FUNCTIONS[name]
    return function.ours, tuple(
        a.to(dtype) for a in cases.arguments(function.takes, "far", 0.6, 1.0, rows, d=4)
    )


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("name", cases.FUNCTIONS)
def test_dynamo_traces_one_graph(name):
    function, args = arguments(name, torch.float32)
    torch._dynamo.reset()
    traced = torch.compile(function, backend="eager", fullgraph=True)
    for c in (1.0, 0.9, 0.37):  # from the second on, a float is a variable to the compiler
        torch.testing.assert_close(traced(*args, c), function(*args, c))


@pytest.mark.slow
@pytest.mark.parametrize("function", [lorentz.distance, poincare.log0, poincare.mobius_add])
def test_compiled_gradients_with_learned_curvature(function):
    x, y = (lorentz.to_poincare(a) for a in torch.randn(2, 8, 16))
    points = (x,) if function is poincare.log0 else (x, y)
    torch._dynamo.reset()
    traced = torch.compile(function, backend="aot_eager", fullgraph=True)
    leaves = [a.clone().requires_grad_() for a in (*points, torch.rand(8) / 2 + 0.3)]
    out, expected = traced(*leaves), function(*leaves)
    torch.testing.assert_close(out, expected)
    found = torch.autograd.grad(out.sum(), leaves)
    torch.testing.assert_close(found, torch.autograd.grad(expected.sum(), leaves))


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
def test_gradients_are_finite_everywhere(where):
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
    monkeypatch.setattr("geodapt.geometry._sums.BLOCK", 50)
    blocks = lorentz.pairwise_distance(x, y)
    torch.testing.assert_close(blocks, whole)
    for a, b in zip(torch.autograd.grad(blocks.sum(), (x, y)), gradients, strict=True):
        torch.testing.assert_close(a, b)
    each = lorentz.distance(x[:, None], y)
    torch.testing.assert_close(whole, each)
    for a, b in zip(torch.autograd.grad(each.sum(), (x, y)), gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("model", [lorentz, poincare])
@pytest.mark.parametrize("shape", [(), (21,), (9, 1), (9, 21)])
def test_pairwise_gradients_with_a_learned_curvature(model, shape):
    x, y = torch.randn(9, 13) / 13, torch.randn(21, 13) / 13
    c, weight = torch.rand(shape) + 0.1, torch.randn(9, 21)
    found = []
    for dtype in (torch.float32, torch.float64):
        leaves = [t.to(dtype).requires_grad_() for t in (x, y, c)]
        loss = (model.pairwise_distance(*leaves) * weight.to(dtype)).sum()
        found.append([g.float() for g in torch.autograd.grad(loss, leaves)])
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_gradient_of_a_learned_weight():
    x, y = torch.randn(2, 7, 5)
    for shape in ((), (7,)):
        leaves = [torch.rand(shape, requires_grad=True) for _ in range(2)]
        loss = lorentz.residual(x, y, leaves[0]).sum()
        loss = loss + poincare.mobius_scalar(leaves[1], lorentz.to_poincare(x)).sum()
        exact = [a.detach().double().requires_grad_() for a in leaves]
        twin = lorentz.residual(x.double(), y.double(), exact[0]).sum()
        ball = lorentz.to_poincare(x.double())
        twin = twin + poincare.mobius_scalar(exact[1], ball).sum()
        for ours, expected in zip(
            torch.autograd.grad(loss, leaves), torch.autograd.grad(twin, exact), strict=True
        ):
            torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)


def test_other_ways_to_differentiate():
    x, y = torch.randn(2, 6, 5)
    expected = lorentz.distance(x, y)
    torch.testing.assert_close(func.vmap(lorentz.distance)(x, y), expected)
    torch.testing.assert_close(func.vmap(lorentz.distance, (0, None))(x, y[0]),
                               lorentz.distance(x, y[0]))  # fmt: skip
    c = torch.rand(6) + 0.1
    torch.testing.assert_close(func.vmap(lorentz.distance)(x, y, c), lorentz.distance(x, y, c))
    with torch.autograd.forward_ad.dual_level(), torch.no_grad():
        dual = torch.autograd.forward_ad.make_dual(x, y)
        tangent = torch.autograd.forward_ad.unpack_dual(lorentz.distance(dual, y)).tangent
    torch.testing.assert_close(tangent, func.jvp(lambda a: lorentz.distance(a, y), (x,), (y,))[1])
    assert tangent.abs().sum() > 0
    with torch.inference_mode():
        torch.testing.assert_close(lorentz.distance(x, y), expected)


def test_gradients_of_gradients():
    x, y = (t.requires_grad_() for t in torch.randn(2, 4, 3))
    out = poincare.mobius_add(lorentz.to_poincare(x), lorentz.to_poincare(y))
    (once,) = torch.autograd.grad(out[:, 0].sum(), x, create_graph=True)
    (twice,) = torch.autograd.grad(once.square().sum(), y)
    exact = [t.detach().double().requires_grad_() for t in (x, y)]
    wide = poincare.mobius_add(*(lorentz.to_poincare(t) for t in exact))
    (slope,) = torch.autograd.grad(wide[:, 0].sum(), exact[0], create_graph=True)
    (expected,) = torch.autograd.grad(slope.square().sum(), exact[1])
    torch.testing.assert_close(twice.double(), expected, rtol=1e-4, atol=1e-6)
