"""``curvature: auto``: where an encoder's angles tell entailed from contradicting texts best."""

from collections.abc import Sequence

import torch

from geodapt.data.chains import Chain
from geodapt.geometry.curvature import ChosenCurvature, find_curvature
from geodapt.radial.collator import ChainCollator
from geodapt.radial.losses import angle_at
from geodapt.radial.model import RadialModel
from geodapt.radial.roots import nearest_root

CHAINS = 200
"""Training chains that are looked at, at equal distances."""


@torch.no_grad()
def curvature_of_chains(
    model: RadialModel, chains: Sequence[Chain], seed: int = 0
) -> ChosenCurvature:
    """The curvature for a model and chains, before any tuning.

    The estimate is that of the texts' vectors as seen from the root. Its validation is the share of
    triples (a text, what it is entailed by, what contradicts it) whose exterior angles are in the
    wrong order, and among equal shares the mean difference of the angles.
    """
    count = min(len(chains), CHAINS)
    some = [chains[i * len(chains) // count] for i in range(count)]
    texts, triples = ChainCollator(model.encoder, model.roots.settings.text).triples(some)
    vectors = model.embed(texts, "embedding chains").cpu()
    general, entailed, contradicting, specific = vectors[triples].unbind(1)
    roots = model.root_points()
    root = roots[nearest_root(roots, specific)]

    def wrong(c: float) -> float:
        ahead = angle_at(general, contradicting, root, c) - angle_at(general, entailed, root, c)
        return (ahead <= 0).double().mean().item() - 1e-3 * ahead.mean().item()

    return find_curvature(vectors[1:] - roots[0], wrong, seed=seed)
