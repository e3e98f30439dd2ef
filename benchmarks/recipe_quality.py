"""What a recipe comes to: every row of its table, mean and spread over seeds.

    python benchmarks/recipe_quality.py
    python benchmarks/recipe_quality.py --recipe radial-hierarcaps -- data.path=FILE
    python benchmarks/recipe_quality.py --recipe helm-tiny --same-data

The seed draws what is held out, too, unless all runs are to have the same data. Every run is
resumable: a call that was cut short goes on where it was. Overrides of the recipe go after
``--``, as in `geodapt run`. Prints JSON; the runs, with their reports, stay in ``--out``.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from _measuring import spread

from geodapt.recipes.execution import execute
from geodapt.recipes.loading import load_recipe
from geodapt.report import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="radial-text")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--same-data", action="store_true", help="the seed is of training alone")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("overrides", nargs="*", help="key=value, after --")
    args = parser.parse_args()
    runs = []
    for seed in args.seeds:
        print(f"{args.recipe}, seed {seed}", file=sys.stderr)
        drawn = [] if args.same_data else [f"data.seed={seed}"]
        given = [*args.overrides, f"seed={seed}", *drawn]
        folder = args.out / f"{args.recipe}-{seed}"
        runs.append(execute(load_recipe(args.recipe, given).recipe, folder, resume=True))
        write_report(folder)
    about = {key: runs[0][key] for key in ("base", "device", "versions") if key in runs[0]}
    data = [run["data"] for run in runs]
    print(json.dumps({"seeds": args.seeds, **about, "data": data, "rows": rows(runs)}, indent=2))


def rows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation of every figure of every method, over the runs."""
    found = []
    for group in zip(*(run["rows"] for run in runs), strict=True):
        row: dict[str, Any] = {"method": group[0]["method"]}
        for key in group[0]:
            values = [one[key] for one in group]
            if all(isinstance(value, int | float) for value in values):
                row[key] = spread(values)
        found.append(row)
    return found


if __name__ == "__main__":
    main()
