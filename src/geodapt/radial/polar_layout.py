"""The polar picture: two dimensions that keep each point's radius, and angles at the root.

The radius is exact. Directions from the root span many dimensions, in which unrelated texts are
all about as far apart, so a circle cannot keep every angle: the small ones, between texts that
belong together, count most.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.radial.evaluation import Measurer
from geodapt.radial.results import PolarPicture
from geodapt.radial.roots import generality

CHAINS = 40  # drawn
ROUNDS = 400
STEP = 0.05  # radians


@dataclass(frozen=True)
class Polar:
    """Points around the root."""

    radii: Float[Tensor, " n"]
    angles: Float[Tensor, " n"]
    error: float
    """How far an angle between two points is from the true one at the root: the mean, radians."""


def polar(
    vectors: Float[Tensor, "n d"],
    roots: Float[Tensor, "n d"],
    start: Float[Tensor, " n"] | None = None,
) -> Polar:
    """Lay vectors out around their roots; ``start`` are angles to begin at, such as before tuning.

    Without one, the two directions in which the points differ most give the first angles.
    """
    directions = nn.functional.normalize((vectors - roots).cpu().double(), dim=-1)
    cosine = (directions @ directions.T).clamp(-1, 1)
    true, weight = torch.arccos(cosine).fill_diagonal_(0), cosine.clamp_min(0) ** 4
    if start is None:
        centred = directions - directions.mean(0)
        _, _, axes = torch.linalg.svd(centred, full_matrices=False)
        plane = centred @ axes[:2].T
        start = torch.atan2(plane[:, 1], plane[:, 0])
    angles = start.detach().cpu().double().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([angles], lr=STEP)
    with torch.enable_grad():
        for _ in range(ROUNDS):
            optimizer.zero_grad()
            (weight * (_between(angles) - true).square()).mean().backward()
            optimizer.step()
    found = angles.detach()
    error = (_between(found) - true).abs().mean().item()
    return Polar(generality(vectors, roots), found.remainder(2 * math.pi), error)


def _between(angles: Float[Tensor, " n"]) -> Float[Tensor, "n n"]:
    """The angle between each two, 0 to pi."""
    difference = angles[:, None] - angles
    return torch.atan2(difference.sin(), difference.cos()).abs()


def picture(measurer: Measurer, start: list[float] | None = None) -> PolarPicture:
    """Some held-out chains as ``results.json`` keeps them."""
    spread = max(1, len(measurer.chains) // CHAINS)
    chains = measurer.chains[::spread][:CHAINS]
    texts: dict[str, int] = {}
    roots: dict[str, Tensor] = {}
    for chain in chains:
        for text in chain.texts:
            texts.setdefault(text, len(texts))
            roots.setdefault(text, measurer.root_of(chain))
    layout = polar(
        measurer.at(list(texts)),
        torch.stack([roots[text] for text in texts]),
        None if start is None else torch.tensor(start),
    )
    return PolarPicture(
        texts=list(texts),
        chains=[[texts[text] for text in chain.texts] for chain in chains],
        radii=[round(value, 4) for value in layout.radii.tolist()],
        angles=[round(value, 4) for value in layout.angles.tolist()],
        angle_error=round(math.degrees(layout.error), 1),
    )
