"""The four properties of HoPE, and the learned relative bias."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geodapt.helm.lorentz_layers import Curvature
from geodapt.helm.positions import (
    HelmRotaryEmbedding,
    RelativeBias,
    key_points,
    query_points,
    rotate,
)
from tests.helm import small

DIM = 32
C = Curvature.of(0.8)


def rotation(positions) -> tuple[torch.Tensor, torch.Tensor]:
    rotary = HelmRotaryEmbedding(small.config(), DIM)
    return rotary(torch.zeros(1, dtype=torch.float64), torch.as_tensor(positions).view(1, -1))


def product(q, k, i, j) -> torch.Tensor:
    """``<HoPE(q, i), HoPE(k, j)>_L`` and a constant, as attention computes it."""
    q = query_points(q.view(1, 1, 1, DIM), rotation([i]), torch.ones((), dtype=q.dtype), C)
    k = key_points(k.view(1, 1, 1, DIM), rotation([j]), C)
    return (q * k).sum()


def over_distances(q, k, count) -> torch.Tensor:
    """The same for a query at position ``count - 1`` and keys at distances 0 to ``count - 1``."""
    one = torch.ones((), dtype=q.dtype)
    q = query_points(q.view(-1, 1, 1, DIM), rotation([count - 1]), one, C)
    k = key_points(k.view(-1, 1, 1, DIM).expand(-1, count, 1, DIM), rotation(list(range(count))), C)
    return (q * k).sum(-1).squeeze(1).flip(-1)


def test_rotation_keeps_the_time():
    x = torch.randn(1, 5, 2, DIM, dtype=torch.float64)
    turned = rotate(x, rotation(range(5)))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=0)


@given(
    seed=st.integers(0, 2**30),
    i=st.integers(0, 1000),
    j=st.integers(0, 1000),
    shift=st.integers(0, 1000),
)
def test_only_relative_positions_count(seed, i, j, shift):
    q, k = torch.randn(2, DIM, dtype=torch.float64, generator=torch.manual_seed(seed))
    moved = product(q, k, i + shift, j + shift)
    torch.testing.assert_close(product(q, k, i, j), moved, rtol=1e-3, atol=1e-3)


def test_attention_decays_with_distance():
    """Of a key that equals its query, on average over many, in windows of growing distance."""
    q = torch.randn(500, DIM, dtype=torch.float64)
    mean = over_distances(q, q, 512).mean(0)
    near, middle, far = mean[:4].mean(), mean[4:64].mean(), mean[64:].mean()
    assert near > middle + 1 > far + 2


@given(distance=st.integers(0, 200), seed=st.integers(0, 2**30))
def test_a_head_can_peak_at_any_distance(distance, seed):
    k = torch.randn(1, DIM, dtype=torch.float64, generator=torch.manual_seed(seed))
    back = tuple(part * sign for part, sign in zip(rotation([distance]), (1, -1), strict=True))
    q = rotate(k.view(1, 1, 1, DIM), back)
    assert over_distances(q, k, 201).argmax() == distance


@pytest.mark.parametrize("distance", [0, 1, 3])
def test_diagonal_patterns_are_learnable(distance):
    """One query and one key for all tokens learn to attend to the token so far back."""
    n = 16
    q, k = (torch.randn(1, 1, 1, DIM).requires_grad_() for _ in range(2))
    optimizer = torch.optim.Adam([q, k], lr=0.1)
    for _ in range(60):
        a = query_points(q.expand(1, n, 1, DIM), rotation(range(n)), torch.tensor(0.5), C)
        b = key_points(k.expand(1, n, 1, DIM), rotation(range(n)), C)
        mask = torch.ones(n, n, dtype=torch.bool).tril()
        scores = (a @ b.mT)[0, 0].float().masked_fill(~mask, -torch.inf)
        weights = scores.softmax(-1).diagonal(-distance)
        loss = -weights.log().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert weights.min() > 0.9


def test_relative_bias_has_the_buckets_of_t5():
    from transformers.models.t5.modeling_t5 import T5Attention

    config = small.config(
        relative_attention_num_buckets=16, relative_attention_max_distance=60, position="relative"
    )
    bias = RelativeBias(config)
    torch.nn.init.normal_(bias.weight)
    queries, keys, first = 40, 100, 60
    distance = torch.arange(keys) - (torch.arange(queries).unsqueeze(1) + first)
    buckets = T5Attention._relative_position_bucket(
        distance, bidirectional=False, num_buckets=16, max_distance=60
    )
    expected = bias.weight[buckets].permute(2, 0, 1).unsqueeze(0)
    torch.testing.assert_close(bias(first, queries, keys), expected)
