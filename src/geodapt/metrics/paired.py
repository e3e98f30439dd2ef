"""How much better one model's answers are than another's to the same questions."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from geodapt.errors import InputError


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
