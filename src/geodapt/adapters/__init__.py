"""Many LoRA adapters stacked on one frozen base: load, gate, train, merge."""

from geodapt.adapters.adapter import Adapter, Factors
from geodapt.adapters.bank import AdapterBank
from geodapt.adapters.calibration import calibrate
from geodapt.adapters.gates import Gate, Mix, Off, Route, TopAtoms
from geodapt.adapters.merging import METHODS, merge
from geodapt.adapters.overlap import overlap, overlaps
from geodapt.adapters.search import search
from geodapt.adapters.settings import LoraSettings

__all__ = [
    "METHODS",
    "Adapter",
    "AdapterBank",
    "Factors",
    "Gate",
    "LoraSettings",
    "Mix",
    "Off",
    "Route",
    "TopAtoms",
    "calibrate",
    "merge",
    "overlap",
    "overlaps",
    "search",
]
