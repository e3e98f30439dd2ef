"""The small CLIP's training beside transformers' own, and how fast characters are drawn.

Training: the same CLIPModel on the same pairs, by geodapt's `fit` with its batches, and by
transformers' Trainer as its example for CLIP feeds it (texts tokenized before, pictures through
the processor batch by batch). The floor is the bare step on a batch that lies ready: forward,
backward, AdamW. They take turns in one process; figures are medians over the rounds.

Drawing: pictures a second of the whole data set into Arrow, and the floor of Pillow drawing the
same characters once and encoding them as PNG. Prints JSON.

    python benchmarks/tinyclip.py [--quick]
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from geodapt.data.glyphs import Glyphs, load_glyphs
from geodapt.data.glyphs.drawing import EM, SUPERSAMPLED
from geodapt.data.glyphs.store import png
from geodapt.progress import console
from geodapt.runs import device_name
from geodapt.tinyclip import TinyClipSettings
from geodapt.tinyclip.model import new_clip
from geodapt.tinyclip.pairs import Pairs, pixels
from geodapt.training import TrainingSettings, fit, parameter_groups

KEYS = ("input_ids", "attention_mask")


def drawing(settings: TinyClipSettings) -> tuple[Glyphs, dict[str, float]]:
    """The data set drawn into an empty cache, and its pace beside Pillow's alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GEODAPT_CACHE"] = folder
        begun = time.perf_counter()
        glyphs = load_glyphs(settings.data)
        seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        glyphs = load_glyphs(settings.data)
        again = time.perf_counter() - begun
        held = sum(file.stat().st_size for file in Path(folder).rglob("*.arrow"))
        # Read into memory, since the folder goes.
        for name, rows in glyphs.splits.items():
            glyphs.splits[name] = type(rows).from_dict(rows.to_dict(), rows.features)
    shown = set(glyphs.classes["character"])
    side = SUPERSAMPLED * settings.data.size
    count, begun = 0, time.perf_counter()
    for font in glyphs.fonts:
        face = ImageFont.truetype(str(font.file), round(EM * side), layout_engine=0)
        for character in shown.intersection(font.characters):
            picture = Image.new("L", (side, side), 255)
            ImageDraw.Draw(picture).text((side // 2, side // 2), character, 0, face, anchor="mm")
            png(picture.reduce(SUPERSAMPLED))
            count += 1
    floor = time.perf_counter() - begun
    pictures = sum(map(len, glyphs.splits.values()))
    return glyphs, {
        "classes": len(glyphs.classes),
        "pictures": pictures,
        "seconds": round(seconds, 2),
        "pictures_per_second": round(pictures / seconds),
        "pillow_alone_per_second": round(count / floor),
        "seconds_from_cache": round(again, 2),
        "arrow_mb": round(held / 2**20, 1),
    }


class Sides:
    """Steps of one training, in three ways."""

    def __init__(self, settings: TinyClipSettings, glyphs: Glyphs, steps: int) -> None:
        self.settings, self.steps = settings, steps
        self.rows = glyphs.splits["train"]
        chains = glyphs.classes["captions"][:]
        torch.manual_seed(0)
        captions = (caption for chain in chains for caption in chain)
        self.model, self.processor = new_clip(settings.model, settings.data.size, captions)
        labels = self.rows.with_format("numpy", columns=["label"])["label"][:]
        tokenizer = self.processor.tokenizer
        self.pairs = Pairs(pixels(self.rows), labels, chains, tokenizer, general=0.0)
        names = [chain[-1] for chain in chains]
        self.tokens = tokenizer(names, padding="max_length", max_length=24, truncation=True)
        self.batch = self.pairs.collate(list(range(settings.training.batch_size)))

    def ours(self) -> float:
        """geodapt's training, as the recipe runs it."""
        training = {**self.settings.training.model_dump(), "steps": self.steps}
        training |= {"save_every": 10**6, "log_every": 10}
        with tempfile.TemporaryDirectory() as work:
            fitted = fit(
                self.model,
                self.pairs,
                TrainingSettings.model_validate(training),
                work=Path(work),
                collate=self.pairs.collate,
                groups=parameter_groups(self.model, 0.05),
            )
        return fitted.seconds / self.steps

    def theirs(self) -> float:
        """transformers' Trainer, fed as its example for CLIP feeds it."""

        def transform(rows: dict[str, list]) -> dict[str, list]:
            images = [image.convert("RGB") for image in rows["image"]]
            pictures = self.processor.image_processor(images, return_tensors="pt")
            tokens = {key: [self.tokens[key][label] for label in rows["label"]] for key in KEYS}
            return {"pixel_values": pictures["pixel_values"], **tokens}

        def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
            stacked = {key: torch.tensor([row[key] for row in rows]) for key in KEYS}
            pictures = torch.stack([row["pixel_values"] for row in rows])
            return {"pixel_values": pictures, **stacked, "return_loss": True}

        with tempfile.TemporaryDirectory() as work:
            arguments = TrainingArguments(
                output_dir=work,
                max_steps=self.steps,
                per_device_train_batch_size=self.settings.training.batch_size,
                learning_rate=self.settings.training.learning_rate,
                weight_decay=0.05,
                lr_scheduler_type="cosine",
                remove_unused_columns=False,
                save_strategy="no",
                logging_steps=10,
                report_to=[],
                disable_tqdm=True,
                use_cpu=not torch.accelerator.is_available(),
            )
            rows = self.rows.with_transform(transform)
            trainer = Trainer(self.model, arguments, data_collator=collate, train_dataset=rows)
            trainer.remove_callback(PrinterCallback)
            begun = time.perf_counter()
            trainer.train()
            return (time.perf_counter() - begun) / self.steps

    def floor(self) -> float:
        """Forward, backward and AdamW on a batch that lies ready."""
        device = self.model.device
        batch = {k: v.to(device) if hasattr(v, "to") else v for k, v in self.batch.items()}
        groups = parameter_groups(self.model, 0.05)
        optimizer = torch.optim.AdamW(groups, lr=1e-5, fused=True)
        begun = time.perf_counter()
        for _ in range(self.steps):
            self.model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begun) / self.steps


def training(settings: TinyClipSettings, glyphs: Glyphs, rounds: int, steps: int) -> dict[str, Any]:
    """Seconds a step of each side, and geodapt's over the others."""
    sides = Sides(settings, glyphs, steps)
    names = ("ours", "theirs", "floor")
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):  # the first warms up
        for name in names:
            seconds = getattr(sides, name)()
            if turn:
                times[name].append(seconds)
    ratios = {
        other: [one / two for one, two in zip(times["ours"], times[other], strict=True)]
        for other in ("theirs", "floor")
    }
    return {
        "parameters": sum(p.numel() for p in sides.model.parameters()),
        "batch_size": settings.training.batch_size,
        "ms_a_step": {name: round(1e3 * statistics.median(of), 2) for name, of in times.items()},
        "ours_over_transformers": round(statistics.median(ratios["theirs"]), 3),
        "ours_over_bare_steps": round(statistics.median(ratios["floor"]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little data, few steps: does it run?")
    quick = parser.parse_args().quick
    settings = TinyClipSettings()
    if quick:
        settings.data.scripts = ["Greek"]
        settings.training.batch_size = 16
    console.print("drawing")
    glyphs, drawn = drawing(settings)
    console.print("training")
    trained = training(settings, glyphs, rounds=1 if quick else 5, steps=2 if quick else 50)
    result = {
        "device": device_name(),
        "torch": torch.__version__,
        "drawing": drawn,
        "training": trained,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
