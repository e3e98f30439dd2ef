"""The small CLIP: its parts against naive ones, its training, and what it leaves."""

import json
import math

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import ValidationError
from transformers import (
    AutoModel,
    AutoProcessor,
    CLIPModel,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
)

from geodapt.data.glyphs import load_glyphs
from geodapt.errors import InputError
from geodapt.recipes.catalog import FOLDER
from geodapt.recipes.execution import execute
from geodapt.recipes.loading import load_recipe
from geodapt.tinyclip import TinyClipSettings, cache, checkpoint, load_tinyclip
from geodapt.tinyclip.evaluation import evaluate_tinyclip
from geodapt.tinyclip.fitting import save_clip, train_clip
from geodapt.tinyclip.model import new_clip
from geodapt.tinyclip.pairs import Pairs, normalised, pixels
from geodapt.tinyclip.recipe import ClipRecipe
from geodapt.tinyclip.settings import ModelSettings
from geodapt.tinyclip.zero_shot import by_level, zero_shot
from geodapt.training import parameter_groups
from geodapt.vision import Clip, load_clip
from tests.tinyclip.small import SMALL

TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]


@pytest.fixture(scope="module")
def small() -> TinyClipSettings:
    return TinyClipSettings.model_validate(SMALL)


@pytest.fixture(scope="module")
def glyphs(own_cache, small):
    return load_glyphs(small.data)


@pytest.fixture(scope="module")
def fresh(glyphs, small) -> Clip:
    torch.manual_seed(0)
    captions = (caption for chain in glyphs.classes["captions"] for caption in chain)
    model, processor = new_clip(small.model, 16, captions)
    return Clip(model.eval(), processor)


