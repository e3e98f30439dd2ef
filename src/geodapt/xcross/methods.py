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
class Method:
    """One way of serving the target domain."""

    label: str
    trains: bool = False
    gate: Callable[["AdapterBank", Sequence[str]], Gate] | None = None
    """The gate over the sources; none: X-Cross, or an adapter of the target's own."""
    integrator: dict[str, Any] | None = None
    """Settings that an ablation of X-Cross changes; none: not X-Cross."""


def mix(bank: "AdapterBank", sources: Sequence[str]) -> Gate:
    """Every source with weight 1/n."""
    return Mix({name: 1 / len(sources) for name in sources})


def atoms(bank: "AdapterBank", sources: Sequence[str]) -> Gate:
    """The largest rank-one terms of the sum for each token, as many as one adapter has."""
    return TopAtoms(of=Mix({name: 1.0 for name in sources}))


def merged(method: str, **options: Any) -> Callable[["AdapterBank", Sequence[str]], Gate]:
    """A static merge of the sources with its usual weights, cut to the largest source's rank."""

    def gate(bank: "AdapterBank", sources: Sequence[str]) -> Gate:
        from geodapt.adapters import merge

        name = f"merged-{method}"
        if name not in bank:
            adapters = [bank[source] for source in sources]
            bank.add(name, merge(adapters, method=method, same_base=True, **options))
        return Mix({name: 1.0})

    return gate


METHODS: dict[str, Method] = {
    "base": Method("Base, no adapter", gate=lambda bank, sources: Off()),
    "sources": Method("Each source alone"),
    "mix": Method("Uniform mix", gate=mix),
    "svd": Method("Merged, SVD", gate=merged("svd")),
    "ties": Method("Merged, TIES", gate=merged("ties", density=0.5)),
    "atoms": Method("Atoms, chosen per token", gate=atoms),
    "head": Method("Uniform mix, head trained", trains=True, gate=mix),
    "lora": Method("Target LoRA", trains=True),
    "xcross": Method("X-Cross", trains=True, integrator={}),
    "xcross-direct": Method(
        "X-Cross, direct terms only", trains=True, integrator={"terms": "direct"}
    ),
    "xcross-interaction": Method(
        "X-Cross, interaction terms only", trains=True, integrator={"terms": "interaction"}
    ),
    "xcross-static": Method("X-Cross, static z", trains=True, integrator={"dynamic": False}),
    "xcross-last": Method("X-Cross, last layer only", trains=True, integrator={"layers": "last"}),
    "xcross-none": Method("X-Cross, no integrators", trains=True, integrator={"layers": "none"}),
    "xcross-uniform": Method(
        "X-Cross, w not trained", trains=True, integrator={"aggregation": "uniform"}
    ),
    "xcross-raw": Method("X-Cross, raw h in z", trains=True, integrator={"scale": "none"}),
}
