"""What can be wrong with an X-Cross recipe: one clear error, status 2, nothing half-written."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import ResNetConfig, ResNetModel

from geodapt.xcross.model import XCross
from tests.xcross.conftest import Shelf
from tests.xcross.small import tokenizer
from tests.xcross.worlds import recipe, training


@pytest.fixture(scope="module")
def adapters(world) -> dict[str, str]:
    """Sound adapters for both of the ratings' sources."""
    Shelf(world).save_adapters(names=("toys", "books"))
    return {"comedy": "adapters/toys", "drama": "adapters/books"}


@pytest.fixture
def refused(world, geodapt):
    """``refused(**changed)``: the one error of a run over ratings that leaves nothing behind."""

    def call(*overrides: str, kind: str = "ratings", **changed) -> str:
        recipe(world, kind, **changed)
        before = sorted(world.rglob("*"))
        done = geodapt("run", f"{kind}.yaml", *overrides, "--out", "refused")
        left = sorted(world.rglob("*"))
        shutil.rmtree(world / "refused", ignore_errors=True)
        assert done.code == 2, done.out + done.err
        assert done.err.count("error: ") == 1
        assert done.err.startswith("error: ")
        assert "Traceback" not in done.err
        assert not done.out
        assert left == before
        return done.err

    return call


def edited(world: Path, name: str, **tensors) -> str:
    """A copy of an adapter with some tensors changed."""
    shutil.copytree(world / "adapters" / "toys", world / name, dirs_exist_ok=True)
    path = world / name / "adapter_model.safetensors"
    held = load_file(path)
    for key, change in tensors.items():
        held = {k: change(v) if key in k else v for k, v in held.items()}
    save_file(held, path, {"format": "pt"})
    return name


# The base


def test_a_base_that_is_not_there(refused):
    assert "base './nowhere' does not exist" in refused("base=./nowhere")


def test_a_base_without_blocks(refused, world):
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
    ResNetModel(config).save_pretrained(world / "resnet")
    tokenizer(["a word"]).save_pretrained(world / "resnet")
    message = refused("base=resnet")
    assert "base 'resnet'" in message or "base ResNetModel" in message
    assert "has no list of transformer blocks" in message


def test_a_base_that_is_a_pickle(refused, world):
    shutil.copytree(world / "base", world / "pickled", dirs_exist_ok=True)
    (world / "pickled" / "model.safetensors").unlink(missing_ok=True)
    torch.save({"weights": torch.zeros(3)}, world / "pickled" / "pytorch_model.bin")
    message = refused("base=pickled")
    assert "base 'pickled' has its weights in pytorch_model.bin, a pickle" in message


def test_a_base_that_is_cut_short(refused, world):
    shutil.copytree(world / "base", world / "short", dirs_exist_ok=True)
    path = world / "short" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "base 'short' could not be loaded" in refused("base=short")


# The adapters


def test_an_adapter_that_is_not_there(refused, adapters):
    message = refused(adapters={**adapters, "drama": "./nowhere"})
    assert "adapter './nowhere' is not a folder" in message


def test_an_adapter_of_another_width(refused, world, adapters):
    wide = edited(world, "wide", lora_A=lambda A: torch.cat([A, A], 1).contiguous())
    message = refused(adapters={**adapters, "drama": wide})
    assert "adapter 'drama' targets" in message
    assert "with in_features 64, the base has 32" in message
    assert "was it trained on another model?" in message


def test_an_adapter_of_another_base(refused, world, adapters):
    other = Shelf(world).save_base(name="other")
    try:
        message = refused("base=other", adapters=adapters)
    finally:
        shutil.rmtree(other)
    assert "adapter 'comedy' was trained on '" in message
    assert "whose weights differ from this base's" in message


def test_an_adapter_that_is_a_pickle(refused, world, adapters):
    shutil.copytree(world / "adapters" / "toys", world / "pickle", dirs_exist_ok=True)
    (world / "pickle" / "adapter_model.safetensors").unlink(missing_ok=True)
    torch.save({}, world / "pickle" / "adapter_model.bin")
    message = refused(adapters={**adapters, "drama": "pickle"})
    assert "adapter_model.bin is a pickle" in message


def test_an_adapter_that_is_corrupt(refused, world, adapters):
    edited(world, "corrupt")
    path = world / "corrupt" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    message = refused(adapters={**adapters, "drama": "corrupt"})
    assert "adapter_model.safetensors is not a readable safetensors file" in message


def test_an_adapter_with_nan(refused, world, adapters):
    bad = edited(world, "bad", lora_B=lambda B: B * float("nan"))
    assert "holds NaN or infinite values" in refused(adapters={**adapters, "drama": bad})


# The recipe


def test_an_unknown_key(refused):
    message = refused("training.stepps=5")
    assert "training.stepps=5" in message
    assert "did you mean 'steps'?" in message


