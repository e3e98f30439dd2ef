"""Whole runs through the command line: tiny encoders, every method, images, queries, and errors."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import yaml

from geodapt.radial import RadialModel
from geodapt.recipes.catalog import packaged
from geodapt.recipes.loading import load_recipe
from tests.commands import call
from tests.radial.small import (
    CHAINS,
    save_bert,
    save_chains,
    save_dual,
    save_images,
)

pytestmark = pytest.mark.slow

RECIPE = {
    "recipe": "radial",
    "title": "Tiny chains",
    "base": "bert",
    "data": {"kind": "chains", "path": "chains.jsonl"},
    "training": {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "tensorboard": False},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("radial")
    save_bert(folder / "bert")
    save_dual(folder / "clip", "clip")
    save_chains(folder / "chains.jsonl")
    save_images(folder / "images")
    lines = ["specific,general,score", "bird,animal,6", "animal,bird,2", "car,animal,0"]
    (folder / "words.csv").write_text("\n".join(lines) + "\n")
    tree = [("animal", "bird"), ("animal", "dog"), ("vehicle", "car"), ("vehicle", "boat")]
    leaves = [(b, f"{colour} {b}") for _, b in tree for colour in ("red", "green", "blue", "grey")]
    (folder / "tree.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in tree + leaves))
    return folder


@pytest.fixture(scope="module")
def geodapt(world):
    """``geodapt(*arguments)``: the command line in this process, in the world's folder."""
    return partial(call, world)


def write(world, **changed) -> str:
    (world / "tiny.yaml").write_text(yaml.safe_dump(RECIPE | changed))
    return "tiny.yaml"


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def ran(world, geodapt) -> Path:
    recipe = write(world, methods=["radial", "cone", "roots"], lexical="words.csv", several_roots=2)
    done = geodapt("run", recipe, "--out", "ran")
    assert done.code == 0, done.err
    assert "Entailment cone" in done.out
    return world / "ran"


FIGURES = {"tau_d", "precision", "recall", "lexical_entailment"}


def test_a_run_leaves_what_it_should(ran):
    found = results(ran)
    methods = [row["method"] for row in found["rows"]]
    assert methods == ["untuned", "radial", "cone", "roots"]
    for row in found["rows"]:
        assert {*FIGURES, "seconds", "peak_memory_mb", "trainable_parameters"} <= row.keys()
        assert -1 <= row["tau_d"] <= 1
        assert 0 <= row["precision"] <= 1
        assert 0 <= row["recall"] <= 1
    assert found["before"] == {key: found["rows"][0][key] for key in found["before"]}
    assert found["after"] == {key: found["rows"][1][key] for key in found["after"]}
    assert set(found["before"]) == FIGURES
    trained = {row["method"]: row["trainable_parameters"] for row in found["rows"]}
    assert trained["untuned"] == 0
    assert trained["radial"] == trained["cone"] == trained["roots"] - 2 * 32
    assert set(found["pictures"]) == {
        *("Untuned", "Radial embeddings", "Entailment cone", "Radial, several roots")
    }
    for name in ("model", "models/cone", "models/roots"):
        assert (ran / name / "model.safetensors").is_file()
    page = (ran / "report.html").read_text()
    assert "Around the root" in page
    assert all(text in page for text in found["pictures"]["Untuned"]["texts"])


def test_the_model_it_leaves_is_the_one_that_was_measured(ran, world):
    found = results(ran)
    model = RadialModel.load(str(ran / "models" / "roots"))
    assert len(model.root_points()) == 2
    recipe = load_recipe(str(ran / "config.yaml")).recipe
    from geodapt.data.loading import load_hierarchy
    from geodapt.radial.evaluation import Measurer

    recipe.data.path = str(world / recipe.data.path)
    figures = Measurer(model, load_hierarchy(recipe.data)).figures()
    wanted = found["rows"][3]
    assert figures == pytest.approx({key: wanted[key] for key in figures}, abs=1e-6)


def test_a_run_repeats_itself(ran, world, geodapt):
    done = geodapt("run", "ran/config.yaml", "--out", "again")
    assert done.code == 0, done.err
    for one, two in zip(results(ran)["rows"], results(world / "again")["rows"], strict=True):
        assert {key: one[key] for key in FIGURES} == {key: two[key] for key in FIGURES}


def test_a_run_that_was_cut_short_goes_on(ran, world, geodapt):
    shutil.copytree(ran, world / "cut")
    (world / "cut" / "results.json").unlink()
    (world / "cut" / "stages" / "method-cone.json").unlink()
    done = geodapt("run", "ran/config.yaml", "--out", "cut", "--resume")
    assert done.code == 0, done.err
    for one, two in zip(results(ran)["rows"], results(world / "cut")["rows"], strict=True):
        assert {key: one[key] for key in FIGURES} == {key: two[key] for key in FIGURES}


def test_an_adapter_on_a_clip_with_images(world, geodapt):
    (world / "images" / "blue_dog.png").write_bytes(b"torn")
    recipe = write(world, base="clip", images="images", tune="lora", lora={"rank": 2})
    test = [row for row in CHAINS if "dog" in row["image_url"] or "boat" in row["image_url"]]
    (world / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test))
    done = geodapt("run", recipe, "data.test_path=test.jsonl", "--out", "clip-run")
    assert done.code == 0, done.err
    found = results(world / "clip-run")
    plain = {f"{side}recall_at_{k}" for side in ("", "text_") for k in (1, 5)}
    assert {"tau_d", "precision", "recall"} | plain == set(found["after"])
    assert found["notes"] == [
        "1 images skipped, such as http://images/blue_dog.png: picture 'images/blue_dog.png' "
        "is no image that Pillow can read"
    ]
    assert (world / "clip-run" / "model" / "adapter" / "adapter_model.safetensors").is_file()
    model = RadialModel.load(str(world / "clip-run" / "model"))
    assert model.bank is not None


