"""Processor time of training steps through attention's projections, in one process, in turn.

Query, key and value of one layer, forward and backward: frozen, LoRA with as many numbers, the
scaling by activations and by weights, and the released scheme (a dense block matrix and the ball's
functions in every step). Prints JSON: milliseconds, and ratios to LoRA, for each shape, with the
form that ``auto`` chooses.

    python benchmarks/hyperclip.py [--threads 1] [--turns 9]
"""

import argparse
import json
import time
from collections.abc import Callable

import torch
from _measuring import timed
from torch import Tensor, nn

from geodapt.hyperclip import BlockScaling
from geodapt.hyperclip.scaling import mobius_scaled

SHAPES = [
    # tokens, width, block: ViT-B/16 on one picture of 384 pixels, its text tower on 171 classes,
    # and the glyph CLIP on eight pages.
    (577, 768, 1),
    (577, 768, 8),
    (577, 768, 32),
    (577, 768, 128),
    (577, 768, 768),
    (13167, 512, 128),
    (2056, 128, 1),
    (2056, 128, 8),
    (2056, 128, 32),
    (2056, 128, 128),
]


class Lora(nn.Module):
    """``x A B`` beside a frozen weight."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.randn(width, rank) / width**0.5)
        self.B = nn.Parameter(torch.zeros(rank, width))

    def forward(self, h: Tensor) -> Tensor:
        return h @ self.A @ self.B


def sides(tokens: int, width: int, block: int) -> dict[str, Callable[[], None]]:
    """A step of each side, on the same activations."""
    torch.manual_seed(0)
    h = torch.randn(tokens, width, requires_grad=True)
    above = torch.randn(tokens, width)
    weights = [torch.randn(width, width) / width**0.5 for _ in range(3)]
    scalings = [BlockScaling(width, block) for _ in range(3)]
    loras = [Lora(width, max(1, block // 2)) for _ in range(3)]

    def step(compute: Callable[[int], Tensor]) -> Callable[[], None]:
        def run() -> None:
            h.grad = None
            for number in range(3):
                compute(number).backward(above)

        return run

    def linear(weight: Tensor) -> Tensor:
        return nn.functional.linear(h, weight)

    return {
        "frozen": step(lambda k: linear(weights[k])),
        "lora": step(lambda k: linear(weights[k]) + loras[k](h)),
        "activation": step(lambda k: nn.functional.linear(scalings[k](h), weights[k])),
        "weight": step(lambda k: linear(scalings[k].weight(weights[k]))),
        "released": step(lambda k: linear(mobius_scaled(weights[k], scalings[k].matrix(), 1.0))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    for tokens, width, block in SHAPES:
        found = timed(
            sides(tokens, width, block), budget=20, most=given.turns, clock=time.process_time
        )
        auto = BlockScaling(width, block).cheaper_form(tokens, width)
        rows.append(
            {
                "tokens": tokens,
                "width": width,
                "block": block,
                "auto": auto,
                "cheaper": min(("activation", "weight"), key=lambda form: found[form]),
                **{name: round(1000 * seconds, 1) for name, seconds in found.items()},
                "auto / lora": round(found[auto] / found["lora"], 2),
                "released / auto": round(found["released"] / found[auto], 2),
            }
        )
        print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
