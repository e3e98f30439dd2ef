"""Any CLIP or SigLIP of transformers: vectors, patch features, prompts, windows, pictures.

>>> from geodapt.vision import load_clip
>>> clip = load_clip("openai/clip-vit-base-patch32")  # doctest: +SKIP
>>> clip.embed_texts(["a photo of a cat"])  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
