"""Is this data hyperbolic? What `geodapt probe` reads, measures and says."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
