"""Merging entries that are chosen at random."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt64
from torch import Tensor

from geodapt.adapters.merging.combining import Combine
from geodapt.adapters.merging.one_pass import PANEL, one_pass
from geodapt.adapters.merging.registry import Part, empty, weights_of

DIGITS = 16
"""Binary digits of a probability."""


def merge_random(
    parts: Sequence[Part], density: float, seed: int, combine: Combine
) -> Float[Tensor, "out in"]:
    """Keep each entry with probability ``density``, divide it by that, and merge.

    So the mean stays. Source: DARE, Yu et al. 2024, arXiv:2311.03099, equation 2.
    """
    merged = empty(parts)
    out, width = merged.shape
    steps = max(round(density * 2**DIGITS), 1)
    bits = random_bits((len(parts), out, -(-width // PANEL)), steps, seed)
    over = one_pass(parts, weights_of(parts) * (2**DIGITS / steps), combine)
    over.chosen(bits, merged)
    return merged


def random_bits(shape: tuple[int, ...], steps: int, seed: int) -> UInt64[np.ndarray, "..."]:
    """Words of independent bits, which are ones with probability ``steps / 2^DIGITS``.

    From the last digit of the probability to the first, a one is or-ed with random bits, which
    takes p to (1 + p) / 2, a zero and-ed, which takes p to p / 2; so each digit costs a random
    bit an entry, and a density of 1/2 a single one.
    """
    random = np.random.SFC64(seed)
    words = np.full(shape, 2**64 - 1 if steps >= 2**DIGITS else 0, np.uint64)
    for digit in reversed(f"{steps % 2**DIGITS:0{DIGITS}b}".rstrip("0")):
        drawn = random.random_raw(words.size).reshape(shape)
        words = words | drawn if digit == "1" else words & drawn
    return words
