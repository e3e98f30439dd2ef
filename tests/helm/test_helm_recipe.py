"""Whole trainings through the command line: what they leave, going on after a kill, bad input."""

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from geodapt.data.corpus import TextSettings, load_corpus
from geodapt.data.corpus.packing import packed
from geodapt.helm.contenders import CONTENDERS, configuration, parameters
from geodapt.helm.recipe import CONTENDER_NAMES
from geodapt.lm.experiment import build_model
from geodapt.lm.pretraining import held_out_loss
from geodapt.recipes.catalog import packaged
from geodapt.recipes.loading import load_recipe
from tests.forked import fork
from tests.held import held, wait_until_held
from tests.helm.runs import SMALL, lines, results, write

pytestmark = pytest.mark.slow

MODELS = ["helm-mice", "helm-d", "llama", "deepseek"]


@pytest.fixture(scope="module")
def ran(world, geodapt) -> Path:
    recipe = write(world, "all.yaml", models=MODELS, config={"learn_curvature": True})
    done = geodapt("run", recipe, "--out", "ran")
    assert done.code == 0, done.err
    assert "Tiny language models" in done.out
    return world / "ran"


def test_a_run_leaves_what_it_should(ran):
    found = results(ran)
    assert [row["method"] for row in found["rows"]] == MODELS
    for row in found["rows"]:
        assert row["perplexity"] == pytest.approx(math.exp(row["loss"]))
        assert row["perplexity"] < 100  # of 300 tokens, after 12 steps
        assert row["tokens_per_second"] > 0
        assert row["seconds"] > 0
    sizes = {row["method"]: row["trainable_parameters"] for row in found["rows"]}
    assert sizes["llama"] == pytest.approx(sizes["helm-d"], rel=0.02)
    assert sizes["deepseek"] == pytest.approx(sizes["helm-mice"], rel=0.02)
    assert found["data"]["length"] == 32
    assert found["data"]["test"] == 12
    assert found["training"]["tokens"] == 12 * 4 * 32
    page = (ran / "report.html").read_text()
    assert "Lowest perplexity: " in page
    assert "curvature" in page


def test_the_log_shows_what_a_training_is_judged_by(ran):
    logged = {name: [x for x in lines(ran) if x["stage"] == f"model-{name}"] for name in MODELS}
    for name, told in logged.items():
        trained = [line for line in told if "loss" in line]
        assert [line["step"] for line in trained] == [2, 4, 6, 8, 10, 12]
        for line in trained:
            assert line["perplexity"] == pytest.approx(math.exp(line["loss"]))
            assert line["state_norm"] > 0
            assert line["grad_norm"] > 0
        assert all("tokens_per_second" in line for line in trained[1:])
        assert trained[-1]["loss"] < trained[0]["loss"] - 0.3
        rates = [line["learning_rate"] for line in trained]
        assert rates[-1] < rates[2] < 1e-2
        measured = [line for line in told if "validation_loss" in line]
        assert [line["step"] for line in measured] == [6, 12]
        for line in measured:
            expected = math.exp(line["validation_loss"])
            assert line["validation_perplexity"] == pytest.approx(expected)
        curvatures = {key for key in trained[-1] if key.endswith("curvature")}
        assert ("curvature" in curvatures) == name.startswith("helm")
        assert ("layer_1_expert_4_curvature" in curvatures) == (name == "helm-mice")


