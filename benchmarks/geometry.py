"""Accuracy and speed of the geometry beside geoopt's and hypll's, all in float32.

Accuracy: every function on points 1e-4 from the origin to 100 radii of curvature (further with
--reach), near and far pairs, curvatures 1e-3 to 1e2. Values, in few dimensions and in many, and
gradients, in few, are compared with the textbook formulas in 60-digit arithmetic (gradients by
central differences there, which float64 would be too coarse for); largest relative error (of an
angle the error in radians), and how many results are not finite. Peers that store the time
component get it correctly rounded.
Speed: every shared function, eager and compiled, forward, and forward with backward; beside what
is compiled stands geoopt eager too. The sides take turns of a few calls, and the figures are
medians of the processor time of a call, by one thread unless told otherwise. The floor beside it is
the fastest PyTorch operator that reads and writes as many float32 vectors. Prints JSON.

    python benchmarks/geometry.py [--accuracy | --speed] [--only NAME ...]

hypll pins an old torch; `pip install --no-deps --target FOLDER hypll` and `PYTHONPATH=FOLDER`.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial

import _geometry_cases as cases
import torch
from _geometry_peers import Peer, geoopt, hypll
from _measuring import timed
from torch import Tensor

from geodapt.geometry import lorentz, poincare
from geodapt.progress import bar, console
from geodapt.runs import device_name

SIZES = ((256, 512), (4096, 128), (65536, 64))  # a batch of embeddings; tokens; pixels
TURNS = {"least": 7, "most": 50, "warm": 2, "calls": 5, "clock": time.process_time}
MODES = ("eager", "training", "compiled", "compiled training")
PAIRS = (256, 128)  # rows on each side of the pairwise functions, measured once
TAKES = {name: function.takes for name, function in cases.FUNCTIONS.items()}
TAKES["poincare.project"] = "b"


def accuracy(names: list[str], rows: int, reach: float) -> list[dict]:
    """One row a function: each side's largest errors, where they are, and what is not finite."""
    matrix = torch.tensor(cases.M)
    peers = {"geoopt": geoopt(matrix, cases.W), "hypll": hypll()}
    table = []
    with bar("accuracy", total=len(names)) as progress:
        for name in names:
            function = cases.FUNCTIONS[name]
            sides = {"ours": function.ours}
            for side, shared in peers.items():
                if name in shared:
                    sides[side] = _accurately(name, shared[name])
            table.append({"function": name} | errors(name, sides, rows, reach))
            console.print(json.dumps(table[-1]), soft_wrap=True)
            progress.advance()
    return table


def _accurately(name: str, peer: Peer) -> Callable:
    def call(*args) -> Tensor:
        out = peer(TAKES[name], args[:-1], args[-1])
        return out.diagonal() if "pairwise" in name else out

    return call


def errors(name: str, sides: dict[str, Callable], rows: int, reach: float) -> dict:
    function = cases.FUNCTIONS[name]
    found = {
        side: {"value": 0.0, "gradient": 0.0, "value_at": "", "gradient_at": "", "not_finite": 0}
        for side in sides
    }

    def note(side: str, what: str, error: float, where: str) -> None:
        if not math.isfinite(error):
            found[side]["not_finite"] += 1
        elif error > found[side][what]:
            found[side][what], found[side][f"{what}_at"] = float(f"{error:.1e}"), where

    widths = [d for which, d in cases.widths() if which == name]
    swept = [
        (d, *case)
        for d in widths
        for case in cases.sweep(function.takes, rows=rows, d=d)
        if cases.reach(case[1], case[2]) <= 1.01 * reach
    ]
    for d, kind, norm, c, args in swept:
        where = f"{kind}, norm {norm:g}, c {c:g}, {d} dimensions"
        truths = [cases.exact_value(function, args, row, c) for row in range(rows)]
        for side, call in sides.items():
            with torch.no_grad():
                out = call(*args, c)
            for row, truth in enumerate(truths):
                finite = bool(torch.isfinite(out[row]).all())
                angle = "exterior_angle" in name
                error = cases.value_error(out, row, truth, angle) if finite else math.nan
                note(side, "value", error, where)
        if d == min(widths) and cases.has_gradient(name, kind, args, c):
            weight, gradients = cases.weight_and_gradients(function, args, c)
            for side, call in sides.items():
                error = cases.gradient_error(call, args, c, weight, gradients)
                note(side, "gradient", error, where)
    return found


