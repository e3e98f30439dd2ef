"""LatHAdapter: what stands between a CLIP's features and its classes."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from pydantic import ValidationError
from torch import Tensor, nn

from geodapt.checks import check_count
from geodapt.errors import InputError
from geodapt.geometry import lorentz
from geodapt.lathadapter.curvature import choose_curvature, estimated_curvatures
from geodapt.lathadapter.hierarchy import draw_triplets, hierarchy_loss, reciprocal_neighbours
from geodapt.lathadapter.number import START, centres, first_number, random_attributes, still_used
from geodapt.lathadapter.settings import LatHAdapterSettings
from geodapt.lathadapter.terms import classification_loss, cosine_matrix, euclidean, refine_texts


class LatHAdapter(nn.Module):
    """Learned attributes that refine class texts, ordered with them and pictures in a hierarchy.

    Zhao et al. 2025, "LatHAdapter: Latent hierarchical adapter". It takes features as the towers
    give them, ``d`` wide, so that it fits any prompt learner
    (:class:`geodapt.prompts.adapter.FeatureAdapter`). Its parameters are ``N d`` numbers, and the
    curvature where that is learned.

    >>> adapter = LatHAdapter(4, attributes=3)
    >>> adapter.refine(torch.eye(4)[:2]).shape
    torch.Size([2, 4])

    Raises :class:`InputError` for settings that are not right, for features of another width, and
    with ``attributes="auto"`` for use before :meth:`start`.
    """

    kind = "lathadapter"

    attributes: nn.Parameter
    """(N, d), those dropped included."""
    used: Tensor
    """(N,) whether an attribute still takes part."""
    chosen: Tensor
    """(N,) how often each was a lowest common ancestor of pictures since the last epoch."""

    def __init__(
        self, width: int, settings: LatHAdapterSettings | None = None, **changes: Any
    ) -> None:
        super().__init__()
        check_count("width", width)
        try:
            given = {} if settings is None else settings.model_dump()
            self.settings = LatHAdapterSettings.model_validate({**given, **changes})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"][:1]))
            raise InputError(f"LatHAdapter, {where}: {first['msg']}") from error
        self.width = width
        self.first_number: int | None = None
        """The number that ``auto`` started from, before it was doubled."""
        number = self.settings.attributes
        count = 0 if number == "auto" else number
        self._set_attributes(random_attributes(count, width, 0.9, seed=0))
        self.chosen_curvature: float | None = None
        """That of a list of curvatures that :meth:`start` chose."""
        self.log_curvature: nn.Parameter | None = None
        if self.settings.curvature == "learned":
            start = torch.tensor(self.settings.first_curvature).log()
            self.log_curvature = nn.Parameter(start)

    @property
    def number(self) -> int:
        """Attributes that take part."""
        return int(self.used.sum())

    @property
    def curvature(self) -> float | Tensor:
        """c; a tensor with a gradient where it is learned."""
        if self.log_curvature is not None:
            return self.log_curvature.exp()
        if isinstance(self.settings.curvature, float):
            return self.settings.curvature
        if self.chosen_curvature is None:
            raise InputError(
                f"one of the curvatures {self.settings.curvature} is chosen from features: call "
                "start(images, texts, seed, labels, scale) before anything else, or give one"
            )
        return self.chosen_curvature

    # What a prompt learner calls (geodapt.prompts.adapter.FeatureAdapter)

    def configuration(self) -> dict[str, Any]:
        return {
            "width": self.width,
            "rows": len(self.attributes),
            "first_number": self.first_number,
            "chosen_curvature": self.chosen_curvature,
            "settings": self.settings.model_dump(mode="json"),
        }

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        try:
            made = cls(int(configuration["width"]), **configuration["settings"])
            rows, first = int(configuration["rows"]), configuration.get("first_number")
            chosen = configuration.get("chosen_curvature")
            made.chosen_curvature = None if chosen is None else float(chosen)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is no configuration of a LatHAdapter: {error}") from error
        if rows < 0:
            raise InputError(f"a LatHAdapter has {rows} attributes; expected 0 or more")
        made._set_attributes(torch.zeros(rows, made.width))
        made.first_number = first
        return made

    @torch.no_grad()
    def start(
        self,
        images: Float[Tensor, "n d"],
        texts: Float[Tensor, "c d"],
        seed: int,
        labels: Int[Tensor, " n"] | None = None,
        scale: Float[Tensor, ""] | None = None,
    ) -> None:
        """Choose number and curvature where they are left open, and put attributes in place.

        A list of curvatures, or ``auto``, needs the ``scale`` and, unless pictures belong to the
        nearest text, the ``labels``.
        """
        candidates = self.settings.curvature
        if candidates == "auto":
            candidates = estimated_curvatures(self.sized(images), self.sized(texts), seed)
        if isinstance(candidates, list):
            if scale is None:
                raise InputError("to choose a curvature, start needs the scale of the logits")
            if labels is None:  # what the model itself takes them for
                labels = cosine_matrix(images, texts).argmax(-1)
            self.chosen_curvature = choose_curvature(
                lambda c: LatHAdapter(self.width, self.settings, curvature=c),
                candidates,
                images.cpu(),
                labels.cpu(),
                texts.cpu(),
                scale.cpu(),
                seed,
            )
        images = self.sized(images, "images")
        texts = self.sized(texts, "texts")
        points = torch.cat([images, texts]).cpu()
        if not points.isfinite().all():
            raise InputError("features hold NaN or infinite values; nothing can start from them")
        number = self.settings.attributes
        if number == "auto":
            self.first_number = first_number(images.cpu(), texts.cpu())
            number = START * self.first_number
        if self.settings.initial == "kmeans":
            attributes = centres(points, number, seed)
        else:
            length = 0.9 * float(points.norm(dim=-1).mean())
            attributes = random_attributes(number, self.width, length, seed)
        self._set_attributes(attributes.to(self.attributes))

    @torch.no_grad()
    def end_epoch(self, epoch: int, epochs: int) -> None:
        """With ``auto``, from a third of the epochs to two thirds: drop what is not used."""
        if self.settings.attributes == "auto" and epochs <= 3 * (epoch + 1) <= 2 * epochs:
            distances = self.distances(self.attributes, self.attributes)
            margin = self.settings.margin
            self.used.copy_(still_used(distances, self.used, self.chosen, margin))
        if epoch + 1 < epochs:  # those of the last epoch stay, to be reported
            self.chosen.zero_()

    def refine(self, texts: Float[Tensor, "c d"]) -> Float[Tensor, "c d"]:
        """``T^``: sized class texts after one step of message passing with the attributes."""
        attributes, beta = self._attributes(), self.settings.beta
        return refine_texts(self.sized(texts, "texts"), attributes, beta)

    def losses(
        self,
        images: Float[Tensor, "b d"],
        texts: Float[Tensor, "c d"],
        refined: Float[Tensor, "c d"],
        labels: Int[Tensor, " b"] | None,
        teacher: Float[Tensor, "b c"] | None,
        scale: Float[Tensor, ""],
    ) -> dict[str, Tensor]:
        """``L_ecls``, ``L_hcls``, ``L_va`` and ``L_at`` of the paper, those of ``losses``.

        With a ``teacher`` (its logits) both classification terms are divergences from it.
        """
        if (labels is None) == (teacher is None):
            raise InputError("a loss needs either labels or a teacher's logits, not both")
        images = self.sized(images, "images")
        cosines, distances = self._compared(images, refined)
        asked, terms = self.settings.losses, {}
        if "classification" in asked:
            terms["classification"] = classification_loss(cosines * scale, labels, teacher)
        weight = self.settings.hyperbolic_scale
        if "hyperbolic" in asked and weight:
            terms["hyperbolic"] = classification_loss(-weight * distances, labels, teacher)
        attributes = self._attributes()
        if "image_hierarchy" in asked:
            of_labels = labels if self.settings.same_label else None
            terms["image_hierarchy"], chosen = self._hierarchy(images, attributes, of_labels)
            if self.training:
                self.chosen[self.used] += chosen.to(self.chosen)
        if "attribute_hierarchy" in asked:
            terms["attribute_hierarchy"] = self._hierarchy(attributes, refined, None)[0]
        return terms

    def logits(
        self,
        images: Float[Tensor, "b d"],
        refined: Float[Tensor, "c d"],
        scale: Float[Tensor, ""],
    ) -> Float[Tensor, "b c"]:
        """``cos(V, T^) / tau - d(v~, t~)``, the distance times ``hyperbolic_scale``."""
        images = self.sized(images, "images")
        weight = self.settings.hyperbolic_scale
        if not (self.settings.hyperbolic_logits and weight):
            return cosine_matrix(images, refined) * scale
        cosines, distances = self._compared(images, refined)
        return cosines * scale - weight * distances

    def distances(self, x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
        """Distances of the points that features and attributes are mapped to.

        ``d_H(exp0(x), exp0(y))`` of the Poincare ball, computed on the hyperboloid: its
        exponential map reaches half as far, hence the 2. Flat: ``2 |x - y|``.
        """
        if self.settings.space == "flat":
            return 2 * euclidean(x, y)
        c = self.curvature
        return lorentz.pairwise_distance(lorentz.exp0(2 * x, c), lorentz.exp0(2 * y, c), c)

    def radii(self, x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Distances from the origin: ``2 |x|``, whatever the curvature."""
        return 2 * x.norm(dim=-1)

    def sized(self, features: Float[Tensor, "n d"], what: str = "features") -> Float[Tensor, "n d"]:
        """Features of a tower at the length that the setting ``norm`` gives them."""
        features = self._checked(features, what)
        match self.settings.norm:
            case "unit":
                return nn.functional.normalize(features, dim=-1)
            case "clip":
                return self._clipped(features)
            case _:
                return features

    def active_attributes(self) -> Float[Tensor, "active d"]:
        """The attributes that take part, at the lengths at which they do, without gradients."""
        return self._attributes().detach()

    def _hierarchy(
        self, points: Tensor, ancestors: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        near = self.distances(points.detach(), points.detach())
        neighbours = reciprocal_neighbours(near, self.settings.neighbours, labels)
        triplets = draw_triplets(neighbours, self.settings.triplets)
        return hierarchy_loss(
            self.distances(points, ancestors),
            triplets,
            self.settings.margin,
            self.settings.ancestor,
            self.settings.lca_temperature,
        )

    def _compared(self, images: Tensor, refined: Tensor) -> tuple[Tensor, Tensor]:
        refined = self._checked(refined, "refined texts")
        return cosine_matrix(images, refined), self.distances(images, refined)

    def _attributes(self) -> Tensor:
        if not len(self.attributes):
            raise InputError(
                'attributes="auto" are chosen from features: call start(images, texts, seed) '
                "before anything else, or give their number"
            )
        attributes = self.attributes[self.used]
        return self._clipped(attributes) if self.settings.norm == "clip" else attributes

    def _clipped(self, features: Tensor) -> Tensor:
        length = features.norm(dim=-1, keepdim=True).clamp_min(self.settings.clip_radius)
        return features * (self.settings.clip_radius / length)

    def _checked(self, features: Tensor, what: str) -> Tensor:
        if features.dim() != 2 or features.shape[-1] != self.width:
            raise InputError(
                f"{what} have shape {tuple(features.shape)}; this LatHAdapter takes "
                f"(rows, {self.width}). With a teacher it has the teacher's width"
            )
        return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features

    def _set_attributes(self, values: Tensor) -> None:
        self.attributes = nn.Parameter(values.clone())
        device = values.device
        self.register_buffer("used", torch.ones(len(values), dtype=torch.bool, device=device))
        self.register_buffer("chosen", torch.zeros(len(values), device=device))
