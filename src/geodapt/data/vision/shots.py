"""Which pictures a few-shot learner is shown: the draws that were published, exactly."""

from collections.abc import Sequence
from random import Random

import numpy as np
from jaxtyping import Int


def draw_shots(
    splits: Sequence[tuple[Int[np.ndarray, " rows"], int]], seed: int
) -> list[list[int]]:
    """Row numbers of so many pictures per class: (labels, shots) of each split in turn.

    The rows of a split are grouped by label in the order in which labels appear; of each group
    ``shots`` rows are sampled without replacement, one generator going through all groups and all
    splits. A group of fewer rows gives all of them and draws nothing. This is what CoOp does after
    ``random.seed(seed)`` (Zhou et al. 2022; Dassl's ``generate_fewshot_dataset``), so the published
    splits give the published shots.
    """
    random = Random(seed)
    return [_draw(labels, shots, random) for labels, shots in splits]


def _draw(labels: Int[np.ndarray, " rows"], shots: int, random: Random) -> list[int]:
    groups: dict[int, list[int]] = {}
    for row, label in enumerate(labels.tolist()):
        groups.setdefault(label, []).append(row)
    drawn: list[int] = []
    for rows in groups.values():
        drawn += random.sample(rows, shots) if len(rows) >= shots else rows
    return drawn
