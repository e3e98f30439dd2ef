"""LatHAdapter: attributes between classes and pictures, ordered in hyperbolic space.

>>> from geodapt.lathadapter import LatHAdapter
>>> adapter = LatHAdapter(512, attributes="auto")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
