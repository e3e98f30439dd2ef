"""Which layers of a model an adapter may touch, and by what path."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn
from transformers.pytorch_utils import Conv1D

from geodapt.errors import InputError
from geodapt.files import hash_tensors


def features(module: nn.Module) -> tuple[int, int] | None:
    """``(in, out)`` of a linear layer (also a quantized one, and GPT-2's Conv1D), else None."""
    if isinstance(module, Conv1D):
        return module.weight.shape[0], module.weight.shape[1]  # stored in x out
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return None


def adaptable(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer of a model by its path."""
    return {path: module for path, module in model.named_modules() if features(module)}


def choose(
    model: nn.Module,
    targets: str | Iterable[str],
    inside: Iterable[nn.Module] | None = None,
    called: str = "",
) -> list[str]:
    """The paths that ``targets`` names, as PEFT's ``target_modules`` would.

    A list holds layer names or path endings, a string is a regular expression over whole paths,
    and ``"all-linear"`` means every linear layer but the output embedding. With ``inside`` only
    layers within those modules count.

    Raises :class:`InputError` when nothing matches; it calls what was searched ``called``, or by
    the model's class.
    """
    layers = adaptable(model)
    if inside is not None:
        parts = {part for module in inside for part in module.modules()}
        layers = {path: layer for path, layer in layers.items() if layer in parts}
    if targets == "all-linear":
        head = getattr(model, "get_output_embeddings", lambda: None)()
        chosen = [path for path, module in layers.items() if module is not head]
    else:
        wanted = targets if isinstance(targets, str) else list(targets)
        config = LoraConfig(target_modules=wanted)
        chosen = [path for path in layers if check_target_module_exists(config, path)]
    if not chosen:
        endings = sorted({path.rsplit(".", 1)[-1] for path in layers})
        raise InputError(
            f"targets {targets!r} match no linear layer of {called or type(model).__name__}; "
            f"it has {', '.join(endings)}"
        )
    return chosen


def fingerprint(model: nn.Module, paths: Mapping[str, str], headless: bool = True) -> str | None:
    """SHA-256 of some layers' weights, the same whatever the folder or the float type.

    ``paths`` are the model's by the names that the layers are hashed under; with ``headless``
    those lose the prefix that a task head puts before the base model's own, so that a base with
    and without the head agree. Weights are rounded to bfloat16 first, so that a base loaded in
    bfloat16 and in float32 agree. None for a quantized base, whose weights are no longer what
    was published, and for offloaded weights.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}." if headless else ""
    weights = {}
    for name, path in paths.items():
        weight: Any = model.get_submodule(path).weight
        offloaded = weight.device.type == "meta"
        if type(weight) is not nn.Parameter or not weight.is_floating_point() or offloaded:
            return None
        weights[name.removeprefix(prefix)] = weight.detach().to(torch.bfloat16)
    return hash_tensors(weights)
