"""geodapt adapts frozen foundation models.

Many LoRA adapters on one base (:mod:`geodapt.adapters`), their layer-wise integration for a new
domain (:mod:`geodapt.xcross`), and hyperbolic geometry (:mod:`geodapt.geometry`).
"""

__version__ = "0.1.0"