def test_an_unknown_key_in_the_file_has_its_line(refused, world):
    message = refused(integrator={"betta": 1.0})
    line = (world / "ratings.yaml").read_text().splitlines().index("  betta: 1.0") + 1
    assert f"ratings.yaml:{line}: unknown key 'betta' in 'integrator'" in message
    assert "did you mean 'beta'?" in message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["methods=[xcros]"], "method 'xcros' is unknown; there are base, sources"),
        (["target=comedy"], "target 'comedy' is one of the sources"),
        (["sources=[comedy]"], "sources"),
        (["sources=[comedy, comedy]"], "given more than once"),
        (["adapters={war: somewhere}"], "are not among the sources"),
        (["curve={methods: [mix]}"], "method 'mix' does not train"),
        (["target=horror"], "domain 'horror' is no genre group"),
        (["lora.targets=[nothing]"], "match no linear layer of BertModel; it has"),
        (["integrator.layers=[0, 7]"], "[7] are not among the base's 2 blocks"),
        (["training.learning_rate=-1"], "greater than 0"),
        (["prompt.max_tokens=200"], "base 'base' has 128 positions"),
    ],
    ids=str,
)
def test_values_that_cannot_be(refused, overrides, words):
    assert words in refused(*overrides)


def test_an_unknown_recipe(geodapt):
    done = geodapt("run", "dmo")
    assert done.code == 2
    assert "there is no recipe 'dmo'; did you mean 'demo'?" in done.err


# The data


def test_data_that_is_not_there(refused):
    assert "does not exist" in refused("data.path=nothing.csv", kind="reviews")


def test_empty_data(refused, world):
    (world / "empty.csv").write_text("text,label,domain\n")
    message = refused("data.path=empty.csv", kind="reviews")
    assert "empty.csv is empty: it has no rows under its header" in message


def test_too_few_items_for_the_negatives(refused):
    message = refused("data.negatives=29")
    assert "domain 'comedy' has 14 items, too few for 29 negatives" in message
    assert "set negatives lower" in message


# While it runs


def test_nan_loss_stops_and_says_where(world, geodapt):
    recipe(world, "reviews")
    done = geodapt("run", "reviews.yaml", "source_training.learning_rate=1e30", "--out", "nan")
    assert done.code == 2
    assert "Traceback" not in done.err
    assert "error: source-books: the loss became nan at step" in done.err
    assert "lower the learning rate (now 1e+30)" in done.err
    out = world / "nan"
    assert not (out / "results.json").exists()
    assert not list(out.glob("adapters/*"))
    assert not [path for path in out.rglob("*") if "unfinished" in path.name]
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["source_training"]["learning_rate"] == 1e30


@pytest.mark.slow
def test_domains_called_like_paths_stay_in_the_runs_folder(world, geodapt):
    victim = world / "victim"
    victim.mkdir()
    (victim / "thesis.txt").write_text("years of work")
    names = {"books": str(victim), "toys": "../../victim", "tools": ".."}
    text = (world / "reviews.csv").read_text()
    for old, new in names.items():
        text = text.replace(f",{old}\n", f",{new}\n")
    (world / "paths.csv").write_text(text)
    recipe(
        world,
        "reviews",
        data={"kind": "classification", "path": "paths.csv"},
        sources=[names["books"], names["toys"]],
        target=names["tools"],
        methods=["sources", "lora", "xcross"],
        **{key: training(1) for key in ("source_training", "lora_training", "training")},
    )
    before = {path for path in world.rglob("*") if path.is_file()}
    done = geodapt("run", "reviews.yaml", "--out", "runs/paths")
    assert done.code == 0, done.err
    out = world / "runs" / "paths"
    new = {path for path in world.rglob("*") if path.is_file()} - before
    assert all(path.is_relative_to(out) for path in new)
    assert (victim / "thesis.txt").read_text() == "years of work"
    assert len(list((out / "adapters").iterdir())) == 3
    XCross.from_pretrained(out / "model")


@pytest.mark.parametrize("key", ["sources=[toys, x]", "target=x"])
@pytest.mark.parametrize("name", ["''", "' '", '"a\\0b"', "a" * 151, '"a\\nb"', '"\\e]0;b"'])
def test_what_cannot_be_a_domains_name(refused, key, name):
    assert "name" in refused(key.replace("x", name), kind="reviews")


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"methods": ["base", "base"]}, "methods: ['base'] given more than once"),
        ({"curve": {"fractions": [0.5, 0.5]}}, "curve.fractions: [0.5] given more"),
        ({"curve": {"methods": ["lora", "lora"]}}, "curve.methods: ['lora'] given more"),
        ({"sources": ["toys", "Toys"]}, "differ only in capitals"),
        ({"sources": ["toys", "toys"]}, "sources: ['toys'] given more"),
    ],
)
def test_what_stands_there_twice(refused, changed, word):
    assert word in refused(kind="reviews", **changed)
