"""Dropping entries at random."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

DIGITS = 16
"""Binary digits of a probability."""


def dropper(density: float, seed: int) -> Callable[[Float[Tensor, "n band in"]], None]:
    """What keeps each entry with probability ``density`` and divides it by that, in place.

    So the mean stays. Every call draws anew. Source: DARE, Yu et al. 2024, arXiv:2311.03099,
    equation 2.
    """
    steps = max(round(density * 2**DIGITS), 1)
    random = np.random.SFC64(seed)

    def drop(deltas: Float[Tensor, "n band in"]) -> None:
        if steps < 2**DIGITS:
            kept = torch.from_numpy(_bits(random, deltas.numel(), steps)).view(deltas.shape)
            deltas.mul_(kept.to(deltas.dtype)).mul_(2**DIGITS / steps)

    return drop


def _bits(random: np.random.SFC64, count: int, steps: int) -> UInt8[np.ndarray, "count"]:
    """Independent zeros and ones, ones with probability ``steps / 2^DIGITS``.

    From the last digit of the probability to the first, a one is or-ed with random bits, which
    takes p to (1 + p) / 2, a zero and-ed, which takes p to p / 2; so each digit costs a random
    bit an entry, and a density of 1/2 a single one.
    """
    digits = f"{steps:0{DIGITS}b}".rstrip("0")
    words = np.zeros(-(-count // 64), np.uint64)
    for digit in reversed(digits):
        drawn = random.random_raw(len(words))
        words = words | drawn if digit == "1" else words & drawn
    return np.unpackbits(words.view(np.uint8), count=count)
