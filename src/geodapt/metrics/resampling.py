"""Intervals of figures by the bootstrap: of a mean intersection over union, and of differences.

Of an intersection over union the pictures are resampled while they come: every picture counts
``Poisson(1)`` times in each set, so that nothing but the sums of the sets is kept and memory does
not grow with the pictures. Source: the Poisson bootstrap, Hanley & MacGibbon 2006, "Creating
non-parametric bootstrap samples using Poisson frequencies".
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodapt.errors import InputError


class ResampledIoU:
    """Sums of true, predicted and right pixels of each class, in many resampled sets of pictures.

    Pictures must come in one order: the same one then counts alike for two models, so that their
    sets are paired.
    """

    def __init__(self, classes: int, ignore: int = 255, sets: int = 200, seed: int = 0) -> None:
        """``ignore``: the label of pixels that do not count. Raises :class:`InputError` for fewer
        than one class or two sets."""
        if classes < 1 or sets < 2:
            raise InputError(f"{classes} classes in {sets} sets; expected at least 1 and 2")
        self.classes, self.ignore = classes, ignore
        self._random = np.random.default_rng(seed)
        self._sums = torch.zeros(3, sets, classes, dtype=torch.float64)

    def update(self, predicted: Int[Tensor, "h w"], labels: Int[Tensor, "h w"]) -> None:
        """Count one picture."""
        counts = labels != self.ignore
        true, said = labels[counts].cpu(), predicted[counts].cpu()
        parts = torch.stack(
            [
                torch.bincount(each, minlength=self.classes)
                for each in (true, said, true[true == said])
            ]
        ).double()
        weights = torch.from_numpy(self._random.poisson(1.0, self._sums.shape[1])).double()
        shown = parts.any(0).nonzero().squeeze(1)  # of hundreds of classes a picture shows a few
        self._sums[:, :, shown] += weights[None, :, None] * parts[:, None, shown]

    def means(self, only: Sequence[int] | None = None) -> Float[Tensor, " sets"]:
        """Mean IoU over the classes in the truth of each set (``miou_truth``); NaN without any.

        ``only``: classes to take the means over, of a confusion among all.
        """
        true, said, right = self._sums if only is None else self._sums[:, :, list(only)]
        iou = right / (true + said - right).clamp_min(1)
        there = true > 0
        return (iou * there).sum(1) / there.sum(1)


def percentile_interval(
    draws: Float[Tensor, " sets"], level: float = 0.95
) -> tuple[float, float] | None:
    """The percentile interval of resampled figures; sets that have none (NaN) are left out.

    None where no set has a figure.
    """
    there = draws[~draws.isnan()]
    if not len(there):
        return None
    outside = (1 - level) / 2
    low, high = np.quantile(there.numpy(), [outside, 1 - outside])
    return float(low), float(high)


@dataclass(frozen=True)
class PairedInterval:
    """A mean difference with its interval."""

    difference: float
    low: float
    high: float

    @property
    def visible(self) -> float:
        """Half the interval's length: smaller differences are not told from none."""
        return (self.high - self.low) / 2


def paired_bootstrap(
    ours: Sequence[float],
    theirs: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> PairedInterval:
    """The mean of ``ours - theirs`` over questions, with a percentile interval.

    Questions of one group (a file, a user) are not independent, so whole groups are drawn with
    replacement, both answers of each question together (Efron & Tibshirani 1993; Field & Welsh 2007
    for groups). Raises :class:`InputError` for no questions and for answers to other ones.
    """
    names = list(range(len(ours))) if groups is None else list(groups)
    if not len(ours) == len(theirs) == len(names):
        raise InputError(
            f"{len(ours)} and {len(theirs)} answers in {len(names)} groups; expected as many of "
            "each, to the same questions in one order"
        )
    if not names:
        raise InputError("there are no answers to compare")
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    at = np.array([place[name] for name in names])
    gaps = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    sums, sizes = np.bincount(at, gaps), np.bincount(at)
    generator = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    for number in range(resamples):
        times = np.bincount(generator.integers(len(sums), size=len(sums)), minlength=len(sums))
        drawn[number] = times @ sums / (times @ sizes)
    outside = (1 - level) / 2
    low, high = np.quantile(drawn, [outside, 1 - outside])
    return PairedInterval(float(gaps.mean()), float(low), float(high))
