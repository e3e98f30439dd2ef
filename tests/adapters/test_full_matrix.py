"""Merging entries that are large, or chosen at random: which stay, and what they become."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodapt.adapters import METHODS
from geodapt.adapters.merging import full_matrix
from geodapt.adapters.merging.full_matrix import merge_largest, merge_random, weighted_sum
from geodapt.adapters.merging.registry import Part


@settings(max_examples=25, deadline=None)
@given(
    density=st.floats(0.001, 0.999),
    seed=st.integers(0, 5),
    spread=st.sampled_from([0.0, 3.0]),
    many=st.booleans(),
)
def test_trimming_keeps_exactly_the_share(density, seed, spread, many):
    generator = torch.Generator().manual_seed(seed)
    out, width = (700, 300) if many else (30, 20)
    parts = [
        Part(
            torch.randn(3, width, generator=generator),
            torch.randn(out, 3, generator=generator)
            * (spread * torch.randn(out, 1, generator=generator)).exp(),  # rows unlike each other
            1.0,
        )
        for _ in range(2)
    ]
    for i, part in enumerate(parts):
        alone = [other._replace(weight=float(i == j)) for j, other in enumerate(parts)]
        merged = merge_largest(alone, density, weighted_sum)
        stays = merged[merged != 0].abs()
        # Equal entries stay together: without the smallest there would be too few.
        wanted = int(density * (out * width))
        assert (stays > stays.min()).sum() < wanted <= len(stays) if wanted else len(stays) == 0
        full = (part.B @ part.A).abs()
        if wanted:
            torch.testing.assert_close(stays.min(), full.flatten().sort().values[-len(stays)])


def test_equal_magnitudes_stay_together():
    part = Part(torch.ones(1, 200), torch.ones(300, 1), 1.0)
    for density in (0.01, 0.5, 0.99):
        assert (merge_largest([part, part], density, weighted_sum) == 2).all()


@pytest.mark.parametrize("density", [0.5, 0.3, 0.05, 1 / 3, 1.0])
def test_entries_stay_with_the_probability_that_was_asked(density):
    ones = Part(torch.ones(1, 500), torch.ones(300, 1), 1.0)
    first = merge_random([ones, ones._replace(weight=0.0)], density, 1, weighted_sum)
    second = merge_random([ones._replace(weight=0.0), ones], density, 1, weighted_sum)
    kept = torch.stack([first, second])
    stays = kept != 0
    count = stays.numel()
    assert stays.sum().item() == pytest.approx(
        density * count, abs=4 * (density * (1 - density) * count) ** 0.5 + 1e-5 * count
    )
    torch.testing.assert_close(kept[stays], torch.full_like(kept[stays], 1 / density))
    if density < 1:  # another draw, another update and a neighbour tell nothing
        again = merge_random([ones], density, 2, weighted_sum) != 0
        for one, other in (
            (stays[0], again),
            (stays[0], stays[1]),
            (stays[:, 1:], stays[:, :-1]),
            (stays[:, :, 1:], stays[:, :, :-1]),
        ):
            both = (one & other).double().mean().item()
            assert both == pytest.approx(density**2, abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(70, 129), (3, 5), (41, 64), (9, 1030)])
@pytest.mark.parametrize("density", [0.0001, 0.2, 0.5, 1.0])
def test_bands_merge_what_whole_matrices_in_float64_give(shape, density, dtype, monkeypatch):
    monkeypatch.setattr(full_matrix, "BAND", 1 << 11)  # several of them
    generator = torch.Generator().manual_seed(0)
    out, width = shape
    parts = [
        Part(
            torch.randn(rank, width, generator=generator).to(dtype),
            torch.randn(out, rank, generator=generator).to(dtype),
            weight,
        )
        for rank, weight in ((2, 0.5), (5, -1.0), (1, 2.0))
    ]
    full = torch.stack([part.B.double() @ part.A.double() for part in parts])
    weights = torch.tensor([part.weight for part in parts]).double()
    count = int(density * out * width)
    smallest = full.abs().flatten(1).sort(descending=True).values[:, max(count - 1, 0)]
    largest = full * (full.abs() >= smallest[:, None, None] * (1 - 1e-6)) * (count > 0)
    # What is drawn, seen on updates of ones under one weight after the other.
    ones = [Part(torch.ones(1, width).to(dtype), torch.ones(out, 1).to(dtype), 0.0)] * 3
    chosen = torch.stack(
        [
            merge_random(
                [one._replace(weight=float(i == j)) for j, one in enumerate(ones)],
                density,
                7,
                weighted_sum,
            ).double()
            for i in range(3)
        ]
    )
    for method, thinned in (
        ("magnitude", largest),
        ("ties", largest),
        ("dare", full * chosen),
        ("dare_ties", full * chosen),
    ):
        option = {"seed": 7} if method.startswith("dare") else {}
        found = METHODS[method](parts, density=density, **option)
        if method in ("magnitude", "dare"):
            wanted = (weights[:, None, None] * thinned).sum(0)
        else:
            sign = torch.where(thinned.sum(0) >= 0, 1.0, -1.0)
            agrees = (thinned * sign > 0).double()
            total = (weights[:, None, None] * thinned * agrees).sum(0)
            wanted = total / agrees.sum(0).clamp(min=1)
        torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=1e-5)
