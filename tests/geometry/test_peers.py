"""Every function that geoopt has, equal to geoopt's in float64."""

import geoopt.manifolds.lorentz.math as geoopt_lorentz
import geoopt.manifolds.stereographic.math as geoopt_ball
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from geodapt.geometry import lorentz, poincare

CURVATURES = (0.1, 1.0, 2.5)


def lift(x, c):
    """Full coordinates, time first, as geoopt stores them."""
    return torch.cat([lorentz.time(x, c)[..., None], x], dim=-1)


def lift_tangent(x, v, c):
    return torch.cat([((x * v).sum(-1) / lorentz.time(x, c))[..., None], v], dim=-1)


@pytest.fixture
def xyv():
    return torch.randn(3, 16, 6, dtype=torch.float64).unbind()


@pytest.mark.parametrize("c", CURVATURES)
def test_lorentz(c, xyv):
    x, y, v = xyv
    k = torch.tensor(1 / c, dtype=torch.float64)  # geoopt's hyperboloid has <x, x> = -k
    px, py, pv = lift(x, c), lift(y, c), lift_tangent(x, v, c)
    origin = torch.zeros_like(x)
    expected = {
        "inner": geoopt_lorentz.inner(px, py),
        "distance": geoopt_lorentz.dist(px, py, k=k),
        "exp": geoopt_lorentz.expmap(px, pv, k=k)[..., 1:],
        "log": geoopt_lorentz.logmap(px, py, k=k)[..., 1:],
        "exp0": geoopt_lorentz.expmap0(lift_tangent(origin, v, c), k=k)[..., 1:],
        "log0": geoopt_lorentz.logmap0(px, k=k)[..., 1:],
        "transport": geoopt_lorentz.parallel_transport(px, py, pv, k=k)[..., 1:],
        "to_poincare": geoopt_lorentz.lorentz_to_poincare(px, k) / c**0.5,
    }
    ours = {
        "inner": lorentz.inner(x, y, c),
        "distance": lorentz.distance(x, y, c),
        "exp": lorentz.exp(x, v, c),
        "log": lorentz.log(x, y, c),
        "exp0": lorentz.exp0(v, c),
        "log0": lorentz.log0(x, c),
        "transport": lorentz.transport(x, y, v, c),
        "to_poincare": lorentz.to_poincare(x, c),
    }
    for name, value in expected.items():  # the name shows in the failure
        torch.testing.assert_close(ours[name], value, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("c", CURVATURES)
def test_poincare(c, xyv):
    x, y, v = xyv
    x, y = lorentz.to_poincare(x, c), lorentz.to_poincare(y, c)
    k = torch.tensor(-c, dtype=torch.float64)
    m = torch.randn(4, 6, dtype=torch.float64) / 2
    r = torch.tensor(0.7, dtype=torch.float64)
    expected = {
        "mobius_add": geoopt_ball.mobius_add(x, y, k=k),
        "distance": geoopt_ball.dist(x, y, k=k),
        "radius": geoopt_ball.dist0(x, k=k),
        "exp": geoopt_ball.expmap(x, v, k=k),
        "log": geoopt_ball.logmap(x, y, k=k),
        "exp0": geoopt_ball.expmap0(v, k=k),
        "log0": geoopt_ball.logmap0(x, k=k),
        "mobius_matvec": geoopt_ball.mobius_matvec(m, x, k=k),
        "mobius_scalar": geoopt_ball.mobius_scalar_mul(r, x, k=k),
        "conformal_factor": geoopt_ball.lambda_x(x, k=k),
    }
    ours = {
        "mobius_add": poincare.mobius_add(x, y, c),
        "distance": poincare.distance(x, y, c),
        "radius": poincare.radius(x, c),
        "exp": poincare.exp(x, v, c),
        "log": poincare.log(x, y, c),
        "exp0": poincare.exp0(v, c),
        "log0": poincare.log0(x, c),
        "mobius_matvec": poincare.mobius_matvec(m, x, c),
        "mobius_scalar": poincare.mobius_scalar(0.7, x, c),
        "conformal_factor": poincare.conformal_factor(x, c),
    }
    for name, value in expected.items():  # the name shows in the failure
        torch.testing.assert_close(ours[name], value, rtol=1e-8, atol=1e-8)


def test_centroid_equals_hyperboloid_mean():
    """Two equal weights: the geodesic's midpoint, which geoopt reaches by half the logarithm."""
    x, y = torch.randn(2, 9, 4, dtype=torch.float64)
    k = torch.tensor(1.0, dtype=torch.float64)
    half = geoopt_lorentz.logmap(lift(x, 1.0), lift(y, 1.0), k=k) / 2
    middle = geoopt_lorentz.expmap(lift(x, 1.0), half, k=k)[..., 1:]
    torch.testing.assert_close(lorentz.centroid(torch.stack([x, y], -2)), middle)


def test_rms_norm_equals_transformers():
    x = torch.randn(5, 32)
    norm = LlamaRMSNorm(32, eps=LlamaConfig().rms_norm_eps)
    torch.nn.init.normal_(norm.weight)
    torch.testing.assert_close(lorentz.rms_norm(x, norm.weight, norm.variance_epsilon), norm(x))
