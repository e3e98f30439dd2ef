"""How well embeddings keep a hierarchy: order of radii, and retrieval from general to specific.

A candidate's *radius* is its distance from the root, small for general concepts. Sources: Alper &
Averbuch-Elor 2024, "Emergent visual-semantic hierarchies in image-text representations", whose
public evaluation of HierarCaps these figures follow; Vulic et al. 2017, "HyperLex".
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from geodapt.errors import InputError

STEPS = 50
"""Radii at which the published evaluation looks for the best candidate."""
QUERIES_AT_ONCE = 256


def kendall(radii: Float[Tensor, "chains levels"]) -> Float[Tensor, " chains"]:
    """Kendall's tau of each chain's radii with its levels, which run from general to specific.

    ``(concordant - discordant) / (levels (levels - 1) / 2)``, -1 to 1. Of equal radii the earlier
    level counts as the smaller one, as where radii are sorted by a stable sort; equal texts
    share a radius.
    """
    _finite(radii, "radii")
    levels = radii.shape[-1]
    if levels < 2:
        raise InputError(f"chains have {levels} level; an order needs at least 2")
    general, specific = torch.triu_indices(levels, levels, offset=1, device=radii.device)
    in_order = radii[:, specific] >= radii[:, general]
    return 2 * in_order.cpu().double().mean(-1) - 1


def tau_d(radii: Sequence[Float[Tensor, " levels"]] | Float[Tensor, "chains levels"]) -> float:
    """The mean over chains of :func:`kendall`; paths of a tree may have different lengths.

    1 where radii grow along every chain, -1 where they shrink, about 0 where they are random.
    Raises :class:`InputError` where there are no chains, for NaN, and for a chain of one level.
    """
    if len(radii) == 0:
        raise InputError("there are no chains to measure: the data set is empty")
    by_length: dict[int, list[Tensor]] = {}
    for chain in radii:
        by_length.setdefault(len(chain), []).append(chain)
    return torch.cat([kendall(torch.stack(chains)) for chains in by_length.values()]).mean().item()


def retrieve_chains(
    similarity: Float[Tensor, "queries candidates"],
    radii: Float[Tensor, "*queries candidates"],
    steps: int = STEPS,
) -> list[list[int]]:
    """Hierarchical retrieval: for each query the candidates met on the way out from the root.

    The radius grows in ``steps`` equal steps from the smallest to the largest of the candidates';
    at each step the most similar candidate within the radius is taken, and one that was just
    taken is not repeated. ``radii`` are the same for all queries, or a row each (several roots).
    Of equally similar candidates the one of smaller radius is taken, then the first.

    Raises :class:`InputError` for shapes that do not fit, NaN, or fewer than 2 steps.
    """
    _finite(similarity, "similarities")
    _finite(radii, "radii")
    if steps < 2:
        raise InputError(f"steps is {steps}; from the smallest radius to the largest takes 2")
    if similarity.ndim != 2 or radii.shape not in (similarity.shape, similarity.shape[1:]):
        raise InputError(
            f"similarities have shape {tuple(similarity.shape)} and radii {tuple(radii.shape)}; "
            "expected (queries, candidates), and one radius a candidate or a row of them a query"
        )
    if similarity.shape[1] == 0:
        raise InputError("there are no candidates to retrieve")
    if similarity.device.type == "mps":  # which has no float64
        similarity, radii = similarity.cpu(), radii.cpu()
    found: list[list[int]] = []
    for start in range(0, len(similarity), QUERIES_AT_ONCE):
        part = slice(start, start + QUERIES_AT_ONCE)
        own = radii[part] if radii.ndim == 2 else radii[None]
        found += [_unrepeated(row) for row in _taken(similarity[part], own, steps).tolist()]
    return found


def _taken(
    similarity: Float[Tensor, "queries candidates"],
    radii: Float[Tensor, "own candidates"],
    steps: int,
) -> Int[Tensor, "queries steps"]:
    """The candidate taken at each step: the running best over candidates sorted by radius.

    ``radii`` have a row a query, or one row for all, which is then sorted once.
    """
    radii, order = radii.double().sort(dim=1, stable=True)
    order = order.expand_as(similarity)
    similarity = similarity.gather(1, order)
    better = torch.ones_like(similarity, dtype=torch.bool)
    better[:, 1:] = similarity[:, 1:] > similarity.cummax(1).values[:, :-1]
    positions = torch.arange(similarity.shape[1], device=similarity.device)
    leader = torch.where(better, positions, 0).cummax(1).values
    share = torch.linspace(0, 1, steps, dtype=torch.float64, device=radii.device)
    low, high = radii[:, :1], radii[:, -1:]
    within = torch.searchsorted(radii, low + (high - low) * share, right=True)
    within[:, -1] = radii.shape[1]  # the last step takes all, whatever rounding makes of it
    within = within.clamp_min(1).expand(len(similarity), steps)
    return order.gather(1, leader.gather(1, within - 1))


def _unrepeated(taken: list[int]) -> list[int]:
    return [item for place, item in enumerate(taken) if place == 0 or taken[place - 1] != item]


def hierarchical_retrieval(
    retrieved: Sequence[Sequence[int]], references: Sequence[Sequence[Sequence[int]]]
) -> dict[str, float]:
    """``precision`` and ``recall`` of retrieved chains, means over queries, each in 0..1.

    ``references[q]`` are the chains that are right for query q, general to specific, as the same
    candidate numbers. Precision is the share of the retrieved candidates that stand in any of
    them; recall is the share of levels of which some reference's candidate was retrieved.

    Raises :class:`InputError` where there are no queries, or one without a reference.
    """
    if not retrieved or len(retrieved) != len(references):
        raise InputError(
            f"{len(retrieved)} retrieved chains for {len(references)} queries; "
            "expected one for each, and at least one"
        )
    precision, recall = 0.0, 0.0
    for query, (taken, chains) in enumerate(zip(retrieved, references, strict=True)):
        levels = max(map(len, chains), default=0)
        if levels == 0:
            raise InputError(f"query {query} has no reference chain; leave it out")
        chosen, right = set(taken), {item for chain in chains for item in chain}
        precision += len(chosen & right) / max(len(chosen), 1)
        hits = [
            any(chain[level] in chosen for chain in chains if level < len(chain))
            for level in range(levels)
        ]
        recall += sum(hits) / levels
    return {"precision": precision / len(retrieved), "recall": recall / len(retrieved)}


def lexical_entailment(angles: Float[Tensor, " pairs"], scores: Float[Tensor, " pairs"]) -> float:
    """Spearman's correlation of people's scores of "x is a kind of y" with ``-Xi_r(y, x)``.

    ``angles`` are exterior angles at the general word y: the smaller, the more x lies within its
    cone. Ties take their mean rank. Raises :class:`InputError` for NaN, unequal lengths, fewer
    than two pairs, or where all angles or all scores are equal, which have no order.
    """
    _finite(angles, "angles")
    _finite(scores, "scores")
    if angles.shape != scores.shape or angles.ndim != 1 or len(angles) < 2:
        raise InputError(
            f"angles have shape {tuple(angles.shape)} and scores {tuple(scores.shape)}; "
            "expected one of each for at least two pairs"
        )
    for name, values in (("angles", angles), ("scores", scores)):
        if bool((values == values[0]).all()):
            raise InputError(f"all {len(values)} {name} are {values[0].item():g}: no order in them")
    return float(spearmanr(-angles.cpu().double().numpy(), scores.cpu().double().numpy()).statistic)


def _finite(values: Tensor, name: str) -> None:
    if not torch.isfinite(values).all():
        raise InputError(f"{name} hold NaN or infinite values; did training diverge?")
