"""A decoder that encodes a history once gives the scores of one that encodes it every time."""

import pytest
import torch

from geodapt.adapters import Mix, Off
from geodapt.xcross.encoders import Encoder
from geodapt.xcross.head import Head
from geodapt.xcross.prompts import ItemPrompts, PromptCollator
from geodapt.xcross.scorer import Scorer
from geodapt.xcross.settings import PromptSettings
from tests.xcross.small import WIDTH, base, filled_bank, shaken, tokenizer, xcross_scorer

NAMES = [f"item {number}" for number in range(40)]
TEXTS = [f"{name}, {'very ' * (number % 5)}good" for number, name in enumerate(NAMES)]


def scorers(family):
    bank = filled_bank(base(family))
    mix = Mix({"toys": 0.5, "books": 0.5})
    return [
        shaken(xcross_scorer(bank)),
        shaken(Scorer(Encoder(bank.model, bank, mix), Head(WIDTH, 8))).eval(),
        shaken(Scorer(Encoder(bank.model, bank, Off()), Head(WIDTH, 8))).eval(),
    ]


def asked(histories: list[int], candidates: int) -> dict[str, torch.Tensor]:
    """A collated batch with histories of so many items."""
    words = tokenizer(NAMES + TEXTS, decoder=True)
    prompts = ItemPrompts(NAMES, TEXTS, words, PromptSettings(max_tokens=60, item_tokens=20))
    rows = [
        {"prompts": prompts(range(length), range(5, 5 + candidates)), "labels": 0}
        for length in histories
    ]
    collated = PromptCollator(words)(rows)
    del collated["labels"]
    return collated


def tokens_seen(scorer, batch) -> int:
    """How many tokens pass through the base's embedding."""
    counts = []
    embedding = scorer.encoder.base.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda module, args, out: counts.append(args[0].numel()))
    scorer(**batch)
    hook.remove()
    return sum(counts)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen", "helm", "helm-mice"])
@pytest.mark.parametrize(
    ("histories", "candidates"), [([3], 30), ([1, 7, 4], 5), ([2, 4], 1), ([0, 5], 3)]
)
@torch.no_grad()
def test_shared_and_unshared_scores_agree(family, histories, candidates):
    batch = asked(histories, candidates)
    whole = {name: tensor for name, tensor in batch.items() if name != "shared"}
    assert len(set(batch["shared"].tolist())) == len(set(histories))
    for scorer in scorers(family):
        wanted = scorer(**whole).logits
        assert wanted.std() > 1e-3 or wanted.numel() == 1
        torch.testing.assert_close(scorer(**batch).logits, wanted, rtol=1e-4, atol=1e-5)
        fewer = tokens_seen(scorer, batch) < tokens_seen(scorer, whole)
        assert fewer == (candidates > 1)


@torch.no_grad()
def test_what_cannot_be_shared_is_not(monkeypatch):
    def never(*args):
        raise AssertionError("shared")

    monkeypatch.setattr(Encoder, "prefix", never)
    batch = asked([2, 3], 4)
    bank = filled_bank(base("llama"))
    shaken(xcross_scorer(bank)).train()(**batch)  # gradients want the whole
    shaken(xcross_scorer(bank, pooling="mean"))(**batch)  # the mean reads the history's states
    shaken(xcross_scorer(filled_bank(base("bert"))))(**batch)  # the history sees what follows
    with pytest.raises(AssertionError, match="shared"):
        shaken(xcross_scorer(bank))(**batch)


@torch.no_grad()
def test_a_history_without_tokens_is_not_shared():
    batch = asked([2, 3], 4)
    scorer = shaken(xcross_scorer(filled_bank(base("llama"))))
    wanted = scorer(**{name: t for name, t in batch.items() if name != "shared"}).logits
    assert torch.equal(scorer(**{**batch, "shared": torch.zeros(2).long()}).logits, wanted)


@torch.no_grad()
def test_the_dtype_of_the_base_is_kept():
    batch = asked([1, 7, 4], 5)
    scorer = shaken(xcross_scorer(filled_bank(base("llama").bfloat16())), std=0.1)
    wanted = scorer(**{name: t for name, t in batch.items() if name != "shared"}).logits
    torch.testing.assert_close(scorer(**batch).logits, wanted, rtol=0.05, atol=0.05)
