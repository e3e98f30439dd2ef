"""Radial embeddings: hierarchies in text and image-text encoders, measured and tuned.

>>> from geodapt.radial import RadialModel
>>> model = RadialModel.load("minilm")  # doctest: +SKIP
>>> index = model.index(["animal", "goat", "a goat eating leaves", "vehicle"])  # doctest: +SKIP
>>> [step.text for step in model.retrieve(["a goat eats a tree"], index)[0]]  # doctest: +SKIP
"""

from geodapt.radial.encoders import TextEncoder
from geodapt.radial.losses import (
    LossSettings,
    anchoring_loss,
    cone_loss,
    radial_loss,
    radial_terms,
)
from geodapt.radial.model import Index, RadialModel, Step
from geodapt.radial.roots import RootSettings, generality

__all__ = [
    "Index",
    "LossSettings",
    "RadialModel",
    "RootSettings",
    "Step",
    "TextEncoder",
    "anchoring_loss",
    "cone_loss",
    "generality",
    "radial_loss",
    "radial_terms",
]
