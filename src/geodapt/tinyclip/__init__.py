"""A CLIP small enough to train here, on the characters of this machine's fonts.

>>> from geodapt.tinyclip import load_tinyclip
>>> clip = load_tinyclip()  # doctest: +SKIP
>>> clip.embed_texts(["Latin small letter A"])  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
