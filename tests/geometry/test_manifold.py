"""Training by geoopt's optimizers: our parameter moves exactly as geoopt's own."""

import geoopt
import pytest
import torch

from geodapt.geometry import lorentz, manifold


def lift(x, c):
    return torch.cat([lorentz.time(x, c)[..., None], x], dim=-1)


@pytest.mark.parametrize("c", [0.3, 1.0])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_riemannian_adam_equals_geoopts_lorentz(c, amsgrad):
    start, target = torch.randn(2, 10, 4, dtype=torch.float64)
    theirs_space = geoopt.Lorentz(torch.tensor(1 / c, dtype=torch.float64))
    theirs = geoopt.ManifoldParameter(lift(start, c), manifold=theirs_space)
    ours = manifold.parameter(start.clone(), c)
    options = dict(lr=0.05, amsgrad=amsgrad)
    their_optimizer = geoopt.optim.RiemannianAdam([theirs], **options)
    our_optimizer = geoopt.optim.RiemannianAdam([ours], **options)
    for _ in range(40):
        their_optimizer.zero_grad()
        theirs_space.dist(theirs, lift(target, c)).square().sum().backward()
        their_optimizer.step()
        our_optimizer.zero_grad()
        lorentz.distance(ours, target, c).square().sum().backward()
        our_optimizer.step()
    assert (ours - start).abs().max() > 0.1
    torch.testing.assert_close(ours.detach(), theirs.detach()[:, 1:], rtol=1e-6, atol=1e-6)


def test_sgd_finds_the_mean():
    points = torch.randn(50, 3)
    mean = manifold.parameter(torch.zeros(3))
    optimizer = geoopt.optim.RiemannianSGD([mean], lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        lorentz.distance(mean, points).square().mean().backward()
        optimizer.step()
    step = lorentz.log(mean.detach(), points).mean(0)  # zero at the Frechet mean
    assert step.norm() < 1e-4


def test_geoopt_accepts_the_manifold():
    space = manifold.Hyperboloid(0.5)
    x, u = torch.randn(2, 4, 3)
    assert space.check_point_on_manifold(x)
    assert space.check_vector_on_tangent(x, u)
    y = space.expmap(x, u)
    torch.testing.assert_close(space.logmap(x, y), u)
    torch.testing.assert_close(space.dist(x, y), space.norm(x, u))
