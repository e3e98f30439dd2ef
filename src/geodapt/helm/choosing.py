"""``curvature: auto`` of a HELM: from how tokens occur together, then by short trainings."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds
from torch import Tensor

from geodapt.errors import Diverged, InputError
from geodapt.geometry.curvature import find_curvature
from geodapt.helm.contenders import with_attribute
from geodapt.lm.experiment import PretrainingExperiment

TOKENS, DIMENSIONS = 400, 16  # of the most frequent tokens, and of their vectors, at most
WINDOW = 2
ROWS = 2000  # of text that are looked at
SHARE = 10  # a validation trains a tenth of the steps
LEAST = 20
FACTORS = (1 / 4, 1.0, 4.0)


def token_vectors(rows: Dataset, width: int) -> Float[Tensor, "tokens d"]:
    """Vectors of the most frequent tokens by which tokens they stand next to.

    Positive pointwise mutual information within two tokens, its leading singular vectors times the
    roots of the singular values (Levy & Goldberg 2014), at the mean length that a HELM's norms
    give states: the root of ``width``. Raises :class:`InputError` for text with too few tokens.
    """
    ids = np.array([row["input_ids"] for row in rows.select(range(min(ROWS, len(rows))))])
    counts = np.bincount(ids.ravel())
    frequent = counts.argsort()[::-1][: min(TOKENS, np.count_nonzero(counts))]
    dimensions = min(DIMENSIONS, len(frequent) // 4)
    if dimensions < 2:
        raise InputError(
            f"curvature: auto: the text has {len(frequent)} different tokens, too few to see how "
            "they occur together; give a number"
        )
    place = np.full(len(counts), -1)
    place[frequent] = np.arange(len(frequent))
    at, size = place[ids], len(frequent)
    together = np.zeros((size, size))
    for apart in range(1, WINDOW + 1):
        a, b = at[:, :-apart].ravel(), at[:, apart:].ravel()
        known = (a >= 0) & (b >= 0)
        pairs = csr_array((np.ones(known.sum()), (a[known], b[known])), shape=(size, size))
        together += pairs.toarray() + pairs.T.toarray()
    margin = np.maximum(together.sum(1), 1)
    expected = np.outer(margin, margin) / max(together.sum(), 1)
    information = np.maximum(np.log(np.maximum(together, 1e-12) / expected), 0)
    start = np.ones(size) / math.sqrt(size)
    u, values, _ = svds(information, k=dimensions, v0=start)
    vectors = torch.from_numpy(u * np.sqrt(values))
    length = vectors.norm(dim=-1).mean().clamp_min(1e-12)
    return vectors * math.sqrt(width) / length


def curvature_of_text(experiment: PretrainingExperiment, name: str, work: Path) -> dict[str, Any]:
    """The curvature for a model of an experiment and its text, as a stage's result.

    Validation is the loss on validation rows after a tenth of the training's steps, for the
    estimate, a quarter of it and four times it.
    """
    settings, config = experiment.settings, experiment.configurations[name]
    vectors = token_vectors(experiment.rows["train"], config.hidden_size)
    steps = min(settings.training.steps, max(LEAST, settings.training.steps // SHARE))
    short = settings.training.model_copy(update={"steps": steps, "evaluate_every": None})

    def loss(c: float) -> float:
        tried = with_attribute(config, "curvature", c)
        stage = f"curvature-{c:.3g}"
        try:
            return experiment.validation_loss(tried, short, work / f"{c:g}", stage)
        except Diverged:
            return math.inf

    chosen = find_curvature(vectors, loss, factors=FACTORS, refine=0, seed=experiment.seed)
    return {
        "c": chosen.c,
        "estimate": chosen.estimate,
        "steps": steps,
        "tried": [[c, found if found < math.inf else None] for c, found in chosen.tried.items()],
    }
