"""CLIP: one small enough to train here, and any other by name.

>>> from geodapt.clip import load_clip
>>> clip = load_clip("clip-glyphs")  # doctest: +SKIP
>>> clip.embed_texts(["Latin small letter A"])  # doctest: +SKIP
"""

from geodapt.clip.cache import checkpoint
from geodapt.clip.loading import Clip, load_clip
from geodapt.clip.settings import ClipSettings

__all__ = ["Clip", "ClipSettings", "checkpoint", "load_clip"]
