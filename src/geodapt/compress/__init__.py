"""Smaller models: SVD, integers, and integers with a low-rank correction.

::

    from geodapt.compress import compress, load, save

    compress(model, "lowrank_plus_int4", batches, bits_per_weight=4.5)
    save(model, "smaller/", tokenizer)
    model = load("smaller/")
"""

from geodapt.compress.compression import LayerReport, Target, compress
from geodapt.compress.forms import METHODS, Form
from geodapt.compress.storage import load, save

__all__ = ["METHODS", "Form", "LayerReport", "Target", "compress", "load", "save"]
