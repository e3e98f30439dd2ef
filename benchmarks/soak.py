"""A thousand adapters through a bank that holds 32, from 4 threads, for a minute.

Each thread routes batches to adapters drawn at random, while adapters are removed and loaded
again; every answer is compared with the adapter's own, computed apart from the bank. Prints
JSON: batches, wrong answers, resident memory over time.

    python benchmarks/soak.py [--seconds 60]
"""

import argparse
import json
import random
import threading
import time

import psutil
import torch
from torch import nn

from geodapt.adapters import Adapter, AdapterBank, Factors, Route
from geodapt.adapters.peft_files.configuration import configure
from geodapt.progress import bar

ADAPTERS, CAPACITY, THREADS, WIDTH, RANK, LAYERS = 1000, 32, 4, 256, 8, 4


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        return x


def make(i: int) -> Adapter:
    generator = torch.Generator().manual_seed(i)
    factors = {
        f"layers.{layer}": Factors(
            torch.randn(RANK, WIDTH, generator=generator) / WIDTH**0.5,
            torch.randn(WIDTH, RANK, generator=generator),
        )
        for layer in range(LAYERS)
    }
    return Adapter(factors, configure(factors))


@torch.no_grad()
def alone(model: Tower, adapter: Adapter | None, x: torch.Tensor) -> torch.Tensor:
    """The answer without a bank."""
    for path, layer in enumerate(model.layers):
        y = nn.functional.linear(x, layer.weight, layer.bias)
        if adapter is not None:
            A, B, _ = adapter.factors[f"layers.{path}"]
            y = y + (x @ A.T) @ B.T
        x = y.tanh()
    return x


def soak(seconds: float, least: int = 0) -> dict:
    """For so long, and until there are ``least`` batches, however long that takes."""
    torch.manual_seed(0)
    bank = AdapterBank(Tower(), capacity=CAPACITY)
    adapters = [make(i) for i in range(ADAPTERS)]
    for i, adapter in enumerate(adapters):
        bank.add(f"n{i}", adapter)
    probe = torch.randn(1, WIDTH)
    answers = torch.cat([alone(bank.model, adapter, probe) for adapter in adapters])
    base = alone(bank.model, None, probe)
    begun = time.monotonic()
    batches, wrong, reloads, worst = ([0] * THREADS for _ in range(4))

    def work(me: int) -> None:
        draw = random.Random(me)
        while time.monotonic() < begun + seconds or sum(batches) < least:
            # A quarter of the names belong to this thread, which may take them out.
            rows = [draw.randrange(ADAPTERS // 2) for _ in range(draw.randint(1, 8))]
            own = ADAPTERS // 2 + me + THREADS * draw.randrange(ADAPTERS // 2 // THREADS)
            route = [f"n{i}" for i in [*rows, own]] + [None]
            wanted = torch.cat([answers[[*rows, own]], base])
            with bank.use(Route(route)), torch.no_grad():
                found = bank(probe.expand(len(route), -1))
            batches[me] += 1
            difference = (found - wanted).abs().max().item()
            worst[me] = max(worst[me], difference)
            wrong[me] += difference > 1e-3  # another adapter would differ by about one
            if batches[me] % 50 == 0:
                bank.remove(f"n{own}")
                bank.add(f"n{own}", adapters[own])
                reloads[me] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    memory = []
    process = psutil.Process()
    with bar("soak", total=seconds) as progress:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(min(1.0, seconds / 20))
            memory.append(round(process.memory_info().rss / 2**20, 1))
            progress.advance(min(1.0, seconds / 20))
    seconds = round(time.monotonic() - begun, 1)
    settled = memory[len(memory) // 4 :]
    return {
        "adapters": ADAPTERS,
        "capacity": CAPACITY,
        "threads": THREADS,
        "seconds": seconds,
        "batches": sum(batches),
        "wrong": sum(wrong),
        "largest_difference": max(worst),
        "reloads": sum(reloads),
        "on_device_at_the_end": len(bank.resident),
        "memory_mb": {"first": settled[0], "last": settled[-1], "most": max(settled)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    torch.set_num_threads(1)
    result = soak(parser.parse_args().seconds)
    print(json.dumps(result, indent=1))
    assert result["wrong"] == 0, "wrong answers"


if __name__ == "__main__":
    main()
