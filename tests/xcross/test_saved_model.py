"""Saving, loading and asking an X-Cross model, and what is refused."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from geodapt.adapters import AdapterBank
from geodapt.errors import InputError
from geodapt.models import load_base
from geodapt.xcross.model import XCross
from tests.xcross.conftest import Shelf
from tests.xcross.small import batch

HISTORY = ["item number 1", "item number 2"]
CANDIDATES = ["item number 3 is good", "item number 4 is bad", "item number 5"]


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{}, {"layers": [1]}, {"dynamic": False}], ids=str)
@torch.no_grad()
def test_a_saved_model_gives_the_same_scores(shelf, changed):
    model = shelf.model(**changed)
    model.save_pretrained(shelf.folder / "model")
    assert sorted(path.name for path in (shelf.folder / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "sources",
    ]
    loaded = XCross.from_pretrained(shelf.folder / "model")
    assert not loaded.training
    places = {"sources": {"__all__": {"path"}}}
    assert loaded.settings.model_dump(exclude=places) == model.settings.model_dump(exclude=places)
    assert torch.equal(loaded(**batch()).logits, model(**batch()).logits)
    assert loaded.rank(HISTORY, CANDIDATES) == model.rank(HISTORY, CANDIDATES)


def test_the_folder_may_move_alone(shelf):
    model = shelf.model()
    model.save_pretrained(shelf.folder / "model")
    moved = shelf.folder / "elsewhere" / "model"
    shutil.copytree(shelf.folder / "model", moved)
    shutil.rmtree(shelf.folder / "model")
    shutil.rmtree(shelf.folder / "adapters")
    loaded = XCross.from_pretrained(moved)
    assert loaded.rank(HISTORY, CANDIDATES) == model.rank(HISTORY, CANDIDATES)


def test_it_shares_a_base_that_is_in_memory(shelf):
    model = shelf.model()
    model.save_pretrained(shelf.folder / "model")
    base, words = load_base(str(shelf.folder / "base"))
    bank = AdapterBank(base)
    one, other = (
        XCross.from_pretrained(shelf.folder / "model", base=base, tokenizer=words, bank=bank)
        for _ in range(2)
    )
    assert one.encoder.base is other.encoder.base is base
    assert one.rank(HISTORY, CANDIDATES) == model.rank(HISTORY, CANDIDATES)
    assert other.rank(HISTORY, CANDIDATES) == model.rank(HISTORY, CANDIDATES)


def test_a_bank_brings_its_base(shelf):
    model = shelf.model()
    model.save_pretrained(shelf.folder / "model")
    wanted = model.rank(HISTORY, CANDIDATES)
    base, words = load_base(str(shelf.folder / "base"))
    bank = AdapterBank(base)
    for more in ({}, {"base": base}, {"tokenizer": words}):
        loaded = XCross.from_pretrained(shelf.folder / "model", bank=bank, **more)
        assert loaded.encoder.base is base
        assert loaded.rank(HISTORY, CANDIDATES) == wanted
    assert loaded.tokenizer is words
    other, _ = load_base(str(shelf.folder / "base"))
    with pytest.raises(InputError, match="the bank is on another BertModel than the base"):
        XCross.from_pretrained(shelf.folder / "model", base=other, bank=bank)


def test_a_decoder_saves_and_loads_too(tmp_path):
    shelf = Shelf(tmp_path)
    shelf.save_base("llama")
    shelf.save_adapters("llama")
    model = shelf.model()
    model.save_pretrained(tmp_path / "model")
    loaded = XCross.from_pretrained(tmp_path / "model")
    scores = loaded.rank(HISTORY, CANDIDATES)
    assert scores == model.rank(HISTORY, CANDIDATES)
    for score, candidate in zip(scores, CANDIDATES, strict=True):  # alone, nothing is shared
        assert loaded.rank(HISTORY, [candidate]) == pytest.approx([score], abs=1e-5)


# Asking


def test_rank_scores_each_candidate_by_itself(shelf):
    model = shelf.model()
    scores = model.rank(HISTORY, CANDIDATES)
    assert len(set(scores)) == 3
    backwards = model.rank(HISTORY, CANDIDATES[::-1])
    assert backwards == pytest.approx(scores[::-1], abs=1e-5)
    assert model.rank(HISTORY[::-1], CANDIDATES) != pytest.approx(scores, abs=1e-5)
    assert len(model.rank([], CANDIDATES)) == 3
    assert len(model.rank(HISTORY * 50, CANDIDATES)) == 3


def test_classify_names_a_label_of_each_text(shelf):
    model = shelf.model(task="classification", labels=["calm", "glad", "sad"])
    texts = [f"item number {number} is good" for number in range(12)]
    found = model.classify(texts)
    assert len(found) == 12
    assert set(found) <= {"calm", "glad", "sad"}
    assert found == [model.classify([text])[0] for text in texts]
    with pytest.raises(InputError, match="classifies texts; call classify"):
        model.rank(HISTORY, CANDIDATES)


def test_asking_the_wrong_thing_is_named(shelf):
    model = shelf.model()
    with pytest.raises(InputError, match="ranks candidates; call rank"):
        model.classify(["a text"])
    with pytest.raises(InputError, match="at least one candidate"):
        model.rank(HISTORY, [])
    with pytest.raises(InputError, match="a list of texts"):
        model.rank("item number 1", CANDIDATES)
    with pytest.raises(InputError, match="a list of texts"):
        shelf.model(task="classification", labels=["calm", "glad"]).classify("a text")


# Refusals


@pytest.fixture
def saved(shelf):
    shelf.model().save_pretrained(shelf.folder / "model")
    return shelf


def refusal(saved: Shelf) -> str:
    with pytest.raises(InputError) as error:
        XCross.from_pretrained(saved.folder / "model")
    return str(error.value)


def test_another_base_under_the_same_name(saved):
    saved.save_base(name="changed")
    shutil.rmtree(saved.folder / "base")
    (saved.folder / "changed").rename(saved.folder / "base")
    message = refusal(saved)
    assert "trained on a base with fingerprint" in message
    assert "its weights are others now" in message


def test_a_changed_adapter(saved):
    path = saved.folder / "model" / "sources" / "books" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    tensors[name][0, 0] += 1
    save_file(tensors, path, {"format": "pt"})
    assert "source adapter 'books' at sources/books has hash" in refusal(saved)


def test_a_missing_adapter(saved):
    shutil.rmtree(saved.folder / "model" / "sources" / "tools")
    message = refusal(saved)
    assert f"looked for at {saved.folder / 'model' / 'sources' / 'tools'}" in message


def test_a_card_tells_base_task_and_sources(saved):
    card = (saved.folder / "model" / "README.md").read_text()
    assert "XCross.from_pretrained" in card
    assert "| books |" in card
    assert "ranking" in card


def test_a_missing_base(saved):
    shutil.rmtree(saved.folder / "base")
    assert f"base '{saved.folder / 'base'}' does not exist" in refusal(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file(saved, name):
    (saved.folder / "model" / name).unlink()
    assert f"{saved.folder / 'model' / name} does not exist" in refusal(saved)


def test_a_missing_folder(saved):
    shutil.rmtree(saved.folder / "model")
    assert f"model '{saved.folder / 'model'}' is not a folder" in refusal(saved)
    with pytest.raises(InputError, match="neither a folder nor a hub name that is reachable"):
        XCross.from_pretrained("nobody/nothing")


def test_a_pickle_in_place_of_safetensors(saved):
    (saved.folder / "model" / "model.safetensors").unlink()
    torch.save({"weights": torch.zeros(3)}, saved.folder / "model" / "pytorch_model.bin")
    assert "pickle" in refusal(saved)


def test_a_pickle_named_safetensors(saved):
    torch.save({"weights": torch.zeros(3)}, saved.folder / "model" / "model.safetensors")
    assert "model.safetensors is not a readable safetensors file" in refusal(saved)


def test_corrupt_safetensors(saved):
    path = saved.folder / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    assert "model.safetensors is not a readable safetensors file" in refusal(saved)


def test_nan_weights(saved):
    path = saved.folder / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["weights"][0] = float("nan")
    save_file(tensors, path)
    assert "tensor 'weights' holds NaN" in refusal(saved)


@pytest.mark.parametrize(
    ("key", "value"), [("head_width", 5), ("outputs", 4), ("integrator", {"terms": "direct"})]
)
def test_a_config_that_does_not_fit_the_weights(saved, key, value):
    path = saved.folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    message = refusal(saved)
    assert "model.safetensors does not fit" in message
    assert re.search(r"[\w.]+ has shape \(\d+.*\), expected \(\d+", message)


def test_a_config_with_an_unknown_key(saved):
    path = saved.folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "heads": 5}))
    message = refusal(saved)
    assert str(path) in message
    assert "heads" in message


def test_a_config_that_is_not_json(saved):
    (saved.folder / "model" / "config.json").write_text("{")
    assert "config.json is not valid JSON" in refusal(saved)
