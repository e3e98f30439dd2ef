"""How good a model is and how long it takes: the figures before and after compression."""

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional import spearman_corrcoef

from geodapt.errors import InputError
from geodapt.metrics import ranking_metrics
from geodapt.models.text_encoder import mean_pooled

TURNS = 7


@torch.no_grad()
def embeddings(model: Any, tokenizer: Any, texts: Sequence[str]) -> Float[Tensor, "n width"]:
    """Unit vectors: the mean of a text's last hidden states, normalised."""
    return torch.nn.functional.normalize(mean_pooled(model, tokenizer, texts), dim=-1)


def cosine_agreement(one: Float[Tensor, "n width"], two: Float[Tensor, "n width"]) -> float:
    """Spearman correlation of the cosine similarities of all pairs, under two models."""
    pairs = torch.triu_indices(len(one), len(one), offset=1)
    first, second = ((x @ x.T)[pairs[0], pairs[1]] for x in (one, two))
    return spearman_corrcoef(first, second).item()


def retrieval(
    queries: Float[Tensor, "n width"], documents: Float[Tensor, "n width"]
) -> dict[str, float]:
    """How well each query finds the document of its own row among all: ``hit_at_1``, ``mrr``."""
    scores = queries @ documents.T
    n = len(scores)
    others = scores[~torch.eye(n, dtype=torch.bool, device=scores.device)].reshape(n, n - 1)
    found = ranking_metrics(torch.cat([scores.diagonal()[:, None], others], 1))
    return {name: found[name] for name in ("hit_at_1", "mrr")}


def halves(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """The first and the second half of each text's words, where it has four or more.

    Raises :class:`InputError` when fewer than two texts have.
    """
    words = [text.split() for text in texts]
    words = [each for each in words if len(each) > 3]
    if len(words) < 2:
        raise InputError("retrieval needs two texts or more of four words or more")
    middles = [(each, len(each) // 2) for each in words]
    return (
        [" ".join(each[:middle]) for each, middle in middles],
        [" ".join(each[middle:]) for each, middle in middles],
    )


@torch.no_grad()
def seconds_a_forward(model: Any, batch: Mapping[str, Any]) -> float:
    """The median time of a forward pass over several, after one that warms up."""
    times = []
    for _ in range(TURNS + 1):
        _wait()
        start = time.perf_counter()
        model(**batch)
        _wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
