"""Merging entries that are large, or chosen at random: which stay, and what they become."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodapt import native
from geodapt.adapters import METHODS
from geodapt.adapters.merging import one_pass, trimming
from geodapt.adapters.merging.combining import weighted_sum
from geodapt.adapters.merging.dropping import merge_random, random_bits
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
        merged = trimming.merge_largest(alone, density, weighted_sum)
        stays = merged[merged != 0].abs()
        # Equal entries stay together: without the smallest there would be too few.
        wanted = int(density * (out * width))
        assert (stays > stays.min()).sum() < wanted <= len(stays) if wanted else len(stays) == 0
        full = (part.B @ part.A).abs()
        if wanted:
            torch.testing.assert_close(stays.min(), full.flatten().sort().values[-len(stays)])


@pytest.mark.parametrize("wrong", [(100.0, 101.0), (0.0, 1e-6)])
def test_a_bracket_that_misses_is_widened(wrong, monkeypatch):
    parts = [Part(torch.randn(3, 300), torch.randn(400, 3), 1.0) for _ in range(2)]
    wanted = trimming.merge_largest(parts, 0.3, weighted_sum)
    monkeypatch.setattr(trimming, "bracket", lambda sizes, share: wrong)
    assert torch.equal(trimming.merge_largest(parts, 0.3, weighted_sum), wanted)


def test_equal_magnitudes_stay_together():
    part = Part(torch.ones(1, 200), torch.ones(300, 1), 1.0)
    for density in (0.01, 0.5, 0.99):
        assert (trimming.merge_largest([part, part], density, weighted_sum) == 2).all()


def test_a_bracket_is_narrow_and_right():
    sizes = torch.randn(1 << 16, generator=torch.Generator().manual_seed(0)).abs().numpy()
    for share in (0.01, 0.3, 0.5, 0.9, 0.999):
        low, high = trimming.bracket(sizes, share)
        assert (sizes > high).mean() < share <= (sizes > low).mean()
        assert ((sizes > low) & (sizes <= high)).mean() < 0.02


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
    torch.testing.assert_close(
        kept[stays], torch.full_like(kept[stays], 1 / density), rtol=1e-3, atol=0
    )
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


KERNEL = native.library(one_pass.SOURCE)


@pytest.fixture(params=["operators", *(["kernels", "short registers"] if KERNEL else [])])
def either(request, monkeypatch, tmp_path):
    """One way or the other of going over the updates."""
    library = {"operators": None, "kernels": KERNEL}.get(request.param)
    if request.param == "short registers":  # of a processor with fewer lanes
        options = [option for option in native.OPTIONS if option != "-march=native"]
        monkeypatch.setattr(native, "OPTIONS", options)
        monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path))
        library = native._library.__wrapped__(one_pass.SOURCE)
    monkeypatch.setattr(native, "library", lambda source: library)


@pytest.mark.parametrize("shape", [(70, 129), (3, 5), (41, 64), (9, 1030)])
@pytest.mark.parametrize("density", [0.0001, 0.2, 0.5, 1.0])
def test_one_pass_merges_what_full_matrices_in_float64_give(either, shape, density):
    """By operators, by kernels, in shapes that fill neither rows nor registers."""
    generator = torch.Generator().manual_seed(0)
    out, width = shape
    parts = [
        Part(
            torch.randn(rank, width, generator=generator),
            torch.randn(out, rank, generator=generator),
            weight,
        )
        for rank, weight in ((2, 0.5), (5, -1.0), (1, 2.0))
    ]
    full = torch.stack([part.B.double() @ part.A.double() for part in parts])
    weights = torch.tensor([part.weight for part in parts]).double()
    count = int(density * out * width)
    smallest = full.abs().flatten(1).sort(descending=True).values[:, max(count - 1, 0)]
    largest = full * (full.abs() >= smallest[:, None, None]) * (count > 0)
    steps = max(round(density * 2**16), 1)
    words = random_bits((3, out, -(-width // 64)), steps, seed=7)
    drawn = [
        [int(word) >> bit & 1 for word in row for bit in range(64)]
        for row in words.reshape(3 * out, -1)
    ]
    chosen = full * torch.tensor(drawn).view(3, out, -1)[:, :, :width] * (2**16 / steps)
    for method, thinned in (
        ("magnitude", largest),
        ("ties", largest),
        ("dare", chosen),
        ("dare_ties", chosen),
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
