"""Float32 values and gradients against 60-digit arithmetic, over seven orders of magnitude."""

import math

import cases
import pytest
import torch

from geodapt.geometry import _native, lorentz

VALUE, GRADIENT = 1e-6, 1e-5


@pytest.mark.parametrize(("name", "d"), cases.widths())
def test_values(name, d):
    function = cases.FUNCTIONS[name]
    for kind, norm, c, arguments in cases.sweep(function.takes, rows=2, d=d):
        out = function.ours(*arguments, c)
        for row in range(2):
            truth = cases.exact_value(function, arguments, row, c)
            error = cases.value_error(out, row, truth)
            assert error < VALUE, f"{kind} pair, norm {norm}, c {c}: {error:.1e}"


@pytest.mark.parametrize("name", cases.FUNCTIONS)
def test_gradients(name):
    function = cases.FUNCTIONS[name]
    for kind, norm, c, arguments in cases.sweep(function.takes, rows=1):
        if not cases.has_gradient(name, kind, arguments, c):
            continue
        weight, truths = cases.weight_and_gradients(function, arguments, c)
        error = cases.gradient_error(function.ours, arguments, c, weight, truths)
        assert error < GRADIENT, f"{kind} pair, norm {norm}, c {c}: {error:.1e}"


@pytest.mark.parametrize("name", cases.FUNCTIONS)
def test_operators_equal_kernels(name, monkeypatch):
    """Where there is a C++ compiler; elsewhere both sides are the operators."""
    function = cases.FUNCTIONS[name]
    arguments = cases.arguments(function.takes, "near", 1.0, 1.0, rows=5, d=4)
    native = function.ours(*arguments, 1.0)
    monkeypatch.setattr(_native, "library", lambda: None)
    torch.testing.assert_close(function.ours(*arguments, 1.0), native, rtol=2e-7, atol=0)


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
        truth = cases.exact.lorentz_distance(
            cases.exact.numbers(x[0]), cases.exact.numbers(y[0]), cases.mpf(c)
        )
        assert math.isclose(lorentz.distance(x, y, c).item(), float(truth), rel_tol=VALUE)
