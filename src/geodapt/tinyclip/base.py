"""The small CLIP as a base for other systems, under the name of its recipe, ``clip-glyphs``.

Everything that draws characters is imported where it is needed, so that other bases work without
the packages for drawing.
"""

from typing import TYPE_CHECKING

from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from geodapt.models import locate_base
from geodapt.tinyclip.settings import TINYCLIP, TinyClipSettings

if TYPE_CHECKING:
    from geodapt.vision.clip import Clip


def resolve_base(base: str) -> str:
    """The folder or hub name that a base's name stands for.

    The small CLIP is trained now if the cache does not have it. Raises :class:`InputError` as
    :func:`geodapt.models.locate_base` does.
    """
    if base != TINYCLIP:
        return locate_base(base)
    from geodapt.tinyclip.cache import checkpoint

    return str(checkpoint())


def trained_base(base: str, settings: TinyClipSettings) -> str:
    """What loads a base: its name, or the folder of a small CLIP of other settings than the
    recipe's, for which the name stands."""
    if base != TINYCLIP or settings == TinyClipSettings():
        return base
    from geodapt.tinyclip.cache import checkpoint

    return str(checkpoint(settings))


def must_be_trained(base: str, settings: TinyClipSettings) -> bool:
    """Whether a base is the small CLIP and the cache does not have that of the settings yet."""
    if base != TINYCLIP:
        return False
    from geodapt.tinyclip.cache import is_cached

    return not is_cached(settings)


def untrained_base(
    settings: TinyClipSettings,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The small CLIP before its training, with its tokenizer: enough to check what would fit it."""
    from geodapt.data.glyphs import load_glyphs
    from geodapt.tinyclip.fitting import untrained_clip

    model, processor = untrained_clip(settings, load_glyphs(settings.data))
    return model, processor.tokenizer


def load_base_clip(base: str, small: TinyClipSettings | None = None) -> "Clip":
    """A CLIP by folder or hub name; ``clip-glyphs`` is that of the settings, trained if needed."""
    from geodapt.vision.clip import load_clip

    if base != TINYCLIP:
        return load_clip(base)
    from geodapt.tinyclip.cache import checkpoint

    return load_clip(checkpoint(small))


def load_tinyclip() -> "Clip":
    """The small CLIP of the recipe ``clip-glyphs``, trained now if the cache does not have it."""
    return load_base_clip(TINYCLIP)
