"""One of several curvatures, by pictures that are kept back; `auto` says which to try."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from geodapt.errors import InputError
from geodapt.geometry.curvature import find_curvature
from geodapt.lathadapter.fitting import fit_on_features
from geodapt.lathadapter.recipe import FeatureTraining

FACTORS = (1 / 16, 1 / 4, 1.0, 4.0)


def estimated_curvatures(
    images: Float[Tensor, "n d"], texts: Float[Tensor, "c d"], seed: int
) -> list[float]:
    """The probe's estimate for pictures and class texts at the length that they enter hyperbolic
    space with, and curvatures around it."""
    vectors = 2 * torch.cat([images, texts])  # exp0 of the ball reaches twice as far
    estimate = find_curvature(vectors, seed=seed).c
    return [estimate * factor for factor in FACTORS]


KEPT_BACK = 4
"""One of so many pictures of a class validates, at least one."""


def choose_curvature(
    make: Callable[[float], Any],
    candidates: Sequence[float],
    images: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    texts: Float[Tensor, "c d"],
    scale: Float[Tensor, ""],
    seed: int,
) -> float:
    """The curvature under which an adapter on frozen features does best on pictures kept back.

    ``make(c)`` gives the adapter that is trained under ``c``, on the other pictures. The best has
    the highest accuracy; among equals, the lowest cross entropy. The same arguments give the same
    one. Raises :class:`InputError` where no class has two pictures.
    """
    back = _kept_back(labels, seed)
    found: list[tuple[float, float]] = []
    for c in candidates:
        with torch.enable_grad():
            adapter = fit_on_features(
                make(c), images[~back], labels[~back], texts, scale, FeatureTraining(), seed
            )
        with torch.no_grad():
            logits = adapter.logits(images[back], adapter.refine(texts), scale)
            right = float((logits.argmax(-1) == labels[back]).double().mean())
            found.append((right, -float(nn.functional.cross_entropy(logits, labels[back]))))
    return candidates[max(range(len(found)), key=lambda place: found[place])]


def _kept_back(labels: Tensor, seed: int) -> Bool[Tensor, " n"]:
    random = np.random.default_rng(seed)
    back = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        own = torch.nonzero(labels == label).flatten().numpy()
        if len(own) > 1:
            back[random.choice(own, max(1, len(own) // KEPT_BACK), replace=False)] = True
    if not back.any():
        raise InputError(
            "no class has a second picture to choose the curvature by; give more shots, one "
            "curvature, or curvature: learned"
        )
    return back
