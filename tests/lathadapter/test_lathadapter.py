"""LatHAdapter beside loops over pairs and triplets in float64, and where it must not break."""

import itertools
import math

import pytest
import torch

from geodapt.errors import InputError
from geodapt.geometry import poincare
from geodapt.lathadapter import LatHAdapter
from geodapt.lathadapter.hierarchy import (
    choose_ancestors,
    draw_triplets,
    hierarchy_loss,
    reciprocal_neighbours,
)
from geodapt.lathadapter.settings import LOSSES
from geodapt.lathadapter.terms import refine_texts
from geodapt.prompts.adapter import FeatureAdapter, adapter_of

SCALE = torch.tensor(20.0, dtype=torch.float64)


def features(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def adapter(number=5, width=6, **changes):
    made = LatHAdapter(width, attributes=number, **changes).double()
    made.start(features(30, width, seed=8), features(7, width, seed=9), seed=0)
    return made


def ball_distance(x, y, c=0.1):
    """``2/sqrt(c) artanh(sqrt(c) |-exp0(x) (+) exp0(y)|)``, two vectors at a time."""

    def exp0(v):
        z = math.sqrt(c) * float(v.norm())
        return v * (math.tanh(z) / z) if z else v

    moved = poincare.mobius_add(-exp0(x), exp0(y), c)
    return 2 / math.sqrt(c) * math.atanh(min(math.sqrt(c) * float(moved.norm()), 1 - 1e-16))


def cosine(x, y):
    return float(x @ y / (x.norm() * y.norm()))


def refined_by_hand(texts, attributes, beta):
    nodes = [*texts, *attributes]
    degree = [sum(abs(cosine(one, other)) for other in nodes) for one in nodes]
    made = []
    for i in range(len(texts)):
        passed = torch.zeros_like(nodes[i])
        for j in range(len(nodes)):
            passed += cosine(nodes[i], nodes[j]) / math.sqrt(degree[i] * degree[j]) * nodes[j]
        made.append(nodes[i] + beta * passed)
    return torch.stack(made)


def neighbours_by_hand(points, k, labels=None):
    size = len(points)
    near = [[math.exp(-ball_distance(a, b)) for b in points] for a in points]
    if labels is not None:
        for i, j in itertools.product(range(size), repeat=2):
            near[i][j] += float(labels[i] == labels[j])
    top = [sorted(range(size), key=lambda j: -near[i][j])[: min(k, size)] for i in range(size)]
    return {
        (i, j)
        for i, j in itertools.product(range(size), repeat=2)
        if i != j and i in top[j] and j in top[i]
    }


def hierarchy_by_hand(points, ancestors, k, margin, labels=None):
    """Over all triplets, with the nearest ancestor chosen."""
    near = neighbours_by_hand(points, k, labels)
    size = len(points)
    d = [[ball_distance(p, a) for a in ancestors] for p in points]
    total, count = 0.0, 0
    for i, j, n in itertools.product(range(size), repeat=3):
        if (i, j) not in near or (i, n) in near or n == i:
            continue
        count += 1
        places = range(len(ancestors))
        pair = min(places, key=lambda a: max(d[i][a], d[j][a]))
        every = min(places, key=lambda a: max(d[i][a], d[j][a], d[n][a]))
        if pair != every:
            total += max(0, d[i][pair] - d[i][every] + margin)
            total += max(0, d[j][pair] - d[j][every] + margin)
            total += max(0, d[n][every] - d[n][pair] + margin)
    return total / count if count else 0.0, count


def test_it_is_what_prompt_learners_know_as_an_adapter():
    assert isinstance(LatHAdapter(4, attributes=2), FeatureAdapter)
    assert adapter_of("lathadapter") is LatHAdapter


@pytest.mark.parametrize("beta", [0, 0.1, 0.5])
def test_refined_texts_beside_a_loop(beta):
    texts, attributes = features(7, 6), features(4, 6, seed=1)
    wanted = refined_by_hand(texts, attributes, beta)
    torch.testing.assert_close(
        refine_texts(texts, attributes, beta), wanted, rtol=1e-12, atol=1e-12
    )


def test_the_degree_is_the_papers_where_cosines_are_positive():
    """And where they are not, the paper's own has no root."""
    texts, attributes = features(5, 6).abs(), features(3, 6, seed=1).abs()
    nodes = torch.nn.functional.normalize(torch.cat([texts, attributes]), dim=-1)
    cosines = nodes @ nodes.T
    root = cosines.sum(-1).rsqrt()
    wanted = (root[:, None] * cosines * root) @ torch.cat([texts, attributes])
    found = refine_texts(texts, attributes, 1.0) - texts
    torch.testing.assert_close(found, wanted[:5], rtol=1e-12, atol=1e-12)
    opposed = torch.cat([texts, -texts, -texts])
    assert refine_texts(opposed, attributes, 0.1).isfinite().all()


def test_distances_are_those_of_the_ball():
    x, y = features(5, 6), features(4, 6, seed=1)
    for c in (0.01, 0.1, 1.0):
        found = adapter(norm="raw", curvature=c).distances(x, y)
        wanted = torch.tensor([[ball_distance(a, b, c) for b in y] for a in x])
        torch.testing.assert_close(found, wanted.double(), rtol=1e-6, atol=1e-6)
    flat = adapter(space="flat").distances(x, y)
    torch.testing.assert_close(flat, 2 * torch.cdist(x, y), rtol=1e-10, atol=1e-10)
    nearly = adapter(curvature=1e-9).distances(x, y)
    torch.testing.assert_close(nearly, flat, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_reciprocal_neighbours_beside_a_loop(k, labelled):
    points = features(12, 6)
    labels = torch.arange(12) % 5 if labelled else None
    distances = adapter().distances(points, points)
    found = reciprocal_neighbours(distances, k, labels)
    assert {tuple(pair) for pair in found.nonzero().tolist()} == neighbours_by_hand(
        points, k, labels
    )


def test_a_batch_of_four_has_triplets():
    """A point counts among its own three; else all four were neighbours, and none a negative."""
    counts = []
    for seed in range(30):
        points = features(4, 6, seed=seed)
        near = reciprocal_neighbours(adapter().distances(points, points), 3)
        counts.append(len(draw_triplets(near, 50)))
    assert sum(counts) > 30 * 3


def test_all_triplets_or_as_many_as_asked_of_each_anchor():
    points = features(20, 6)
    near = reciprocal_neighbours(adapter().distances(points, points), 4)
    every = draw_triplets(near, 1000)
    wanted = {
        (i, j, n)
        for i, j, n in itertools.product(range(20), repeat=3)
        if near[i, j] and not near[i, n] and n != i
    }
    assert {tuple(row) for row in every.tolist()} == wanted
    assert len(every) == len(wanted)
    torch.manual_seed(1)
    some = draw_triplets(near, 7)
    counts = torch.bincount(some[:, 0], minlength=20)
    assert torch.equal(counts, torch.bincount(every[:, 0], minlength=20).clamp_max(7))
    assert {tuple(row) for row in some.tolist()} <= wanted
    assert len({tuple(row) for row in some.tolist()}) == len(some)
    torch.manual_seed(1)
    assert torch.equal(draw_triplets(near, 7), some)


@pytest.mark.parametrize("labelled", [False, True])
def test_hierarchy_beside_a_loop_over_triplets(labelled):
    points, ancestors = features(10, 6), features(4, 6, seed=1) * 0.5
    labels = torch.arange(10) % 4 if labelled else None
    made = adapter(ancestor="argmax", triplets=10_000)
    near = reciprocal_neighbours(made.distances(points, points), 3, labels)
    triplets = draw_triplets(near, 10_000)
    found, chosen = hierarchy_loss(made.distances(points, ancestors), triplets, 2.0, "argmax")
    wanted, count = hierarchy_by_hand(points, ancestors, 3, 2.0, labels)
    assert count == len(triplets) > 0
    assert wanted > 0
    assert float(found) == pytest.approx(wanted, rel=1e-9)
    assert float(chosen.sum()) == 2 * count


def test_drawn_ancestors_are_one_hot_with_gradients_to_all():
    distances = features(200, 5).abs().requires_grad_()
    torch.manual_seed(0)
    chosen = choose_ancestors(distances, "gumbel", 0.1)
    assert torch.equal(chosen.detach().round(), chosen.detach().round().clamp(0, 1))
    torch.testing.assert_close(chosen.sum(-1), torch.ones(200).double())
    (chosen * distances.detach()).sum().backward()
    assert (distances.grad.abs().sum(0) > 0).all()
    nearest = distances.detach().argmin(-1)
    at = {}
    for temperature in (0.02, 10.0):
        torch.manual_seed(0)
        drawn = choose_ancestors(distances.detach(), "gumbel", temperature).argmax(-1)
        at[temperature] = float((drawn == nearest).double().mean())
    assert at[0.02] > 0.9
    assert at[10.0] < 0.4


def test_the_whole_loss_beside_loops():
    """Without chance: the nearest ancestor, and all triplets."""
    made = adapter(ancestor="argmax", triplets=10_000)
    images, texts = features(8, 6, seed=2), features(7, 6, seed=3)
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0])
    refined = made.refine(texts)
    terms = made.losses(images, texts, refined, labels, None, SCALE)
    unit = [v / v.norm() for v in images]
    attributes = made.attributes.detach()
    by_hand = refined_by_hand([t / t.norm() for t in texts], attributes, 0.1)
    torch.testing.assert_close(refined.detach(), by_hand, rtol=1e-12, atol=1e-12)
    flat = hyperbolic = 0.0
    logits = torch.zeros(8, 7, dtype=torch.float64)
    for i, v in enumerate(unit):
        cosines = [float(SCALE) * cosine(v, t) for t in by_hand]
        minus = [-ball_distance(v, t) for t in by_hand]
        logits[i] = torch.tensor([a + b for a, b in zip(cosines, minus, strict=True)])
        for values, which in ((cosines, "flat"), (minus, "hyperbolic")):
            loss = math.log(sum(map(math.exp, values))) - values[labels[i]]
            if which == "flat":
                flat += loss / 8
            else:
                hyperbolic += loss / 8
    wanted = {
        "classification": flat,
        "hyperbolic": hyperbolic,
        "image_hierarchy": hierarchy_by_hand(unit, attributes, 3, 0.1, labels)[0],
        "attribute_hierarchy": hierarchy_by_hand(attributes, by_hand, 3, 0.1)[0],
    }
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(wanted, rel=1e-9)
    torch.testing.assert_close(made.logits(images, refined, SCALE).detach(), logits)


