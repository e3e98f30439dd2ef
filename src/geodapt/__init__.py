"""geodapt adapts frozen foundation models.

Many LoRA adapters on one base (:mod:`geodapt.adapters`), their layer-wise integration for a new
domain (:mod:`geodapt.xcross`), hyperbolic geometry (:mod:`geodapt.geometry`), language models
(:mod:`geodapt.helm`) and encoders (:mod:`geodapt.radial`) where hierarchies fit, and compression
(:mod:`geodapt.compress`). :func:`run` runs a recipe, as ``geodapt run`` does.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
