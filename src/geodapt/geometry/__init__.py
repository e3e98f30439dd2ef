"""Hyperbolic geometry as free functions on tensors.

:mod:`~geodapt.geometry.lorentz` (hyperboloid, space components only),
:mod:`~geodapt.geometry.poincare` (ball), :mod:`~geodapt.geometry.cones` (entailment),
:mod:`~geodapt.geometry.hyperbolicity` (how hyperbolic is this data?),
:mod:`~geodapt.geometry.mds` (points that keep given distances). Curvature is always a positive
``c``; the space has curvature ``-c``.
"""

from geodapt.geometry import cones, lorentz, poincare
from geodapt.geometry._checks import checked

__all__ = ["checked", "cones", "lorentz", "poincare"]
