"""Adapters merged into the base's own weights, and taken out again bit by bit."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.lowering import acts_plainly
from geodapt.adapters.base_model.sites import Site, sites
from geodapt.adapters.peft_files.kinds import PARAMETER, describe_kind, indexed
from geodapt.adapters.store.base_weights import row_scale
from geodapt.adapters.store.folding_additions import check_tied, merged_biases, token_updates
from geodapt.errors import InputError


def fold(
    model: nn.Module, adapters: Mapping[str, Adapter], weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """Replace ``W0`` by ``W0 + sum_i w_i s_i B_i A_i`` at every layer that the adapters touch.

    A DoRA adapter's rows are rescaled, too, and biases and rows of tokens move by the weighted sum
    of their differences. Returns the original weights by the layer's or parameter's path, and
    biases by theirs, for :func:`unfold`; they are kept rather than subtracted later, since a
    floating-point sum cannot be undone exactly.

    Raises :class:`InputError` for quantized weights, for a weight that another module shares,
    for a DoRA adapter beside others or at a layer that adds more than ``W x + b``, and for a bias
    of ``lora_B`` at a layer without a bias, before anything is changed.
    """
    places = sites(model)
    touched: dict[str, list[str]] = {}
    for path in dict.fromkeys(path for name in weights for path in adapters[name].factors):
        touched.setdefault(indexed(path)[0], []).append(path)
    tokens = token_updates(adapters, weights)
    for path in tokens:
        touched.setdefault(path, [])
    check_tied(model, tokens, touched)
    _check_weights(model, {path: places[path] for path, own in touched.items() if own})
    for name in weights:
        _check_dora(adapters, weights, name, places)
    biases = merged_biases(model, adapters, weights)
    originals: dict[str, Tensor] = {}
    done: dict[int, Tensor] = {}
    for place, paths in touched.items():
        site = places[place]
        if id(site.weight) in done:  # tied to one that was changed alike
            originals[place] = done[id(site.weight)]
            continue
        weight = site.weight.data
        total = weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True)
        for path in paths:
            matrix = site.matrix(total, indexed(path)[1])
            for name, share in weights.items():
                if path in adapters[name].factors:
                    _add(adapters[name], path, share, site, matrix)
        for share, (ids, rows) in tokens.get(place, ()):
            ids, rows = ids.to(total.device), rows.to(total)
            total.index_add_(0, ids, share * (rows - weight[ids].to(total)))
        originals[place] = done[id(site.weight)] = weight
        site.weight.data = total.to(weight.dtype)
    for path, bias in biases.items():
        parameter = model.get_parameter(path)
        originals[path] = parameter.data
        parameter.data = bias
    return originals


def names_of_folded(model: nn.Module, originals: Mapping[str, Tensor]) -> dict[str, str]:
    """The names of the parameters that were changed, by their keys in ``originals``."""
    places = sites(model)
    return {
        path: path
        if path not in places or places[path].kind == PARAMETER
        else f"{path}.{places[path].parameter}".lstrip(".")
        for path in originals
    }


def unfold(model: nn.Module, originals: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> None:
    """Put the original weights and biases back into the parameters that are still ``there``.

    Those are given by name, and have the type and device that the model has by now.
    """
    for path, name in names_of_folded(model, originals).items():
        if name in there:
            there[name].data = originals[path].to(there[name].device, there[name].dtype)


def _add(adapter: Adapter, path: str, share: float, site: Site, matrix: Tensor) -> None:
    factors = adapter.factors[path]
    scale = None
    if path in adapter.magnitudes:
        scale = row_scale(site, site.weight, factors, adapter.magnitudes[path])
    matrix.add_(factors.delta().to(matrix), alpha=share)
    if scale is not None:
        matrix.mul_(scale.to(matrix)[:, None])


def _check_weights(model: nn.Module, places: Mapping[str, Site]) -> None:
    owners: dict[int, list[nn.Module]] = {}
    paths = {module: path for path, module in model.named_modules()}
    for module in paths:
        for parameter in module._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(module)
    for path, site in places.items():
        weight: Any = site.weight
        if type(weight) is not nn.Parameter or not weight.is_floating_point():
            raise InputError(
                f"layer {path} is quantized, or its weight is made of others, so nothing can be "
                "merged into it; use the adapters through a gate"
            )
        if weight.device.type == "meta":
            raise InputError(
                f"the weight of layer {path} is offloaded, so nothing can be merged into it; use "
                "the adapters through a gate, or load the model without offloading"
            )
        if site.kind.groups > 1:
            raise InputError(
                f"layer {path} is {describe_kind(site.kind)}, and the adapters' factors read all "
                "channels, which its weight does not, so they cannot be merged into it (nor by "
                "PEFT); use them through a gate"
            )
        if site.kind != PARAMETER and acts_plainly(site.module) is False:
            raise InputError(
                f"layer {path} is a {type(site.module).__name__}, which does more with its weight "
                "than a plain layer, so that merging would not give what a gate gives; use the "
                "adapters through a gate"
            )
        others = [owner for owner in owners[id(weight)] if owner is not site.module]
        if others:
            raise InputError(
                f"layer {path} shares its weight with {paths[others[0]]}, which merging would "
                "change too; use the adapters through a gate"
            )


def _check_dora(
    adapters: Mapping[str, Adapter],
    weights: Mapping[str, float],
    name: str,
    places: Mapping[str, Site],
) -> None:
    for path in adapters[name].magnitudes:
        layer = places[indexed(path)[0]].module
        if len(signature(type(layer).forward).parameters) > 2:  # self and x
            raise InputError(
                f"'{name}' is a DoRA adapter, which rescales the whole output of layer {path}, but "
                f"a {type(layer).__name__} adds more to it than its weight gives; use the adapter "
                "through a gate"
            )
        others = [other for other in weights if other != name and path in adapters[other].factors]
        if others or weights[name] != 1:
            reason = (
                f"it cannot be mixed with '{others[0]}'"
                if others
                else f"it has no weight of {weights[name]:g}"
            )
            raise InputError(
                f"'{name}' is a DoRA adapter, which rescales the base's weight at layer {path}, so "
                f"{reason}; merge it alone with weight 1"
            )
