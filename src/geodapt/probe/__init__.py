"""Is this data hyperbolic? What `geodapt probe` reads, measures and says."""

from geodapt.probe.figures import Figures, measure
from geodapt.probe.probing import Probed, probe_source
from geodapt.probe.source import Source
from geodapt.probe.sources import load_source
from geodapt.probe.verdict import verdict

__all__ = [
    "Figures",
    "Probed",
    "Source",
    "load_source",
    "measure",
    "probe_source",
    "verdict",
]
