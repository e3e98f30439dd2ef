"""Perplexity beside torchmetrics', and where it cannot be had."""

import math

import pytest
import torch
from torchmetrics.text import Perplexity
from transformers import LlamaConfig, LlamaForCausalLM

from geodapt.errors import InputError
from geodapt.models.perplexity import LanguageMetrics, language_loss, perplexity
from tests.radial.small import words


def test_it_agrees_with_torchmetrics_on_what_counts():
    logits, labels = torch.randn(3, 7, 11), torch.randint(11, (3, 7))
    labels[0, :4], labels[2, 6] = -100, -100
    ours, peer = LanguageMetrics(), Perplexity(ignore_index=-100)
    for row in range(3):  # in batches as in one
        ours.update(logits[row : row + 1], labels[row : row + 1])
    peer.update(logits[:, :-1], labels[:, 1:])
    found = ours.compute()
    assert found["perplexity"] == pytest.approx(peer.compute().item(), rel=1e-5)
    assert found["loss"] == pytest.approx(math.log(found["perplexity"]))
    assert ours.tokens == (labels[:, 1:] != -100).sum()


def test_unlikely_tokens_are_counted_in_full():
    logits = torch.zeros(1, 2, 4)
    logits[0, 0, 1] = 300.0  # e^-300 is no float32
    metric = LanguageMetrics()
    metric.update(logits, torch.tensor([[0, 2]]))
    assert metric.compute()["loss"] == pytest.approx(300)
    assert perplexity(1000.0) == math.inf


def test_without_tokens():
    with pytest.raises(InputError, match="the text is empty"):
        LanguageMetrics().compute()


@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_of_all_lengths_equal_a_float64_loop_over_each_alone(side):
    tokenizer = words()
    tokenizer.padding_side = side
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=2, **sizes)
    ).eval()
    texts = ["car", *(" ".join(["a small red bird sings"] * n)[: 9 * n] for n in range(1, 21))]
    nats, count = 0.0, 0
    for text in texts:
        tokens = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            chances = model(tokens).logits[0].double().log_softmax(-1)
        for place in range(1, tokens.shape[1]):
            nats -= chances[place - 1, tokens[0, place]].item()
            count += 1
    assert language_loss(model, tokenizer, texts) == pytest.approx(nats / count, rel=1e-6)
    with pytest.raises(InputError, match="no text has two tokens"):
        language_loss(model, tokenizer, [])
