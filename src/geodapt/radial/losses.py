"""The losses of radial tuning, on unit vectors and their root.

``Xi_r(e, x)`` is the exterior angle at e between the ray from the root through e, carried on, and
the direction from e to x (:func:`geodapt.geometry.cones.exterior_angle`): small where x goes on
outwards, as a more specific concept should. With a curvature ``-c`` the angles are those of
hyperbolic space, whose tangent vectors at the root embeddings are. Source: Alper & Averbuch-Elor
2024, "Emergent visual-semantic hierarchies in image-text representations", section 3; the cone's
loss is that of Ganea, Becigneul & Hofmann 2018.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from geodapt.geometry import cones, lorentz

Loss = Literal["radial", "cone"]
"""radial: the contrast of exterior angles; cone: the entailment cone, a baseline."""


def angle_at(
    apex: Float[Tensor, "n d"],
    x: Float[Tensor, "n d"],
    root: Float[Tensor, "n d"],
    c: float = 0.0,
) -> Float[Tensor, " n"]:
    """``Xi_r(apex, x)``, in radians: in flat space, or with ``e - r`` as tangent vectors at the
    origin of the space of curvature ``-c``."""
    if c == 0:
        return cones.exterior_angle(apex, x, root)
    return cones.lorentz_exterior_angle(lorentz.exp0(apex - root, c), lorentz.exp0(x - root, c), c)


def radial_terms(
    general: Float[Tensor, "triples d"],
    entailed: Float[Tensor, "triples d"],
    contradicting: Float[Tensor, "triples d"],
    root: Float[Tensor, "triples d"],
    c: float = 0.0,
) -> Float[Tensor, " triples"]:
    """``Xi_r(e, e') - Xi_r(e, e'')`` of each triple, in radians, -pi to pi."""
    return angle_at(general, entailed, root, c) - angle_at(general, contradicting, root, c)


def radial_loss(
    general: Float[Tensor, "triples d"],
    entailed: Float[Tensor, "triples d"],
    contradicting: Float[Tensor, "triples d"],
    root: Float[Tensor, "triples d"],
    c: float = 0.0,
) -> Float[Tensor, ""]:
    """The mean of :func:`radial_terms` plus the largest of them, the batch's hardest."""
    terms = radial_terms(general, entailed, contradicting, root, c)
    return terms.mean() + terms.max()


def cone_loss(
    general: Float[Tensor, "pairs d"],
    entailed: Float[Tensor, "pairs d"],
    root: Float[Tensor, "pairs d"],
    eps: float = 0.1,
    c: float = 0.0,
) -> Float[Tensor, ""]:
    """The mean of ``relu(Xi_r(e, e') - theta_r(e))``: how far e' is outside the cone at e."""
    if c == 0:
        aperture = cones.half_aperture(general, root, eps)
    else:
        aperture = cones.lorentz_half_aperture(lorentz.exp0(general - root, c), c, eps)
    return cones.cone_energy(angle_at(general, entailed, root, c), aperture).mean()


def anchoring_loss(
    embeddings: Float[Tensor, "n d"], pretrained: Float[Tensor, "n d"]
) -> Float[Tensor, ""]:
    """The mean of ``1 - sim(e, e*)``, 0 where nothing moved."""
    return (1 - torch.cosine_similarity(embeddings, pretrained)).mean()
