"""How good X-Cross is: every method on every target, mean and spread over seeds.

    python benchmarks/xcross_quality.py --targets scikit-learn networkx scipy --seeds 0 1 2
    python benchmarks/xcross_quality.py --movielens ~/data/ml-100k

Sources are trained once a seed and shared by the targets. Every run is resumable: a call that
was cut short goes on where it was. Overrides of the recipe go after ``--``, as in `geodapt run`.
Prints JSON; the runs, with their reports, stay in ``--out``.
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

METRICS = ("hit_at_1", "mrr", "ndcg_at_10", "trainable_parameters", "seconds", "peak_memory_mb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=["scikit-learn", "networkx", "scipy"])
    parser.add_argument("--movielens", type=Path, help="a folder of ml-100k; takes its own target")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("overrides", nargs="*", help="key=value, after --")
    args = parser.parse_args()
    recipe = "xcross-movielens" if args.movielens else "xcross"
    targets = ["suspense"] if args.movielens else args.targets
    common = [f"data.path={args.movielens}"] if args.movielens else []
    summary = {}
    for target in targets:
        runs = []
        for seed in args.seeds:
            print(f"{target}, seed {seed}", file=sys.stderr)
            runs.append(run(recipe, target, seed, args.out, [*common, *args.overrides]))
        summary[target] = summarise(runs)
    first = runs[0]
    about = {key: first[key] for key in ("base", "sources", "data", "device", "versions")}
    print(
        json.dumps({"recipe": recipe, "seeds": args.seeds, **about, "targets": summary}, indent=2)
    )


def run(recipe: str, target: str, seed: int, out: Path, overrides: list[str]) -> dict[str, Any]:
    """One run of the recipe, with the seed's source adapters where another target trained them."""
    given = [*overrides, f"target={target}", f"seed={seed}", f"data.seed={seed}"]
    asked: Any = load_recipe(recipe, given).recipe
    shared = out / f"sources-{seed}"
    trained = {
        name: str((shared / name).resolve()) for name in asked.sources if (shared / name).is_dir()
    }
    folder = out / f"{target}-{seed}"
    begun = folder / "config.yaml"
    last: Any = load_recipe(str(begun), []).recipe if begun.is_file() else None
    adapters = last.adapters if last else trained
    given.append(f"adapters={json.dumps(adapters)}")
    results = execute(load_recipe(recipe, given).recipe, folder, resume=True)
    write_report(folder)
    for source in asked.sources:
        if source not in trained:
            shared.mkdir(parents=True, exist_ok=True)
            (shared / source).symlink_to((folder / "adapters" / source).resolve())
    return results


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation of every figure of every row, over the runs."""
    return {
        "rows": _rows([run["rows"] for run in runs], ("method",)),
        "curve": _rows([run["curve"] for run in runs], ("method", "fraction")),
        "test_rows": [run["data"]["test"] for run in runs],
    }


def _rows(tables: list[list[dict[str, Any]]], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    for group in zip(*tables, strict=True):
        row: dict[str, Any] = {key: group[0][key] for key in keys}
        for metric in METRICS:
            row[metric] = spread([one[metric] for one in group])
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
