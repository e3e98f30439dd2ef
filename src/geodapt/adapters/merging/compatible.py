"""Do adapters belong together?"""

from collections.abc import Sequence

import torch
from torch import Tensor

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.kinds import LINEAR, Kind, describe
from geodapt.errors import InputError


def check_compatible(adapters: Sequence[Adapter], same_base: bool = False) -> None:
    """Raises :class:`InputError` when adapters cannot be merged with each other.

    An adapter of which every update is zero was never trained, or lost its factors: refused.
    Bases are different when their fingerprints are, or, where an adapter has none, their names
    (the last part, so that a folder and a hub name agree) unless ``same_base`` says otherwise.
    """
    if not adapters:
        raise InputError("no adapters to merge; give at least one")
    shapes: dict[str, tuple[int, int]] = {}
    for place, adapter in enumerate(adapters, 1):
        if not any(A.any() and B.any() for A, B, _ in adapter.factors.values()):
            raise InputError(
                f"adapter {place} of {len(adapters)} is all zeros and changes nothing: was it "
                "saved before training? Leave it out"
            )
        if adapter.magnitudes:
            raise InputError(
                f"adapter {place} of {len(adapters)} is a DoRA adapter: it rescales the base's "
                f"weights (layer {next(iter(adapter.magnitudes))}), so its update is not low-rank "
                "and depends on the base; use it through a gate, or train it as plain LoRA"
            )
        for path, (A, B, _) in adapter.factors.items():
            shape = (B.shape[0], A.shape[1])
            if shapes.setdefault(path, shape) != shape:
                raise InputError(
                    f"layer {path} is {shapes[path][0]} x {shapes[path][1]} in one adapter and "
                    f"{shape[0]} x {shape[1]} in another: they belong to different bases"
                )
    _check_kinds(adapters)
    first = adapters[0]
    for other in adapters[1:]:
        one, two = _name(first), _name(other)
        comparable = first.factors.keys() == other.factors.keys()
        if first.base_sha256 and other.base_sha256 and comparable:
            different = first.base_sha256 != other.base_sha256
        else:
            different = bool(one and two) and one != two and not same_base
        if different:
            raise InputError(
                f"the adapters belong to different bases ('{first.config.base_model_name_or_path}' "
                f"and '{other.config.base_model_name_or_path}'); merge adapters of one base, or "
                "say that it is the same (same_base=True, --same-base)"
            )


def _check_kinds(adapters: Sequence[Adapter]) -> None:
    kinds: dict[str, Kind] = {}
    copies: dict[str, Tensor] = {}
    for adapter in adapters:
        for path in adapter.factors:
            kind = adapter.kinds.get(path, LINEAR)
            if kinds.setdefault(path, kind) != kind:
                raise InputError(
                    f"layer {path} is {describe(kinds[path])} in one adapter and "
                    f"{describe(kind)} in another: they belong to different bases"
                )
        for name, copy in adapter.copies.items():
            first = copies.setdefault(name, copy)
            if first.shape != copy.shape or not torch.equal(first, copy.to(first.dtype)):
                raise InputError(
                    f"the adapters bring different weights of the base's {name} (its vocabulary "
                    "was resized or trained), so they belong to different bases"
                )


def _name(adapter: Adapter) -> str:
    return str(adapter.config.base_model_name_or_path or "").rstrip("/").rsplit("/", 1)[-1].lower()
