"""Float32 values and gradients against 60-digit arithmetic, over seven orders of magnitude."""

import math

import _geometry_cases as cases
import _geometry_exact as exact
import pytest
import torch

from geodapt.geometry import lorentz, poincare


def tolerance(reach: float, at_hundred: float) -> float:
    """Relative error allowed for points with ``sqrt(c) |x| = reach``: it grows in proportion."""
    return at_hundred * max(0.1, reach / 100)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "d"), cases.widths())
def test_values(name, d):
    """At most 1e-5 up to 100 radii of curvature from the origin; angles in radians."""
    function = cases.FUNCTIONS[name]
    for kind, norm, c, arguments in cases.sweep(function.takes, rows=2, d=d):
        out = function.ours(*arguments, c)
        for row in range(2):
            truth = cases.exact_value(function, arguments, row, c)
            error = cases.value_error(out, row, truth, "exterior_angle" in name)
            allowed = tolerance(cases.reach(norm, c), 1e-5)
            assert error < allowed, f"{kind} pair, norm {norm}, c {c}: {error:.1e}"


@pytest.mark.slow
@pytest.mark.parametrize("name", cases.FUNCTIONS)
def test_gradients(name):
    """At most 5e-5 up to 100 radii of curvature, most of them 1e-6."""
    function = cases.FUNCTIONS[name]
    for kind, norm, c, arguments in cases.sweep(function.takes, rows=1):
        reach = cases.reach(norm, c)
        if reach > 101 or not cases.has_gradient(name, kind, arguments, c):
            continue
        weight, truths = cases.weight_and_gradients(function, arguments, c)
        error = cases.gradient_error(function.ours, arguments, c, weight, truths)
        assert error < 5e-5, f"{kind} pair, norm {norm}, c {c}: {error:.1e}"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("c", [0.37, 1.0, 100.0])
@pytest.mark.parametrize("d", [2, 139, 1000])
def test_near_the_edge_of_the_ball(dtype, c, d):
    """What is left of the radius is right to 1e-4, though the points' own rounding changes it."""
    direction = torch.nn.functional.normalize(torch.randn(4, d, dtype=torch.float64), dim=-1)
    for gap in (1e-1, 1e-3, 1e-6):
        x = (direction * (1 - gap) / c**0.5).to(dtype)
        for given in (c, torch.tensor(c, dtype=torch.float64 if c == 0.37 else dtype)):
            factor, radius = poincare.conformal_factor(x, given), poincare.radius(x, given)
            for row in range(4):
                point = exact.numbers(x[row])
                true = exact.conformal_factor(point, exact.mpf(c))
                assert abs(float(factor[row]) / float(true) - 1) < 1e-4
                true = exact.radius(point, exact.mpf(c))
                assert abs(float(radius[row]) / float(true) - 1) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", cases.FUNCTIONS)
def test_half_types_lose_only_what_the_type_loses(name, dtype):
    function = cases.FUNCTIONS[name]
    c = 1.0
    arguments = cases.arguments(function.takes, "near", 0.5, c, rows=4)
    rounded = tuple(a.to(dtype) for a in arguments)
    out = function.ours(*rounded, c)
    wide = function.ours(*(a.double() for a in rounded), c)
    assert out.dtype == dtype
    torch.testing.assert_close(
        out.double(), wide, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps * 1e-2
    )


def test_autocast_changes_nothing():
    for name, function in cases.FUNCTIONS.items():
        arguments = cases.arguments(function.takes, "near", 1.0, 1.0, rows=3)
        plain = function.ours(*arguments, 1.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(function.ours(*arguments, 1.0), plain), name


def test_neighbouring_floats_are_apart():
    x = torch.tensor([[1000.0, 0.0]])
    y = torch.nextafter(x, torch.tensor(torch.inf))
    for c in (1e-3, 1.0, 1e2):
        truth = exact.lorentz_distance(exact.numbers(x[0]), exact.numbers(y[0]), exact.mpf(c))
        assert math.isclose(lorentz.distance(x, y, c).item(), float(truth), rel_tol=1e-5)


@pytest.mark.parametrize("per_row", [False, True])
def test_a_pair_has_its_own_digits_among_others(per_row):
    """A few close pairs and pairs far out on one ray, among many that lie apart."""
    x, y = torch.randn(2, 64, 8) / 2
    y[3], x[11], y[12] = x[3] * (1 + 1e-5), x[12] * 100, x[12] * 150
    x[12] *= 100
    c = torch.rand(64) + 0.5 if per_row else 1.3
    leaves = [a.clone().requires_grad_() for a in (x, y)]
    wide = [a.double().requires_grad_() for a in (x, y)]
    for call in (lorentz.distance, lambda x, y, c: lorentz.pairwise_distance(x, y, c).diagonal()):
        found, exact = call(*leaves, c), call(*wide, c.double() if per_row else c)
        torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=0.0)
        with torch.no_grad():
            torch.testing.assert_close(call(*leaves, c), found, rtol=1e-6, atol=0.0)
        for a, b in zip(
            torch.autograd.grad(found.sum(), leaves),
            torch.autograd.grad(exact.sum(), wide),
            strict=True,
        ):
            gap = (a.double() - b).norm(dim=-1) / b.norm(dim=-1)
            assert gap.max() < 5e-6


# --- what the compiler makes of it; its start takes ten seconds, so these stand together ------


@pytest.mark.slow
def test_the_compiler_keeps_the_exact_difference_at_the_edge():
    """``(x + shift) - shift`` must not become ``x``."""
    direction = torch.nn.functional.normalize(torch.randn(8, 33), dim=-1)
    x = direction * (1 - 1e-6)
    torch._dynamo.reset()
    compiled = torch.compile(poincare.conformal_factor, fullgraph=True)
    exact = poincare.conformal_factor(x.double())
    torch.testing.assert_close(compiled(x).double(), exact, rtol=1e-4, atol=0.0)


@pytest.mark.slow
def test_squares_beyond_the_range_are_nan_compiled_too():
    """``s - s`` must not become 0."""
    v = torch.full((2, 32), 1e20)
    v[0] = 0.1
    for function in (poincare.exp0, lorentz.time):
        torch._dynamo.reset()
        out = torch.compile(function)(v).reshape(2, -1)
        assert torch.isnan(out).all(1).tolist() == [False, True]
