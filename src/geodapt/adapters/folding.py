"""Adapters merged into the base's own weights, and taken out again bit by bit."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from geodapt.adapters.adapter import Adapter
from geodapt.errors import InputError


def fold(
    model: nn.Module, adapters: Mapping[str, Adapter], weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """Replace ``W0`` by ``W0 + sum_i w_i s_i B_i A_i`` at every layer that the adapters touch.

    Returns the original weights by layer path, for :func:`unfold`; they are kept rather than
    subtracted later, since a sum in floating point does not come apart again.

    Raises :class:`InputError` for quantized weights and for a weight that another module
    shares, before anything is changed.
    """
    paths = dict.fromkeys(path for name in weights for path in adapters[name].factors)
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(path)
    for path in paths:
        weight: Any = model.get_submodule(path).weight
        if type(weight) is not nn.Parameter or not weight.is_floating_point():
            raise InputError(
                f"layer {path} is quantized, so nothing can be merged into its weight; "
                "use the adapters through a gate"
            )
        if weight.device.type == "meta":
            raise InputError(
                f"the weight of layer {path} is offloaded, so nothing can be merged into it; use "
                "the adapters through a gate, or load the model without offloading"
            )
        others = [owner for owner in owners[id(weight)] if owner != path]
        if others:
            raise InputError(
                f"layer {path} shares its weight with {others[0]}, which merging would change "
                "too; use the adapters through a gate"
            )
    originals = {}
    for path in paths:
        layer: Any = model.get_submodule(path)
        weight = layer.weight.data
        wide = torch.promote_types(weight.dtype, torch.float32)
        total = weight.to(wide, copy=True)
        for name, share in weights.items():
            if path in adapters[name].factors:
                delta = adapters[name].factors[path].delta().to(total)
                total.add_(delta.T if isinstance(layer, Conv1D) else delta, alpha=share)
        originals[path] = weight
        layer.weight.data = total.to(weight.dtype)
    return originals


def unfold(model: nn.Module, originals: Mapping[str, Tensor]) -> None:
    """Put the original weights back."""
    for path, weight in originals.items():
        layer: Any = model.get_submodule(path)
        layer.weight.data = weight