def test_a_teacher_in_place_of_labels():
    made = adapter(losses=["classification", "hyperbolic"])
    images, texts, teacher = features(3, 6), features(4, 6, seed=1), features(3, 4, seed=2)
    terms = made.losses(images, texts, refined := made.refine(texts), None, teacher, SCALE)
    target = teacher.softmax(-1)
    unit = torch.nn.functional.normalize
    cosines = unit(images, dim=-1) @ unit(refined, dim=-1).T
    distances = made.distances(unit(images, dim=-1), refined)
    for name, logits in (("classification", SCALE * cosines), ("hyperbolic", -distances)):
        own = logits.softmax(-1)
        wanted = (target * (target / own).log()).sum(-1).mean()
        torch.testing.assert_close(terms[name], wanted)
    for labels, logits in ((None, None), (torch.tensor([0, 1, 2]), teacher)):
        with pytest.raises(InputError, match="either labels or a teacher"):
            made.losses(images, texts, refined, labels, logits, SCALE)


def test_what_ablations_leave_out():
    images, texts = features(6, 6), features(5, 6, seed=1)
    labels = torch.arange(6) % 5
    scaled = adapter(hyperbolic_scale=0)
    refined = scaled.refine(texts)
    terms = scaled.losses(images, texts, refined, labels, None, SCALE)
    assert set(terms) == {"classification", "image_hierarchy", "attribute_hierarchy"}
    for name in LOSSES:
        others = [other for other in LOSSES if other != name]
        some = adapter(losses=others)
        found = some.losses(images, texts, some.refine(texts), labels, None, SCALE)
        assert list(found) == others
    off, on = adapter(hyperbolic_logits=False), adapter()
    torch.testing.assert_close(
        off.logits(images, refined, SCALE), scaled.logits(images, refined, SCALE)
    )
    assert not torch.allclose(off.logits(images, refined, SCALE), on.logits(images, refined, SCALE))
    alone = adapter(beta=0).refine(texts)
    torch.testing.assert_close(alone, torch.nn.functional.normalize(texts, dim=-1))
    raw, clipped = adapter(norm="raw", beta=0), adapter(norm="clip", clip_radius=1.5, beta=0)
    torch.testing.assert_close(raw.refine(texts), texts)
    lengths = clipped.refine(texts).norm(dim=-1)
    torch.testing.assert_close(lengths, texts.norm(dim=-1).clamp_max(1.5))


