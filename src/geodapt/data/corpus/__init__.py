"""Text to train language models on: installed documentation, files, and the hub.

>>> from geodapt.data.corpus import DocsSettings, load_corpus
>>> corpus = load_corpus(DocsSettings())  # doctest: +SKIP
>>> next(corpus.documents("train"))  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
