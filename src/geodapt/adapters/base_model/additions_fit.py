"""Does what an adapter adds beside its factors belong on this base, and where does it act?"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.absent_parts import fit_paths
from geodapt.adapters.base_model.biases import adds_bias
from geodapt.adapters.base_model.lowering import check_lowering
from geodapt.adapters.base_model.naming import Naming
from geodapt.adapters.peft_files.additions import Addition
from geodapt.adapters.peft_files.saved_modules import holder_of
from geodapt.errors import InputError, InputWarning
from geodapt.models import input_embeddings

Additions = dict[str, Addition]


def fit_additions(
    model: nn.Module,
    name: str,
    adapter: Adapter,
    naming: Naming,
    originals: Mapping[str, Tensor],
) -> tuple[dict[str, str], Additions, Additions]:
    """Per module: its path in the model, what acts there, and the adapter's addition with the
    base's values.

    ``originals`` are what the base's weights and biases were before adapters were merged.

    Rows of tokens also act at the modules that are tied to the input embedding, as in PEFT.

    Raises :class:`InputError` for a module that the model lacks, has in other sizes, or that does
    something else with its bias or its rows.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    paths = fit_paths(
        model, name, naming, adapter.additions, "brings a bias or rows of tokens for {}"
    )
    source: Additions = dict(adapter.additions)
    local: Additions = {}
    for path, place in paths.items():
        module, addition = modules[place], adapter.additions[path]
        if addition.bias is not None:
            bias = _bias(name, path, module, addition.bias)
            addition = replace(addition, base_bias=_seen(originals.get(f"{place}.bias", bias)))
            source[path] = addition
            if not _acts(name, path, module, modules):  # at one that shares it
                addition = replace(addition, bias=None, base_bias=None)
        if addition.lora_bias is not None and path not in adapter.factors:
            raise InputError(
                f"adapter '{name}' has a bias of lora_B for {path} and no factors; save it again"
            )
        if addition.lora_bias is not None:
            _check_shape(name, path, addition.lora_bias, adapter.factors[path].B.shape[:1])
        if addition.tokens is not None:
            rows = _rows(name, path, module, adapter, addition, originals.get(place))
            source[path] = addition = replace(source[path], base_rows=rows)
            for tied in _tied(model, name, adapter, naming, path, modules):
                local[tied] = replace(local.get(tied, Addition()), tokens=addition.tokens)
        if any(True for _ in addition.tensors()):
            local[place] = addition
    _warn_lost(
        name, adapter, {path: modules.get(naming.to_model(path)) for path in adapter.factors}
    )
    return paths, local, source


def with_base(
    model: nn.Module,
    additions: Mapping[str, Addition],
    places: Mapping[str, str],
    originals: Mapping[str, Tensor],
) -> Additions:
    """Additions with the base's own values as they are now, which may have been changed.

    ``places`` are the model's paths, ``originals`` as in :func:`fit_additions`.
    """
    found = dict(additions)
    for path, place in places.items():
        addition, module = found[path], model.get_submodule(place)
        bias: Any = getattr(module, "bias", None)
        if addition.bias is not None:
            addition = replace(addition, base_bias=_seen(originals.get(f"{place}.bias", bias)))
        if addition.tokens is not None:
            weight: Any = originals.get(place, module.weight)
            addition = replace(addition, base_rows=_base_rows(weight, addition.tokens.ids))
        found[path] = addition
    return found


def _warn_lost(name: str, adapter: Adapter, layers: Mapping[str, nn.Module | None]) -> None:
    """Some versions of PEFT trained biases and did not save them."""
    setting = adapter.config.bias
    if setting == "none" or any(each.bias is not None for each in adapter.additions.values()):
        return
    if any(isinstance(getattr(layer, "bias", None), Tensor) for layer in layers.values()):
        warnings.warn(
            f"adapter '{name}' was trained with bias='{setting}' and its file holds no biases; the "
            "base's are used, as PEFT does. Save it again with a newer PEFT if you can",
            InputWarning,
            stacklevel=4,
        )


def _bias(name: str, path: str, module: nn.Module, bias: Tensor) -> Tensor:
    ours: Any = getattr(module, "bias", None)
    if not isinstance(ours, Tensor) or not ours.is_floating_point():
        raise InputError(
            f"adapter '{name}' brings a bias for {path}, where the base has none; was it trained "
            "on another model?"
        )
    _check_shape(name, path, bias, tuple(ours.shape))
    return ours


def _seen(tensor: Tensor) -> Tensor | None:
    return None if tensor.device.type == "meta" else tensor.detach().cpu()


def _check_shape(name: str, path: str, bias: Tensor, shape: tuple[int, ...]) -> None:
    if bias.shape != shape:
        raise InputError(
            f"adapter '{name}' brings a bias of shape {tuple(bias.shape)} for {path}, where the "
            f"base's is {tuple(shape)}; was it trained on another model?"
        )


