"""Base models: loading, their blocks, perplexity and text embeddings.

Loading by name: the offline one, a folder, or a hub name.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
