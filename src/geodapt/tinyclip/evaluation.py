"""How well the small CLIP recognises pictures that it never saw."""

from typing import TYPE_CHECKING, Any

import torch

from geodapt.tinyclip.zero_shot import by_level, zero_shot
from geodapt.vision.clip import Clip

if TYPE_CHECKING:
    from geodapt.data.glyphs import Glyphs

TESTS = {
    "test": "Known characters in other fonts",
    "new": "New characters",
    "shifted": "Fonts of another kind",
}
"""The splits that are classified among all characters."""


def evaluate_tinyclip(clip: Clip, glyphs: "Glyphs") -> dict[str, Any]:
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