def _acts(name: str, path: str, module: nn.Module, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a bias acts at its module, rather than at one that shares it."""
    if adds_bias(module):
        return True
    sharing = (m for m in modules.values() if m._parameters.get("bias") is module.bias)
    if any(m is not module and adds_bias(m) for m in sharing):
        return False
    raise InputError(
        f"adapter '{name}' brings a bias for {path}, a {type(module).__name__}, which does not add "
        "its bias to its output (or does so in a way that is not known), so that nothing that is "
        "added there stands for another one; train with bias='lora_only', or merge the adapter "
        "into its base with PEFT's merge_and_unload and use that as the base"
    )


def _rows(
    name: str,
    path: str,
    module: nn.Module,
    adapter: Adapter,
    addition: Addition,
    original: Tensor | None,
) -> Tensor | None:
    """The base's own rows of an addition's tokens; None where they are offloaded."""
    assert addition.tokens is not None
    ids, rows = addition.tokens
    if not isinstance(module, nn.Embedding) and type(module) is not nn.Linear:
        raise InputError(
            f"adapter '{name}' brings rows of tokens for {path}, a {type(module).__name__}; they "
            "can act at embeddings and plain linear layers"
        )
    check_lowering(module, path, name)
    weight: Any = module.weight
    if type(weight) is not nn.Parameter or not weight.is_floating_point():
        raise InputError(
            f"adapter '{name}' brings rows of tokens for {path}, which is quantized; load the base "
            "with that module as it is"
        )
    if int(ids.max()) >= weight.shape[0] or rows.shape[1] != weight.shape[1]:
        raise InputError(
            f"adapter '{name}' brings rows of {rows.shape[1]} numbers for tokens up to "
            f"{int(ids.max())} of {path}, the base's is {tuple(weight.shape)}; resize the base's "
            "vocabulary (resize_token_embeddings), or load the base that it was trained on"
        )
    if isinstance(module, nn.Linear) and module.bias is not None:
        _refuse_bias(name, path)
    if path in adapter.factors or holder_of(path, adapter.heads):
        raise InputError(
            f"adapter '{name}' brings rows of tokens for {path} and changes it otherwise, too; "
            "train one of them, not both"
        )
    return _base_rows(weight if original is None else original, ids)


def _base_rows(weight: Tensor, ids: Tensor) -> Tensor | None:
    return None if weight.device.type == "meta" else weight.detach()[ids.to(weight.device)].cpu()


def _refuse_bias(name: str, path: str) -> None:
    raise InputError(
        f"adapter '{name}' brings rows of tokens for {path}, which has a bias: PEFT leaves the "
        "bias out while the adapter acts and keeps it once it is merged, so that it is not known "
        "which was meant; merge it into its base with PEFT's merge_and_unload and use that"
    )


def _tied(
    model: nn.Module,
    name: str,
    adapter: Adapter,
    naming: Naming,
    path: str,
    modules: Mapping[str, nn.Module],
) -> list[str]:
    """The modules that are tied to the input embedding, whose rows PEFT replaces with it."""
    module = modules[naming.to_model(path)]
    trained = {naming.to_model(p) for p, each in adapter.additions.items() if each.tokens}
    named = adapter.config.trainable_token_indices
    found = _sharing(model, module, modules)
    if isinstance(named, dict) and len(named) > len(trained) and not found:
        raise InputError(
            f"adapter '{name}' brings rows of tokens for {', '.join(sorted(named))}, which are "
            "tied in the base that it was trained on and not in this one; load that base"
        )
    if trained.intersection(found):
        return []  # each has rows of its own
    for other in found:
        here = modules[other]
        if getattr(here, "weight", None) is not module.weight:
            raise InputError(
                f"adapter '{name}' brings rows of tokens for {path}, to which {other} is tied by "
                "the configuration (tie_word_embeddings), but their weights differ here; call "
                "model.tie_weights(), or load the base that it was trained on"
            )
        if not isinstance(here, nn.Embedding) and type(here) is not nn.Linear:
            raise InputError(
                f"adapter '{name}' brings rows of tokens for {path}, which shares its weight with "
                f"{other}, a {type(here).__name__}; they can act at embeddings and linear layers"
            )
        check_lowering(here, other, name)
        if isinstance(here, nn.Linear) and here.bias is not None:
            _refuse_bias(name, other)
        if naming.to_adapter(other) in adapter.factors:
            raise InputError(
                f"adapter '{name}' brings rows of tokens for {path} and factors for {other}, which "
                "is tied to it; train one of them, not both"
            )
    return found


def _sharing(model: nn.Module, module: nn.Module, modules: Mapping[str, nn.Module]) -> list[str]:
    """What shares the input embedding's weight, or should by the model's configuration."""
    tied = getattr(getattr(model, "config", None), "tie_word_embeddings", False)
    if not tied or module is not input_embeddings(model):
        return []
    keys = getattr(model, "_tied_weights_keys", None)
    listed = {key.removesuffix(".weight") for key in keys} if isinstance(keys, dict) else set()
    return [
        path
        for path, each in modules.items()
        if each is not module
        and (each._parameters.get("weight") is module.weight or path in listed)
        and isinstance(getattr(each, "weight", None), Tensor)
    ]
