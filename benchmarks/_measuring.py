"""What benchmarks share: sides that take turns, and figures over seeds."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap


def turns(
    sides: Mapping[str, Callable[[], object]],
    budget: float = 15.0,
    least: int = 3,
    most: int = 15,
    warm: int = 1,
    calls: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every call of every side; the sides take turns, so that disturbances hit them
    alike.

    After the turns that warm up, at least and at most so many, as the budget in seconds allows.
    In a turn a side is called so many times in a row, and each call counts.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    settle = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    begun = time.perf_counter()
    for turn in range(1, warm + most + 1):
        for name, side in sides.items():
            for _ in range(calls):
                settle()
                start = clock()
                side()
                settle()
                times[name].append(clock() - start)
        if turn >= warm + least and time.perf_counter() - begun > budget:
            break
    return {name: values[warm * calls :] for name, values in times.items()}


def timed(
    sides: Mapping[str, Callable[[], object]], budget: float = 15.0, **named: Any
) -> dict[str, float]:
    """Median seconds of every side, which take :func:`turns`."""
    taken = turns(sides, budget, **named)
    return {name: statistics.median(values) for name, values in taken.items()}


def ratio(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """The ratio of two sides' medians, and its 95 % interval over resampled turns."""

    def of(a: Any, b: Any, axis: int) -> Any:
        return np.median(a, axis) / np.median(b, axis)

    interval = bootstrap(
        (one, other), of, paired=True, vectorized=True, method="percentile", rng=0
    ).confidence_interval
    return [round(float(each), 3) for each in (of(one, other, 0), interval.low, interval.high)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.mean(values), 4), "std": round(deviation, 4)}
