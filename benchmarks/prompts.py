"""What a training step of a prompt learner costs, and what trimmed texts and one base save.

Both sides train the same tokens of MaPLe on the same pictures at ViT-B/16's shapes (random
weights, which cost the same). *Published*: class texts of CLIP's 77 positions, and a copy of CLIP
for the frozen side, as the authors' code has it. *geodapt*: texts as long as the longest, one CLIP.
A second part compares a learner with an adapter and without, in training and in inference.

    python benchmarks/prompts.py --turns 3
"""

import argparse
import copy
import json
import statistics
import time

import numpy as np
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

from geodapt.prompts import MaPLe, PromptLearner
from geodapt.prompts.adapter import FEATURE_ADAPTERS, adapter_of
from geodapt.prompts.objective import Objective
from geodapt.tinyclip.model import train_caption_tokenizer
from geodapt.vision import Clip

POSITIONS = 77


def vit_b16(layers: int) -> Clip:
    """A CLIP of ViT-B/16's shapes, with random weights."""
    torch.manual_seed(0)
    tokenizer = train_caption_tokenizer(["a photo of a class number 0123456789."], 400, POSITIONS)
    text = {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "num_hidden_layers": layers,
        "vocab_size": 49408,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {"patch_size": 16, "num_hidden_layers": layers}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=512))
    size = {"height": 224, "width": 224}
    processor = CLIPProcessor(CLIPImageProcessorPil(size=size, crop_size=size), tokenizer)
    return Clip(model.requires_grad_(False).eval(), processor, "ViT-B/16")


def step(learner: PromptLearner, names: tuple[str, ...], batch: dict):
    """A training step: forward, backward, SGD."""
    objective = Objective(learner, names, 5).train()
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=1e-3)

    def run() -> None:
        optimizer.zero_grad()
        objective(**batch)["loss"].backward()
        optimizer.step()

    return run


def published(clip: Clip, names: tuple[str, ...], depth: int) -> PromptLearner:
    """The same learner on a copy of the CLIP, with texts of all positions."""
    own = Clip(copy.deepcopy(clip.model), clip.processor, clip.name)
    learner = PromptLearner(own, MaPLe(depth=depth))
    texts = learner.class_texts(names)
    more = POSITIONS - texts.ids.shape[1]
    texts.ids = torch.nn.functional.pad(texts.ids, (0, more), value=int(texts.ids[0, -1]))
    texts.mask = torch.nn.functional.pad(texts.mask, (0, more))
    return learner


def in_turn(sides: dict, turns: int) -> dict[str, float]:
    """Medians of processor time in seconds, the sides one after another in each turn."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run()
    for _ in range(turns):
        for name, run in sides.items():
            start = time.process_time()
            run()
            spent[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument(
        "--adapter", choices=[*FEATURE_ADAPTERS], help="compare with it and without"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    clip = vit_b16(asked.layers)
    depth = min(9, asked.layers)
    names = tuple(f"class number {number}" for number in range(asked.classes))
    random = np.random.default_rng(0)
    images = [
        Image.fromarray(random.integers(256, size=(224, 224, 3), dtype=np.uint8))
        for _ in range(asked.batch)
    ]
    batch = {"pixels": clip.pixels(images), "labels": torch.arange(asked.batch)}
    ours = PromptLearner(clip, MaPLe(depth=depth))
    other = published(clip, names, depth)
    sides = {
        "published": step(other, names, batch),
        "geodapt": step(ours, names, batch),
    }
    found = in_turn(sides, asked.turns)
    weights = 4 * sum(p.numel() for p in clip.model.parameters()) / 2**20
    report = {
        "step": {
            "seconds": found,
            "times_faster": found["published"] / found["geodapt"],
            "tokens": {"published": POSITIONS, "geodapt": ours.class_texts(names).ids.shape[1]},
            "clip_mb": {"published": 2 * weights, "geodapt": weights},
        }
    }
    if asked.adapter:
        report["adapter"] = with_adapter(asked, clip, names, images, batch, ours, depth)
    print(json.dumps(report, indent=2))


def with_adapter(asked, clip, names, images, batch, ours, depth) -> dict:
    """The costs of an adapter over its host."""
    made = adapter_of(asked.adapter)(512)
    learner = PromptLearner(clip, MaPLe(depth=depth), made)
    made.start(ours.features_of(images), ours.class_vectors(names), 0)
    train = in_turn(
        {"host": step(ours, names, batch), "adapter": step(learner, names, batch)}, asked.turns
    )
    ask = in_turn(
        {
            "host": lambda: ours.logits(images, names),
            "adapter": lambda: learner.logits(images, names),
        },
        asked.turns,
    )
    return {
        "training_seconds": train,
        "training_ratio": train["adapter"] / train["host"],
        "inference_seconds": ask,
        "inference_ratio": ask["adapter"] / ask["host"],
    }


if __name__ == "__main__":
    main()
