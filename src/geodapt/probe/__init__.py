"""Is this data hyperbolic? What `geodapt probe` reads, measures, says and draws."""

from geodapt.probe.figures import Figures, measure
from geodapt.probe.page import write_page
from geodapt.probe.sources import Source, load
from geodapt.probe.verdict import verdict

__all__ = ["Figures", "Source", "load", "measure", "verdict", "write_page"]
