"""The gate that a request asks for, by names that its client knows.

A request names one adapter as its model, or the base with weights beside it, or writes the
weights into the model's name (``toys:0.5+tools:-0.2``), for clients that send nothing else.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from geodapt.adapters.gates import Gate, Mix, TopAtoms
from geodapt.errors import InputError

ADAPTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What an adapter may be called over HTTP, where a name is also a folder's."""
BASE = "base"
"""A name that the base always has, beside its own."""
MOST_ADAPTERS = 64
"""Adapters in one request's gate."""

_TERM = re.compile(rf"({ADAPTER_NAME.pattern})(?::([+-]?(?:\d+\.?\d*|\.\d+)))?")


class UnknownModel(InputError):
    """A name that is neither the base's nor an adapter's."""


@dataclass(frozen=True)
class Atoms:
    """Which rank-one terms act, as in :class:`geodapt.adapters.TopAtoms`."""

    keep: int | float | None = None
    per: Literal["token", "sequence"] = "token"


@dataclass(frozen=True)
class RequestedGate:
    """Weights by adapters' names; none is the base alone."""

    weights: Mapping[str, float]
    atoms: Atoms | None = None

    def gate(self, versions: Mapping[str, str]) -> Gate | None:
        """The gate, with each name replaced by that of the version which is to answer."""
        if not self.weights:
            return None
        mix = Mix({versions[name]: weight for name, weight in self.weights.items()})
        if self.atoms is None:
            return mix
        return TopAtoms(self.atoms.keep, mix, self.atoms.per)


def requested_gate(
    model: str | None,
    adapters: Mapping[str, float] | None,
    atoms: Atoms | None,
    base: Collection[str],
) -> RequestedGate:
    """What a request's ``model``, ``adapters`` and ``atoms`` stand for together.

    ``base`` are the names of the base. Whether the adapters are there is not looked at. Raises
    :class:`InputError` for two gates at once, for what is no gate, and :class:`UnknownModel` for
    a model that no adapter could be called.
    """
    of_model = {} if model is None or model in base else _weights_in(model)
    if of_model and adapters:
        raise InputError(
            f"model '{model[:200] if model else ''}' and 'adapters' both choose adapters; give "
            f"the base as the model ('{BASE}') beside 'adapters', or no 'adapters'"
        )
    weights = of_model or dict(adapters or {})
    if len(weights) > MOST_ADAPTERS:
        raise InputError(
            f"the request uses {len(weights)} adapters; a gate may use up to {MOST_ADAPTERS}"
        )
    for name, weight in weights.items():
        if not ADAPTER_NAME.fullmatch(name):
            raise UnknownModel(f"no adapter can be called '{name[:100]}'")
        if not math.isfinite(weight):
            raise InputError(f"adapter '{name}' has weight {weight}; give a finite number")
    if atoms is not None and not weights:
        raise InputError("'atoms' choose among adapters' terms; name at least one adapter")
    asked = RequestedGate({n: w for n, w in weights.items() if w}, atoms if weights else None)
    if asked.weights and atoms is not None:
        asked.gate({name: name for name in asked.weights})  # refuses a keep that is no number
    return asked


def _weights_in(model: str) -> dict[str, float]:
    """The weights that a model's name stands for."""
    found: dict[str, float] = {}
    for part in model.split("+"):
        term = _TERM.fullmatch(part)
        if term is None:
            raise UnknownModel(
                f"model '{model[:200]}' is neither the base nor an adapter; a mixture is written "
                "as 'toys:0.5+tools:-0.2'"
            )
        name, weight = term.groups()
        if name in found:
            raise InputError(f"model '{model[:200]}' names '{name}' twice; add its weights up")
        found[name] = float(weight) if weight is not None else 1.0
    return found
