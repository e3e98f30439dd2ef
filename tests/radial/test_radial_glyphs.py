"""Characters, general to specific: whole runs on a CLIP that trained for a few steps."""

import io
import json

import pytest
import torch
from datasets import Dataset, Features, Image
from PIL import Image as Pillow

from geodapt.data.chains import ChainPictures
from geodapt.data.glyphs import load_glyphs
from geodapt.data.loading import load_hierarchy
from geodapt.errors import InputError
from geodapt.metrics import retrieve_chains
from geodapt.radial import RadialModel, load_encoder
from geodapt.radial.images import embed_images
from geodapt.radial.query import RadialQueryRecipe
from geodapt.radial.recipe import RadialRecipe
from geodapt.recipes.execution import execute
from geodapt.recipes.loading import load_recipe
from geodapt.report import write_report
from geodapt.tinyclip import TinyClipSettings, cache
from geodapt.tinyclip.base import trained_base
from geodapt.tinyclip.fitting import save_clip, train_clip
from geodapt.vision import load_clip
from tests.radial.small import save_bert
from tests.tinyclip.small import SMALL

RANK = {"rank": 2}
FIGURES = {
    *("tau_d", "precision", "recall", "zero_shot_known", "zero_shot_new"),
    *(f"{what}recall_at_{k}" for what in ("", "text_", "class_") for k in (1, 5)),
}


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]


@pytest.fixture(scope="module")
def settings() -> TinyClipSettings:
    return TinyClipSettings.model_validate({**SMALL, "data": {**SMALL["data"], "new": 0.4}})


@pytest.fixture(scope="module")
def clip(own_cache, settings, tmp_path_factory) -> str:
    """A tiny CLIP's folder."""
    folder = tmp_path_factory.mktemp("clip")
    trained = train_clip(settings, load_glyphs(settings.data), folder / "work")
    save_clip(*trained, folder / "model")
    return str(folder / "model")


