"""Training an adapter on frozen features alone: a plain CLIP as the host, seconds on a CPU."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodapt.errors import InputError
from geodapt.lathadapter.recipe import FeatureTraining

FIRST_RATE = 1e-5
"""Step size of the first epoch, as prompt learners have it."""


def fit_on_features(
    adapter: Any,
    images: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    texts: Float[Tensor, "c d"],
    scale: Float[Tensor, ""],
    training: FeatureTraining,
    seed: int,
    log: Callable[[int, dict[str, float]], None] | None = None,
) -> Any:
    """The adapter (an ``nn.Module``), started and trained in place, on features of the towers.

    SGD with momentum 0.9 and weight decay 5e-4; the first epoch at 1e-5, then a cosine, stepped by
    epoch (the schedule of CoOp's descendants). ``log`` gets the mean of each term after an epoch.
    The same arguments give the same attributes. Raises :class:`InputError` where the loss is not
    finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapter.start(images, texts, seed, labels, scale)
        adapter.train()
        optimizer = torch.optim.SGD(
            adapter.parameters(), lr=FIRST_RATE, momentum=0.9, weight_decay=5e-4
        )
        for epoch in range(training.epochs):
            optimizer.param_groups[0]["lr"] = epoch_rate(training, epoch)
            sums: dict[str, float] = {}
            batches = torch.randperm(len(images)).split(training.batch_size)
            for rows in batches:
                terms = adapter.losses(
                    images[rows], texts, adapter.refine(texts), labels[rows], None, scale
                )
                loss = torch.stack([*terms.values()]).sum()
                if not loss.isfinite():
                    raise InputError(
                        f"the loss is {float(loss)} in epoch {epoch}; lower training.learning_rate"
                    )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0.0) + float(term.detach()) / len(batches)
            adapter.end_epoch(epoch, training.epochs)
            if log is not None:
                log(epoch, sums)
    return adapter.eval()


def epoch_rate(training: FeatureTraining, epoch: int) -> float:
    """The step size of an epoch: 1e-5, then ``lr / 2 (1 + cos(pi (epoch - 1) / epochs))``."""
    if epoch == 0 and training.epochs > 1:
        return FIRST_RATE
    at = max(0, epoch - 1) / training.epochs
    return training.learning_rate / 2 * (1 + math.cos(math.pi * at))
