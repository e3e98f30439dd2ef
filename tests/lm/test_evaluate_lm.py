"""Perplexity of a text against a loop over tokens, questions, and what is refused."""

import math
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from geodapt.data.corpus.tokens import train_tokenizer
from geodapt.errors import InputError
from geodapt.helm import HelmForCausalLM
from geodapt.lm.evaluation import load_language_model, text_perplexity, windows
from geodapt.lm.lm_eval import task_figures
from geodapt.lm.recipe import EvaluateLMRecipe
from geodapt.recipes.execution import execute
from tests.helm.small import MICE, config

TEXTS = ["The red bird runs here.", "A goat sleeps. The fish, too.", "x", "naïve 中文"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 300)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    HelmForCausalLM(config(**MICE, vocab_size=len(tokenizer))).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def naive(model, tokenizer, texts, length) -> tuple[float, int]:
    """Nats and tokens, one token at a time, with what precedes it in its stretch."""
    nats, count = 0.0, 0
    for text in texts:
        tokens = [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)]
        for position in range(1, len(tokens)):
            start = (position - 1) // (length - 1) * (length - 1)
            seen = torch.tensor([tokens[start:position]])
            with torch.no_grad():
                logits = model(input_ids=seen, use_cache=False).logits[0, -1]
            nats -= logits.log_softmax(-1)[tokens[position]].item()
            count += 1
    return nats, count


@pytest.mark.parametrize("length", [2, 7, 64])
def test_perplexity_is_that_of_a_loop_over_tokens(folder, tokenizer, length):
    model = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    found = text_perplexity(model, tokenizer, iter(TEXTS), length, 3)
    nats, count = naive(model, tokenizer, TEXTS, length)
    size = len("".join(TEXTS).encode())
    assert found["tokens"] == count
    assert found["bytes"] == size
    assert found["loss"] == pytest.approx(nats / count, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(nats / count), rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-6)


def test_windows_count_each_token_once():
    for count in range(1, 30):
        for length in range(2, 8):
            seen = [token for window in windows(list(range(count)), length) for token in window[1:]]
            assert seen == list(range(1, count))


def test_a_run(folder, tmp_path, tokenizer):
    (tmp_path / "book.txt").write_text("\n".join(TEXTS))
    recipe = EvaluateLMRecipe(
        model=str(folder), text=str(tmp_path / "book.txt"), precision="float32"
    )
    (row,) = execute(recipe, tmp_path / "out")["rows"]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    nats, count = naive(model, tokenizer, ["\n".join(TEXTS)], 64)  # the most that it takes
    assert row["loss"] == pytest.approx(nats / count, rel=1e-4)
    assert row["label"] == "book.txt"


def test_an_empty_text(folder, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    recipe = EvaluateLMRecipe(model=str(folder), text=str(tmp_path / "empty.txt"))
    with pytest.raises(InputError, match="no tokens to measure perplexity on"):
        execute(recipe, tmp_path / "out")


def test_a_tokenizer_of_another_model(folder, tmp_path):
    train_tokenizer([*TEXTS, "and many words more that are others"] * 9, 310).save_pretrained(
        tmp_path
    )
    with pytest.raises(InputError, match=r"has 310 tokens, but model .* knows 300"):
        load_language_model(EvaluateLMRecipe(model=str(folder), text="x", tokenizer=str(tmp_path)))


def test_a_length_that_the_model_does_not_take(folder):
    with pytest.raises(InputError, match=r"length is 65, but model .* takes 64 tokens"):
        load_language_model(EvaluateLMRecipe(model=str(folder), text="x", length=65))


def test_a_model_without_a_tokenizer(tmp_path):
    HelmForCausalLM(config()).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"tokenizer .* could not be loaded"):
        load_language_model(EvaluateLMRecipe(model=str(tmp_path), text="x"))


def test_nothing_asked():
    with pytest.raises(ValueError, match=r"give text .* or tasks"):
        EvaluateLMRecipe(model="x")


def test_without_lm_eval_the_extra_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    recipe = EvaluateLMRecipe(model=str(folder), tasks=["hellaswag"])
    with pytest.raises(
        InputError, match=r"lm-eval, which is not installed; leave .* pip install .*\["
    ):
        execute(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_figures_of_tasks_and_groups():
    """lm-eval's results, as 0.4.13 gives them."""
    task = {"alias": "hellaswag", "acc,none": 0.25, "acc_norm,none": 0.5, "acc_stderr,none": 0.1}
    found = {"results": {"hellaswag": task}, "n-samples": {"hellaswag": {"effective": 12}}}
    assert task_figures(found, "hellaswag") == {
        "accuracy": 0.25,
        "accuracy_norm": 0.5,
        "questions": 12,
    }
    group = {
        "results": {"mmlu_anatomy": {"acc,none": 0.1}, "mmlu": {"acc,none": 0.3}},
        "groups": {"mmlu": {"acc,none": 0.3}},
        "n-samples": {"mmlu_anatomy": {"effective": 5}, "mmlu_law": {"effective": 7}},
    }
    assert task_figures(group, "mmlu") == {"accuracy": 0.3, "questions": 12}
