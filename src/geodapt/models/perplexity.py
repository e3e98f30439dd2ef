"""How well a causal language model predicts text: perplexity, over batches and processes."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from geodapt.errors import InputError
from geodapt.models.batches import text_batches

IGNORED = -100


class LanguageMetrics(Metric):
    """The mean negative log-likelihood of tokens, ``loss`` in nats, and ``perplexity`` = e^loss.

    A label belongs to the position before it, as in transformers' causal models: position i's
    logits predict label i + 1. Labels of -100 do not count; all others count equally, whatever
    batch they are in.
    """

    full_state_update = False
    nats: Tensor
    lost: Tensor
    tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        # A sum and what its rounding lost: as good as float64, which not every device has.
        self.add_state("nats", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("lost", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(
        self, logits: Float[Tensor, "rows n vocabulary"], labels: Int[Tensor, "rows n"]
    ) -> None:
        wide = torch.promote_types(logits.dtype, torch.float32)
        predicted, targets = logits[:, :-1].flatten(0, 1).to(wide), labels[:, 1:].flatten()
        losses = F.cross_entropy(predicted, targets, ignore_index=IGNORED, reduction="none")
        more, before = losses.float().sum(), self.nats
        self.nats = before + more
        kept = self.nats - before
        self.lost += (before - (self.nats - kept)) + (more - kept)
        self.tokens += (targets != IGNORED).sum()

    def compute(self) -> dict[str, float]:
        if not self.tokens:
            raise InputError("there are no tokens to measure perplexity on: the text is empty")
        loss = (self.nats.item() + self.lost.item()) / self.tokens.item()
        return {"loss": loss, "perplexity": perplexity(loss)}


@torch.no_grad()
def language_loss(model: Any, tokenizer: Any, texts: Sequence[str]) -> float:
    """Mean negative log-likelihood, in nats, of a token given those before it in its text.

    All tokens of all texts count equally, but for the first of each, which nothing predicts.
    Texts are cut as :func:`text_batches` cuts them. Raises :class:`InputError` where no text has
    two tokens.
    """
    metric = LanguageMetrics().to(model.device)
    for batch in text_batches(tokenizer, texts, model):
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)
        metric.update(model(**batch).logits, labels)
    if not metric.tokens:
        raise InputError("no text has two tokens or more, so none has a perplexity")
    return metric.compute()["loss"]


def perplexity(loss: float) -> float:
    """e^loss, and infinity where that is too large for a number; NaN of NaN."""
    return math.inf if loss >= 700 else math.exp(loss)
