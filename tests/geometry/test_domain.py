"""Arguments out of their domain: impossible, refused, or named by the checked mode."""

import os
import subprocess
import sys

import pytest
import torch

from geodapt.errors import InputError
from geodapt.geometry import checked, lorentz, poincare


@pytest.mark.parametrize("c", [0.0, -1.0, float("nan"), float("inf")])
def test_curvature_must_be_positive(c):
    with pytest.raises(InputError, match="expected a positive number"):
        lorentz.exp0(torch.ones(3), c)
    with checked(), pytest.raises(InputError, match=r"^c: 1 of 1 values are not positive"):
        poincare.exp0(torch.ones(3), torch.tensor(c))


def test_vectors_must_be_floating_point():
    with pytest.raises(InputError, match=r"x has shape .* expected floating-point vectors"):
        lorentz.distance(torch.ones(3, dtype=torch.int64), torch.ones(3))
    with pytest.raises(InputError, match="v has shape"):
        lorentz.exp0(torch.tensor(1.0))


def test_checked_mode_names_the_argument_and_the_row():
    y = torch.tensor([[0.1, 0.2], [3.0, 4.0]])
    assert torch.isnan(poincare.distance(torch.zeros(2, 2), y)[1])  # never a plausible number
    with checked():
        with pytest.raises(InputError, match=r"y: 1 of 2 values .* the first is y\[1\] = \[3.0, 4"):
            poincare.distance(torch.zeros(2, 2), y)
        with pytest.raises(InputError, match="x: 1 of 1 values are not finite"):
            lorentz.time(torch.tensor([torch.nan]))
        with pytest.raises(InputError, match="w: 1 of 1 values are not 0 or more"):
            lorentz.residual(y, y, -0.5)
        with pytest.raises(InputError, match="weights"):
            lorentz.centroid(y, torch.tensor([1.0, -2.0]))
        poincare.distance(y[:1], y[:1])
    with torch.no_grad():
        assert torch.isnan(poincare.radius(y)[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("c", [1e-3, 0.37, 1.0, 1e2])
def test_results_stay_inside_the_ball(dtype, c):
    v = torch.randn(200, 7) * 50 / c**0.5
    edge = poincare.exp0(v.to(dtype), c)
    results = [
        edge,
        poincare.project(v.to(dtype), c),
        poincare.mobius_add(edge, edge.roll(1, 0), c),
        poincare.exp(edge, edge, c),
        poincare.mobius_scalar(5.0, edge, c),
        poincare.mobius_matvec(torch.randn(7, 7), edge, c),
    ]
    with checked():
        for x in results:
            radius = poincare.radius(x, c)
            assert torch.isfinite(radius).all()
    assert torch.equal(poincare.project(edge, c), edge)


def test_broken_compiler_leaves_the_operators(tmp_path):
    """A compiler that fails, or a cache that cannot be written, must not stop anything."""
    script = (
        "import torch; from geodapt.geometry import _native, lorentz;"
        "assert _native.library() is None;"
        "print(lorentz.distance(torch.ones(2), torch.zeros(2)).item())"
    )
    for environment in (
        {"CXX": "false", "GEODAPT_CACHE": str(tmp_path)},
        {"CXX": "no-such-compiler"},
        {"GEODAPT_NATIVE": "0"},
    ):
        run = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        assert float(run.stdout) == pytest.approx(1.1462158, rel=1e-6)
