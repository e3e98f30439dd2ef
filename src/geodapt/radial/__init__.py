"""Radial embeddings: hierarchies in text and image-text encoders, measured and tuned.

>>> from geodapt.radial import RadialModel
>>> model = RadialModel.load("minilm")  # doctest: +SKIP
>>> index = model.index(["animal", "goat", "a goat eating leaves", "vehicle"])  # doctest: +SKIP
>>> [step.text for step in model.retrieve(["a goat eats a tree"], index)[0]]  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