def speed(names: list[str], modes: list[str], budget: float) -> list[dict]:
    table = []
    shared = [name for name in geoopt(torch.eye(2), cases.W) or hypll() if name in names]
    with bar("speed", total=len(SIZES) * len(modes) * len(shared)) as progress:
        for rows, d in SIZES:
            for mode in modes:
                torch._dynamo.reset()  # so that compilers see each size as the only one
                for name in ["yardsticks", *shared] if mode == "eager" else shared:
                    if "pairwise" in name and rows != PAIRS[0]:
                        continue
                    row = {"rows": rows, "d": d, "mode": mode}
                    if name == "yardsticks":
                        row |= yardsticks(rows, d, budget)
                    else:
                        row |= measure(name, rows, d, mode, budget)
                    table.append(row)
                    console.print(json.dumps(row), soft_wrap=True)
                    progress.advance()
    return table


def points(rows: int, d: int) -> dict[str, list[Tensor]]:
    """Arguments of each kind, about one radius of curvature from the origin."""
    torch.manual_seed(0)
    x, y, v = (torch.randn(rows, d) / d**0.5 for _ in range(3))
    ball = [lorentz.to_poincare(x), lorentz.to_poincare(y)]
    return {"h": [x, y], "b": ball, "v": [v], "w": [v / 4], "o": [v], "p": [v / 2]}


def yardsticks(rows: int, d: int, budget: float) -> dict:
    """A Euclidean distance and the two things that the targets are multiples of."""
    ball = points(rows, d)["b"]
    matrix = torch.randn(d, d) / d**0.5
    with torch.no_grad():
        seconds = timed(
            {
                "euclidean distance": lambda: (ball[0] - ball[1]).norm(dim=-1),
                "poincare distance": lambda: poincare.distance(*ball),
                "product": lambda: ball[0] @ matrix.mT,
                "mobius matvec": lambda: poincare.mobius_matvec(matrix, ball[0]),
            },
            budget,
            **TURNS,
        )
    distances = seconds["poincare distance"] / seconds["euclidean distance"]
    products = seconds["mobius matvec"] / seconds["product"]
    return {
        "function": "yardsticks",
        "us": {name: round(1e6 * s, 1) for name, s in seconds.items()},
        "distance_over_euclidean": round(distances, 2),
        "matvec_over_product": round(products, 2),
    }


def measure(name: str, rows: int, d: int, mode: str, budget: float) -> dict:
    """Median microseconds of every side for one function; times faster than each peer."""
    pairwise = "pairwise" in name
    rows, d = PAIRS if pairwise else (rows, d)
    given = {kind: iter(values) for kind, values in points(rows, d).items()}
    args = tuple(next(given[letter]) for letter in TAKES[name])
    matrix = torch.randn(d, d) / d**0.5
    sides: dict[str, tuple[Callable, tuple]] = {"ours": (_ours(name, matrix), args)}
    for side, shared in {"geoopt": geoopt(matrix, cases.W), "hypll": hypll()}.items():
        if peer := shared.get(name):
            k = torch.tensor(peer.k(1.0))
            sides[side] = (peer.call, (*peer.arguments(TAKES[name], args, 1.0), k))
    calls = {}
    for side, (call, arguments) in sides.items():
        try:
            calls[side] = prepare(call, arguments, mode)
        except Exception as error:  # what a peer's compilation raises is the peer's
            if side == "ours":
                raise
            console.print(f"{name}: {side} does not compile: {str(error).splitlines()[0]}")
    if mode.startswith("compiled") and "geoopt" in sides:
        eager = "training" if "training" in mode else "eager"
        calls["geoopt_eager"] = prepare(*sides["geoopt"], eager)
    seconds = timed(calls, budget, **TURNS)
    row: dict = {"function": name}
    if pairwise:
        row |= {"rows": rows, "d": d}
    row |= {f"{side}_us": round(1e6 * s, 1) for side, s in seconds.items()}
    if not pairwise and "training" not in mode:
        row["floor_us"] = round(1e6 * floor(args, calls["ours"](), budget), 1)
    for side in [side for side in seconds if side != "ours"]:
        row[f"times_{side}"] = round(seconds[side] / seconds["ours"], 2)
    return row


