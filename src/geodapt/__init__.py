"""geodapt adapts frozen foundation models.

Many LoRA adapters on one base (:mod:`geodapt.adapters`), their layer-wise integration for a new
domain (:mod:`geodapt.xcross`), hyperbolic geometry (:mod:`geodapt.geometry`), language models
(:mod:`geodapt.helm`) and encoders (:mod:`geodapt.radial`) where hierarchies fit, and compression
(:mod:`geodapt.compress`).
"""

__version__ = "0.1.0"
