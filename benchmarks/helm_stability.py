"""Does a HELM's training stay finite? Long trainings at up to ten times the usual step size.

Small HELM-D and HELM-MiCE with every curvature learned, in float32 and in bfloat16 autocast, at 1,
3 and 10 times the recipe's learning rate, on the built-in documentation. A loss that is NaN or
infinite ends a run; all else that is not finite in its log is counted. Prints JSON: perplexity,
the largest gradient norm, and the range of every logged curvature and norm. A call that was cut
short goes on where it was.

    python benchmarks/helm_stability.py [--steps 10000] [--models helm-d helm-mice]
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from geodapt.errors import InputError
from geodapt.recipes.execution import execute
from geodapt.recipes.loading import load_recipe
from geodapt.runs import RunFolder, device_name

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 168,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 16,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "moe_intermediate_size": 80,
    "learn_curvature": True,
}
TIMES = (1, 3, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--models", nargs="+", default=["helm-d", "helm-mice"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--times", nargs="+", type=float, default=TIMES)
    parser.add_argument("--out", type=Path, default=Path("runs/stability"))
    args = parser.parse_args()
    recipe: Any = load_recipe("helm-tiny", []).recipe
    usual = recipe.training.learning_rate
    rows = []
    for model in args.models:
        for precision in args.precisions:
            for times in args.times:
                name = f"{model}-{precision}-{times:g}"
                print(name, file=sys.stderr)
                given = [
                    f"models=[{model}]",
                    f"config={json.dumps(SMALL)}",
                    f"precision={precision}",
                    "tokenizer.vocab_size=1024",
                    "length=64",
                    f"training.learning_rate={usual * times}",
                    f"training.steps={args.steps}",
                    f"training.evaluate_every={args.steps}",
                    "training.log_every=50",
                ]
                rows.append(
                    {"model": model, "precision": precision, "times": times}
                    | trained(given, args.out / name)
                )
    print(json.dumps({"device": device_name(), "steps": args.steps, "rows": rows}, indent=1))


def trained(given: list[str], folder: Path) -> dict[str, Any]:
    """One run: how it ended, and the range of what it logged."""
    found: dict[str, Any] = {}
    try:
        row = execute(load_recipe("helm-tiny", given).recipe, folder, resume=True)["rows"][0]
        found["perplexity"] = row["perplexity"]
    except InputError as error:
        found["stopped"] = str(error)
    logged = [line for line in RunFolder(folder).metrics() if "loss" in line]
    found["lines"] = len(logged)
    values = [value for line in logged for value in line.values() if isinstance(value, float)]
    found["not_finite"] = sum(not math.isfinite(value) for value in values)
    for key in ("grad_norm", "state_norm"):
        found[key] = between([line[key] for line in logged])
    curved = [value for line in logged for key, value in line.items() if "curvature" in key]
    return found | {"curvatures": between(curved)}


def between(values: list[float]) -> list[float]:
    """The least and the largest; nothing of a run that ended before its first line."""
    return [float(f"{value:.4g}") for value in (min(values), max(values))] if values else []


if __name__ == "__main__":
    main()
