"""Is this data hyperbolic? What `geodapt probe` reads, measures and says."""

from geodapt.probe.figures import Figures, measure, require_transport
from geodapt.probe.sources import Source, load
from geodapt.probe.verdict import verdict

__all__ = ["Figures", "Source", "load", "measure", "require_transport", "verdict"]
