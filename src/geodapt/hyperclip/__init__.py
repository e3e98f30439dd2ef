"""HyperCLIP: a CLIP tuned for dense tasks by block-diagonal scalings of its attention weights.

>>> from geodapt.hyperclip import ScalingSettings, scale
>>> scaling = scale(model, ScalingSettings(block=128))  # doctest: +SKIP
>>> optimizer = torch.optim.AdamW(scaling.parameters(), lr=1.5e-5)  # doctest: +SKIP
>>> scaling.save_pretrained("tuned/")  # doctest: +SKIP
>>> scaling.fold()  # the model costs what it did before  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
