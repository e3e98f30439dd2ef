"""The small CLIP of the recipe `clip-glyphs` as a base: found in the cache, or trained first.

What draws its pictures is imported where it is needed, since other bases do without.
"""

from typing import Any

from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from geodapt.models import locate_base

SMALL_CLIP = "clip-glyphs"


def located(base: str) -> str:
    """The folder or hub name behind a base's name; the small CLIP is trained where it is missing.

    Raises :class:`InputError` as :func:`geodapt.models.locate_base` does.
    """
    return train() if base == SMALL_CLIP else locate_base(base)


def is_missing(base: str) -> bool:
    """Whether a base is the small CLIP, and has not been trained yet."""
    if base != SMALL_CLIP:
        return False
    from geodapt.clip.cache import is_cached

    return not is_cached()


def train(**watched: Any) -> str:
    """The small CLIP's folder, trained now where it is missing; ``watched`` as in ``fit``."""
    from geodapt.clip import checkpoint

    return str(checkpoint(**watched))


def untrained() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The small CLIP before its training, and its tokenizer: enough to see what would fit it."""
    from geodapt.clip import ClipSettings
    from geodapt.clip.fitting import untrained_clip
    from geodapt.data.glyphs import load_glyphs

    settings = ClipSettings()
    model, processor = untrained_clip(settings, load_glyphs(settings.data))
    return model, processor.tokenizer