def test_a_tree(world, geodapt):
    recipe = write(world, data={"kind": "edges", "path": "tree.tsv"})
    done = geodapt("run", recipe, "--out", "tree")
    assert done.code == 0, done.err
    assert {"class_recall_at_1", "class_recall_at_5"} <= results(world / "tree")["after"].keys()


def test_measuring_alone(ran, world, geodapt):
    recipe = write(world, methods=[], lexical="words.csv")
    done = geodapt("run", recipe, "--out", "measured")
    assert done.code == 0, done.err
    found = results(world / "measured")
    assert found["before"] == found["after"] == results(ran)["before"]
    assert [row["method"] for row in found["rows"]] == ["untuned"]
    assert not (world / "measured" / "model").exists()


# --- queries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["candidates", "data"])
def test_queries(ran, world, geodapt, source):
    texts = sorted({text for row in CHAINS for text in row["texts"]})
    (world / "words.txt").write_text("\n".join(texts) + "\n")
    asked = {"queries": ["a red bird", "boat"], "recipe": "radial-query", "model": "ran/model"}
    asked |= {"candidates": "words.txt"} if source == "candidates" else {"data": RECIPE["data"]}
    (world / "query.yaml").write_text(yaml.safe_dump(asked))
    done = geodapt("run", "query.yaml", "--out", f"query-{source}")
    assert done.code == 0, done.err
    found = results(world / f"query-{source}")
    model = RadialModel.load(str(ran / "model"))
    for told in found["chains"]:
        (wanted,) = model.retrieve([told["query"]], model.index(texts))
        assert [step["text"] for step in told["steps"]] == [step.text for step in wanted]
        assert told["steps"][-1]["text"] in done.out
    page = (world / f"query-{source}" / "report.html").read_text()
    assert "From general to specific" in page


def test_an_image_as_a_query(world, geodapt):
    (world / "query.yaml").write_text(
        yaml.safe_dump(
            {
                "recipe": "radial-query",
                "model": "clip",
                "queries": ["images/red_car.png", "a car"],
                "data": RECIPE["data"],
            }
        )
    )
    done = geodapt("run", "query.yaml", "--out", "query-image")
    assert done.code == 0, done.err
    told = results(world / "query-image")["chains"]
    assert [chain["query"] for chain in told] == ["images/red_car.png", "a car"]
    assert all(chain["steps"] for chain in told)


# --- what can be wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("methods=[magic]", "method 'magic' is unknown; there are radial, cone, roots"),
        ("base=./nowhere", "does not exist"),
        ("data.path=nowhere.csv", "nowhere.csv' does not exist"),
        ("lexical=nowhere.txt", "nowhere.txt' does not exist"),
        ("base=clip images=nowhere", "images 'nowhere' does not exist"),
        ("base=clip images=bert", "has none of the data's images, such as"),
        ("images=images", "embeds texts only"),
        ("root.count=2", "set kind to learned or fixed"),
        ("loss.weight=0", "greater than 0"),
        ("lora.rank=0", "lora.rank"),
        ("tune=lora lora.targets=[nothing]", "match no linear layer of the text side"),
        ("data.max_test=0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_recipe_is_one_error_that_leaves_nothing(world, geodapt, override, said):
    recipe = write(world)
    before = sorted(world.rglob("*"))
    done = geodapt("run", recipe, *override.split(), "--out", "refused")
    assert done.code == 2, done.out + done.err
    assert done.err.count("error: ") == 1
    assert "Traceback" not in done.err
    assert said in done.err
    assert sorted(world.rglob("*")) == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"queries": ["images/none.png"]}, "image 'images/none.png' does not exist"),
        ({"queries": [" "]}, "query 1 is empty"),
        ({"data": None}, "give candidates (a file, one text per line) or data"),
        ({"candidates": "images"}, "and not both"),
        ({"candidates": "images", "data": None}, "is a folder"),
        ({"queries": ["images/red_car.png"], "model": "bert"}, "embeds texts only"),
    ],
)
def test_wrong_queries(world, geodapt, changed, said):
    asked = {"recipe": "radial-query", "model": "bert", "queries": ["a"], "data": RECIPE["data"]}
    (world / "bad.yaml").write_text(yaml.safe_dump(asked | changed))
    done = geodapt("run", "bad.yaml", "--out", "refused")
    assert done.code == 2, done.out + done.err
    assert said in " ".join(done.err.split())
    assert not (world / "refused").exists()


def test_the_recipes_that_come_with_it_are_valid():
    names = [name for name, entry in packaged().items() if entry.system.startswith("radial")]
    assert {"radial-text", "radial-hierarcaps", "radial-clip", "radial-query"} <= set(names)
    for name in names:
        assert load_recipe(name).recipe.title


def test_curvature_is_chosen_before_tuning_and_named(world, geodapt):
    """Every row is measured in the space that was chosen, the untuned one too."""
    recipe = write(world, curvature="auto", lexical="words.csv", training={"steps": 2})
    done = geodapt("run", recipe, "--out", "auto")
    assert done.code == 0, done.err
    found = results(world / "auto")
    chosen = found["curvature"]
    losses = dict(chosen["tried"])
    assert chosen["c"] > 0
    assert losses[chosen["c"]] == min(losses.values())
    assert any("Angles are measured at curvature" in note for note in found["notes"])
    flat = geodapt("run", write(world, lexical="words.csv", training={"steps": 2}), "--out", "flat")
    assert flat.code == 0, flat.err
    before = [results(world / name)["before"]["tau_d"] for name in ("auto", "flat")]
    assert before[0] == before[1]  # radii do not depend on it
