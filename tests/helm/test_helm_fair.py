"""Each model at its own learning rate over several seeds; and the curvature that text asks for."""

import math

import pytest
import torch
from datasets import Dataset
from scipy import stats
from transformers import AutoModelForCausalLM, AutoTokenizer

from geodapt.data.corpus import TextSettings, load_corpus
from geodapt.data.corpus.packing import packed
from geodapt.helm.choosing import token_vectors
from geodapt.lm.experiment import evenly
from geodapt.lm.fair import seedwise_difference
from geodapt.lm.pretraining import held_out_loss
from tests.helm.runs import lines, results, write

pytestmark = pytest.mark.slow

RATES = [1e-4, 1e-2]


@pytest.fixture(scope="module")
def fair(world, geodapt):
    changed = {"models": ["helm-d", "llama"], "learning_rates": RATES, "seeds": 2}
    recipe = write(world, "fair.yaml", **changed, training={"steps": 4, "evaluate_every": None})
    done = geodapt("run", recipe, "--out", "fair")
    assert done.code == 0, done.err
    return world / "fair"


def test_validation_chooses_the_rate_and_seeds_are_averaged(fair):
    found = results(fair)
    for row in found["rows"]:
        losses = dict(row["validation_losses"])
        assert sorted(losses) == RATES
        assert row["learning_rate"] == min(losses, key=losses.get) == 1e-2
        assert row["at_an_end"]
        assert row["trainings"] == 3
        assert len(set(row["losses"])) == 2
        assert row["perplexity"] == pytest.approx(math.exp(sum(row["losses"]) / 2))
    stages = {line["stage"] for line in lines(fair)}
    assert {"rate-helm-d-0.0001", "rate-llama-0.01", "seed-helm-d-1"} <= stages
    (compared,) = found["comparisons"]
    assert (compared["model"], compared["against"]) == ("helm-d", "llama")
    ours, theirs = (row["losses"] for row in found["rows"])
    assert compared["percent"] == pytest.approx(seedwise_difference(ours, theirs)["percent"])


def test_the_model_that_is_left_is_the_chosen_one(fair, world):
    """Of the first seed, at the chosen rate; the others are gone."""
    helm = AutoModelForCausalLM.from_pretrained(fair / "model")
    tokenizer = AutoTokenizer.from_pretrained(fair / "model")
    rows = packed(load_corpus(TextSettings(path=str(world / "text"))), tokenizer, 32)
    loss = held_out_loss(helm, evenly(rows["test"], 12), 8, "again")["loss"]
    assert loss == pytest.approx(results(fair)["rows"][0]["losses"][0], rel=1e-5)
    assert (fair / "models/llama/config.json").is_file()
    assert not list((fair / "candidates").glob("*"))


def test_seedwise_differences_have_students_interval():
    ours, theirs = [2.0, 2.1, 2.3], [2.2, 2.2, 2.35]
    found = seedwise_difference(ours, theirs)
    gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
    expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert math.log1p(found["low"] / 100) == pytest.approx(expected.low)
    assert math.log1p(found["high"] / 100) == pytest.approx(expected.high)
    assert math.log1p(found["percent"] / 100) == pytest.approx(sum(gaps) / 3)
    assert set(seedwise_difference([1.0], [2.0])) == {"percent"}


def test_one_seed_and_a_rate_that_diverges(world, geodapt):
    """The other rate goes on; without an interval the results can still be written."""
    changed = {"models": ["helm-d", "llama"], "learning_rates": [1e-2, 1e30]}
    recipe = write(world, "far.yaml", **changed, training={"steps": 3, "evaluate_every": None})
    done = geodapt("run", recipe, "--out", "far")
    assert done.code == 0, done.err
    found = results(world / "far")
    for row in found["rows"]:
        losses = dict(row["validation_losses"])
        assert losses[1e30] is None
        assert row["learning_rate"] == 1e-2
    (compared,) = found["comparisons"]
    ours, theirs = (row["losses"][0] for row in found["rows"])
    assert compared["percent"] == pytest.approx(100 * math.expm1(ours - theirs))
    assert "low" not in compared
    recipe = write(world, "all.yaml", models=["llama"], learning_rates=[1e29, 1e30])
    done = geodapt(
        "run", recipe, "training.steps=3", "training.evaluate_every=null", "--out", "all"
    )
    assert done.code == 2
    assert "llama diverges at all of the learning_rates" in done.err


def test_curvature_of_text(world, geodapt):
    changed = {"models": ["llama", "helm-d"], "curvature": "auto"}
    recipe = write(world, "auto.yaml", **changed, training={"steps": 4, "evaluate_every": None})
    done = geodapt("run", recipe, "--out", "auto")
    assert done.code == 0, done.err
    chosen = results(world / "auto")["curvature"]
    tried = dict(chosen["tried"])
    assert chosen["estimate"] in tried
    assert len(tried) >= 3
    assert tried[chosen["c"]] == min(tried.values())
    helm = AutoModelForCausalLM.from_pretrained(world / "auto/models/helm-d")
    assert helm.config.curvature == chosen["c"]


def test_vectors_of_tokens_show_which_stand_together():
    """Two texts that share no token: each token is nearer to those of its own text."""
    generator = torch.manual_seed(0)
    rows = [
        (20 * (i % 2) + torch.randint(0, 20, (32,), generator=generator)).tolist()
        for i in range(60)
    ]
    vectors = token_vectors(Dataset.from_dict({"input_ids": rows}), width=64)
    assert vectors.norm(dim=-1).mean().item() == pytest.approx(8.0)
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    nearest_first = (unit @ unit.T).sort(dim=-1, descending=True).values
    assert nearest_first.shape == (40, 40)
    assert nearest_first[:, :20].mean() > nearest_first[:, 20:].mean() + 0.3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rates": [0.1, 0.1]}, "[0.1] given more than once"),
        ({"curvature": "auto", "models": ["llama"]}, "models names none"),
        ({"curvature": 2.0, "config": {"curvature": 1.0}}, "both given"),
    ],
)
def test_what_does_not_fit_is_refused(world, geodapt, changed, message):
    done = geodapt("run", write(world, "wrong.yaml", **changed), "--out", "wrong")
    assert done.code == 2
    assert message in done.err
