"""Trainings small enough for tests, on text that a model can still learn something from."""

import json
import random
from pathlib import Path

import yaml

WORDS = ("red", "green", "blue"), ("bird", "fish", "goat", "horse"), ("runs", "sleeps", "eats")


def write_text(folder: Path, lines: int = 1500) -> Path:
    """A file of sentences in a few words, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    choose = random.Random(0).choice
    sentences = (f"The {' '.join(choose(words) for words in WORDS)} here." for _ in range(lines))
    (folder / "story.txt").write_text("\n".join(sentences) + "\n")
    return folder


SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 8,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "moe_intermediate_size": 24,
    "max_position_embeddings": 64,
}
RECIPE = {
    "recipe": "helm",
    "title": "Tiny language models",
    "data": {"kind": "text", "path": "text"},
    "tokenizer": {"vocab_size": 300},
    "length": 32,
    "models": ["helm-d"],
    "config": SMALL,
    "precision": "float32",
    "tested_rows": 12,
    "training": {
        "steps": 12,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "schedule": "cosine",
        "log_every": 2,
        "evaluate_every": 6,
        "save_every": 4,
        "keep_best": False,
        "tensorboard": False,
    },
}


def write(world: Path, name: str = "tiny.yaml", **changed) -> str:
    """The recipe with changes, in a file of the world; its name."""
    training = RECIPE["training"] | changed.pop("training", {})
    config = SMALL | changed.pop("config", {})
    (world / name).write_text(
        yaml.safe_dump(RECIPE | changed | {"training": training, "config": config})
    )
    return name


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())