def tensors(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- parts -------------------------------------------------------------------------------------


def test_a_text_is_its_last_token_whatever_follows(fresh):
    tokenizer = fresh.processor.tokenizer
    ids = tokenizer("Greek small letter alpha").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "greek small letter alpha"
    alone = fresh.embed_texts(["letter"])
    padded = fresh.embed_texts(["letter", "Greek small letter alpha with psili and oxia"])[:1]
    torch.testing.assert_close(alone, padded)
    # Changed letters behind the first word change the summary: it reads to the end.
    ends = fresh.embed_texts(["Greek small letter alpha", "Greek small letter beta"])
    assert (ends[0] - ends[1]).norm() > 1e-3


def test_the_empty_text_and_any_text_have_an_embedding(fresh):
    found = fresh.embed_texts(["", "日本 🙂", "x" * 1000])
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_training_sees_what_the_processor_makes(glyphs, fresh):
    rows = glyphs.splits["train"].select(range(5))
    grey = pixels(rows)
    assert torch.equal(grey[3], torch.from_numpy(np.array(rows[3]["image"])))
    images = [row["image"].convert("RGB") for row in rows]
    peer = fresh.processor(images=images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(normalised(grey), peer, atol=1e-5, rtol=0)


def test_the_loss_is_clips(glyphs, fresh):
    labels = glyphs.splits["train"].with_format("numpy")["label"][:]
    captions = glyphs.classes["captions"][:]
    pairs = Pairs(pixels(glyphs.splits["train"]), labels, captions, fresh.processor.tokenizer, 0.0)
    batch = pairs.collate(list(range(0, 60, 6)))
    with torch.no_grad():
        found = fresh.model(**batch)
    texts = fresh.embed_texts([captions[labels[row]][-1] for row in range(0, 60, 6)]).double()
    images = fresh.embed_images(glyphs.splits["train"].select(range(0, 60, 6))["image"]).double()
    scale = math.exp(fresh.model.logit_scale.item())
    loss = 0.0
    for i in range(10):
        row = [scale * (images[i] @ texts[j]).item() for j in range(10)]
        column = [scale * (images[j] @ texts[i]).item() for j in range(10)]
        for scores in (row, column):
            loss -= (scores[i] - math.log(sum(map(math.exp, scores)))) / 20
    assert found.loss.item() == pytest.approx(loss, abs=1e-4)


def test_captions_of_a_batch(glyphs, fresh):
    labels = glyphs.splits["train"].with_format("numpy")["label"][:]
    chains = glyphs.classes["captions"][:]
    grey = torch.zeros(len(labels), 16, 16, dtype=torch.uint8)
    texts = list(dict.fromkeys(caption for chain in chains for caption in chain))
    for general in (0.0, 0.3, 1.0):
        pairs = Pairs(grey, labels, chains, fresh.processor.tokenizer, general)
        rows = np.random.default_rng(0).permutation(len(labels))[:128].tolist()
        drawn = [texts[number] for number in pairs.captions(rows)]
        assert drawn == [texts[number] for number in pairs.captions(rows)]
        names = [chains[labels[row]][-1] for row in rows]
        above = [text for text, name in zip(drawn, names, strict=True) if text != name]
        assert len(set(above)) == len(above), "a general caption stands in a batch once"
        for text, row in zip(drawn, rows, strict=True):
            assert text in chains[labels[row]]
        assert (len(above) > 5) == (general > 0)
        other = [texts[number] for number in pairs.captions(rows[::-1])]
        assert general == 0 or other != drawn[::-1]


def test_figures_equal_naive_ones():
    torch.manual_seed(0)
    chains = [("a", "b", "c"), ("a", "b", "d"), ("a", "e", "f"), ("g", "h", "i")]
    labels = torch.randint(4, (700,))
    texts = torch.nn.functional.normalize(torch.randn(9, 6, dtype=torch.float64), dim=1)
    texts = dict(zip("abcdefghi", texts, strict=True))
    images = torch.nn.functional.normalize(torch.randn(700, 6, dtype=torch.float64), dim=1)
    names = torch.stack([texts[chain[-1]] for chain in chains])
    found = zero_shot(images, names, labels)["hit_at_1"]
    right = sum(
        max(range(4), key=lambda one: float(image @ names[one])) == label
        for image, label in zip(images, labels.tolist(), strict=True)
    )
    assert found == pytest.approx(right / 700)
    levels = by_level(images, texts, chains, labels)
    for level, accuracy in enumerate(levels):
        captions = sorted({chain[level] for chain in chains})
        right = sum(
            max(captions, key=lambda one: float(image @ texts[one])) == chains[label][level]
            for image, label in zip(images, labels.tolist(), strict=True)
        )
        assert accuracy == pytest.approx(right / 700)


def test_only_matrices_decay(fresh):
    decayed, others = parameter_groups(fresh.model, 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    total = sum(p.numel() for group in (decayed, others) for p in group["params"])
    assert total == sum(p.numel() for p in fresh.model.parameters())
    assert any(p is fresh.model.logit_scale for p in others["params"])


# --- training ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(small, glyphs, tmp_path_factory):
    lines = []
    model, processor = train_clip(
        small,
        glyphs,
        tmp_path_factory.mktemp("work"),
        log=lambda step, **values: lines.append((step, values)),
    )
    return model, processor, lines


def test_the_same_seed_gives_the_same_model(small, glyphs, trained, tmp_path):
    again, _ = train_clip(small, glyphs, tmp_path)
    assert same(tensors(again), tensors(trained[0]))
    other, _ = train_clip(small.model_copy(update={"seed": 1}), glyphs, tmp_path / "other")
    assert not same(tensors(other), tensors(trained[0]))


def test_it_learns(glyphs, small, tmp_path):
    longer = {**SMALL, "training": {"steps": 150, "batch_size": 64, "learning_rate": 3e-3}}
    longer["data"] = {**SMALL["data"], "new": 0.0}
    settings = TinyClipSettings.model_validate(longer)
    known = load_glyphs(settings.data)
    model, processor = train_clip(settings, known, tmp_path)
    found = evaluate_tinyclip(Clip(model, processor), known)
    chance = 10 / len(known.classes)
    assert found["rows"][0]["hit_at_10"] > 3 * chance


def test_a_stopped_training_ends_as_an_undisturbed_one(small, glyphs, trained, tmp_path):
    def stop(step, **values):
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_clip(small, glyphs, tmp_path, log=stop)
    assert list(tmp_path.glob("checkpoint-*"))
    model, _ = train_clip(small, glyphs, tmp_path)
    assert same(tensors(model), tensors(trained[0]))


def test_saved_and_loaded_equals(trained, glyphs, tmp_path):
    model, processor, _ = trained
    save_clip(model, processor, tmp_path / "clip")
    clip = load_clip(str(tmp_path / "clip"))
    assert same(tensors(clip.model), tensors(model))
    assert not clip.model.training
    assert not any(p.requires_grad for p in clip.model.parameters())
    here = Clip(model, processor)
    texts = ["Greek small letter alpha", "", "letter"]
    torch.testing.assert_close(clip.embed_texts(texts), here.embed_texts(texts))
    images = glyphs.splits["test"].select(range(4))["image"]
    torch.testing.assert_close(clip.embed_images(images), here.embed_images(images))
    # The ecosystem's own classes read it as well.
    peer = CLIPModel.from_pretrained(tmp_path / "clip").eval()
    inputs = AutoProcessor.from_pretrained(tmp_path / "clip")(
        text=texts, images=[image.convert("RGB") for image in images], padding=True,
        return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        scores = peer(**inputs).logits_per_image
    ours = clip.embed_images(images) @ clip.embed_texts(texts).T * peer.logit_scale.exp()
    torch.testing.assert_close(scores, ours, atol=1e-4, rtol=1e-4)


def test_the_run_leaves_a_model_that_other_recipes_find(small, trained, tmp_path, monkeypatch):
    recipe = ClipRecipe.model_validate({**SMALL, "title": "Small"})
    results = execute(recipe, tmp_path / "run")
    assert [row["method"] for row in results["rows"]] == ["test", "new", "new-only"]
    assert results["rows"][2]["hit_at_1"] >= results["rows"][1]["hit_at_1"]
    assert len(results["levels"]["test"]) == 4
    assert results["levels"]["test"][3] == pytest.approx(results["rows"][0]["hit_at_1"], abs=0.02)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [4, 8, 12]
    assert same(tensors(AutoModel.from_pretrained(tmp_path / "run/model")), tensors(trained[0]))

    monkeypatch.setattr(cache, "train_clip", None)  # found, not trained
    folder = checkpoint(small)
    assert same(tensors(load_clip(str(folder)).model), tensors(trained[0]))


def test_the_checkpoint_is_trained_where_the_cache_has_none(small, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "TinyClipSettings", lambda: small)
    clip = load_tinyclip()
    assert same(tensors(clip.model), tensors(trained[0]))
    assert not list((tmp_path / "clip").glob("*.work"))


def test_the_packaged_recipe_is_the_default():
    recipe = load_recipe("clip-glyphs").recipe
    default = TinyClipSettings().model_dump()
    assert recipe.model_dump(include=set(default)) == default
    shown = yaml.safe_load((FOLDER / "clip-glyphs.yaml").read_text())
    assert shown["needs"]


# --- what can be wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": {"patch": 7}}, "data.size 32 does not divide into patches of 7"),
        ({"model": {"text": {"width": 30}}}, "width 30 does not divide into 4 heads"),
        ({"training": {"batch_size": 1}}, "a contrast needs two pairs or more"),
        ({"training": {"evaluate_every": 5}}, "leave it out"),
        ({"general": 1.5}, "less than or equal to 1"),
        ({"model": {"depth": 5}}, "Extra inputs"),
    ],
)
def test_settings_that_do_not_fit(changes, expected):
    with pytest.raises(ValidationError, match=expected):
        TinyClipSettings.model_validate(changes)


def test_what_is_refused_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODAPT_CACHE", str(tmp_path / "cache"))
    for changes, expected in (
        ({"fonts": ["nowhere.ttf"]}, "nowhere.ttf' does not exist"),
        ({"scripts": ["Klingon"]}, "no font has the script 'Klingon'"),
    ):
        recipe = ClipRecipe.model_validate({**SMALL, "data": {**SMALL["data"], **changes}})
        with pytest.raises(InputError, match=expected):
            execute(recipe, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_models_that_are_no_clip(bert, tmp_path, fresh):
    bert.save_pretrained(tmp_path / "bert")
    fresh.processor.tokenizer.save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="is a BertModel, which does not embed both"):
        load_clip(str(tmp_path / "bert"))
    with pytest.raises(InputError, match="nowhere' does not exist"):
        load_clip("./nowhere")
    with pytest.raises(InputError, match="is trained on this machine"):
        load_clip("clip-glyphs")
    fresh.model.save_pretrained(tmp_path / "alone")
    with pytest.raises(InputError, match="alone' could not be loaded"):
        load_clip(str(tmp_path / "alone"))
    save_clip(fresh.model, fresh.processor, tmp_path / "torn")
    weights = tmp_path / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match="torn' could not be loaded"):
        load_clip(str(tmp_path / "torn"))


def test_siglip_goes_in_the_same_place(tmp_path, fresh):
    config = SiglipConfig(
        text_config={**TOWER, "vocab_size": 400, "max_position_embeddings": 32},
        vision_config={**TOWER, "image_size": 16, "patch_size": 8},
    )
    tokenizer = fresh.processor.tokenizer
    side = {"height": 16, "width": 16}
    processor = SiglipProcessor(SiglipImageProcessorPil(size=side), tokenizer)
    save_clip(SiglipModel(config), processor, tmp_path / "siglip")
    clip = load_clip(str(tmp_path / "siglip"))
    texts = ["Greek small letter alpha", "letter"]
    found = clip.embed_texts(texts)
    # Padded to the full length, as it was trained, however long the others are.
    ids = tokenizer(texts, padding="max_length", return_tensors="pt")
    assert ids.input_ids.shape == (2, 32)
    with torch.no_grad():
        # Without a mask, as the tokenizers of the released ones make none.
        peer = clip.model.get_text_features(ids.input_ids).pooler_output
    torch.testing.assert_close(found, torch.nn.functional.normalize(peer, dim=1))
    torch.testing.assert_close(found[1:], clip.embed_texts(["letter"]))
    assert clip.embed_images([Image.new("L", (16, 16))]).shape == (1, 32)


def test_nothing_to_embed(fresh):
    with pytest.raises(InputError, match="nothing to embed"):
        fresh.embed_texts([])
    with pytest.raises(InputError, match="no pictures"):
        fresh.embed_images([])


def test_a_diverging_training_says_so(small, glyphs, tmp_path):
    hot = small.model_copy(
        update={"training": small.training.model_copy(update={"learning_rate": 1e30})}
    )
    with pytest.raises(InputError, match="loss became"):
        train_clip(hot, glyphs, tmp_path)


def test_pictures_of_another_size_are_fitted(fresh):
    found = fresh.embed_images([Image.new("L", (50, 20), 255), Image.new("RGBA", (16, 16))])
    assert found.shape == (2, ModelSettings.model_validate(SMALL["model"]).embedding)
