"""Perplexity beside torchmetrics', and where it cannot be had."""

import math

import pytest
import torch
from torchmetrics.text import Perplexity

from geodapt.errors import InputError
from geodapt.metrics.language import LanguageMetrics, perplexity


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