def _ours(name: str, matrix: Tensor) -> Callable:
    module, _, function = name.partition(".")
    call = getattr({"lorentz": lorentz, "poincare": poincare}[module], function)
    first = {"mobius_matvec": matrix, "mobius_scalar": cases.W}
    return partial(call, first[function]) if function in first else call


def prepare(call: Callable, args: tuple, mode: str) -> Callable[[], object]:
    run = torch.compile(call) if "compiled" in mode else call
    if "training" in mode:
        leaves = [a.clone().requires_grad_(a.dim() > 0) for a in args]
        points = [leaf for leaf in leaves if leaf.dim() > 0]
        upstream = torch.ones_like(run(*leaves))  # as from the layers above: lies in memory

        def train() -> object:
            return torch.autograd.grad(run(*leaves), points, upstream)

        train()
        return train

    def forward() -> object:
        with torch.no_grad():
            return run(*args)

    forward()
    return forward


def floor(args: tuple[Tensor, ...], out: Tensor, budget: float) -> float:
    """Seconds of the fastest operator that reads as much and, for a vector, writes as much."""
    read = [a for a in args if a.dim() > 1]
    flat = [a.reshape(-1) for a in read]
    if out.dim() == 1:
        return timed({"read": lambda: torch.dot(flat[0], flat[-1])}, budget, **TURNS)["read"]
    into = torch.empty_like(read[0])
    operator = {
        1: lambda: torch.mul(read[0], 2.0, out=into),
        2: lambda: torch.add(read[0], read[-1], out=into),
        3: lambda: torch.addcmul(*read, out=into),
    }[len(read)]
    return timed({"copy": operator}, budget, **TURNS)["copy"]


def summary(result: dict) -> dict:
    """What the targets ask for."""
    reached: dict = {}
    if table := result.get("accuracy"):
        ours = [row["ours"] for row in table]
        reached["worst_value_error"] = max(row["value"] for row in ours)  # to reach: 1e-5
        reached["worst_gradient_error"] = max(row["gradient"] for row in ours)  # 1e-3
        reached["not_finite"] = sum(row["not_finite"] for row in ours)  # 0
    if table := result.get("speed"):
        yards = [row for row in table if row["function"] == "yardsticks"]
        if yards:  # to reach: 4 and 2.5
            for what in ("distance_over_euclidean", "matvec_over_product"):
                reached[what] = max(yard[what] for yard in yards)
        for mode in dict.fromkeys(row["mode"] for row in table):
            compiled = mode.startswith("compiled")
            against, least = ("times_geoopt_eager", 2) if compiled else ("times_geoopt", 1)
            of_mode = [row for row in table if row["mode"] == mode and against in row]
            reached[f"{mode}_below_{least}_times_geoopt_eager"] = [
                f"{row['function']} {row['rows']}x{row['d']}: {row[against]}"
                for row in of_mode
                if row[against] < least
            ]
            reached[f"{mode}_functions"] = len(of_mode)
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accuracy", action="store_true", help="accuracy alone")
    parser.add_argument("--speed", action="store_true", help="speed alone")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of function names")
    parser.add_argument("--reach", type=float, default=100, help="radii of curvature")
    parser.add_argument("--rows", type=int, default=2, help="random points a case")
    parser.add_argument(
        "--modes",
        nargs="+",
        default=MODES,
        choices=MODES,
    )
    parser.add_argument("--budget", type=float, default=1.0, help="seconds a measurement")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    names = [name for name in TAKES if any(part in name for part in arguments.only)]
    result: dict = {"device": device_name(), "threads": arguments.threads}
    if arguments.accuracy or not arguments.speed:
        exact = [name for name in names if name in cases.FUNCTIONS]
        result["accuracy"] = accuracy(exact, arguments.rows, arguments.reach)
    if arguments.speed or not arguments.accuracy:
        result["speed"] = speed(names, arguments.modes, arguments.budget)
    print(json.dumps(result | {"reached": summary(result)}, indent=1))


if __name__ == "__main__":
    main()
