"""One row of a table out of the runs of several seeds."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

import torch

from geodapt.metrics import percentile_interval


def mean_over_seeds(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of all figures that every seed has; of memory the most; of the rest the first's.

    ``draws`` are resampled figures by key, whose sets are the same pictures for every seed: the
    interval ``[key]_interval`` is that of their mean over seeds. With several seeds,
    ``[key]_spread`` is the standard deviation between them.
    """
    row = dict(runs[0])
    for key, value in runs[0].items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        values = [run[key] for run in runs if key in run]
        if len(values) < len(runs):
            row.pop(key)  # a mean over other seeds than its neighbours' would mislead
        elif key == "peak_memory_mb":
            row[key] = max(values)
        elif any(other != value for other in values):
            row[key] = mean(values)
    for key in runs[0].get("draws", {}):
        sets = torch.tensor(
            [[math.nan if draw is None else draw for draw in run["draws"][key]] for run in runs]
        ).mean(0)
        if (interval := percentile_interval(sets)) is not None:
            row[f"{key}_interval"] = list(interval)
        if len(runs) > 1 and key in row:
            row[f"{key}_spread"] = stdev([run[key] for run in runs])
    if len(runs) > 1:
        row["seeds"] = len(runs)
    return row
