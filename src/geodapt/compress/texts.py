"""The texts that a model is calibrated and measured on."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodapt.data.corpus import ApiTextsSettings, TextSettings
from geodapt.data.corpus.sample import draw
from geodapt.data.domain import SPLITS

if TYPE_CHECKING:
    from geodapt.compress.recipe import CompressRecipe


def calibration_texts(recipe: "CompressRecipe") -> list[str]:
    """Passages of the training split, drawn by the recipe's seed; none where none is asked for."""
    if recipe.calibrate is None:
        return []
    texts = draw(recipe.calibrate, recipe.texts, recipe.max_tokens, recipe.seed, ["train"])
    return sorted(texts, key=len)  # those of like length fill a batch


def measured_texts(recipe: "CompressRecipe") -> list[str]:
    """Passages that are the same for every seed: of documents that are never calibrated on.

    Of files that are given to measure on alone, any; of other sources those of the held-out tenth.
    """
    source = recipe.evaluate or recipe.calibrate or ApiTextsSettings()
    alone = isinstance(recipe.evaluate, TextSettings) and recipe.evaluate != recipe.calibrate
    splits = SPLITS if alone else ["test"]
    return draw(source, recipe.measured_texts, recipe.max_tokens, splits=splits)


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


def measured_on(recipe: "CompressRecipe", count: int) -> str:
    """Which texts the figures before and after are measured on, in a phrase."""
    source = recipe.evaluate or recipe.calibrate or ApiTextsSettings()
    asked = recipe.evaluate or recipe.calibrate
    return f"{count:,} passages of {described(source)}" + (
        "" if asked else ", as neither --evaluate nor --calibrate names other texts"
    )
