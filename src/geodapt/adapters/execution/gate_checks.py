"""Gates under which adapters have no meaning: mixtures of heads, and of DoRA with others."""

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.gates import Gate, Terms, TopAtoms, names_of
from geodapt.adapters.peft_files.saved_modules import holder_of, same_head
from geodapt.adapters.store.adapter_store import AdapterStore
from geodapt.errors import InputError


def check_terms(
    adapters: Mapping[str, Adapter], terms: Terms, training: Collection[str] = ()
) -> None:
    """Raises :class:`InputError` when the adapters of one row have no head in common.

    A head acts whole or not at all: two different ones have no sum, and one has no weight.
    Frozen adapters may share one that is the same to the bit, whatever their weights.
    """
    remedy = ", or add it without its head: bank.add(name, adapter.without_heads())"
    shared: set[tuple[str, str]] = set()
    bringing = {name: adapters[name].heads for name, _ in terms if adapters[name].heads}
    for one, other in combinations(bringing, 2):
        ours, theirs = bringing[one], bringing[other]
        for path in theirs:
            mine = holder_of(path, ours) or next((p for p in ours if holder_of(p, [path])), None)
            if mine is None:
                continue
            alike = mine == path and same_head(ours[path], theirs[path])
            if not alike or {one, other} & set(training):
                raise InputError(
                    f"adapters '{one}' and '{other}' each bring their own {path}, and heads cannot "
                    "be mixed, nor train together; give each row one of them" + remedy
                )
            shared |= {(one, path), (other, path)}
    for name, weight in terms:
        alone = [path for path in bringing.get(name, ()) if (name, path) not in shared]
        if alone and weight != 1:
            raise InputError(
                f"adapter '{name}' brings its own {alone[0]}, which acts whole or not at all, and "
                f"has weight {weight:g}; give it weight 1" + remedy
            )
        for owner, heads in bringing.items():
            changed = next((p for p in adapters[name].touched if holder_of(p, heads)), None)
            if changed is not None:
                raise InputError(
                    f"adapter '{name}' changes {changed}, which adapter '{owner}' brings trained "
                    "in full; give each row one of them" + remedy
                )


def check_dora(gate: Gate, store: AdapterStore) -> None:
    """Raises :class:`InputError` for a gate under which a DoRA adapter has no meaning."""
    for name in sorted(names_of(gate)):
        magnitudes = store.adapters[name].magnitudes
        if not magnitudes:
            continue
        if isinstance(gate, TopAtoms):
            raise InputError(
                f"TopAtoms chooses among rank-one terms, and '{name}' is a DoRA adapter, which "
                f"also rescales the base's weight (layer {next(iter(magnitudes))}); use it in a "
                "Mix or a Route"
            )
        for path in magnitudes:
            _check_entries(store.restrict(gate.entries, path), name, path)


def _check_entries(entries: Sequence[Terms], name: str, path: str) -> None:
    for terms in entries:
        if name in dict(terms) and terms != ((name, 1.0),):
            others = [other for other, _ in terms if other != name]
            raise InputError(
                f"'{name}' is a DoRA adapter, which rescales the base's weight at layer {path}, "
                + (
                    f"so it cannot be mixed with '{others[0]}' in one row"
                    if others
                    else f"so it has no weight of {dict(terms)[name]:g}"
                )
                + "; give it weight 1 in rows of its own, or merge it into the base first"
            )