@pytest.mark.parametrize("name", MODELS)
def test_the_model_it_leaves_is_the_one_that_was_measured(ran, world, name):
    folder = ran / "model" if name == MODELS[0] else ran / "models" / name
    model, tokenizer = (
        kind.from_pretrained(folder) for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    corpus = load_corpus(TextSettings(path=str(world / "text")))
    rows = packed(corpus, tokenizer, 32)["test"]
    rows = rows.select([i * len(rows) // 12 for i in range(12)])
    (row,) = (row for row in results(ran)["rows"] if row["method"] == name)
    assert held_out_loss(model, rows, 5, "again")["loss"] == pytest.approx(row["loss"], rel=1e-5)
    prompt = tokenizer("The red", return_tensors="pt")
    out = model.generate(input_ids=prompt["input_ids"], max_new_tokens=4, do_sample=False)
    assert out.shape[1] <= prompt["input_ids"].shape[1] + 4


def test_perplexity_is_that_of_one_row_after_the_other(ran, world):
    assert "geodapt.helm" in (ran / "model" / "README.md").read_text()
    model = AutoModelForCausalLM.from_pretrained(ran / "model").double()
    tokenizer = AutoTokenizer.from_pretrained(ran / "model")
    rows = packed(load_corpus(TextSettings(path=str(world / "text"))), tokenizer, 32)["test"]
    rows = rows.select(range(5))
    nats, count = 0.0, 0
    for row in rows:
        at = 0
        for piece in row["lengths"]:
            tokens = torch.from_numpy(row["input_ids"][at : at + piece]).long()
            at += piece
            if piece < 2:
                continue
            with torch.no_grad():
                logits = model(input_ids=tokens.unsqueeze(0), use_cache=False).logits[0]
            for i in range(piece - 1):
                nats -= logits[i].log_softmax(-1)[tokens[i + 1]].item()
                count += 1
    assert held_out_loss(model, rows, 2, "again")["loss"] == pytest.approx(nats / count, rel=1e-6)


class Tokens:
    """As much of a tokenizer as a configuration asks for."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __len__(self) -> int:
        return 4096


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_model_has_the_size_of_its_family(name):
    found = configuration(name, "tiny", {}, Tokens())
    family = {"dense": "helm-d", "mice": "helm-mice"}[CONTENDERS[name].kind]
    wanted = parameters(configuration(family, "tiny", {}, Tokens()))
    assert parameters(found) == pytest.approx(wanted, rel=0.005)
    for key, value in CONTENDERS[name].changes.items():
        assert getattr(found, key) == value
    assert found.vocab_size == 4096


@pytest.mark.parametrize(("helm", "twin"), [("helm-d", "llama"), ("helm-mice", "deepseek")])
def test_twins_of_the_released_sizes(helm, twin):
    """They are as wide as the official scripts say, where the time counts."""
    found, other = (configuration(name, "100m-released", {}, Tokens()) for name in (helm, twin))
    assert (found.hidden_size, other.hidden_size) == (389, 390)
    assert parameters(other) == pytest.approx(parameters(found), rel=0.005)


def test_the_recipe_knows_the_names_of_all_models():
    assert tuple(CONTENDERS) == CONTENDER_NAMES


def test_the_packaged_recipes():
    sizes = {}
    for name, entry in packaged().items():
        if entry.system == "helm":
            recipe = load_recipe(name).recipe
            for model in recipe.models:
                config = configuration(model, recipe.size, recipe.config, Tokens())
                assert recipe.length <= config.max_position_embeddings
                sizes[name, model] = parameters(config)
    assert sizes["llama-100m", "llama"] == pytest.approx(sizes["helm-d-100m", "helm-d"], rel=0.005)
    assert sizes["deepseek-100m", "deepseek"] == pytest.approx(
        sizes["helm-mice-100m", "helm-mice"], rel=0.005
    )
    assert {"helm-tiny", "helm-mice-1b"} <= {name for name, _ in sizes}
    assert load_recipe("evaluate-lm").recipe.tasks


# --- going on ----------------------------------------------------------------------------------


def test_killed_and_resumed_it_logs_the_same_losses(ran, world, geodapt):
    """The run of all four models again, killed in the first one's training; its gates' balance,
    optimizer and order of rows must go on as they were."""
    recipe = write(world, "mice.yaml", models=["helm-mice"], config={"learn_curvature": True})
    run = ("run", recipe, "--out", "killed")
    process = fork(world, *run, run=held("log:model-helm-mice:10"))
    try:
        wait_until_held(process)
        assert (world / "killed/work/model-helm-mice/checkpoint-8/trainer_state.json").exists()
    finally:
        process.kill()
        process.communicate()
    assert not (world / "killed/results.json").exists()
    done = geodapt(*run, "--resume")
    assert done.code == 0, done.err
    keys = ("step", "loss", "validation_loss", "layer_1_expert_2_curvature", "state_norm")
    whole = [x for x in lines(ran) if x["stage"] == "model-helm-mice"]
    for before, after in zip(whole, lines(world / "killed"), strict=True):
        assert {k: before.get(k) for k in keys} == {k: after.get(k) for k in keys}
    first = results(ran)["rows"][0]
    assert results(world / "killed")["rows"][0]["loss"] == first["loss"]


# --- bad input ---------------------------------------------------------------------------------

REFUSED = {
    "unknown model": (["models=[helm]"], "model 'helm' is unknown; there are helm-d"),
    "twice": (["models=[llama, llama]"], "given more than once"),
    "unknown size": (["size=7b"], "size"),
    "unknown attribute": (["config.hiden_size=8"], "did you mean 'hidden_size'"),
    "wrong type": (["config.hidden_size=wide"], "'hidden_size' expected int"),
    "heads that do not divide": (
        ["config.num_attention_heads=5", "config.head_dim=null"],
        "hidden_size 32 does not divide into 5 heads",
    ),
    "heads that do not divide the twin": (
        ["models=[helm-d, llama]", "config.num_attention_heads=5", "config.head_dim=8"],
        "config is not one of a Llama: The hidden size (32) is not a multiple",
    ),
    "odd rotary size": (
        ["models=[helm-mice]", "config.qk_rope_head_dim=5"],
        "qk_rope_head_dim is 5; expected an even number",
    ),
    "zero curvature": (["config.curvature=0"], "curvature is 0; expected a positive number"),
    "negative curvature": (
        ["models=[helm-mice]", "config.expert_curvatures=-1.0"],
        "expert_curvatures holds -1.0; expected positive numbers",
    ),
    "sequence over the maximum": (["length=65"], "length is 65, but the models take 64 tokens"),
    "vocabulary mismatch": (
        ["config.vocab_size=200"],
        "config.vocab_size is 200, but the tokenizer has 300 tokens",
    ),
    "missing tokenizer": (["tokenizer=gone/tokenizer"], "'gone/tokenizer' could not be loaded"),
    "no text there": (["data.path=nowhere"], "'nowhere' does not exist"),
    "empty corpus": (["data.path=empty"], "the corpus is empty"),
    "too little text": (["data.path=short"], "the text for validation is empty or shorter"),
    "no room for feed-forward": (
        ["models=[llama]", "config.hidden_size=256", "config.intermediate_size=1"],
        "no room for its feed-forward parts",
    ),
    "checkpointing the twin": (
        ["models=[deepseek]", "gradient_checkpointing=true"],
        "leave one of the two",
    ),
    "no steps": (["training.steps=0"], "training.steps"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_before_anything_is_written(case, world, geodapt):
    (world / "empty").mkdir(exist_ok=True)
    (world / "empty" / "blank.txt").write_text("")
    (world / "short").mkdir(exist_ok=True)
    (world / "short" / "short.txt").write_text("A few words.\n" * 30)
    overrides, said = REFUSED[case]
    done = geodapt("run", write(world), *overrides, "--out", "refused")
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert not (world / "refused").exists()


def test_a_batch_that_does_not_fit_is_refused_before_anything_is_written(
    world, geodapt, monkeypatch
):
    monkeypatch.setattr("geodapt.lm.experiment.free_memory_mb", lambda: 0.1)
    done = geodapt("run", write(world), "training.batch_size=100", "--out", "refused")
    assert done.code == 2
    assert "training.batch_size is 100, but the logits of" in done.err
    assert "and 0 MB are free; lower it" in done.err
    assert not (world / "refused").exists()


def test_the_seed_decides_the_weights():
    config = configuration("helm-d", "tiny", SMALL, Tokens())
    drawn = []
    for seed in (0, 0, 1):
        set_seed(seed)
        drawn.append(build_model(config).lm_head.weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
