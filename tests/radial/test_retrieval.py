"""From a text or an image to concepts, general to specific; and the drawn picture."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from geodapt.errors import InputError
from geodapt.radial import RadialModel, RootSettings, load_encoder
from geodapt.radial.images import embed_images, image_files
from geodapt.radial.polar_layout import polar
from tests.radial.small import CHAINS, save_bert, save_dual, save_images

CANDIDATES = sorted({text for row in CHAINS for text in row["texts"]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("retrieval")
    save_bert(made / "bert")
    save_dual(made / "clip", "clip")
    save_images(made / "images")
    return made


def naive(query, vectors, root, steps):
    radii = [math.dist(v, root) for v in vectors]
    scores = [sum(a * b for a, b in zip(query, v, strict=True)) for v in vectors]
    taken = []
    for step in range(steps):
        radius = min(radii) + (max(radii) - min(radii)) * step / (steps - 1) + 1e-7
        best = max((c for c in range(len(radii)) if radii[c] <= radius), key=scores.__getitem__)
        if not taken or taken[-1] != best:
            taken.append(best)
    return taken


def test_a_texts_concepts(folder):
    model = RadialModel(load_encoder(str(folder / "bert")))
    index = model.index([*CANDIDATES, CANDIDATES[0]])
    assert index.texts == CANDIDATES
    (chain,) = model.retrieve(["a red bird runs"], index)
    root, query = model.root_points()[0], model.embed(["a red bird runs"])[0]
    wanted = naive(query.tolist(), index.vectors.tolist(), root.tolist(), 50)
    assert [step.text for step in chain] == [CANDIDATES[i] for i in wanted]
    radii = [step.radius for step in chain]
    assert radii == sorted(radii)
    for step in chain:
        vector = index.vectors[CANDIDATES.index(step.text)]
        assert step.radius == pytest.approx((vector - root).norm().item(), abs=1e-5)
        assert step.similarity == pytest.approx((vector @ query).item(), abs=1e-5)
    assert model.retrieve([], index) == []


def test_an_images_concepts(folder):
    model = RadialModel(load_encoder(str(folder / "clip")))
    names = [row["image_url"] for row in CHAINS[:3]]
    images = embed_images(model.encoder, image_files(names, folder / "images"))
    chains = model.retrieve(images.vectors, model.index(CANDIDATES), steps=10)
    assert len(chains) == 3
    best = (images.vectors @ model.embed(CANDIDATES).T).argmax(1)
    assert [chain[-1].text for chain in chains] == [CANDIDATES[i] for i in best.tolist()]


def test_the_nearest_of_several_roots_is_the_querys(folder):
    model = RadialModel(load_encoder(str(folder / "bert")), RootSettings(kind="fixed", count=2))
    model.spread_roots(CANDIDATES, seed=0)
    index = model.index(CANDIDATES)
    queries = CANDIDATES[:8]
    roots = model.root_points()
    assert len(roots) == 2
    vectors = model.embed(queries)
    for query, chain in zip(vectors, model.retrieve(queries, index, 20), strict=True):
        root = min(roots.tolist(), key=lambda r: math.dist(r, query.tolist()))
        wanted = naive(query.tolist(), index.vectors.tolist(), root, 20)
        assert [step.text for step in chain] == [CANDIDATES[i] for i in wanted]


def test_no_candidates(folder):
    model = RadialModel(load_encoder(str(folder / "bert")))
    with pytest.raises(InputError, match="no candidates"):
        model.index([])


# --- the picture --------------------------------------------------------------------------------


def test_the_picture_keeps_radius_and_angle_of_what_is_flat():
    generator = torch.Generator().manual_seed(0)
    angles = 2 * math.pi * torch.rand(30, generator=generator)
    radii = 0.5 + torch.rand(30, generator=generator)
    flat = radii[:, None] * torch.stack([angles.cos(), angles.sin()], 1)
    axes = torch.linalg.qr(torch.randn(9, 9, generator=generator)).Q[:2]
    root = torch.randn(9, generator=generator)
    drawn = polar(root + flat @ axes, root.expand(30, 9))
    assert drawn.radii.tolist() == pytest.approx(radii.tolist(), abs=1e-5)
    difference = angles[:, None] - angles
    wanted = torch.atan2(difference.sin(), difference.cos()).abs().double()
    found = drawn.angles[:, None] - drawn.angles
    near = wanted < 1  # what belongs together
    error = (torch.atan2(found.sin(), found.cos()).abs() - wanted).abs()[near]
    assert error.mean() < 0.05
    assert drawn.error < 0.1


def test_a_picture_begins_where_another_ended():
    vectors = normalize(torch.randn(20, 6), dim=-1)
    root = normalize(torch.ones(1, 6), dim=-1).expand(20, 6)
    first = polar(vectors, root)
    again = polar(vectors, root, first.angles)
    difference = again.angles - first.angles
    assert torch.atan2(difference.sin(), difference.cos()).abs().max() < 0.05
    assert torch.equal(polar(vectors, root).angles, first.angles)
