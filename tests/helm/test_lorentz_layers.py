"""The network's formulas agree with the geometry's, and attention with its flat limit."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from geodapt.geometry import lorentz
from geodapt.helm import lorentz_layers as layers
from geodapt.helm.attention import HelmAttention
from geodapt.helm.kernels import attend
from geodapt.helm.lorentz_layers import Curvature, head_centroids
from geodapt.helm.positions import key_points, query_points
from tests.helm import small

curvatures = st.floats(1e-3, 1e2)
radii = st.floats(1e-3, 1e2)
seeds = st.integers(0, 2**30)


def draw(seed, *shape, radius=1.0):
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.manual_seed(seed))
    return x * radius / shape[-1] ** 0.5


@given(seed=seeds, radius=radii, c=curvatures)
def test_time_and_excess(seed, radius, c):
    x = draw(seed, 7, 5, radius=radius)
    exact = lorentz.time(x, c).unsqueeze(-1)
    for smooth in (True, False):
        torch.testing.assert_close(layers.time_component(x, Curvature.of(c, smooth)), exact)
    u = layers.excess(layers.squared_norm(x), Curvature.of(c))
    torch.testing.assert_close(u + c**-0.5, exact)


@given(seed=seeds, radius=radii, c=curvatures, w=st.floats(0.01, 10))
def test_residual(seed, radius, c, w):
    x, y = draw(seed, 2, 7, 5, radius=radius)
    weight, scale = torch.tensor([w, 1.5], dtype=torch.float64)
    got = layers.lorentz_residual(x, y, weight / (1 + weight), scale, Curvature.of(c))
    torch.testing.assert_close(got, 1.5 * lorentz.residual(x, y, w, c), rtol=1e-6, atol=1e-9)


@given(seed=seeds, radius=radii, c=curvatures)
def test_centroid(seed, radius, c):
    x = draw(seed, 6, 5, radius=radius)
    weights = draw(seed + 1, 4, 6).abs()
    s, mass = weights @ x, weights.sum(-1, True)
    u = weights @ layers.excess(layers.squared_norm(x), Curvature.of(c))
    got = s * layers.inverse_norm(layers.squared_norm(s), u, Curvature.of(c), mass)
    torch.testing.assert_close(got, lorentz.centroid(x, weights, c), rtol=1e-6, atol=1e-9)


@given(seed=seeds, radius=st.floats(1e-3, 1e4), c=curvatures)
def test_norm_never_leaves_its_bound_in_float32(seed, radius, c):
    """``-c <s, s>_L`` is at least the squared mass, however far the points are."""
    x, y = draw(seed, 2, 7, 5, radius=radius).float()
    one = torch.ones(())
    got = layers.lorentz_residual(x, y, one / 2, one, Curvature.of(c))
    assert torch.isfinite(got).all()
    assert (got.norm(dim=-1) <= (x + y).norm(dim=-1) / 2 * (1 + 1e-5)).all()


@given(seed=seeds, radius=st.floats(1e-2, 1e2), c=st.floats(1e-2, 1e1))
def test_rms_norm(seed, radius, c):
    x, weight = draw(seed, 7, 5, radius=radius), draw(seed + 1, 1, 5)[0]
    h, time = layers.lorentz_rms_norm(x, weight, 1e-6, Curvature.of(c))
    torch.testing.assert_close(h, lorentz.rms_norm(x, weight, 1e-6))
    torch.testing.assert_close(time.squeeze(-1), lorentz.time(h, c))


def attention(q, k, v, c, factor=0.4):
    """Whole attention of one head with n queries and keys, from space components."""
    module = HelmAttention(small.config(num_attention_heads=1, head_dim=6), 0)
    module.config._attn_implementation = "sdpa"
    q, k, v = (x.view(1, -1, 1, x.shape[-1]) for x in (q, k, v))
    c = Curvature.of(c)
    whole = query_points(q, None, torch.as_tensor(1 / factor, dtype=q.dtype), c)
    sums, _ = attend(module, whole, key_points(k, None, c), key_points(v, None, c), None, 1.0)
    return head_centroids(sums, c)[0][0]


def test_attention_tends_to_the_euclidean_one():
    """As c tends to 0: scores to ``-|q - k|^2 / tau``, the centroid to the mean."""
    q, k, v = draw(0, 3, 9, 5, radius=3.0)
    scores = -0.2 * torch.cdist(q, k).square()
    mask = torch.ones(9, 9, dtype=torch.bool).tril()
    flat = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v
    errors = [(attention(q, k, v, c) - flat).abs().max() for c in (1e-3, 1e-5, 1e-7)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-5


def test_low_curvature_loses_nothing_in_float32():
    q, k, v = draw(0, 3, 9, 5, radius=3.0)
    for c in (1e-6, 1e-3, 1.0):
        got = attention(q.float(), k.float(), v.float(), c)
        torch.testing.assert_close(got.double(), attention(q, k, v, c), rtol=1e-4, atol=1e-5)
