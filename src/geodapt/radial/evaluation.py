"""How well a model, tuned or not, represents a hierarchy: figures on held-out chains."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodapt.data.chains import Chain, Hierarchy
from geodapt.data.lexical import LexicalPair
from geodapt.errors import InputError
from geodapt.metrics import (
    hierarchical_retrieval,
    lexical_entailment,
    recall_at,
    retrieve_chains,
    tau_d,
)
from geodapt.metrics.hierarchy import STEPS
from geodapt.radial.losses import angle_at
from geodapt.radial.model import RadialModel
from geodapt.radial.roots import generality, nearest_root
from geodapt.vision import EmbeddedImages


class Measurer:
    """Held-out chains, embedded by one model.

    With images, every image is a query, and its group's chains are the references, as in
    HierarCaps. Without images, the query is the mean of the most specific texts of a group's
    chains; in a tree, where each chain is its own group, that is the leaf.
    """

    def __init__(
        self,
        model: RadialModel,
        hierarchy: Hierarchy,
        images: EmbeddedImages | None = None,
        c: float = 0.0,
    ) -> None:
        self.model, self.hierarchy, self.images, self.c = model, hierarchy, images, c
        seen = set(images.names) if images else None
        self.chains = [c for c in hierarchy.test if seen is None or c.group in seen]
        if not self.chains:
            raise InputError(f"{hierarchy.name}: no test chain belongs to an image that was read")
        self.groups: dict[str, list[Chain]] = {}
        for number, chain in enumerate(self.chains):
            self.groups.setdefault(chain.group or f"chain {number}", []).append(chain)
        self.texts = list(dict.fromkeys(text for chain in self.chains for text in chain.texts))
        self.place = {text: row for row, text in enumerate(self.texts)}
        self.vectors = model.embed(self.texts, "embedding held-out chains")
        self.roots = model.root_points()
        self.queries, self.asked = self._queries()

    def _queries(self) -> tuple[Float[Tensor, "queries d"], list[str]]:
        """A unit vector for each query, and the group that it asks for."""
        if self.images is not None:
            rows = [row for row, name in enumerate(self.images.names) if name in self.groups]
            return self.images.vectors[rows], [self.images.names[row] for row in rows]
        means = [
            self.at([chain.texts[-1] for chain in chains]).mean(0)
            for chains in self.groups.values()
        ]
        return nn.functional.normalize(torch.stack(means), dim=-1), list(self.groups)

    def figures(self, lexical: Sequence[LexicalPair] | None = None) -> dict[str, float]:
        """All figures that the data allows, by their names in ``results.json``."""
        found = {"tau_d": tau_d(self.radii()), **self.hierarchical_retrieval()}
        found |= self.retrieval()
        if self.hierarchy.classes:
            found |= self.classification()
        if self.images is not None and self.hierarchy.names:
            found |= self.zero_shot(self.images)
        if lexical:
            found["lexical_entailment"] = self.lexical_entailment(lexical)
        return found

    def at(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        return self.vectors[[self.place[text] for text in texts]]

    def root_of(self, chain: Chain) -> Float[Tensor, " d"]:
        """The root that a chain belongs to: the nearest to its most specific text."""
        return self.roots[nearest_root(self.roots, self.at(chain.texts[-1:]))[0]]

    def radii(self) -> list[Float[Tensor, " levels"]]:
        """Distances from the root along each chain."""
        return [generality(self.at(chain.texts), self.root_of(chain)) for chain in self.chains]

    def hierarchical_retrieval(self) -> dict[str, float]:
        """Precision and recall of the chains retrieved over 50 radii, among all held-out texts."""
        radii = generality(self.vectors[None], self.roots[:, None])
        own = radii[0] if len(self.roots) == 1 else radii[nearest_root(self.roots, self.queries)]
        retrieved = retrieve_chains(self.queries @ self.vectors.T, own, STEPS)
        references = {
            group: [[self.place[text] for text in chain.texts] for chain in chains]
            for group, chains in self.groups.items()
        }
        return hierarchical_retrieval(retrieved, [references[group] for group in self.asked])

    def retrieval(self) -> dict[str, float]:
        """Plain retrieval, which tuning should not change: R@1 and R@5.

        With images: of the most specific texts how many find an image of theirs, and of the images
        how many find a text of theirs (``text_recall_at_k``; where the texts are classes, that is
        zero-shot classification). Without: how many captions find another of the same image, where
        images have several.
        """
        number = {group: row for row, group in enumerate(self.groups)}
        texts = list({chain.texts[-1]: None for chain in self.chains})
        owned = torch.zeros(len(texts), len(number), dtype=torch.bool)
        place = {text: row for row, text in enumerate(texts)}
        for group, chains in self.groups.items():
            for chain in chains:
                owned[place[chain.texts[-1]], number[group]] = True
        vectors = self.at(texts)
        if self.images is not None:
            scores = vectors @ self.queries.T
            relevant = owned[:, [number[group] for group in self.asked]]
            back = recall_at(scores.T, relevant.T)
            return {
                **recall_at(scores, relevant),
                **{f"text_{name}": value for name, value in back.items()},
            }
        scores = (vectors @ vectors.T).fill_diagonal_(-torch.inf)
        relevant = (owned.float() @ owned.float().T > 0).fill_diagonal_(False)
        paired = relevant.any(1)
        return recall_at(scores[paired], relevant[paired]) if paired.any() else {}

    def classification(self) -> dict[str, float]:
        """Hierarchical classification: R@1 and R@5 of the inner node right above a leaf.

        The candidates are all inner nodes of the tree, by similarity, as CLIP classifies; the
        queries are the leaves' images, or the leaves themselves.
        """
        column = {text: number for number, text in enumerate(self.hierarchy.classes)}
        above = {
            group: [text for text in chains[0].texts[:-1] if text in column][-1:]
            for group, chains in self.groups.items()
        }
        known = [row for row, group in enumerate(self.asked) if above[group]]
        if not known:
            return {}
        classes = self.model.embed(self.hierarchy.classes, "embedding classes")
        right = torch.tensor([column[above[self.asked[row]][0]] for row in known])
        found = recall_at(
            self.queries[known] @ classes.T, right[:, None] == torch.arange(len(column))
        )
        return {f"class_{name}": value for name, value in found.items()}

    def zero_shot(self, images: EmbeddedImages) -> dict[str, float]:
        """Zero-shot accuracy: the share of pictures whose own name is the nearest of all names.

        ``zero_shot_new`` is that of held-out groups, ``zero_shot_known`` that of the others.
        """
        column = {name: number for number, name in enumerate(self.hierarchy.names)}
        names = self.model.embed(self.hierarchy.names, "embedding names")
        new = torch.tensor([name in self.groups for name in images.names])
        right = torch.tensor([column[name] for name in images.names])
        found = {}
        for key, rows in (("zero_shot_known", ~new), ("zero_shot_new", new)):
            if rows.any():
                relevant = right[rows, None] == torch.arange(len(names))
                scores = images.vectors[rows] @ names.T
                found[key] = recall_at(scores, relevant, (1,))["recall_at_1"]
        return found

    def lexical_entailment(self, pairs: Sequence[LexicalPair]) -> float:
        """Spearman's correlation of scores with exterior angles at the general words."""
        general = self.model.embed([pair.general for pair in pairs], "embedding words")
        specific = self.model.embed([pair.specific for pair in pairs], "embedding words")
        root = self.roots[nearest_root(self.roots, specific)]
        angles = angle_at(general, specific, root, self.c)
        return lexical_entailment(angles, torch.tensor([pair.score for pair in pairs]))
