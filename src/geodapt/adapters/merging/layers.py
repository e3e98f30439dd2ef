"""Layers in parallel."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

Layer = TypeVar("Layer")
Result = TypeVar("Result")


def each_layer(work: Callable[[Layer], Result], layers: Sequence[Layer]) -> Iterator[Result]:
    """Results in the layers' order, by as many threads as PyTorch may use.

    One layer cannot keep all threads busy: its steps are many, and each is short.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(layers))
    if workers < 2:
        yield from map(work, layers)
        return
    try:
        share = partial(torch.set_num_threads, threads // workers)
        with ThreadPoolExecutor(workers, "merge", initializer=share) as pool:
            yield from pool.map(work, layers)
    finally:
        torch.set_num_threads(threads)  # new threads begin with the number that was last set
