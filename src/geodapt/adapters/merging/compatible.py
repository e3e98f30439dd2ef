"""Do adapters belong together?"""

import os
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.peft_files.field_types import shown
from geodapt.adapters.peft_files.kinds import LINEAR, LayerKind, describe_kind
from geodapt.adapters.peft_files.model_class import trained_on
from geodapt.errors import InputError

SAY_SO = "say that their base is the same (same_base=True, --same-base)"


def check_compatible(adapters: Sequence[Adapter], same_base: bool = False) -> None:
    """Raises :class:`InputError` when adapters cannot be merged with each other.

    An adapter of which every update is zero was never trained, or lost its factors: refused.
    Adapters belong together when the fingerprints of their bases agree, or, where one is missing,
    when both come from a bank on one model, or their bases' whole names agree, or, where neither
    base has a name, the model class that both configurations record; and when each has a layer in
    common with another. ``same_base`` says that they do, whatever names and layers say.
    """
    if not adapters:
        raise InputError("no adapters to merge; give at least one")
    shapes: dict[str, tuple[int, int]] = {}
    for place, adapter in enumerate(adapters, 1):
        zeros = not any(scale and A.any() and B.any() for A, B, scale in adapter.factors.values())
        if zeros and not adapter.additions:
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
    if not same_base and (None in (marks := {a.fits for a in adapters}) or len(marks) > 1):
        _check_common_layers(adapters)
    for other in adapters[1:]:
        _check_base(adapters[0], other, same_base)


def _check_common_layers(adapters: Sequence[Adapter]) -> None:
    touched = Counter(path for adapter in adapters for path in adapter.factors)
    for place, adapter in enumerate(adapters, 1):
        if len(adapters) > 1 and not any(touched[path] > 1 for path in adapter.factors):
            raise InputError(
                f"adapter {place} of {len(adapters)} has no layer in common with the others (it "
                f"touches {', '.join(adapter.targets[:4])}), so they may be strangers; if they are "
                f"not, {SAY_SO}"
            )


def _check_base(one: Adapter, other: Adapter, same_base: bool) -> None:
    """Names that agree only in their last part prove nothing, and neither do missing names."""
    names = [_name(adapter) for adapter in (one, other)]
    if one.base_sha256 and other.base_sha256 and one.factors.keys() == other.factors.keys():
        if one.base_sha256 != other.base_sha256:
            raise InputError(
                f"the adapters belong to different bases ({shown(names[0])} and "
                f"{shown(names[1])}), whose weights differ; merge adapters of one base"
            )
        return
    fits = one.fits is not None and one.fits == other.fits
    if one is other or fits or same_base or (names[0] and names[0] == names[1]):
        return
    if all(names):
        raise InputError(
            f"the adapters belong to different bases ({shown(names[0])} and {shown(names[1])}); "
            f"merge adapters of one base, or, if they are the same, {SAY_SO}"
        )
    classes = [trained_on(adapter.config) for adapter in (one, other)]
    if any(names) or not classes[0] or classes[0] != classes[1]:
        raise InputError(
            "the adapters do not say that they belong to one base (base_model_name_or_path is "
            f"{shown(names[0])} and {shown(names[1])}); if they do, {SAY_SO}"
        )


def _check_kinds(adapters: Sequence[Adapter]) -> None:
    kinds: dict[str, LayerKind] = {}
    copies: dict[str, Tensor] = {}
    for adapter in adapters:
        for path in adapter.factors:
            kind = adapter.kinds.get(path, LINEAR)
            if kind.groups > 1:
                raise InputError(
                    f"layer {path} is {describe_kind(kind)}: a merged update would mix groups of "
                    "the rank, which no file of PEFT can hold; use the adapters through a gate"
                )
            if kinds.setdefault(path, kind) != kind:
                raise InputError(
                    f"layer {path} is {describe_kind(kinds[path])} in one adapter and "
                    f"{describe_kind(kind)} in another: they belong to different bases"
                )
        for name, copy in adapter.copies.items():
            first = copies.setdefault(name, copy)
            if first.shape != copy.shape or not torch.equal(first, copy.to(first.dtype)):
                raise InputError(
                    f"the adapters bring different weights of the base's {name} (its vocabulary "
                    "was resized or trained), so they belong to different bases"
                )


def _name(adapter: Adapter) -> str:
    name = adapter.config.base_model_name_or_path
    return os.path.normpath(name) if name else ""
