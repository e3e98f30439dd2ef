"""Adapters for models whose layers have become parameters, or the other way round.

transformers 5 holds the experts of most mixtures in two parameters, where transformers 4 had a
linear layer for each expert and matrix, and some models' parts have other names. PEFT knows how
adapters follow (``peft.utils.transformers_weight_conversion``).
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.sites import Site, is_linear, sites
from geodapt.adapters.peft_files.configuration import configure
from geodapt.adapters.peft_files.factors import Factors
from geodapt.adapters.peft_files.kinds import LINEAR, PARAMETER, indexed
from geodapt.adapters.peft_files.peft_tensors import parse_tensors, serialise_tensors
from geodapt.errors import InputError


def current(model: nn.Module, name: str, adapter: Adapter) -> Adapter:
    """The adapter for the model as it is built now; ``name`` is what errors call it.

    Raises :class:`InputError` when it targets only some of the matrices that the model has fused.
    """
    places = sites(model)
    if _parts(adapter, places):
        adapter = _converted(model, name, adapter, places)
    return _as_layers(adapter, places)


def _parts(adapter: Adapter, places: Mapping[str, Site]) -> bool:
    """Whether there are factors for single experts that the model holds in one parameter."""
    stacked = [path for path, site in places.items() if site.count]
    owners = {path.rpartition(".")[0].rpartition(".")[2] for path in stacked}
    for path in adapter.factors:
        names = path.split(".")  # ..., experts, 3, w1
        if len(names) > 2 and names[-2].isdigit() and names[-3] in owners:
            return True
    return False


def _converted(
    model: nn.Module, name: str, adapter: Adapter, places: Mapping[str, Site]
) -> Adapter:
    try:
        from peft.utils import transformers_weight_conversion as conversion

        convert_config: Any = conversion.convert_peft_config_for_transformers
        convert_tensors: Any = conversion.convert_peft_adapter_state_dict_for_transformers
    except (ImportError, AttributeError):
        raise InputError(
            f"adapter '{name}' has factors for each expert by itself, which this transformers "
            "keeps in one parameter; converting them needs PEFT 0.19 or newer"
        ) from None
    config = copy.deepcopy(adapter.config)
    try:
        convert_config(config, model, None)
        tensors = convert_tensors(model, config, serialise_tensors(adapter))
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(
            f"adapter '{name}' has factors for each expert by itself, which this transformers "
            f"keeps in one parameter, and PEFT cannot convert them: {error}"
        ) from error
    layers = [path for path, site in places.items() if site.kind != PARAMETER]
    found = parse_tensors(name, config, tensors, layers)
    settings = configure(found.factors, adapter, found.kinds)
    return replace(adapter, factors=found.factors, kinds=found.kinds, config=settings)


def _as_layers(adapter: Adapter, places: Mapping[str, Site]) -> Adapter:
    """Factors of a layer's weight, targeted as a parameter, as those of the layer."""
    endings = {_ending(path): site for path, site in places.items() if site.kind != PARAMETER}
    factors: dict[str, Factors] = {}
    kinds = dict(adapter.kinds)
    for path, value in adapter.factors.items():
        layer = path.removesuffix(".weight")
        site = endings.get(_ending(layer))
        if adapter.kinds.get(path, LINEAR) != PARAMETER or layer == path or site is None:
            factors[path] = value
            continue
        A, B, scale = value
        factors[layer] = Factors(B.T, A.T, scale) if site.transposed else value
        del kinds[path]
        if not is_linear(site.module):
            kinds[layer] = site.kind
    if factors.keys() == adapter.factors.keys():
        return adapter
    config = configure(factors, adapter, kinds)
    return replace(adapter, factors=factors, kinds=kinds, config=config)


def _ending(path: str) -> str:
    """The last two names of a path, which are the same whatever prefix a model has."""
    return ".".join(indexed(path)[0].split(".")[-2:])
