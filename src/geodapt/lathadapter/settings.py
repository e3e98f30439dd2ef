"""What a user chooses about LatHAdapter; each question that the paper leaves open has a setting."""

from typing import Annotated, Literal

from pydantic import Field

from geodapt.settings import Settings

LossName = Literal["classification", "hyperbolic", "image_hierarchy", "attribute_hierarchy"]
LOSSES: tuple[LossName, ...] = (
    "classification",
    "hyperbolic",
    "image_hierarchy",
    "attribute_hierarchy",
)
"""``L_ecls``, ``L_hcls``, ``L_va`` and ``L_at`` of the paper."""
Curvature = Annotated[float, Field(gt=0)]


class LatHAdapterSettings(Settings):
    """Zhao et al. 2025, "LatHAdapter"; the defaults are the paper's where it states one."""

    attributes: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """N; auto starts from the classes' effective rank, then drops and merges (docs)."""
    curvature: (
        Curvature | Literal["learned", "auto"] | Annotated[list[Curvature], Field(min_length=1)]
    ) = 0.1
    """c of the space of curvature -c. learned: log c trains with everything else. A list: that of
    the best accuracy on training pictures kept back, by the adapter alone on frozen features.
    auto: likewise, of curvatures around the probe's estimate for the features."""
    first_curvature: Curvature = 0.1
    """Where learning starts, under curvature: learned."""
    space: Literal["hyperbolic", "flat"] = "hyperbolic"
    """flat: the same terms on the distance ``2 |x - y|``, to which the hyperbolic one tends as c
    goes to 0; a control with the same parameters."""
    beta: float = Field(default=0.1, ge=0)
    """Weight of what classes and attributes pass to each other in the refiner."""
    norm: Literal["unit", "clip", "raw"] = "unit"
    """Length of features before the exponential map: 1 (attributes free), at most clip_radius
    (attributes too), or as the towers give them."""
    clip_radius: float = Field(default=2.3, gt=0)
    """The most length under ``norm: clip``; HIER's."""
    hyperbolic_scale: float = Field(default=1.0, ge=0)
    """Multiplies the distance in the hyperbolic classification term and in the logits."""
    hyperbolic_logits: bool = True
    """Subtract the distance from the logits, as the paper does."""
    losses: list[LossName] = Field(default=list(LOSSES), min_length=1)
    """What trains; the terms of hierarchy leave the logits as they are, so that without them
    attributes learn from classification alone."""
    margin: float = Field(default=0.1, ge=0)
    """sigma of the triplet terms."""
    neighbours: int = Field(default=3, ge=2)
    """k of the reciprocal neighbours; a point counts as its own, as in HIER."""
    same_label: bool = True
    """Pictures of one class count as nearer by 1 (of exp(-d)), as in HIER."""
    triplets: int = Field(default=50, ge=1)
    """The most triplets of a point; where there are more, as many are drawn."""
    ancestor: Literal["gumbel", "argmax"] = "gumbel"
    """How the lowest common ancestor is chosen: drawn, with gradients to all, or the nearest."""
    lca_temperature: float = Field(default=0.1, gt=0)
    """Divides distances before Gumbel noise is added: 0.1 is HIER's, 1 the paper's formula."""
    initial: Literal["kmeans", "random"] = "kmeans"
    """Where attributes start: centres of the training pictures and class texts, or random."""
