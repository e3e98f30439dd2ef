"""Invented results in the shape that recipes write. Test data: nothing here was measured."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

SOURCES = ["sympy", "pandas", "numpy"]
METHODS = [
    # method, label, Hit@1, trainable parameters, seconds
    ("base", "Base, no adapter", 0.1304, 0, 3.2),
    ("source-sympy", "Adapter of sympy", 0.2609, 0, 3.4),
    ("source-pandas", "Adapter of pandas", 0.2283, 0, 3.4),
    ("source-numpy", "Adapter of numpy", 0.2826, 0, 3.4),
    ("mix", "Uniform mix", 0.3152, 0, 3.9),
    ("svd", "Merged (SVD)", 0.3043, 0, 6.1),
    ("ties", "Merged (TIES)", 0.2935, 0, 6.4),
    ("atoms", "Top atoms", 0.3152, 0, 5.8),
    ("lora", "LoRA trained on scikit-learn", 0.5543, 676352, 61.7),
    ("xcross", "X-Cross", 0.5217, 157313, 114.25),
]


def ranking_metrics(hit_at_1: float) -> dict[str, float]:
    return {
        "hit_at_1": hit_at_1,
        "hit_at_3": hit_at_1 + 0.15,
        "hit_at_5": hit_at_1 + 0.22,
        "hit_at_10": hit_at_1 + 0.31,
        "mrr": hit_at_1 + 0.11,
        "ndcg_at_10": hit_at_1 + 0.16,
    }


def exchange(layers: int, streams: int, size: float, seed: int) -> list:
    """Layers x receiver x giver, growing with the layer, nothing from a stream to itself."""
    values = np.random.default_rng(seed).uniform(0.2, 1, (layers, streams, streams)) * size
    values *= np.linspace(0.3, 1.3, layers)[:, None, None] * (1 - np.eye(streams))
    return values.round(5).tolist()


def example(seed: int, target: int, layers: int, streams: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    modules = ["linear_model.Ridge", "metrics.accuracy_score", "datasets.make_blobs", "clone"]
    return {
        "history": [
            "sklearn.datasets.make_classification",
            "sklearn.model_selection.train_test_split",
            "sklearn.preprocessing.StandardScaler",
            "sklearn.pipeline.make_pipeline",
        ][: 2 + seed % 3],
        "candidates": [
            {
                "name": f"sklearn.{modules[number % 4]}_{number}",
                "score": round(3 - 0.3 * number + float(rng.uniform(0, 0.2)), 4),
                "is_target": number == target,
            }
            for number in range(30)
        ],
        "direct": exchange(layers, streams, 0.03, seed),
        "interaction": exchange(layers, streams, 0.012, seed + 50),
    }


def ranking_results(layers: int = 6) -> dict[str, Any]:
    return {
        "recipe": "xcross",
        "title": "scikit-learn calls, served by the adapters of other packages",
        "task": "ranking",
        "base": "minilm",
        "target": "scikit-learn",
        "sources": list(SOURCES),
        "rows": [
            {
                "method": method,
                "label": label,
                **ranking_metrics(hit),
                "trainable_parameters": parameters,
                "seconds": seconds,
                "peak_memory_mb": 900.4 + parameters / 1000,
            }
            for method, label, hit, parameters, seconds in METHODS
        ],
        "curve": [
            {"method": method, "fraction": fraction, **ranking_metrics(hit)}
            for method, hits in {
                "lora": [0.3587, 0.4239, 0.4891, 0.5326, 0.5543],
                "xcross": [0.4022, 0.4565, 0.5, 0.5109, 0.5217],
            }.items()
            for fraction, hit in zip([0.1, 0.25, 0.5, 0.75, 1.0], hits, strict=True)
        ],
        "contributions": {
            "streams": list(SOURCES),
            "layers": list(range(layers)),
            "direct": exchange(layers, 3, 0.03, 1),
            "interaction": exchange(layers, 3, 0.012, 2),
            "weights": [0.31, 0.29, 0.41],
        },
        "examples": [
            example(1, 0, layers, 3),
            example(2, 7, layers, 3),
            example(3, 2, layers, 3),
            example(4, 0, layers, 3),
        ],
        "data": {"train": 340, "validation": 60, "test": 92, "candidates": 30},
        "seed": 0,
        "seconds": 318.4,
        "peak_memory_mb": 1576.8,
        "device": "x86_64 CPU, 2 threads",
        "versions": {"geodapt": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "python": "3.11.9",
    }


def classification_results() -> dict[str, Any]:
    results = ranking_results()
    return {
        **{key: results[key] for key in ("recipe", "target", "sources", "seed")},
        "title": "Sentiment of reviews",
        "task": "classification",
        "base": "minilm",
        "rows": [
            {"method": "lora", "label": "LoRA", "accuracy": 0.81, "macro_f1": 0.8},
            {"method": "xcross", "label": "X-Cross", "accuracy": 0.84, "macro_f1": 0.79},
        ],
        "examples": [
            {
                "text": "Arrived broken, and twice the price of the last one.",
                "candidates": [
                    {"name": "negative", "score": 1.5, "is_target": True},
                    {"name": "positive", "score": -1.5, "is_target": False},
                ],
            }
        ],
        "data": {"train": 800, "test": 200, "labels": 2},
    }


def log_lines() -> list[dict[str, Any]]:
    lines = []
    stages = [*(f"source-{source}" for source in SOURCES), "lora", "xcross"]
    for number, stage in enumerate(stages):
        for step in range(5, 105, 5):
            loss = 1.6 * math.exp(-step / (30 + 8 * number)) + 0.7 + 0.05 * math.sin(step)
            line = {"stage": stage, "step": step, "loss": loss, "learning_rate": 3e-4}
            if step % 20 == 0:
                line["validation_hit_at_1"] = 0.5 - 0.3 * math.exp(-step / 40)
                line["validation_mrr"] = 0.62 - 0.3 * math.exp(-step / 40)
            lines.append(line)
    return lines


CONFIG = "recipe: xcross\nbase: minilm\nsources: [sympy, pandas, numpy]\ntarget: scikit-learn\n"


def write_run(
    folder: Path,
    results: dict[str, Any] | None = None,
    lines: list[dict[str, Any]] | None = None,
    config: str | None = CONFIG,
) -> Path:
    """A run's folder as `geodapt run` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results or ranking_results()))
    lines = log_lines() if lines is None else lines
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if config is not None:
        (folder / "config.yaml").write_text(config)
    return folder
