"""What an error matrix looks like: its spread by row and column, its spectrum, its distribution.

Each figure of structure stands beside the same figure of a *shuffled* error: the same entries in
random places, so the same distribution and no structure. Every entry of the shuffled error has
the same variance by construction.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from geodapt.adapters.lowrank import effective_rank

GROUPS = 256  # rows, and columns, that the test of equal variances compares at most
SAMPLE = 20_000  # entries that the goodness of fit reads at most


@dataclass(frozen=True)
class VarianceSpread:
    """How unequal the variances of rows (or of columns) are."""

    ratio: float
    """The 90th percentile of the variances over the 10th."""
    shuffled: float
    """The same of the shuffled error: what chance alone makes."""
    p_value: float
    """Of Brown and Forsythe's (1974) test that all variances are equal."""


@dataclass(frozen=True)
class GoodnessOfFit:
    """How far the entries' distribution is from a given one with the same mean and spread."""

    distance: float
    """Kolmogorov and Smirnov's: the largest gap between the distribution functions."""
    p_value: float
    """Of the hypothesis that the entries are drawn from it."""


@dataclass(frozen=True)
class ErrorShape:
    """The figures of one error matrix."""

    mean: float
    std: float
    kurtosis: float
    """Excess: 0 for a normal, -1.2 for a uniform distribution, more for heavy tails."""
    rows: VarianceSpread
    columns: VarianceSpread
    normal: GoodnessOfFit
    uniform: GoodnessOfFit
    rank: int
    effective_rank: float
    """``exp`` of the entropy of the shares of ``d^2`` (Roy and Vetterli 2007), over min(m, n)."""
    effective_rank_shuffled: float
    weight_error: float
    """``|E|^2 / |W|^2``."""
    output_error: float | None
    """``E |E x|^2 / E |W x|^2``."""
    alignment: float | None
    """``E |E x|^2`` over what an error without direction of this size would do: below 1 it keeps
    out of the way of the inputs."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def error_shape(
    E: Float[Tensor, "out in"],
    W: Float[Tensor, "out in"],
    moments: Float[Tensor, "in in"] | None = None,
    seed: int = 0,
) -> ErrorShape:
    """The figures of the error E of a weight W, under inputs with these second moments."""
    E, W = E.double(), W.double()
    entries = E.numpy().ravel()
    shuffled = E.flatten()[
        torch.randperm(E.numel(), generator=torch.Generator().manual_seed(seed))
    ].reshape(E.shape)
    std = float(entries.std())
    d = torch.linalg.svdvals(E)
    output = alignment = None
    if moments is not None:
        S = moments.double()
        lost = (E @ S * E).sum().item()
        output = lost / (W @ S * W).sum().item()
        alignment = lost / (E.square().sum() * S.diagonal().mean()).item()
    sample = entries[np.random.default_rng(seed).permutation(entries.size)[:SAMPLE]]
    mean, half = float(entries.mean()), std * 3**0.5
    return ErrorShape(
        mean=mean,
        std=std,
        kurtosis=float(stats.kurtosis(entries)),
        rows=variance_spread(E, shuffled),
        columns=variance_spread(E.T, shuffled.T),
        normal=_fit(sample, stats.norm(mean, std)),
        uniform=_fit(sample, stats.uniform(mean - half, 2 * half)),
        rank=int((d > d[0] * max(E.shape) * torch.finfo(torch.float32).eps).sum()),
        effective_rank=effective_rank(d) / len(d),
        effective_rank_shuffled=effective_rank(torch.linalg.svdvals(shuffled)) / len(d),
        weight_error=(E.square().sum() / W.square().sum()).item(),
        output_error=output,
        alignment=alignment,
    )


def variance_spread(
    E: Float[Tensor, "rows n"], shuffled: Float[Tensor, "rows n"]
) -> VarianceSpread:
    """How unequal the variances of the rows are, and whether chance explains it."""
    chosen = torch.linspace(0, len(E) - 1, min(GROUPS, len(E))).long()
    test = stats.levene(*E[chosen].numpy(), center="median")
    return VarianceSpread(_ratio(E), _ratio(shuffled), float(test.pvalue))


def _ratio(E: Tensor) -> float:
    low, high = E.var(1).quantile(torch.tensor([0.1, 0.9], dtype=E.dtype)).tolist()
    return high / low if low > 0 else float(np.finfo(np.float32).max)


def _fit(sample: np.ndarray, distribution: Any) -> GoodnessOfFit:
    found = stats.kstest(sample, distribution.cdf)
    return GoodnessOfFit(float(found.statistic), float(found.pvalue))
