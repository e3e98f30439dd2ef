"""The allocation against an exhaustive search."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodapt.compress.budget import Option, SizeBudget, allocate, allocate_uniform, hull
from geodapt.compress.layer_format import CompressionMethod, LayerFormat
from geodapt.compress.rate_distortion import curve
from geodapt.compress.svd import Whitening
from geodapt.errors import InputError


def options(pairs):
    return [Option(LayerFormat(rank=i), size, error) for i, (size, error) in enumerate(pairs)]


CURVE = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 1000).map(lambda n: n / 1000)),
    min_size=1,
    max_size=6,
    unique_by=lambda p: p[0],
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(pairs=st.lists(CURVE, min_size=1, max_size=3), budget=st.integers(1, 120))
def test_the_least_error_for_the_bytes_taken(pairs, budget):
    curves = {str(i): options(each) for i, each in enumerate(pairs)}
    smallest = sum(min(o.bytes for o in each) for each in curves.values())
    if smallest > budget:
        with pytest.raises(InputError, match="cannot be met"):
            allocate(curves, SizeBudget(bytes=budget))
        return
    chosen = allocate(curves, SizeBudget(bytes=budget)).values()
    taken, error = sum(o.bytes for o in chosen), sum(o.error for o in chosen)
    assert taken <= budget
    every = list(itertools.product(*curves.values()))
    # Short of the best within the budget by less than the largest single step of a hull.
    best = min(sum(o.error for o in each) for each in every if sum(o.bytes for o in each) <= budget)
    steps = [a.error - b.error for c in curves.values() for a, b in itertools.pairwise(hull(c))]
    assert best - 1e-9 <= error <= best + max(steps, default=0) + 1e-9
    # On the hull of all layers together, it is the best.
    generous = sorted(
        {sum(o.bytes for o in each) for each in itertools.product(*map(hull, curves.values()))}
    )
    if budget >= generous[-1]:
        assert error == pytest.approx(best)


@settings(max_examples=100, deadline=None)
@given(pairs=CURVE)
def test_the_hull_is_convex_and_below_every_option(pairs):
    kept = hull(options(pairs))
    slopes = [(a.error - b.error) / (b.bytes - a.bytes) for a, b in itertools.pairwise(kept)]
    assert all(steep >= flat for steep, flat in itertools.pairwise(slopes))
    assert all(slope > 0 for slope in slopes)
    assert kept[0].bytes == min(size for size, _ in pairs)
    assert kept[-1].error == min(error for _, error in pairs)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), total=st.integers(2, 20))
def test_ranks_go_to_the_largest_squared_singular_values(seed, total):
    """With layers of one shape and norm, the budget takes the largest ``d^2`` of all layers."""
    generator = torch.Generator().manual_seed(seed)
    layers, values = {}, []
    for name in "abc":
        W = torch.randn(8, 8, generator=generator, dtype=torch.float64)
        U, d, Vt = torch.linalg.svd(W)
        d = d ** torch.rand((), generator=generator) * 3
        W = U * d @ Vt
        W = W / W.norm()
        layers[name] = curve(W, CompressionMethod.named("svd"), Whitening())
        values += [(v, name) for v in torch.linalg.svdvals(W).tolist()[1:]]  # one is always taken
    one = LayerFormat(rank=1).bytes(8, 8)
    found = allocate(layers, SizeBudget(bytes=one * (3 + total)))
    wanted = {name: 1 for name in "abc"}
    for _, name in sorted(values, reverse=True)[:total]:
        wanted[name] += 1
    assert {name: option.form.rank for name, option in found.items()} == wanted


def test_a_loss_is_reached_with_the_fewest_bytes():
    curves = {"a": options([(1, 0.9), (2, 0.2), (3, 0.1)]), "b": options([(1, 0.3), (2, 0.25)])}
    chosen = allocate(curves, SizeBudget(loss=0.25))
    assert {path: option.bytes for path, option in chosen.items()} == {"a": 2, "b": 1}
    with pytest.raises(InputError, match=r"allowed loss of 0\.01 cannot be met"):
        allocate(curves, SizeBudget(loss=0.01))


def grid(row, groups, error):
    return [
        Option(LayerFormat(4, group), 4 * row * row // 8 + 2 * row * (row // group), error * group)
        for group in groups
    ]


def test_uniform_takes_one_group_for_all():
    curves = {"a": grid(128, (32, 64, 128), 1e-3), "b": grid(96, (32, 96), 1e-3)}
    whole = sum(max(c, key=lambda o: o.form.group).bytes for c in curves.values())
    chosen = allocate_uniform(curves, SizeBudget(bytes=whole))
    assert {path: o.form.group for path, o in chosen.items()} == {"a": 128, "b": 96}
    chosen = allocate_uniform(curves, SizeBudget(bytes=10**6))
    assert {path: o.form.group for path, o in chosen.items()} == {"a": 32, "b": 32}
    chosen = allocate_uniform(
        curves, SizeBudget(bytes=whole + 900)
    )  # 64: b has none, takes its row
    assert {path: o.form.group for path, o in chosen.items()} == {"a": 64, "b": 96}
    with pytest.raises(InputError, match="cannot be met"):
        allocate_uniform(curves, SizeBudget(bytes=whole - 1))
    chosen = allocate_uniform(curves, SizeBudget(loss=0.1))
    assert {path: o.form.group for path, o in chosen.items()} == {"a": 64, "b": 96}
