"""The texts that a model is calibrated and measured on."""

from pathlib import Path
from typing import Any

from geodapt.compress.recipe import CompressRecipe
from geodapt.data.corpus import ApiTextsSettings, TextSettings
from geodapt.data.corpus.sample import draw
from geodapt.data.domain import SPLITS


def calibration_texts(settings: CompressRecipe) -> list[str]:
    """Passages of the training split, drawn by the seed; none where none are wanted."""
    if settings.calibrate is None:
        return []
    texts = draw(settings.calibrate, settings.texts, settings.max_tokens, settings.seed, ["train"])
    return sorted(texts, key=len)  # those of like length fill a batch


def measured_texts(settings: CompressRecipe) -> list[str]:
    """Passages of documents that are never calibrated on, the same for every seed.

    From files given only for measuring, all documents count; from other sources, the held-out
    tenth.
    """
    source = settings.evaluate or settings.calibrate or ApiTextsSettings()
    alone = isinstance(settings.evaluate, TextSettings) and settings.evaluate != settings.calibrate
    splits = SPLITS if alone else ["test"]
    return draw(source, settings.measured_texts, settings.max_tokens, splits=splits)


def described(source: Any) -> str:
    """What texts a source holds, for a reader."""
    match source.kind:
        case "api_texts":
            return f"built-in docstrings of {', '.join(source.packages)}"
        case "docs":
            return "the documentation of installed packages"
        case "hub":
            return f"the data set {source.name}" + (f":{source.config}" if source.config else "")
        case _:
            return f"the texts in {Path(source.path).name}"


def held_out_phrase(settings: CompressRecipe, count: int) -> str:
    """Which texts the figures before and after are measured on, in a phrase."""
    source = settings.evaluate or settings.calibrate or ApiTextsSettings()
    asked = settings.evaluate or settings.calibrate
    return f"{count:,} passages of {described(source)}" + (
        "" if asked else ", as neither --evaluate nor --calibrate names other texts"
    )
