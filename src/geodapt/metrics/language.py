"""How well a language model foresees text: perplexity, over batches and processes."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from geodapt.errors import InputError

IGNORED = -100


class LanguageMetrics(Metric):
    """The mean negative log-likelihood of tokens, ``loss`` in nats, and ``perplexity`` = e^loss.

    A label belongs to the position before it, as in transformers' causal models: position i's
    logits foresee label i + 1. Labels of -100 do not count.
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
        foreseen, targets = logits[:, :-1].flatten(0, 1).to(wide), labels[:, 1:].flatten()
        losses = F.cross_entropy(foreseen, targets, ignore_index=IGNORED, reduction="none")
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


def perplexity(loss: float) -> float:
    """e^loss, and infinity where that is too large for a number."""
    return math.exp(loss) if loss < 700 else math.inf