def test_at_one_length_the_hyperbolic_term_keeps_the_order_of_cosines():
    """The distance is then a function of the cosine alone, so it cannot change the ranking."""
    made = adapter(beta=0)
    images, texts = features(9, 6), features(12, 6, seed=1)
    refined = made.refine(texts)
    unit = torch.nn.functional.normalize(images, dim=-1)
    by_distance = made.distances(unit, refined).argsort(dim=-1)
    assert torch.equal(by_distance, (unit @ refined.T).argsort(dim=-1, descending=True))


@pytest.mark.parametrize("number", [1, 2, 9])
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("batch", [1, 2, 6])
@pytest.mark.parametrize("norm", ["unit", "raw"])
def test_no_nan_however_few(number, classes, batch, norm):
    made = adapter(number, norm=norm, curvature="learned").float()
    cases = [
        (features(batch, 6), features(classes, 6, seed=1)),
        (torch.ones(batch, 6), torch.ones(classes, 6)),  # all equal
        (torch.ones(batch, 6), -torch.ones(classes, 6)),  # all opposed
        (torch.zeros(batch, 6), features(classes, 6)),
        (10 * features(batch, 6), 10 * features(classes, 6)),  # as long as CLIP's
    ]
    for images, texts in cases:
        images = images.float().requires_grad_()
        texts = texts.float().requires_grad_()
        refined = made.refine(texts)
        labels = torch.arange(batch) % classes
        terms = made.losses(images, texts, refined, labels, None, SCALE.float())
        made.zero_grad()
        sum(terms.values()).backward()
        assert all(term.isfinite() for term in terms.values())
        for tensor in (images, texts, *made.parameters()):
            assert tensor.grad is None or tensor.grad.isfinite().all()
        assert made.logits(images, refined, SCALE.float()).isfinite().all()


