"""What benchmarks share: sides that take turns, and figures over seeds."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch


def timed(
    sides: dict[str, Callable[[], object]],
    budget: float = 15.0,
    least: int = 3,
    most: int = 15,
    warm: int = 1,
    calls: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of every side; the sides take turns, so that disturbances hit them alike.

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
    return {name: statistics.median(values[warm * calls :]) for name, values in times.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.mean(values), 4), "std": round(deviation, 4)}
