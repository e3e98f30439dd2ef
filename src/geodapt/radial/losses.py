"""The losses of radial tuning, on unit vectors and their root.

``Xi_r(e, x)`` is the exterior angle at e between the ray from the root through e, carried on, and
the direction from e to x (:func:`geodapt.geometry.cones.exterior_angle`): small where x goes on
outwards, as a more specific concept should. Source: Alper & Averbuch-Elor 2024, "Emergent
visual-semantic hierarchies in image-text representations", section 3; the cone's loss is that of
Ganea, Becigneul & Hofmann 2018.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.geometry import cones

Loss = Literal["radial", "cone"]
"""radial: the contrast of exterior angles; cone: the entailment cone, a baseline."""


def radial_terms(
    general: Float[Tensor, "triples d"],
    entailed: Float[Tensor, "triples d"],
    contradicting: Float[Tensor, "triples d"],
    root: Float[Tensor, "triples d"],
) -> Float[Tensor, "triples"]:
    """``Xi_r(e, e') - Xi_r(e, e'')`` of each triple, in radians, -pi to pi."""
    return cones.exterior_angle(general, entailed, root) - cones.exterior_angle(
        general, contradicting, root
    )


def radial_loss(
    general: Float[Tensor, "triples d"],
    entailed: Float[Tensor, "triples d"],
    contradicting: Float[Tensor, "triples d"],
    root: Float[Tensor, "triples d"],
) -> Float[Tensor, ""]:
    """The mean of :func:`radial_terms` plus the largest of them, the batch's hardest."""
    terms = radial_terms(general, entailed, contradicting, root)
    return terms.mean() + terms.max()


def cone_loss(
    general: Float[Tensor, "pairs d"],
    entailed: Float[Tensor, "pairs d"],
    root: Float[Tensor, "pairs d"],
    eps: float = 0.1,
) -> Float[Tensor, ""]:
    """The mean of ``relu(Xi_r(e, e') - theta_r(e))``: how far e' is outside the cone at e."""
    angle = cones.exterior_angle(general, entailed, root)
    return cones.cone_energy(angle, cones.half_aperture(general, root, eps)).mean()


def anchoring_loss(
    embeddings: Float[Tensor, "n d"], pretrained: Float[Tensor, "n d"]
) -> Float[Tensor, ""]:
    """The mean of ``1 - sim(e, e*)``, 0 where nothing moved."""
    return (1 - torch.cosine_similarity(embeddings, pretrained)).mean()
