"""Smaller models: SVD, integers, and integers with a low-rank correction.

::

    from geodapt.compress import compress, load, save

    compress(model, "lowrank_plus_int4", batches, bits_per_weight=4.5)
    save(model, "smaller/", tokenizer)
    model = load("smaller/")

Importing it registers the format of such folders with transformers, whose ``from_pretrained`` and
pipelines then load them, too.
"""

import lazy_loader

from geodapt.registration import register_formats

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
register_formats("geodapt.compress.quantizer")
