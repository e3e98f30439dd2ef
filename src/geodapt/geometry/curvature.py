"""Which curvature for these embeddings and this task? An estimate, then a validation.

The estimate is the probe's: the ``c`` under which distances embed with least distortion
(:func:`geodapt.geometry.mds.suggest_curvature`). It knows nothing of the task, so where a task
gives a loss on held-out data, curvatures around the estimate are tried on it, by factors of 4 and
then of less about the best. What is chosen is a curvature for *these lengths*: vectors ten times as
long want a c a hundredth as large.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.checks import check_count
from geodapt.errors import InputError
from geodapt.geometry.mds import FARTHEST, embed_distances, suggest_curvature

DRAWN = 120  # points that the estimate embeds
STEPS = 100  # of the estimate's embeddings
NEARLY_FLAT = 0.5  # diameter in radii of curvature at which a space is nearly flat
GAIN = 1.05  # by how much flat space must be worse for a curvature to be suggested
FACTORS = (1 / 16, 1 / 4, 1.0, 4.0, 16.0)
FURTHER = 3  # steps of a factor of 4 beyond the ends, while the best lies at one


@dataclass(frozen=True)
class ChosenCurvature:
    """A curvature ``-c``, and how it was found."""

    c: float
    estimate: float
    """The probe's."""
    flat: bool
    """Whether flat space keeps the distances as well as any curved one."""
    tried: dict[float, float] = field(default_factory=dict)
    """The validation's losses by c; empty where there was none."""


def find_curvature(
    vectors: Float[Tensor, "n d"] | None = None,
    validate: Callable[[float], float] | None = None,
    *,
    distances: Float[Tensor, "n n"] | None = None,
    dim: int = 8,
    factors: Sequence[float] = FACTORS,
    refine: int = 2,
    seed: int = 0,
) -> ChosenCurvature:
    """The curvature for embeddings, or for a matrix of distances, and a task.

    ``vectors`` are tangent vectors at the origin, as encoders give them; their Euclidean distances
    are what the estimate keeps, in ``dim`` dimensions, on at most 120 points. ``validate(c)`` is
    the task's loss on held-out data, lower is better; NaN counts as infinite. It is called with the
    estimate times each of ``factors``, further by factors of 4 while the best lies at an end, and
    then ``refine`` times on both sides of the best, by 2, by the root of 2, and so on. Of equal
    losses the one nearest to the estimate is taken. Raises :class:`InputError` for input that has
    no distances, and where no loss is finite.
    """
    if (vectors is None) == (distances is None):
        raise InputError("give either vectors or distances to choose a curvature for")
    check_count("dim", dim)
    if not factors or min(factors) <= 0:
        raise InputError(f"factors are {list(factors)}; expected one or more positive numbers")
    if distances is None:
        assert vectors is not None
        some = _drawn(len(vectors), seed)
        points = vectors.detach().cpu().double()[some]
        if not points.isfinite().all():
            raise InputError("vectors hold NaN or infinite values; no curvature follows from them")
        distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    else:
        if distances.dim() != 2 or distances.shape[0] != distances.shape[1]:
            raise InputError(
                f"distances have shape {tuple(distances.shape)}; expected a square matrix"
            )
        some = _drawn(len(distances), seed)
        distances = distances.detach().cpu().double()[some][:, some]
    fitted = suggest_curvature(distances, dim, STEPS, seed)
    flat = embed_distances(distances, dim, 0, STEPS, seed).distortion
    diameter = distances.max().item()
    nearly_flat = flat <= GAIN * fitted.distortion + 1e-3
    estimate = min(fitted.c, (NEARLY_FLAT / diameter) ** 2) if nearly_flat else fitted.c
    if validate is None:
        return ChosenCurvature(estimate, estimate, nearly_flat)
    tried = _validated(validate, estimate, (FARTHEST / diameter) ** 2, factors, refine)
    best = _best(tried, estimate)
    return ChosenCurvature(best, estimate, nearly_flat, dict(sorted(tried.items())))


def _validated(
    validate: Callable[[float], float],
    estimate: float,
    most: float,
    factors: Sequence[float],
    refine: int,
) -> dict[float, float]:
    tried: dict[float, float] = {}

    def attempt(c: float) -> None:
        c = min(c, most)
        if not any(math.isclose(c, other, rel_tol=1e-6) for other in tried):
            loss = float(validate(c))
            tried[c] = math.inf if math.isnan(loss) else loss

    for factor in factors:
        attempt(estimate * factor)
    if len(factors) > 1:
        for _ in range(FURTHER):
            best = _best(tried, estimate)
            if best == min(tried):
                attempt(best / 4)
            elif best == max(tried) and best < most:
                attempt(best * 4)
            else:
                break
    if all(math.isinf(loss) for loss in tried.values()):
        raise InputError(
            f"validation gave no finite loss for any curvature from {min(tried):.3g} to "
            f"{max(tried):.3g}; are the embeddings scaled as the task expects them?"
        )
    for step in range(refine):
        best, by = _best(tried, estimate), 2 ** (0.5**step)
        attempt(best / by)
        attempt(best * by)
    return tried


def _best(tried: dict[float, float], estimate: float) -> float:
    return min(tried, key=lambda c: (tried[c], abs(math.log(c / estimate))))


def _drawn(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[:DRAWN].sort().values
