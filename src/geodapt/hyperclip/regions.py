"""Labelled pixels as shapes of a page: each shows its colour, and its word under the pointer."""

from collections import defaultdict
from typing import Any

import numpy as np
from jaxtyping import Int


def region_paths(labels: Int[np.ndarray, "height width"]) -> dict[int, str]:
    """The outline of each label from 0 on as the ``d`` of an SVG path, a unit a pixel.

    Pixels of a row that lie side by side are one rectangle, and so are equal ones of rows below
    each other.
    """
    found: dict[int, list[str]] = defaultdict(list)
    open_runs: dict[tuple[int, int, int], int] = {}  # (label, left, right): its first row
    height = labels.shape[0]
    for y in range(height + 1):
        runs = _runs(labels[y]) if y < height else set()
        for run in [run for run in open_runs if run not in runs]:
            label, left, right = run
            top = open_runs.pop(run)
            found[label].append(f"M{left} {top}h{right - left}v{y - top}h{left - right}z")
        for run in runs:
            open_runs.setdefault(run, y)
    return {label: "".join(parts) for label, parts in sorted(found.items())}


def _runs(row: Int[np.ndarray, " width"]) -> set[tuple[int, int, int]]:
    """The label, start and end of each stretch of one label."""
    ends = np.flatnonzero(np.diff(row)) + 1
    starts = np.concatenate([[0], ends])
    stops = np.concatenate([ends, [len(row)]])
    return {
        (int(row[start]), int(start), int(stop))
        for start, stop in zip(starts, stops, strict=True)
        if row[start] >= 0
    }


def shown_region(path: str, said: str, colour: str, new: bool = False) -> dict[str, Any]:
    """What a page needs of a shape."""
    return {"path": path, "said": said, "colour": colour, "new": new}
