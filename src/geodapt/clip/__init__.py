"""CLIP: one small enough to train here, and any other by name.

>>> from geodapt.clip import load_clip
>>> clip = load_clip("clip-glyphs")  # doctest: +SKIP
>>> clip.embed_texts(["Latin small letter A"])  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
