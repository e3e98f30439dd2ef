"""The `clip` recipe: a small CLIP from scratch, and what it makes of what it never saw."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from geodapt.clip.cache import keep
from geodapt.clip.fitting import save_clip, train_clip
from geodapt.clip.loading import Clip, load_clip
from geodapt.clip.settings import ClipSettings
from geodapt.clip.zero_shot import by_level, zero_shot
from geodapt.data.glyphs import Glyphs, load_glyphs
from geodapt.processes import is_main_process
from geodapt.progress import schedule
from geodapt.runs import Recipe, RunFolder
from geodapt.training import trainable_parameters

TESTS = {
    "test": "Known characters in other fonts",
    "new": "New characters",
    "shifted": "Fonts of another kind",
}
"""The splits that the model is asked about, among all characters."""


class ClipRecipe(ClipSettings, Recipe):
    """Train a small CLIP on the characters of this machine's fonts."""

    recipe: Literal["clip"] = "clip"

    def run(self, folder: RunFolder) -> dict[str, Any]:
        settings = ClipSettings.model_validate(
            self.model_dump(include=set(ClipSettings.model_fields))
        )
        glyphs = load_glyphs(self.data)
        schedule({"training": 20.0, "tests": 1.0})
        trained = folder.stage("training", partial(self._train, settings, glyphs, folder))
        clip = load_clip(str(folder / "model"))
        tested = folder.stage("tests", lambda work: evaluate(clip, glyphs))
        if is_main_process():
            keep(folder / "model", settings, glyphs)
        return {
            "recipe": self.recipe,
            "title": self.title,
            "data": {"train": len(glyphs.splits["train"]), "labels": len(glyphs.classes)},
            **trained,
            **tested,
        }

    def _train(
        self, settings: ClipSettings, glyphs: Glyphs, folder: RunFolder, work: Path
    ) -> dict[str, Any]:
        model, processor = train_clip(settings, glyphs, work, **folder.watch("training"))
        save_clip(model, processor, folder / "model")
        return {"trainable_parameters": trainable_parameters(model)}


def evaluate(clip: Clip, glyphs: Glyphs) -> dict[str, Any]:
    """Zero-shot figures of each test split among all names, and of the new among themselves.

    ``levels`` are the accuracies at each level of the captions, from general to specific.
    """
    chains = glyphs.classes["captions"][:]
    captions = list(dict.fromkeys(caption for chain in chains for caption in chain))
    texts = dict(zip(captions, clip.embed_texts(captions), strict=True))
    names = torch.stack([texts[chain[-1]] for chain in chains])
    new = torch.tensor(glyphs.classes["new"][:])
    place = new.cumsum(0) - 1  # a new character's number among the new ones
    rows, levels = [], {}
    for split, label in TESTS.items():
        pictures = glyphs.splits[split]
        if not len(pictures):
            continue
        images, labels = clip.embed_images(pictures["image"]), torch.tensor(pictures["label"][:])
        rows.append({"method": split, "label": label, **zero_shot(images, names, labels)})
        levels[split] = by_level(images, texts, chains, labels)
        if split == "new":
            among = zero_shot(images, names[new], place[labels])
            rows.append({"method": "new-only", "label": "New characters among themselves", **among})
    return {"rows": rows, "levels": levels}
