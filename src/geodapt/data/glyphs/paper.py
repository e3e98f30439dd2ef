"""Kinds of paper that pages are set on: how much of each pixel its rules cover."""

import numpy as np
from jaxtyping import Int

from geodapt.data.glyph_settings import Paper

NAMES: dict[Paper, str] = {
    "plain": "plain paper",
    "lined": "lined paper",
    "squared": "squared paper",
    "dotted": "dotted paper",
}
"""What each kind is called as a class, in the order of the classes."""

SPACING = (8, 17)
"""Pixels from a rule to the next: from the first, below the second."""
DEPTH = (50, 100)
"""How dark rules are, of 255: lighter than ink, so that characters stay in front."""


def rules(kind: Paper, side: int, random: np.random.Generator) -> Int[np.ndarray, "side side"]:
    """How much the rules of a sheet cover each pixel, 0 to 255; one pixel wide, none on plain."""
    spacing, depth = int(random.integers(*SPACING)), int(random.integers(*DEPTH))
    across, down = (np.arange(side) % spacing == int(random.integers(spacing)) for _ in range(2))
    ruled = {
        "plain": np.zeros((side, side), dtype=bool),
        "lined": np.repeat(down[:, None], side, axis=1),
        "squared": down[:, None] | across,
        "dotted": down[:, None] & across,
    }[kind]
    return depth * ruled.astype(np.int64)
