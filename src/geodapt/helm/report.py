"""What the table of a HELM run shows: that of any language model's run."""

from geodapt.lm.report import PAGE

__all__ = ["PAGE"]
