"""`geodapt run` of X-Cross recipes: what they leave, kills, stops, several processes."""

import json
import signal
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from geodapt.data import ClassificationSettings, MovieLensSettings, load_domains
from geodapt.training import predict
from geodapt.xcross import method_trainer
from geodapt.xcross.methods import METHODS
from geodapt.xcross.model import XCross
from geodapt.xcross.prompts import PromptCollator
from geodapt.xcross.tasks import make_task
from tests.forked import fork
from tests.held import held, wait_until_held
from tests.xcross.worlds import recipe, training

pytestmark = pytest.mark.slow

MEASURED = {"seconds", "peak_memory_mb"}
FIGURES = {"hit_at_1", "hit_at_3", "hit_at_5", "hit_at_10", "mrr", "ndcg_at_10"}


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def rows(folder: Path, key: str = "rows") -> list[dict]:
    """A run's rows without what no two runs share."""
    return [{k: v for k, v in row.items() if k not in MEASURED} for row in results(folder)[key]]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor that a run saved, by file and name."""
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same(one: Path, other: Path) -> None:
    assert rows(one) == rows(other)
    assert rows(one, "curve") == rows(other, "curve")
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def ranked(world, geodapt) -> Path:
    """A finished run over ratings, with every kind of baseline and a curve."""
    recipe(
        world,
        "ratings",
        methods=["base", "sources", "mix", "svd", "ties", "atoms", "head", "lora", "xcross"],
        training=training(20, evaluate_every=5),
        curve={"fractions": [0.5], "methods": ["lora", "xcross"]},
    )
    done = geodapt("run", "ratings.yaml", "--out", "ranked")
    assert done.code == 0, done.err
    assert "X-Cross" in done.out
    assert done.out.splitlines()[-1] == "ranked/report.html"
    return world / "ranked"


def test_a_ranking_run_leaves_what_it_should(ranked):
    found = results(ranked)
    methods = [row["method"] for row in found["rows"]]
    assert methods == [
        *("base", "source:comedy", "source:drama", "mix", "svd", "ties", "atoms"),
        *("head", "lora", "xcross"),
    ]
    for row in found["rows"]:
        assert {"label", "trainable_parameters", *MEASURED, *FIGURES} <= row.keys()
        assert row["seconds"] > 0
        assert row["peak_memory_mb"] > 100
        assert all(0 <= row[name] <= 1 for name in FIGURES)
        assert row["hit_at_1"] <= row["hit_at_3"] <= row["hit_at_5"] <= row["hit_at_10"]
    trained = {row["method"]: row["trainable_parameters"] for row in found["rows"]}
    head = 32 * 16 + 16 + 16 + 1
    layers, pairs = 2, 2 * 1
    assert trained["base"] == trained["mix"] == trained["svd"] == trained["atoms"] == 0
    assert trained["head"] == head
    assert trained["xcross"] == head + layers * (2 * pairs) * (2 * 32) + 2
    assert trained["lora"] == head + layers * 2 * (4 * (32 + 32) + 2 * (32 + 48))
    curve = [(point["method"], point["fraction"]) for point in found["curve"]]
    assert curve == [("lora", 0.5), ("xcross", 0.5), ("lora", 1.0), ("xcross", 1.0)]
    assert found["task"] == "ranking"
    assert found["data"]["candidates"] == 8
    assert found["seed"] == 0
    assert found["seconds"] >= sum(row["seconds"] for row in found["rows"]) - 0.1
    for name in ("geodapt", "torch", "transformers", "peft"):
        assert found["versions"][name]


def test_its_folder_is_complete_and_nothing_more(ranked):
    names = {path.name for path in ranked.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "results.json", "model", "adapters"} <= names
    assert "work" not in names
    assert not [path for path in ranked.rglob("*") if "unfinished" in path.name]
    page = (ranked / "report.html").read_text()
    assert "X-Cross" in page
    assert "Comedy" in page  # a history
    lines = [json.loads(line) for line in (ranked / "metrics.jsonl").read_text().splitlines()]
    stages = {line["stage"] for line in lines}
    assert {"source-comedy", "source-drama", "method-lora", "method-xcross"} <= stages
    assert [
        line["step"]
        for line in lines
        if line["stage"] == "method-xcross" and "validation_hit_at_1" in line
    ] == [5, 10, 15, 20]
    assert list((ranked / "tensorboard" / "method-xcross").glob("events*"))


def test_it_explains_predictions(ranked):
    found = results(ranked)
    told = found["contributions"]
    assert told["streams"] == ["comedy", "drama"]
    assert told["layers"] == [0, 1]
    for kind in ("direct", "interaction"):
        strength = torch.tensor(told[kind])
        assert strength.shape == (2, 2, 2)
        assert (strength >= 0).all()
        assert strength[:, 0, 0].abs().max() == strength[:, 1, 1].abs().max() == 0
        assert strength[0].max() > 0
    assert len(found["examples"]) == 2
    for example in found["examples"]:
        assert all("(19" in name for name in example["history"])
        scores = [candidate["score"] for candidate in example["candidates"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(candidate["is_target"] for candidate in example["candidates"]) == 1


def test_its_model_reloads_and_gives_the_same_figures(ranked, world):
    model = XCross.from_pretrained(ranked / "model")
    config = yaml.safe_load((ranked / "config.yaml").read_text())
    settings = MovieLensSettings(**config["data"] | {"path": world / "ratings"})
    settings.domains = ["war"]
    task = make_task(load_domains(settings)["war"], model.tokenizer, model.settings.prompt, 4)
    logits = predict(
        model, task.rows("test"), collate=PromptCollator(model.tokenizer), work=world / "unused"
    )
    row = next(row for row in rows(ranked) if row["method"] == "xcross")
    found = task.metrics(logits)
    assert found == {name: pytest.approx(row[name], abs=1e-6) for name in found}
    example = results(ranked)["examples"][0]
    names = task.domain.items["name"]
    texts = [task.domain.items["text"][names.index(c["name"])] for c in example["candidates"]]
    scores = model.rank(example["history"], texts)
    wanted = [candidate["score"] for candidate in example["candidates"]]
    assert scores == pytest.approx(wanted, abs=1e-4)


def test_validation_curves_change_no_figure(ranked, world, geodapt, monkeypatch):
    """Where the last weights are kept, some validation rows are measured and decide nothing."""
    monkeypatch.setattr(method_trainer, "CURVE_ROWS", 3)
    given = {name: f"ranked/adapters/{name}" for name in ("comedy", "drama")}
    curve = {"fractions": [0.5], "methods": ["lora"]}
    recipe(world, "ratings", adapters=given, methods=["lora", "xcross"], curve=curve)
    for name, every in (("watched", "4"), ("unwatched", "null")):
        overrides = [
            f"{part}.{key}"
            for part in ("training", "lora_training")
            for key in ("steps=8", "keep_best=false", f"evaluate_every={every}")
        ]
        done = geodapt("run", "ratings.yaml", *overrides, "--out", name)
        assert done.code == 0, done.err
    assert rows(world / "watched") == rows(world / "unwatched")
    assert rows(world / "watched", "curve") == rows(world / "unwatched", "curve")
    lines = [json.loads(line) for line in (world / "watched/metrics.jsonl").open()]
    stages = {line["stage"] for line in lines if "validation_hit_at_1" in line}
    assert stages == {"method-lora", "method-xcross"}
    page = (world / "watched" / "report.html").read_text()
    assert "dashed: on the validation rows" in page


def test_adapters_of_a_run_serve_another(ranked, world, geodapt):
    given = {name: f"ranked/adapters/{name}" for name in ("comedy", "drama")}
    recipe(world, "ratings", adapters=given, methods=["mix", "xcross"])
    done = geodapt(
        "run", "ratings.yaml", "training.evaluate_every=5", "training.steps=20", "--out", "given"
    )
    assert done.code == 0, done.err
    wanted = [row for row in rows(ranked) if row["method"] in ("mix", "xcross")]
    assert rows(world / "given") == wanted
    assert not list((world / "given").glob("adapters/*"))
    loaded = XCross.from_pretrained(world / "given" / "model")
    assert loaded.settings.sources[0].name == "comedy"


def test_a_classification_run_of_every_method(world, geodapt):
    recipe(world, "reviews", methods=list(METHODS), training=training(25))
    done = geodapt("run", "reviews.yaml", "--out", "classified")
    assert done.code == 0, done.err
    out = world / "classified"
    found = results(out)
    assert found["task"] == "classification"
    assert len(found["rows"]) == len(METHODS) + 1  # sources are two
    figures = {row["method"]: row for row in found["rows"]}
    assert all(0 <= row["accuracy"] <= 1 for row in found["rows"])
    trained = {name: row["trainable_parameters"] for name, row in figures.items()}
    assert trained["xcross-static"] < trained["xcross-direct"] < trained["xcross"]
    assert trained["xcross-direct"] == trained["xcross-interaction"]
    assert trained["xcross-uniform"] == trained["xcross"] - 2
    assert trained["xcross-none"] == trained["head"] + 2
    assert (out / "report.html").is_file()

    model = XCross.from_pretrained(out / "model")
    settings = ClassificationSettings(path=str(world / "reviews.csv"))
    test = load_domains(settings)["tools"].splits["test"]
    said = model.classify(test["text"])
    names = test.features["label"].names
    right = sum(a == names[b] for a, b in zip(said, test["label"], strict=True)) / len(said)
    assert right == pytest.approx(figures["xcross"]["accuracy"])


# Ends of all kinds

LONG = training(60, save_every=20, log_every=10)


@pytest.fixture(scope="module")
def calm(world, geodapt) -> Path:
    """An undisturbed run whose trainings take a while."""
    recipe(
        world,
        "ratings",
        methods=["lora", "xcross"],
        training=LONG,
        lora_training={**LONG, "evaluate_every": 10, "patience": 5},
        source_training=training(30, save_every=10, log_every=10),
    ).rename(world / "long.yaml")
    done = geodapt("run", "long.yaml", "--out", "calm")
    assert done.code == 0, done.err
    return world / "calm"


def test_stops_and_kills_end_as_an_undisturbed_run(calm, world, geodapt):
    out = world / "disturbed"
    run = ["run", "long.yaml", "--out", "disturbed"]
    process = fork(world, *run, run=held("log:source-drama:20"))
    wait_until_held(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    said, _, go_on = err.strip().rpartition("; continue with: geodapt ")
    assert said.splitlines()[-1] == "stopped; disturbed is usable"

    for stage, arguments in (
        ("method-lora", go_on.split()),
        ("method-xcross", [*run, "--resume"]),
    ):
        process = fork(world, *arguments, run=held(f"log:{stage}:30"))
        wait_until_held(process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert list((out / "work" / stage).glob("checkpoint-*"))
    done = geodapt(*run, "--resume")
    assert done.code == 0, done.err
    same(out, calm)
    assert (out / "report.html").is_file()


def test_two_processes_share_the_work(world):
    recipe(world, "reviews", methods=["mix", "lora", "xcross"], training=training(10))
    process = fork(world, "run", "reviews.yaml", "--out", "two", ranks=2)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("two/report.html") == 1
    assert [row["method"] for row in rows(world / "two")] == ["mix", "lora", "xcross"]
    lines = [
        json.loads(line) for line in (world / "two" / "metrics.jsonl").read_text().splitlines()
    ]
    steps = [line["step"] for line in lines if line["stage"] == "method-xcross"]
    assert steps == sorted(set(steps))
    assert not [path for path in (world / "two").rglob("*") if "unfinished" in path.name]
    assert len(list((world / "two" / "tensorboard" / "method-xcross").glob("events*"))) == 1
    model = XCross.from_pretrained(world / "two" / "model")
    assert len(model.classify(["tools 1: so sharp", "tools 2: so rusty"])) == 2
