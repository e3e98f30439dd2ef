"""Losses and radii against slow float64 references written from the definitions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from geodapt.geometry import cones
from geodapt.radial import (
    RootSettings,
    anchoring_loss,
    cone_loss,
    generality,
    radial_loss,
    radial_terms,
)
from geodapt.radial.losses import angle_at
from geodapt.radial.roots import Roots, initial_roots, nearest_root

DIMENSION = 5


def unit(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(rows, DIMENSION, generator=generator, dtype=torch.float64), dim=-1)


def naive_angle(e, x, root):
    """``arccos(sim(e - r, x - e))``, number by number."""
    a = [i - j for i, j in zip(e, root, strict=True)]
    b = [i - j for i, j in zip(x, e, strict=True)]
    dot = sum(i * j for i, j in zip(a, b, strict=True))
    lengths = math.sqrt(sum(i * i for i in a) * sum(i * i for i in b))
    return math.acos(max(-1.0, min(1.0, dot / lengths)))


def naive_terms(general, entailed, contradicting, root):
    return [
        naive_angle(e, p, r) - naive_angle(e, n, r)
        for e, p, n, r in zip(
            *(t.tolist() for t in (general, entailed, contradicting, root)), strict=True
        )
    ]


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 10_000))
def test_radial_loss_is_the_mean_and_the_hardest_of_the_differences(rows, seed):
    general, entailed, contradicting, root = unit(4 * rows, seed).chunk(4)
    terms = naive_terms(general, entailed, contradicting, root)
    found = radial_terms(general, entailed, contradicting, root)
    assert found.tolist() == pytest.approx(terms, abs=1e-9)
    loss = radial_loss(general, entailed, contradicting, root).item()
    assert loss == pytest.approx(sum(terms) / rows + max(terms), abs=1e-9)


def naive_curved_angle(e, x, root, c):
    """``pi`` minus the angle at e in the hyperbolic triangle (r, e, x), by its cosine rule."""
    (a, b), s = ((p - root) for p in (e, x)), math.sqrt(c)
    side_a, side_b = s * float(a.norm()), s * float(b.norm())
    turn = float(a @ b / a.norm() / b.norm())
    cosh = math.cosh(side_a) * math.cosh(side_b) - math.sinh(side_a) * math.sinh(side_b) * turn
    across = math.acosh(cosh)
    at_e = (math.cosh(side_a) * cosh - math.cosh(side_b)) / (math.sinh(side_a) * math.sinh(across))
    return math.pi - math.acos(max(-1.0, min(1.0, at_e)))


@pytest.mark.parametrize("c", [0.05, 1.0, 8.0])
def test_angles_in_curved_space_are_those_of_its_triangles(c):
    e, x, root = unit(21, 3).chunk(3)
    expected = [naive_curved_angle(*points, c) for points in zip(e, x, root, strict=True)]
    assert angle_at(e, x, root, c).tolist() == pytest.approx(expected, abs=1e-7)
    flat = angle_at(e, x, root)
    torch.testing.assert_close(angle_at(e, x, root, 1e-9), flat, rtol=1e-6, atol=1e-6)
    sides = (math.sqrt(c) * float(v.norm()) for v in e - root)
    theta = [math.asin(min(1.0, 2 * 0.1 / math.sinh(side))) for side in sides]
    outside = [max(0.0, a - t) for a, t in zip(expected, theta, strict=True)]
    assert cone_loss(e, x, root, 0.1, c).item() == pytest.approx(sum(outside) / 7, abs=1e-7)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 10_000), st.floats(0.05, 1.5))
def test_cone_loss_is_how_far_outside_the_cone(rows, seed, eps):
    general, entailed, root = unit(3 * rows, seed).chunk(3)
    wanted = 0.0
    for e, x, r in zip(general.tolist(), entailed.tolist(), root.tolist(), strict=True):
        aperture = math.asin(min(1.0, eps / math.dist(e, r)))
        wanted += max(0.0, naive_angle(e, x, r) - aperture) / rows
    assert cone_loss(general, entailed, root, eps).item() == pytest.approx(wanted, abs=1e-9)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 10_000))
def test_anchoring_is_how_far_embeddings_moved(rows, seed):
    now, before = unit(2 * rows, seed).chunk(2)
    wanted = (
        sum(
            1 - sum(a * b for a, b in zip(*pair, strict=True))
            for pair in zip(now.tolist(), before.tolist(), strict=True)
        )
        / rows
    )
    assert anchoring_loss(now, before).item() == pytest.approx(wanted, abs=1e-12)
    assert anchoring_loss(before, before).item() == pytest.approx(0, abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 10_000))
def test_generality_is_the_distance_from_the_root(rows, seed):
    e, root = unit(2 * rows, seed).chunk(2)
    wanted = [math.dist(a, b) for a, b in zip(e.tolist(), root.tolist(), strict=True)]
    assert generality(e, root).tolist() == pytest.approx(wanted, abs=1e-12)


def test_losses_have_gradients_that_agree_with_differences():
    general, entailed, contradicting, root = (t.requires_grad_() for t in unit(12, 3).chunk(4))
    assert torch.autograd.gradcheck(radial_loss, (general, entailed, contradicting, root))
    assert torch.autograd.gradcheck(cone_loss, (general, entailed, root))


def test_texts_that_coincide_leave_the_gradient_finite():
    e = unit(2, 0).requires_grad_()
    loss = radial_loss(e, e, e[[1, 0]], e[[1, 1]])
    loss.backward()
    assert torch.isfinite(e.grad).all()


def test_going_on_outwards_is_entailed():
    root, out = torch.zeros(1, 3), torch.tensor([[1.0, 0, 0]])
    further, back = 2 * out, -out
    assert cones.exterior_angle(out, further, root).item() == pytest.approx(0)
    terms = radial_terms(out, further, back, root)
    assert terms.item() == pytest.approx(-math.pi, abs=1e-6)


# --- roots --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 10_000))
def test_the_nearest_root(count, rows, seed):
    points, e = unit(count + rows, seed).split([count, rows])
    for index, vector in zip(nearest_root(points, e).tolist(), e.tolist(), strict=True):
        distances = [math.dist(vector, point) for point in points.tolist()]
        assert distances[index] == pytest.approx(min(distances), abs=1e-9)


def test_kinds_of_roots():
    empty = unit(1, 0)[0].float()
    assert torch.equal(Roots(RootSettings(), None)(empty), empty[None])
    fixed = Roots(RootSettings(kind="fixed"), empty[None])
    learned = Roots(RootSettings(kind="learned"), empty[None])
    moved = unit(1, 1)[0].float()
    for roots in (fixed, learned):
        assert torch.allclose(roots(moved), empty[None])
    assert not fixed.points.requires_grad
    assert learned.points.requires_grad


def test_several_roots_start_between_the_empty_text_and_clusters():
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(8)[:3]
    general = normalize(
        centres.repeat(20, 1) + 0.05 * torch.randn(60, 8, generator=generator), dim=-1
    )
    empty = torch.eye(8)[7]
    points = initial_roots(empty, general, 3, seed=0)
    assert points.shape == (3, 8)
    assert points.norm(dim=-1).tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert sorted((points @ centres.T).argmax(1).tolist()) == [0, 1, 2]
    assert torch.allclose(points @ empty, (points @ centres.T).amax(1), atol=0.05)
    assert torch.equal(initial_roots(empty, general, 1, seed=0), empty[None])
    assert len(initial_roots(empty, general[:2], 5, seed=0)) == 2  # no more than there are texts


def test_several_roots_cannot_be_one_text():
    with pytest.raises(ValueError, match="set kind to learned or fixed"):
        RootSettings(count=2)
