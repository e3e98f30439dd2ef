"""Smaller models: SVD, integers, and integers with a low-rank correction.

::

    from geodapt.compress import compress, load, save

    compress(model, "lowrank_plus_int4", batches, bits_per_weight=4.5)
    save(model, "smaller/", tokenizer)
    model = load("smaller/")

Importing it registers the format of such folders with transformers, whose ``from_pretrained`` and
pipelines then load them, too.
"""

from geodapt.compress.compression import LayerReport, Report, Target, compress
from geodapt.compress.forms import METHODS, Form
from geodapt.compress.storage import load, save

__all__ = ["METHODS", "Form", "LayerReport", "Report", "Target", "compress", "load", "save"]
