"""Many LoRA adapters stacked on one frozen base: load, gate, train, merge."""

from geodapt.adapters.adapter import Adapter, Factors
from geodapt.adapters.bank import AdapterBank
from geodapt.adapters.gates import Gate, Mix, Off, Route, TopAtoms
from geodapt.adapters.merging import METHODS, merge

__all__ = [
    "METHODS",
    "Adapter",
    "AdapterBank",
    "Factors",
    "Gate",
    "Mix",
    "Off",
    "Route",
    "TopAtoms",
    "merge",
]
