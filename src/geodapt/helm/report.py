"""What the table of a HELM run shows: the same as for any language model."""

from geodapt.lm.report import PAGE

__all__ = ["PAGE"]