def test_gradients_reach_attributes_curvature_and_features():
    made = adapter(curvature="learned")
    images, texts = features(8, 6).requires_grad_(), features(5, 6, seed=1).requires_grad_()
    terms = made.losses(images, texts, made.refine(texts), torch.arange(8) % 5, None, SCALE)
    sum(terms.values()).backward()
    for tensor in (images, texts, made.attributes, made.log_curvature):
        assert (tensor.grad != 0).any()


def test_half_precision_features_give_the_figures_of_float32():
    made = adapter().float()
    images, texts = features(4, 6).bfloat16(), features(3, 6, seed=1).bfloat16()
    found = made.logits(images, made.refine(texts), SCALE.float())
    wanted = made.logits(images.float(), made.refine(texts.float()), SCALE.float())
    assert torch.equal(found, wanted)


def test_what_is_refused():
    with pytest.raises(InputError, match="attributes"):
        LatHAdapter(4, attributes=0)
    for wrong in (-1, [], [0.1, 0], "steep"):
        with pytest.raises(InputError, match="curvature"):
            LatHAdapter(4, attributes=2, curvature=wrong)
    with pytest.raises(InputError, match="losses"):
        LatHAdapter(4, attributes=2, losses=[])
    with pytest.raises(InputError, match="colour"):
        LatHAdapter(4, attributes=2, colour="red")
    with pytest.raises(InputError, match="width is 0"):
        LatHAdapter(0)
    with pytest.raises(InputError, match=r"\(2, 5\).*rows, 4.*teacher's width"):
        LatHAdapter(4, attributes=2).refine(torch.ones(2, 5))
    with pytest.raises(InputError, match=r"call start"):
        LatHAdapter(4).refine(torch.ones(2, 4))
    with pytest.raises(InputError, match="NaN"):
        LatHAdapter(4).start(torch.full((3, 4), torch.nan), torch.ones(2, 4), 0)
    with pytest.raises(InputError, match="no configuration"):
        LatHAdapter.from_configuration({"width": 4})
