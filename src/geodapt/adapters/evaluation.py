"""How good an adapter is on a little data: the values that a search compares."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.bank import AdapterBank
from geodapt.adapters.gates import Mix
from geodapt.errors import InputError
from geodapt.models.perplexity import language_loss, perplexity
from geodapt.models.text_encoder import mean_pooled

METRICS = {"loss": False, "perplexity": False, "accuracy": True}
"""By name, whether more is better."""


def evaluator(
    bank: AdapterBank, tokenizer: Any, rows: Sequence[Mapping[str, Any]], metric: str
) -> Callable[[Adapter], float]:
    """A function that rates an adapter on the bank's model.

    ``loss`` and ``perplexity`` are those of the next token over the rows' ``text`` and need a
    causal language model. ``accuracy`` needs a ``label`` beside every ``text``: a row is given
    to the label whose other rows' mean embedding (mean-pooled last hidden states) has the
    largest cosine with its own, so that any base will do.

    Raises :class:`InputError` for an unknown metric or rows that lack what it needs.
    """
    if metric not in METRICS:
        raise InputError(f"no metric '{metric}'; there are {', '.join(METRICS)}")
    for number, row in enumerate(rows, 1):
        for key in ("text", "label") if metric == "accuracy" else ("text",):
            if key not in row:
                raise InputError(f"row {number} of the search data has no '{key}'")
    texts = [str(row["text"]) for row in rows]
    if metric == "accuracy":
        labels = [str(row["label"]) for row in rows]
        if len(set(labels)) < 2 or any(labels.count(label) < 2 for label in set(labels)):
            raise InputError("accuracy needs two labels or more, and two rows of each")

    def value(adapter: Adapter) -> float:
        bank.add("candidate", adapter)
        try:
            with bank.use(Mix({"candidate": 1.0})), torch.no_grad():
                if metric == "accuracy":
                    return centroid_accuracy(mean_pooled(bank.model, tokenizer, texts), labels)
                loss = language_loss(bank.model, tokenizer, texts)
                return loss if metric == "loss" else perplexity(loss)
        finally:
            bank.remove("candidate")

    return value


def centroid_accuracy(x: Float[Tensor, "rows width"], labels: Sequence[str]) -> float:
    """Share of rows nearest, by cosine, to the mean of their own label's other rows."""
    x = torch.nn.functional.normalize(x.cpu().double(), dim=-1)
    names = sorted(set(labels))
    own = torch.tensor([names.index(label) for label in labels], device=x.device)
    member = torch.nn.functional.one_hot(own, len(names)).to(x)
    sums, counts = member.T @ x, member.sum(0)
    # Each row is left out of its own label's mean; cosines do not mind the division.
    means = sums[None] - member[:, :, None] * x[:, None]
    means = torch.nn.functional.normalize(means / (counts - member).clamp(min=1)[..., None], dim=-1)
    return (torch.einsum("rw,rlw->rl", x, means).argmax(1) == own).double().mean().item()
