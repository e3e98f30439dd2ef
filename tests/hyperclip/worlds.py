"""Folders with a tiny CLIP of Greek characters and a recipe for it; what test files of recipes
share."""

import json
from pathlib import Path
from typing import Any

import yaml

from geodapt.data.glyphs import GlyphSettings, load_glyphs
from geodapt.tinyclip import TinyClipSettings
from geodapt.tinyclip.fitting import save_clip, untrained_clip
from tests.tinyclip.small import SMALL

PAGES = {"train": 4, "test": 3, "size": 64, "characters": [3, 6], "em": [16, 28]}
TRAINING = {"steps": 2, "batch_size": 2, "learning_rate": 1e-3, "tensorboard": False}
GREEK = {
    "title": "Greek pages",
    "base": "base",
    "data": SMALL["data"] | {"kind": "glyphs"},
    "pages": PAGES,
    "classes": 6,
    "training": TRAINING,
    "lora_rank": 2,
    "keep": "hyperclip-8",
}


def greek() -> Any:
    return load_glyphs(GlyphSettings(**SMALL["data"]))


def glyph_world(folder: Path, recipe: dict[str, Any], embedding: int | None = None) -> Path:
    """``base`` is a CLIP before its training, ``pages.yaml`` the recipe."""
    sizes = SMALL["model"] | ({} if embedding is None else {"embedding": embedding})
    settings = TinyClipSettings(**{**SMALL, "model": sizes})
    save_clip(*untrained_clip(settings, greek()), folder / "base")
    (folder / "pages.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())
