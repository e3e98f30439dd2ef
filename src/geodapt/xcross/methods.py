"""The rows of the comparison: what each method is, and what of it trains.

A method is a gate over the source adapters, or a model that trains on the target. The ablations
of X-Cross are X-Cross with one of its settings changed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geodapt.adapters.gates import Gate, Mix, Off, TopAtoms

if TYPE_CHECKING:
    from geodapt.adapters import AdapterBank


@dataclass(frozen=True)
class ComparedMethod:
    """One way of serving the target domain."""

    label: str
    trains: bool = False
    gate: Callable[["AdapterBank", Sequence[str]], Gate] | None = None
    """The gate over the sources; none: X-Cross, or an adapter of the target's own."""
    integrator: dict[str, Any] | None = None
    """Settings that an ablation of X-Cross changes; none: not X-Cross."""


def uniform_mix(bank: "AdapterBank", sources: Sequence[str]) -> Gate:
    """Every source with weight 1/n."""
    return Mix({name: 1 / len(sources) for name in sources})


def top_atoms(bank: "AdapterBank", sources: Sequence[str]) -> Gate:
    """The largest rank-one terms of the sum for each token, as many as one adapter has."""
    return TopAtoms(of=Mix({name: 1.0 for name in sources}))


def static_merge(method: str, **options: Any) -> Callable[["AdapterBank", Sequence[str]], Gate]:
    """A static merge of the sources with its usual weights, cut to the largest source's rank."""

    def gate(bank: "AdapterBank", sources: Sequence[str]) -> Gate:
        from geodapt.adapters import merge

        name = f"merged-{method}"
        if name not in bank:
            adapters = [bank[source] for source in sources]
            bank.add(name, merge(adapters, method=method, same_base=True, **options))
        return Mix({name: 1.0})

    return gate


METHODS: dict[str, ComparedMethod] = {
    "base": ComparedMethod("Base, no adapter", gate=lambda bank, sources: Off()),
    "sources": ComparedMethod("Each source alone"),
    "mix": ComparedMethod("Uniform mix", gate=uniform_mix),
    "svd": ComparedMethod("Merged, SVD", gate=static_merge("svd")),
    "ties": ComparedMethod("Merged, TIES", gate=static_merge("ties", density=0.5)),
    "atoms": ComparedMethod("Atoms, chosen per token", gate=top_atoms),
    "head": ComparedMethod("Uniform mix, head trained", trains=True, gate=uniform_mix),
    "lora": ComparedMethod("Target LoRA", trains=True),
    "xcross": ComparedMethod("X-Cross", trains=True, integrator={}),
    "xcross-direct": ComparedMethod(
        "X-Cross, direct terms only", trains=True, integrator={"terms": "direct"}
    ),
    "xcross-interaction": ComparedMethod(
        "X-Cross, interaction terms only", trains=True, integrator={"terms": "interaction"}
    ),
    "xcross-static": ComparedMethod(
        "X-Cross, static z", trains=True, integrator={"dynamic": False}
    ),
    "xcross-last": ComparedMethod(
        "X-Cross, last layer only", trains=True, integrator={"layers": "last"}
    ),
    "xcross-none": ComparedMethod(
        "X-Cross, no integrators", trains=True, integrator={"layers": "none"}
    ),
    "xcross-uniform": ComparedMethod(
        "X-Cross, w not trained", trains=True, integrator={"aggregation": "uniform"}
    ),
    "xcross-raw": ComparedMethod("X-Cross, raw h in z", trains=True, integrator={"scale": "none"}),
}
