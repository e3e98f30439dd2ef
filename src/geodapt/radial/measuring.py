"""What a model knows of a hierarchy, trained or not: the figures of held-out chains."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.data.chains import Chain, Hierarchy
from geodapt.data.lexical import LexicalPair
from geodapt.errors import InputError
from geodapt.geometry import cones
from geodapt.metrics import (
    hierarchical_retrieval,
    lexical_entailment,
    recall_at,
    retrieve_chains,
    tau_d,
)
from geodapt.metrics.hierarchy import STEPS
from geodapt.radial.images import Images
from geodapt.radial.model import RadialModel
from geodapt.radial.roots import generality, nearest


class Measurer:
    """Held-out chains, embedded by one model.

    With images, an image is a query, and its chains are the references, as HierarCaps is
    evaluated. Without, the mean of the most specific texts of its chains stands for it; in a tree,
    the leaf itself.
    """

    def __init__(
        self, model: RadialModel, hierarchy: Hierarchy, images: Images | None = None
    ) -> None:
        self.model, self.hierarchy = model, hierarchy
        self.chains = hierarchy.test
        seen = set(images.names) if images else None
        if seen is not None:
            self.chains = [chain for chain in self.chains if chain.group in seen]
            if not self.chains:
                raise InputError(
                    f"{hierarchy.name}: no test chain belongs to an image that was read"
                )
        self.texts = list(dict.fromkeys(text for chain in self.chains for text in chain.texts))
        self.place = {text: row for row, text in enumerate(self.texts)}
        self.vectors = model.embed(self.texts, "embedding held-out chains")
        self.roots = model.root_points()
        self.images = images
        self.groups: dict[str, list[Chain]] = {}
        for number, chain in enumerate(self.chains):
            self.groups.setdefault(chain.group or f"chain {number}", []).append(chain)

    def figures(self, lexical: Sequence[LexicalPair] | None = None) -> dict[str, float]:
        """All figures that the data allows, by their names in ``results.json``."""
        found = {"tau_d": tau_d(self.radii()), **self.hierarchical_retrieval()}
        found |= self.retrieval()
        if self.hierarchy.classes:
            found |= self.classification()
        if lexical:
            found["lexical_entailment"] = self.lexical_entailment(lexical)
        return found

    def at(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        return self.vectors[[self.place[text] for text in texts]]

    def root_of(self, chain: Chain) -> Float[Tensor, " d"]:
        """The root that a chain belongs to: the nearest to its most specific text."""
        return self.roots[nearest(self.roots, self.at(chain.texts[-1:]))[0]]

    def radii(self) -> list[Float[Tensor, " levels"]]:
        """Distances from the root along each chain."""
        return [generality(self.at(chain.texts), self.root_of(chain)) for chain in self.chains]

    def queries(self) -> Float[Tensor, "queries d"]:
        """One unit vector a group, in the order of ``groups``."""
        if self.images is not None:
            row = {name: number for number, name in enumerate(self.images.names)}
            return self.images.vectors[[row[group] for group in self.groups]]
        means = [
            self.at([chain.texts[-1] for chain in chains]).mean(0)
            for chains in self.groups.values()
        ]
        return nn.functional.normalize(torch.stack(means), dim=-1)

    def hierarchical_retrieval(self) -> dict[str, float]:
        """Precision and recall of the chains retrieved over 50 radii, among all held-out texts."""
        queries = self.queries()
        radii = generality(self.vectors[None], self.roots[:, None])
        own = radii[0] if len(self.roots) == 1 else radii[nearest(self.roots, queries)]
        retrieved = retrieve_chains(queries @ self.vectors.T, own, STEPS)
        references = [
            [[self.place[text] for text in chain.texts] for chain in chains]
            for chains in self.groups.values()
        ]
        return hierarchical_retrieval(retrieved, references)

    def retrieval(self) -> dict[str, float]:
        """Plain retrieval, which tuning should leave as it was: R@1 and R@5.

        With images: of the most specific captions, how many find their image. Without: how many
        find another caption of the same image, where images have several.
        """
        captions = self.at([chain.texts[-1] for chain in self.chains])
        groups = {group: number for number, group in enumerate(self.groups)}
        own = torch.tensor([groups[c.group] if c.group else -1 for c in self.chains])
        if self.images is not None:
            return recall_at(captions @ self.queries().T, own[:, None] == torch.arange(len(groups)))
        scores = (captions @ captions.T).fill_diagonal_(-torch.inf)
        relevant = (own[:, None] == own) & (own[:, None] >= 0)
        relevant.fill_diagonal_(False)
        paired = relevant.any(1)
        return recall_at(scores[paired], relevant[paired]) if paired.any() else {}

    def classification(self) -> dict[str, float]:
        """Hierarchical classification: held-out leaves among all inner nodes of the tree.

        R@1 and R@5 of the node right above the leaf, by similarity, as CLIP classifies.
        """
        classes = self.model.embed(self.hierarchy.classes, "embedding classes")
        column = {text: number for number, text in enumerate(self.hierarchy.classes)}
        known = [chain for chain in self.chains if len(chain.texts) > 1]
        right, leaves = [], []
        for chain in known:
            inner = [text for text in chain.texts if text in column]
            if inner and inner[-1] != chain.texts[-1]:
                right.append(column[inner[-1]])
                leaves.append(chain.texts[-1])
        if not leaves:
            return {}
        scores = self.at(leaves) @ classes.T
        relevant = torch.tensor(right)[:, None] == torch.arange(len(column))
        return {f"class_{name}": value for name, value in recall_at(scores, relevant).items()}

    def lexical_entailment(self, pairs: Sequence[LexicalPair]) -> float:
        """Spearman's correlation of scores with exterior angles at the general words."""
        general = self.model.embed([pair.general for pair in pairs], "embedding words")
        specific = self.model.embed([pair.specific for pair in pairs], "embedding words")
        root = self.roots[nearest(self.roots, specific)]
        angles = cones.exterior_angle(general, specific, root)
        return lexical_entailment(angles, torch.tensor([pair.score for pair in pairs]))
