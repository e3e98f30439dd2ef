"""What a gate that was never seen before costs against the same gate again and again.

Llamas with 16 adapters of rank 16, a row each, one-token steps: the base, one route repeated, and
another order of the adapters at every step, in turn in one process. Medians of processor time,
which other processes disturb less than the clock's, and their ratios with 95 % intervals. Prints
JSON.

    python benchmarks/gates.py [--turns 40] [--sizes 384x6 512x6 768x12]
"""

import argparse
import json
import random
import statistics
import time
from functools import partial
from typing import Any

import adapters as peers
import torch
from _measuring import ratio, turns

from geodapt.adapters import AdapterBank, Route
from geodapt.runs import device_name

ROWS = 16
LAYERS = {
    "q, k, v, o": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "all linear": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


def measured(targets: list[str], size: str, count: int) -> dict[str, Any]:
    """Milliseconds of a step, and ratios with their intervals."""
    width, layers = map(int, size.split("x"))
    peers.TARGETS = targets
    model = peers.build(width, layers, width // 64, "cpu")
    bank = AdapterBank(model)
    for name, adapter in peers.make_adapters(model, ROWS).items():
        bank.add(name, adapter)
    ids = torch.randint(3, 32000, (ROWS, 64))
    with torch.no_grad():
        cache = model(input_ids=ids, logits_to_keep=1).past_key_values
    draw = random.Random(0)
    repeated = Route(draw.sample(bank.names, ROWS))

    @torch.no_grad()
    def step() -> None:
        model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True)
        cache.crop(-1)

    def under(gate: Route) -> None:
        with bank.use(gate):
            step()

    sides = {
        "base": step,
        "same": partial(under, repeated),
        "new": lambda: under(Route(draw.sample(bank.names, ROWS))),
    }
    times = turns(sides, budget=float("inf"), most=count, warm=3, clock=time.process_time)
    found: dict[str, Any] = {
        f"{name}_ms": round(1e3 * statistics.median(each), 2) for name, each in times.items()
    }
    found["same_to_base"] = ratio(times["same"], times["base"])
    found["new_to_same"] = ratio(times["new"], times["same"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--sizes", nargs="+", default=["384x6", "512x6", "768x12"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = {
        f"{name}, {size}": measured(targets, size, arguments.turns)
        for size in arguments.sizes
        for name, targets in LAYERS.items()
    }
    print(json.dumps({"device": device_name(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
