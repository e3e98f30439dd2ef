"""Many LoRA adapters stacked on one frozen base: load, gate, train, merge."""

from geodapt.adapters.adapter import Adapter, Factors
from geodapt.adapters.bank import AdapterBank
from geodapt.adapters.gates import Gate, Mix, Off, Route, TopAtoms

__all__ = ["Adapter", "AdapterBank", "Factors", "Gate", "Mix", "Off", "Route", "TopAtoms"]
