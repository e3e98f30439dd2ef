"""What must hold for all points, in float64: the laws of the space itself."""

import math

import hypothesis.strategies as st
import torch
from hypothesis import given
from torch import Tensor

from geodapt.geometry import cones, lorentz, poincare

curvatures = st.floats(-2, 1).map(lambda e: 10**e)
seeds = st.integers(0, 2**31)
sizes = st.floats(0, 3)


def points(seed: int, c: float, radius: float, count: int, rows: int = 8, d: int = 5):
    """Points of the hyperboloid up to ``radius`` radii of curvature from the origin."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, rows, d)
    v = torch.nn.functional.normalize(
        torch.randn(shape, generator=generator, dtype=torch.float64), dim=-1
    )
    length = radius * torch.rand((count, rows, 1), generator=generator, dtype=torch.float64)
    return lorentz.exp0(v * length / math.sqrt(c), c).unbind()


def close(a: Tensor, b: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def tangent_inner(x: Tensor, v: Tensor, w: Tensor, c: float) -> Tensor:
    """Minkowski product of tangent vectors at x, from their space components."""
    t = lorentz.time(x, c)
    return (v * w).sum(-1) - (x * v).sum(-1) * (x * w).sum(-1) / t**2


def boost(x: Tensor, velocity: Tensor, c: float) -> Tensor:
    """A Lorentz boost along a velocity of less than 1, applied to space components."""
    gamma = 1 / torch.sqrt(1 - velocity @ velocity)
    along = x @ velocity
    t = lorentz.time(x, c)
    scale = ((gamma - 1) / (velocity @ velocity)) * along - gamma * t
    return x + scale[..., None] * velocity


@given(seeds, curvatures, sizes)
def test_exp_and_log_invert_each_other(seed, c, radius):
    x, y = points(seed, c, radius, 2)
    close(lorentz.exp(x, lorentz.log(x, y, c), c), y)
    close(lorentz.exp0(lorentz.log0(x, c), c), x)
    p, q = lorentz.to_poincare(x, c), lorentz.to_poincare(y, c)
    close(poincare.exp(p, poincare.log(p, q, c), c), q)
    close(poincare.exp0(poincare.log0(p, c), c), p)
    v = lorentz.log(x, y, c)
    close(lorentz.log(x, lorentz.exp(x, v, c), c), v, 1e-8)


@given(seeds, curvatures, sizes)
def test_logarithm_is_as_long_as_the_distance(seed, c, radius):
    x, y = points(seed, c, radius, 2)
    v = lorentz.log(x, y, c)
    close(tangent_inner(x, v, v, c).sqrt(), lorentz.distance(x, y, c), 1e-7)


@given(seeds, curvatures, sizes)
def test_metric(seed, c, radius):
    x, y, z = points(seed, c, radius, 3)
    for d in (
        lambda a, b: lorentz.distance(a, b, c),
        lambda a, b: poincare.distance(lorentz.to_poincare(a, c), lorentz.to_poincare(b, c), c),
    ):
        assert (d(x, z) <= d(x, y) + d(y, z) + 1e-9).all()
        assert (d(x, x) == 0).all()
        torch.testing.assert_close(d(x, y), d(y, x), rtol=1e-14, atol=0)
        assert (d(x, y) > 0).all() or radius < 1e-6


@given(seeds, curvatures, sizes, st.floats(0.01, 0.9))
def test_isometries(seed, c, radius, speed):
    x, y = points(seed, c, radius, 2)
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(matrix)
    velocity = speed * rotation[0]
    d = lorentz.distance(x, y, c)
    close(lorentz.distance(x @ rotation, y @ rotation, c), d)
    close(lorentz.distance(boost(x, velocity, c), boost(y, velocity, c), c), d, 1e-7)
    p, q = lorentz.to_poincare(x, c), lorentz.to_poincare(y, c)
    a = 0.5 * lorentz.to_poincare(boost(x, velocity, c), c)
    close(poincare.distance(poincare.mobius_add(a, p, c), poincare.mobius_add(a, q, c), c), d, 1e-7)


@given(seeds, curvatures, st.floats(0, 2))
def test_gyrogroup(seed, c, radius):
    x, y, z = (lorentz.to_poincare(p, c) for p in points(seed, c, radius, 3))

    def add(a, b):
        return poincare.mobius_add(a, b, c)

    def gyration(a, b, v):
        return add(-add(a, b), add(a, add(b, v)))

    zero = torch.zeros_like(x)
    close(add(zero, x), x)
    close(add(-x, x), zero)
    close(add(-x, add(x, y)), y)  # left cancellation
    close(add(x, add(y, z)), add(add(x, y), gyration(x, y, z)))  # gyroassociativity
    close(add(x, y), gyration(x, y, add(y, x)))  # gyrocommutativity
    close(gyration(x, y, z).norm(dim=-1), z.norm(dim=-1))  # gyrations are rotations
    close(gyration(add(x, y), y, z), gyration(x, y, z), 1e-8)  # left loop property


@given(seeds, curvatures, st.floats(0, 2), st.floats(-1.5, 1.5), st.floats(-1.5, 1.5))
def test_scalar_multiplication(seed, c, radius, r, s):
    (x,) = (lorentz.to_poincare(p, c) for p in points(seed, c, radius, 1))
    both = poincare.mobius_scalar(r * s, x, c)
    close(poincare.mobius_scalar(r, poincare.mobius_scalar(s, x, c), c), both)
    total = poincare.mobius_scalar(r + s, x, c)
    parts = (poincare.mobius_scalar(r, x, c), poincare.mobius_scalar(s, x, c))
    close(poincare.mobius_add(*parts, c), total)
    close(poincare.radius(poincare.mobius_scalar(r, x, c), c), abs(r) * poincare.radius(x, c))


@given(seeds, curvatures, st.floats(0, 2))
def test_mobius_matvec_is_linear_in_the_tangent_space(seed, c, radius):
    (x,) = (lorentz.to_poincare(p, c) for p in points(seed, c, radius, 1))
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, 5, 5, generator=generator, dtype=torch.float64) / 3
    twice = poincare.mobius_matvec(a, poincare.mobius_matvec(b, x, c), c)
    close(twice, poincare.mobius_matvec(a @ b, x, c))
    close(poincare.log0(poincare.mobius_matvec(a, x, c), c), poincare.log0(x, c) @ a.mT, 1e-7)


@given(seeds, curvatures, sizes)
def test_transport_keeps_inner_products(seed, c, radius):
    x, y, v, w = points(seed, c, radius, 4)
    v_at_y, w_at_y = lorentz.transport(x, y, v, c), lorentz.transport(x, y, w, c)
    before, after = tangent_inner(x, v, w, c), tangent_inner(y, v_at_y, w_at_y, c)
    scale = (tangent_inner(x, v, v, c) * tangent_inner(x, w, w, c)).sqrt()
    assert ((before - after).abs() <= 1e-7 * scale + 1e-12).all()
    close(lorentz.transport(y, x, v_at_y, c), v, 1e-7)
    direction = lorentz.log(x, y, c)
    close(lorentz.transport(x, y, direction, c), -lorentz.log(y, x, c), 1e-7)


@given(seeds, curvatures, sizes)
def test_centroid_minimises_squared_lorentzian_distance(seed, c, radius):
    x = torch.stack(points(seed, c, radius, 4), -2)
    weights = torch.rand(8, 4, generator=torch.Generator().manual_seed(seed)).double() + 0.01
    center = lorentz.centroid(x, weights, c)

    def cost(at):
        squared = -2 / c - 2 * lorentz.inner(at[:, None], x, c)
        return (weights * squared).sum(-1)

    moves = torch.randn(20, 8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for move in moves:
        assert (cost(center) <= cost(center + 1e-2 / math.sqrt(c) * move) + 1e-10 / c).all()


@given(seeds, curvatures, sizes)
def test_centroid_of_equal_points_and_residual(seed, c, radius):
    x, y = points(seed, c, radius, 2)
    close(lorentz.centroid(torch.stack([x, x, x], -2), c=c), x)
    pair = torch.stack([x, y], -2)
    weights = torch.tensor([1.0, 0.4], dtype=torch.float64).expand(8, 2)
    close(lorentz.residual(x, y, 0.4, c), lorentz.centroid(pair, weights, c))
    close(
        lorentz.centroid(pair, weights[:, None], c).squeeze(-2), lorentz.centroid(pair, weights, c)
    )
    middle = lorentz.residual(x, y, 1.0, c)
    close(lorentz.distance(x, middle, c), lorentz.distance(y, middle, c))


@given(seeds, curvatures, sizes)
def test_ball_and_hyperboloid_agree(seed, c, radius):
    x, y = points(seed, c, radius, 2)
    p, q = lorentz.to_poincare(x, c), lorentz.to_poincare(y, c)
    close(poincare.to_lorentz(p, c), x)
    close(poincare.distance(p, q, c), lorentz.distance(x, y, c))
    close(poincare.radius(p, c), lorentz.distance(x, torch.zeros_like(x), c))
    close(lorentz.to_poincare(lorentz.exp0(x, c), c), poincare.exp0(x / 2, c))
    close(poincare.pairwise_distance(p, q, c), lorentz.pairwise_distance(x, y, c))
    close(lorentz.pairwise_distance(x, y, c).diagonal(), lorentz.distance(x, y, c))


@given(seeds, curvatures, st.floats(0.05, 2))
def test_cones_agree_between_models(seed, c, radius):
    x, y = points(seed, c, radius, 2)
    p, q = lorentz.to_poincare(x, c), lorentz.to_poincare(y, c)
    close(cones.lorentz_exterior_angle(x, y, c), cones.poincare_exterior_angle(p, q, c), 1e-7)
    close(cones.lorentz_half_aperture(x, c), cones.poincare_half_aperture(p, c), 1e-7)
    close(
        cones.lorentz_exterior_angle(x, lorentz.exp0(lorentz.log0(x, c) * 1.5, c), c), x[:, 0] * 0
    )
    back = lorentz.exp0(lorentz.log0(x, c) * 0.5, c)
    close(cones.lorentz_exterior_angle(x, back, c), torch.full_like(x[:, 0], math.pi))


@given(seeds, st.floats(0.1, 3))
def test_everything_tends_to_euclidean(seed, radius):
    x, y, v = points(seed, 1.0, radius, 3)
    c, zero = 1e-12, torch.zeros(5, dtype=torch.float64)
    close(lorentz.distance(x, y, c), (x - y).norm(dim=-1), 1e-8)
    close(poincare.distance(x, y, c), 2 * (x - y).norm(dim=-1), 1e-8)
    close(lorentz.exp(x, v, c), x + v, 1e-8)
    close(lorentz.log(x, y, c), y - x, 1e-8)
    close(lorentz.transport(x, y, v, c), v, 1e-8)
    close(lorentz.centroid(torch.stack([x, y], -2), c=c), (x + y) / 2, 1e-8)
    close(poincare.mobius_add(x, y, c), x + y, 1e-8)
    matrix = torch.eye(5, dtype=torch.float64) * 2
    close(poincare.mobius_matvec(matrix, x, c), 2 * x, 1e-8)
    euclidean = cones.exterior_angle(x, y, zero)
    close(cones.lorentz_exterior_angle(x, y, c), euclidean, 1e-6)
    close(cones.poincare_exterior_angle(x, y, c), euclidean, 1e-6)


@given(seeds, curvatures, curvatures, sizes)
def test_rescale_scales_distances(seed, c_from, c_to, radius):
    x, y = points(seed, c_from, radius, 2)
    factor = math.sqrt(c_from / c_to)
    moved = (lorentz.rescale(x, c_from, c_to), lorentz.rescale(y, c_from, c_to))
    close(lorentz.distance(*moved, c_to), factor * lorentz.distance(x, y, c_from))


@given(seeds, curvatures, sizes)
def test_concatenation_keeps_the_time_component(seed, c, radius):
    x, y, z = points(seed, c, radius, 3)
    t = [lorentz.time(p, c) for p in (x, y, z)]
    joined = lorentz.time(lorentz.concat([x, y, z]), c)
    close(joined, (t[0] ** 2 + t[1] ** 2 + t[2] ** 2 - 2 / c).sqrt())


def test_energy_is_zero_inside_the_cone_only():
    apex = torch.tensor([[1.0, 0.0]])
    inside, outside = torch.tensor([[2.0, 0.01]]), torch.tensor([[1.0, 1.0]])
    aperture = cones.lorentz_half_aperture(apex)
    assert cones.cone_energy(cones.lorentz_exterior_angle(apex, inside), aperture) == 0
    angle = cones.lorentz_exterior_angle(apex, outside)
    assert cones.cone_energy(angle, aperture) == angle - aperture > 0
