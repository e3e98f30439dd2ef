"""Encoders of every kind against their own libraries, and models that are saved and loaded."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from tokenizers import processors
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, CLIPModel, SiglipModel

from geodapt.adapters import LoraSettings
from geodapt.errors import InputError
from geodapt.models.text_encoder import TEXTS_AT_ONCE
from geodapt.radial import RadialModel, RootSettings, load_encoder
from geodapt.radial.encoders import text_parameters
from geodapt.radial.images import embed_images, image_files
from tests.radial.small import (
    CHAINS,
    save_bert,
    save_dual,
    save_images,
    save_sentence_transformer,
    words,
)
from tests.xcross.small import base

TEXTS = ["", "animal", "a small bird sings on a red car", "car", *(f"bird {n}" for n in range(20))]
FAMILIES = ["bert", "sentence-transformer", "clip", "siglip"]


def save(folder, family):
    match family:
        case "bert":
            return save_bert(folder)
        case "sentence-transformer":
            return save_sentence_transformer(folder)
    return save_dual(folder, family)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return {family: str(save(folder / family, family)) for family in FAMILIES}


def peer(family, folder, texts):
    """The same texts one at a time through the library that the encoder comes from."""
    if family == "sentence-transformer":
        made = SentenceTransformer(folder, device="cpu")
        return torch.from_numpy(made.encode(list(texts), batch_size=1))
    read = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        if family == "siglip":
            tokens = read(text, return_tensors="pt", padding="max_length", max_length=24)
            tokens = {"input_ids": tokens["input_ids"]}
        else:
            tokens = read(text, return_tensors="pt")
        with torch.no_grad():
            if family == "bert":
                vector = AutoModel.from_pretrained(folder)(**tokens).last_hidden_state.mean(1)
            elif family == "clip":
                tokens.pop("token_type_ids", None)
                vector = CLIPModel.from_pretrained(folder).get_text_features(**tokens).pooler_output
            else:
                vector = (
                    SiglipModel.from_pretrained(folder).get_text_features(**tokens).pooler_output
                )
        rows.append(normalize(vector[0], dim=0))
    return torch.stack(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_those_of_the_encoders_own_library(shelf, family):
    encoder = load_encoder(shelf[family])
    few = TEXTS[:5]
    wanted = peer(family, shelf[family], few)
    assert torch.allclose(encoder.embed(few), wanted, atol=1e-5)
    assert torch.allclose(encoder(**encoder.tokens(few)), wanted, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_groups_of_similar_length_change_nothing(shelf, family):
    encoder = load_encoder(shelf[family])
    assert len(TEXTS) > TEXTS_AT_ONCE
    together = encoder(**encoder.tokens(TEXTS))
    alone = torch.cat([encoder(**encoder.tokens([text])) for text in TEXTS])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(encoder.embed([*TEXTS, "car"]), alone[[*range(len(TEXTS)), 3]], atol=1e-5)
    assert together.norm(dim=-1).tolist() == pytest.approx([1] * len(TEXTS), abs=1e-5)


def test_it_never_drops_out(shelf):
    encoder = load_encoder(shelf["bert"]).train()
    assert torch.equal(encoder(**encoder.tokens(TEXTS)), encoder(**encoder.tokens(TEXTS)))


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_images_among_texts(shelf, family, tmp_path):
    encoder = load_encoder(shelf[family])
    folder = save_images(tmp_path / "images")
    (folder / "red_bird.png").write_bytes(b"no image")
    names = [row["image_url"] for row in CHAINS]
    pictures = image_files([*names, names[1], "http://images/missing.png"], folder)
    found = embed_images(encoder, pictures)
    assert found.names == names[1:]
    skipped = [name for name, _ in found.skipped]
    assert skipped == ["http://images/red_bird.png", "http://images/missing.png"]
    assert found.note().startswith("2 images skipped, such as ")
    again = embed_images(encoder, image_files([str(folder / "red_car.png")]))
    row = found.names.index("http://images/red_car.png")
    assert torch.allclose(again.vectors[0], found.vectors[row], atol=1e-5)
    assert found.vectors.norm(dim=-1).tolist() == pytest.approx([1] * len(found.names), abs=1e-5)


def test_no_image_to_read(shelf, tmp_path):
    nowhere = image_files(["nowhere.png"], tmp_path)
    with pytest.raises(InputError, match="none of 1 images could be read"):
        embed_images(load_encoder(shelf["clip"]), nowhere)
    with pytest.raises(InputError, match=r"none of 0 images could be read \(none were given"):
        embed_images(load_encoder(shelf["clip"]), image_files([], tmp_path))
    with pytest.raises(InputError, match="embeds texts only"):
        embed_images(load_encoder(shelf["bert"]), nowhere)


# --- what trains --------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)], ids=["full", "lora"])
def test_the_text_side_alone_trains(shelf, family, lora):
    model = RadialModel(load_encoder(shelf[family]))
    model.train_text_side(lora)
    trained = {name for name, p in model.encoder.model.named_parameters() if p.requires_grad}
    assert not [name for name in trained if "vis" in name]
    if lora is None:
        assert trained
        whole = dict(model.encoder.model.named_parameters())
        if family == "clip":
            assert "text_projection.weight" in trained
        assert len(trained) >= sum("text_model" in name for name in whole)
    else:
        assert not trained
        assert len(model.bank["radial"].factors) == sum(
            isinstance(part, torch.nn.Linear) and "vis" not in name and "pooler" not in name
            for name, part in model.encoder.model.named_modules()
        )


def test_lora_targets_that_the_text_side_lacks(shelf):
    model = RadialModel(load_encoder(shelf["clip"]))
    with pytest.raises(
        InputError, match=r"match no linear layer of the text side; it has .*q_proj"
    ):
        model.train_text_side(LoraSettings(targets=["query"]))


# --- saved and loaded ---------------------------------------------------------------------------


def shake(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)], ids=["full", "lora"])
def test_a_tuned_model_is_saved_and_loaded(shelf, family, lora, tmp_path):
    settings = RootSettings(kind="learned", count=2)
    model = RadialModel(load_encoder(shelf[family]), settings)
    model.spread_roots(["animal", "vehicle", "car"], seed=0)
    model.train_text_side(lora)
    before = model.embed(TEXTS)
    shake(model)
    wanted, roots = model.embed(TEXTS), model.root_points()
    assert not torch.allclose(before, wanted, atol=1e-3)
    model.save(tmp_path / "model")
    loaded = RadialModel.load(str(tmp_path / "model"))
    assert torch.allclose(loaded.embed(TEXTS), wanted, atol=1e-5)
    assert torch.allclose(loaded.root_points(), roots, atol=1e-5)
    assert loaded.roots.settings == settings
    assert "RadialModel.load" in (tmp_path / "model" / "README.md").read_text()


def test_full_weights_load_in_the_encoders_own_library(shelf, tmp_path):
    for family in FAMILIES:
        model = RadialModel(load_encoder(shelf[family]))
        model.train_text_side(None)
        shake(model)
        model.save(tmp_path / family)
        wanted = model.embed(TEXTS[:3])
        found = peer(family, str(tmp_path / family), TEXTS[:3])
        assert torch.allclose(found, wanted, atol=1e-5), family


def test_an_adapter_loads_in_peft(shelf, tmp_path):
    model = RadialModel(load_encoder(shelf["bert"]))
    model.train_text_side(LoraSettings(rank=2))
    shake(model)
    wanted = model.embed(TEXTS[:5])
    model.save(tmp_path / "model")
    wrapped = PeftModel.from_pretrained(
        AutoModel.from_pretrained(shelf["bert"]), tmp_path / "model" / "adapter"
    )
    encoder = load_encoder(shelf["bert"])
    with torch.no_grad():
        for row, text in enumerate(TEXTS[:5]):
            hidden = wrapped(**encoder.tokens([text])).last_hidden_state
            assert torch.allclose(normalize(hidden.mean(1)[0], dim=0), wanted[row], atol=1e-5)


# --- what can be wrong --------------------------------------------------------------------------


def test_an_encoder_without_an_empty_texts_embedding(tmp_path):
    bare = words()
    bare.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", special_tokens=[]
    )
    base("bert").save_pretrained(tmp_path / "bare")
    bare.save_pretrained(tmp_path / "bare")
    encoder = load_encoder(str(tmp_path / "bare"))
    with pytest.raises(InputError, match=r"no tokens for the text ''.*text='thing'"):
        RadialModel(encoder)
    with pytest.raises(InputError, match="no tokens for the text ''"):
        encoder.tokens(["animal", ""])
    model = RadialModel(encoder, RootSettings(text="thing"))
    assert torch.allclose(model.root_points()[0], encoder.embed(["thing"])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pooling": "strange"}, "pools by nothing known"),
        ({"module": "Dense"}, "has the sentence-transformers module Dense"),
    ],
)
def test_sentence_transformers_that_are_read_otherwise(tmp_path, change, said):
    folder = save_sentence_transformer(tmp_path / "st", **change)
    with pytest.raises(InputError, match=said):
        load_encoder(str(folder))


def test_an_unknown_encoder():
    with pytest.raises(InputError, match="does not exist"):
        RadialModel.load("./no/such/encoder")


def test_a_diverged_encoder(shelf):
    encoder = load_encoder(shelf["bert"])
    with torch.no_grad():
        next(iter(text_parameters(encoder))).fill_(float("nan"))
    with pytest.raises(InputError, match="gives the text 'car' no finite vector"):
        encoder.embed(["car"])


def test_a_saved_model_that_was_edited(shelf, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(shelf["bert"], folder)
    (folder / "radial.json").write_text(json.dumps({"base": "x"}))
    with pytest.raises(InputError, match=r"radial.json: tune: Field required"):
        RadialModel.load(str(folder))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (None, "roots.safetensors"),
        ({"others": torch.ones(2, 32)}, "does not hold the roots"),
        ({"points": torch.ones(3, 32)}, "does not hold the roots"),
        ({"points": torch.ones(2, 31)}, "as wide as another encoder's"),
    ],
)
def test_roots_that_are_not_the_models_own(shelf, tmp_path, tensors, said):
    model = RadialModel(load_encoder(shelf["bert"]), RootSettings(kind="fixed", count=2))
    model.save(tmp_path)
    (tmp_path / "roots.safetensors").unlink()
    if tensors is not None:
        save_file(tensors, tmp_path / "roots.safetensors")
    with pytest.raises(InputError, match=said):
        RadialModel.load(str(tmp_path))


@pytest.mark.parametrize("modules", [{}, [{"type": "x"}], [{"type": "x", "path": "../up"}], [3]])
def test_modules_that_are_none(tmp_path, modules):
    folder = save_sentence_transformer(tmp_path / "st")
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match=r"modules.json lists no modules"):
        load_encoder(str(folder))
