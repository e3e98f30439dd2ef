"""X-Cross beside a target LoRA on the same thousands of test rows, both at rates of their own.

    python benchmarks/xcross_paired.py                                     # five packages, hours
    python benchmarks/xcross_paired.py --movielens ~/data/ml-100k          # both directions
    python benchmarks/xcross_paired.py --targets scipy --folds 0 -- training.steps=50  # a trial

Before it runs it prints what it could see. Five folds, whose test splits share no row but copies:
pooled, every row of a package tests once, under all methods. Each method's learning rates are
chosen on validation rows among five factors, below and above, with equal numbers of trainings, for
all of the data and for a quarter. Intervals are paired bootstraps over files (or users). Every run
is resumable. Overrides of the recipe go after ``--``. Prints JSON.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xcross_quality import run

from geodapt.metrics.resampling import paired_bootstrap
from geodapt.xcross.comparing import FIGURES

TARGETS = ("scikit-learn", "networkx", "scipy", "torch", "matplotlib")
ROWS = {"scikit-learn": 1463, "networkx": 1866, "scipy": 1141, "torch": 1970, "matplotlib": 614}
"""Test rows over five folds, with the packages of constraints/py311.txt."""
DISCORDANT = 0.3  # assumed: the share of rows that exactly one of the two gets right
COMMON = (
    "methods=[lora,xcross]",
    "against=lora",
    "rate_factors=[0.1,0.3,1,3,10]",
    "curve.fractions=[0.25]",
    "examples=0",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--folds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--movielens", type=Path, help="a folder of ml-100k")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/paired"))
    parser.add_argument("overrides", nargs="*", help="key=value, after --")
    args = parser.parse_args()
    common = [*COMMON, *args.overrides]
    answers: dict[str, list[dict[str, Any]]] = {}
    if args.movielens:
        print(f"could see: {visible(1500):.1f} points of Hit@1 on 1,500 users", file=sys.stderr)
        for target, sources in (("suspense", "family"), ("family", "suspense")):
            given = [
                *common,
                f"data.path={args.movielens}",
                f"sources=[{sources},action,comedy]",
            ]
            results = run("xcross-movielens", target, args.seed, args.out / target, given)
            answers[target] = [results["answers"]]
    else:
        share = len(args.folds) / 5
        planned = sum(ROWS.get(target, 0) for target in args.targets) * share
        print(f"could see: {visible(planned):.1f} points of Hit@1", file=sys.stderr)
        for target in args.targets:
            for fold in args.folds:
                print(f"{target}, fold {fold}", file=sys.stderr)
                folder = args.out / f"fold-{fold}"
                given = [*common, f"data.fold={fold}"]
                found = run("xcross", target, args.seed, folder, given)["answers"]
                answers.setdefault(target, []).append(found)
    summary = {target: pooled({target: found}) for target, found in answers.items()}
    print(json.dumps({"seed": args.seed, "targets": summary, "all": pooled(answers)}, indent=2))


def visible(rows: float) -> float:
    """Half of the 95 % interval to be expected of a paired difference, in points."""
    return 100 * 1.96 * math.sqrt(DISCORDANT / rows) if rows else math.inf


def pooled(answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """X-Cross less the LoRA over all runs' test rows, on all of the data and on shares of it."""
    names = [name for name in next(iter(answers.values()))[0]["ranks"] if name.startswith("xcross")]
    found: dict[str, Any] = {}
    for name in names:
        other = name.replace("xcross", "lora", 1)
        ours, theirs, groups = [], [], []
        for target, runs in answers.items():
            for one in runs:
                ours += one["ranks"][name]
                theirs += one["ranks"][other]
                groups += [f"{target}/{group}" for group in one["groups"]]
        line: dict[str, Any] = {"rows": len(ours), "groups": len(set(groups))}
        for figure, value in FIGURES.items():
            sides = {
                side: [value(rank) for rank in ranks]
                for side, ranks in ((name, ours), (other, theirs))
            }
            means = {side: sum(v) / len(v) for side, v in sides.items()}
            interval = paired_bootstrap(sides[name], sides[other], groups)
            line[figure] = {**means, **asdict(interval), "visible": interval.visible}
        found[name] = line
    return found


if __name__ == "__main__":
    main()