def recipe(settings, base, **changes) -> RadialRecipe:
    return RadialRecipe.model_validate(
        {
            "title": "Tiny characters",
            "base": base,
            "data": {"kind": "glyphs", "glyphs": settings.data.model_dump(), "max_test": 12},
            "training": {"steps": 4, "batch_size": 8, "learning_rate": 1e-3, "tensorboard": False},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def ran(settings, clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ran"
    execute(recipe(settings, clip, methods=["radial", "cone", "roots"], several_roots=2), folder)
    return folder


def test_a_run_measures_before_and_after(ran):
    found = json.loads((ran / "results.json").read_text())
    assert [row["method"] for row in found["rows"]] == ["untuned", "radial", "cone", "roots"]
    for row in found["rows"]:
        assert row.keys() >= FIGURES
        assert all(0 <= row[key] <= 1 for key in FIGURES - {"tau_d"})
    assert set(found["before"]) == FIGURES
    assert found["before"] != found["after"]
    (note,) = found["notes"]
    assert note.endswith("characters below a new one left out of training")
    write_report(ran)
    page = (ran / "report.html").read_text()
    assert "Around the root" in page
    assert "Zero-shot, new" in page


def test_figures_equal_naive_ones(ran, settings, clip):
    """Through the CLIP's own processor, picture by picture and name by name."""
    hierarchy = load_hierarchy(recipe(settings, clip).data)
    peer = load_clip(clip)
    pictures = hierarchy.pictures
    images = [peer.embed_images([image])[0].double() for image in pictures.images]
    asked = {chain.group: chain for chain in hierarchy.test}
    texts = {*hierarchy.names, *hierarchy.classes, *(t for c in hierarchy.test for t in c.texts)}
    vectors = {text: peer.embed_texts([text])[0].double() for text in texts}
    root = peer.embed_texts([""])[0].double()

    def nearest(image, candidates):
        return max(candidates, key=lambda text: float(image @ vectors[text]))

    known, new, classes, among = [], [], [], []
    for image, name in zip(images, pictures.names, strict=True):
        right = nearest(image, hierarchy.names) == name
        if name not in asked:
            known.append(right)
            continue
        new.append(right)
        classes.append(nearest(image, hierarchy.classes) == asked[name].texts[-2])
        among.append(nearest(image, list(asked)) == name)
    taus = []
    for chain in asked.values():
        radii = [float((vectors[text] - root).norm()) for text in chain.texts]
        pairs = [(a, b) for n, a in enumerate(radii) for b in radii[n + 1 :]]
        taus.append(sum(1 if a <= b else -1 for a, b in pairs) / len(pairs))
    wanted = {
        "tau_d": sum(taus) / len(taus),
        "zero_shot_known": sum(known) / len(known),
        "zero_shot_new": sum(new) / len(new),
        "class_recall_at_1": sum(classes) / len(classes),
        "text_recall_at_1": sum(among) / len(among),
    }
    candidates = list(dict.fromkeys(text for chain in asked.values() for text in chain.texts))
    radii = torch.stack([(vectors[text] - root).norm() for text in candidates])
    precision, recall, queries = 0.0, 0.0, 0
    for image, name in zip(images, pictures.names, strict=True):
        if name in asked:
            similarity = torch.stack([image @ vectors[text] for text in candidates])
            (taken,) = retrieve_chains(similarity[None], radii)
            met = {candidates[place] for place in taken}
            right = set(asked[name].texts)
            precision += len(met & right) / len(met)
            recall += len(met & right) / len(right)
            queries += 1
    wanted |= {"precision": precision / queries, "recall": recall / queries}
    before = json.loads((ran / "results.json").read_text())["before"]
    assert {key: before[key] for key in wanted} == pytest.approx(wanted, abs=1e-6)


def test_the_tuned_model_is_a_clip_that_others_read(ran, clip):
    tuned, base = load_clip(str(ran / "model")), load_clip(clip)
    images = [Pillow.new("L", (16, 16), 90)]
    torch.testing.assert_close(tuned.embed_images(images), base.embed_images(images))
    texts = ["letter", "Greek letter"]
    assert not torch.equal(tuned.embed_texts(texts), base.embed_texts(texts))
    model = RadialModel.load(str(ran / "model"))
    torch.testing.assert_close(model.embed(texts), tuned.embed_texts(texts))


def test_torn_pictures_of_a_data_set_are_skipped_counted_and_said(clip):
    whole = io.BytesIO()
    Pillow.effect_noise((16, 16), 90).save(whole, "PNG")
    cells = [whole.getvalue(), b"torn", whole.getvalue()[:150], whole.getvalue()]
    rows = Dataset.from_dict(
        {"image": [{"bytes": cell, "path": None} for cell in cells]},
        Features({"image": Image()}),
    )
    found = embed_images(load_encoder(clip), ChainPictures(rows["image"], [*"abcd"]))
    assert found.names == ["a", "d"]
    torch.testing.assert_close(found.vectors[0], found.vectors[1])
    assert [name for name, _ in found.skipped] == ["b", "c"]
    assert found.note().startswith("2 images skipped, such as b: ")


def test_an_encoder_of_texts_has_names_for_pictures(settings, tmp_path):
    save_bert(tmp_path / "bert")
    results = execute(recipe(settings, str(tmp_path / "bert"), methods=[]), tmp_path / "run")
    assert results["notes"][-1].endswith("embeds texts only: names stand for their pictures")
    assert {"tau_d", "precision", "class_recall_at_1"} <= results["before"].keys()
    assert "zero_shot_new" not in results["before"]


def test_a_picture_as_a_query_among_characters(ran, settings, clip, tmp_path):
    data = recipe(settings, clip).data
    hierarchy = load_hierarchy(data)
    hierarchy.pictures.images[0].save(tmp_path / "character.png")
    asked = RadialQueryRecipe(
        recipe="radial-query",
        model=str(ran / "model"),
        queries=[str(tmp_path / "character.png"), "Greek letter"],
        data=data,
    )
    results = execute(asked, tmp_path / "query")
    chains = [*hierarchy.train, *hierarchy.test]
    assert results["data"]["candidates"] == len({t for chain in chains for t in chain.texts})
    assert len(results["chains"]) == 2
    assert results["chains"][1]["steps"][-1]["text"] == "Greek letter"


# --- the base that is trained first -------------------------------------------------------------


@pytest.fixture
def bare(settings, tmp_path, monkeypatch):
    """No small CLIP in the cache yet; the one to train is tiny."""
    load_glyphs(settings.data)  # drawn, so that only the training differs
    place = cache.cache_folder()
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "glyphs").symlink_to(place / "glyphs")
    return tmp_path


def test_the_small_clip_is_trained_first_with_its_stage_in_the_run(bare, settings, clip):
    own = {"glyph_base": settings.model_dump()}
    asked = recipe(settings, "clip-glyphs", **own, methods=["radial"], tune="lora", lora=RANK)
    results = execute(asked, bare / "run")
    lines = [json.loads(line) for line in (bare / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["stage"] == "clip-glyphs"] == [4, 8, 12]
    assert json.loads((bare / "run/stages/clip-glyphs.json").read_text())["seconds"] > 0

    # Another run finds it, and measures what a folder with the same CLIP gives.
    again = execute(recipe(settings, "clip-glyphs", **own, methods=[]), bare / "again")
    assert not (bare / "again/stages/clip-glyphs.json").exists()
    there = execute(recipe(settings, clip, methods=[]), bare / "there")
    assert results["before"] == again["before"] == there["before"]

    # The adapter names the CLIP of these settings, which is not the recipe's.
    saved = json.loads((bare / "run/model/radial.json").read_text())
    assert saved["base"] == str(cache.checkpoint(settings))
    model = RadialModel.load(str(bare / "run" / "model"))
    assert model.bank is not None
    assert embed_images(model.encoder, ChainPictures([Pillow.new("L", (16, 16))], ["a"])).names == [
        "a"
    ]


def test_the_name_stands_for_the_small_clip_of_its_recipe():
    assert trained_base("clip-glyphs", TinyClipSettings()) == "clip-glyphs"
    assert trained_base("minilm", TinyClipSettings(seed=5)) == "minilm"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tune": "lora", "lora": {"targets": ["nothing"]}}, "match no linear layer of the text"),
        ({"images": "anywhere"}, "bring their own pictures; leave images out"),
    ],
)
def test_a_misfit_is_refused_before_anything_is_trained(bare, settings, changes, said):
    wrong = recipe(settings, "clip-glyphs", glyph_base=settings.model_dump(), **changes)
    with pytest.raises(InputError, match=said):
        execute(wrong, bare / "run")
    assert not (bare / "run").exists()
    assert not (bare / "cache" / "clip").exists()


def test_the_packaged_recipe():
    found = load_recipe("radial-glyphs").recipe
    assert found.base == "clip-glyphs"
    assert found.methods == ["radial", "cone", "roots"]
    assert found.data.glyphs == TinyClipSettings().data
