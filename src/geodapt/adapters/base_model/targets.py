"""Which layers of a model an adapter may touch, and by what path."""

import copy
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from geodapt.adapters.base_model.sites import Site, is_linear, site_of, sites
from geodapt.adapters.base_model.uncalled import never_called
from geodapt.adapters.peft_files.contents import named_parameter
from geodapt.adapters.peft_files.kinds import PARAMETER, indexed
from geodapt.errors import InputError, InputWarning
from geodapt.files import hash_tensors


def adaptable(model: nn.Module) -> dict[str, nn.Module]:
    """Every layer of a model that PEFT can adapt, by its path."""
    layers = ((path, module) for path, module in model.named_modules())
    return {path: module for path, module in layers if site_of(module)}


def choose_layers(
    model: nn.Module,
    targets: str | Iterable[str],
    inside: Iterable[nn.Module] | None = None,
    called: str = "",
) -> list[str]:
    """The paths that ``targets`` names, as PEFT's ``target_modules`` would.

    A list holds layer names or path endings, a string is a regular expression over whole paths,
    and ``"all-linear"`` means every linear layer but the output embedding and those that the model
    does not call (see :mod:`geodapt.adapters.base_model.uncalled`). With ``inside`` only
    layers within those modules count.

    Raises :class:`InputError` when nothing matches; it calls what was searched ``called``, or by
    the model's class.
    """
    layers = adaptable(model)
    if inside is not None:
        parts = {part for module in inside for part in module.modules()}
        layers = {path: layer for path, layer in layers.items() if layer in parts}
    linear = {path: layer for path, layer in layers.items() if is_linear(layer)}
    if targets == "all-linear":
        head = getattr(model, "get_output_embeddings", lambda: None)()
        passed_over = never_called(model)
        chosen = [p for p, layer in linear.items() if layer is not head and p not in passed_over]
    else:
        wanted = targets if isinstance(targets, str) else list(targets)
        config = LoraConfig(target_modules=wanted)
        chosen = [path for path in layers if check_target_module_exists(config, path)]
    if not chosen:
        endings = sorted({path.rsplit(".", 1)[-1] for path in linear})
        raise InputError(
            f"targets {targets!r} match no linear layer of {called or type(model).__name__}; "
            f"it has {', '.join(endings)}"
        )
    return chosen


def choose_parameters(model: nn.Module, config: LoraConfig) -> list[str]:
    """The paths of the parameters that a configuration's targets name, as PEFT would target them.

    Where a name in its list is a parameter's, it moves to ``target_parameters``. For
    ``"all-linear"`` those are the fused experts and routers that PEFT knows to have been linear
    layers; it then takes other layers of the same names for experts too, and leaves them out.
    An :class:`InputWarning` names what ``"all-linear"`` leaves out.
    """
    found = sites(model)
    places = {path: site for path, site in found.items() if site.kind == PARAMETER}
    wanted = config.target_modules
    if wanted == "all-linear":
        every, names = choose_layers(model, wanted), _were_linear(model, config)
        if names and config.target_modules != wanted:
            here = choose_layers(model, config.target_modules or [])
            _say_left_out(model, places, names, {path: found[path] for path in every}, here)
            return [path for path in places if named_parameter(path, names)]
        _say_left_out(model, places, (), {}, ())
        return []
    if isinstance(wanted, str):
        return []
    names = [name for name in wanted or () if any(named_parameter(p, [name]) for p in places)]
    config.target_modules = [name for name in wanted or () if name not in names]
    config.target_parameters = sorted(names) or None
    return [path for path in places if named_parameter(path, names)]


def _were_linear(model: nn.Module, config: LoraConfig) -> list[str]:
    """PEFT's ``target_parameters`` for all-linear, where it has some; they go into ``config``."""
    try:
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
    except ImportError:  # an older PEFT has none
        return []
    probe: Any = copy.deepcopy(config)
    convert_peft_config_for_transformers(probe, model, None)
    names = sorted(probe.target_parameters or ())
    if names:
        config.target_modules = sorted(probe.target_modules)
        config.target_parameters = names
        config.rank_pattern, config.alpha_pattern = probe.rank_pattern, probe.alpha_pattern
    return names


def _say_left_out(
    model: nn.Module,
    parameters: Mapping[str, Site],
    names: Collection[str],
    layers: Mapping[str, Site],
    chosen: Collection[str],
) -> None:
    left = [p for p, site in parameters.items() if site.count and not named_parameter(p, names)]
    left += [path for path in layers if path not in chosen]
    if not left:
        return
    numbers = sum({**parameters, **layers}[path].weight.numel() for path in left)
    share = numbers / sum(parameter.numel() for parameter in model.parameters())
    ends = sorted({".".join(path.split(".")[-2:]) for path in left})
    warnings.warn(
        f"all-linear leaves out {', '.join(ends)} of {type(model).__name__} ({100 * share:.0f} % "
        "of its numbers), as PEFT does; name them as targets to adapt them",
        InputWarning,
        stacklevel=6,
    )


def fingerprint_layers(
    model: nn.Module, paths: Mapping[str, str], headless: bool = True
) -> str | None:
    """SHA-256 of some layers' weights, the same whatever the folder or the float type.

    ``paths`` are the model's by the names that the layers are hashed under; with ``headless``
    those lose the prefix that a task head puts before the base model's own, so that a base with
    and without the head agree. Weights are rounded to bfloat16 first, so that a base loaded in
    bfloat16 and in float32 agree. None for a quantized base, whose weights are no longer what
    was published, and for offloaded weights.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}." if headless else ""
    weights, places = {}, sites(model)
    for name, path in paths.items():
        key = indexed(name)[0].removeprefix(prefix)
        if key in weights:  # another of its matrices
            continue
        weight: Any = places[indexed(path)[0]].weight
        offloaded = weight.device.type == "meta"
        if type(weight) is not nn.Parameter or not weight.is_floating_point() or offloaded:
            return None
        weights[key] = weight.detach().to(torch.bfloat16)
    return hash_tensors(weights)
