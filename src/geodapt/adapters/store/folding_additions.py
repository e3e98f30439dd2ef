"""Biases and rows of tokens merged into the base's own."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from geodapt.adapters.adapter import Adapter
from geodapt.adapters.base_model.biases import adds_bias
from geodapt.adapters.peft_files.additions import TokenRows
from geodapt.errors import InputError


def token_updates(
    adapters: Mapping[str, Adapter], weights: Mapping[str, float]
) -> dict[str, list[tuple[float, TokenRows]]]:
    """By module, each adapter's rows of tokens with its weight."""
    found: dict[str, list[tuple[float, TokenRows]]] = {}
    for name, weight in weights.items():
        for path, addition in adapters[name].additions.items():
            if addition.tokens is not None:
                found.setdefault(path, []).append((weight, addition.tokens))
    return found


def check_tied(
    model: nn.Module,
    tokens: Mapping[str, list[tuple[float, TokenRows]]],
    touched: Mapping[str, list[str]],
) -> None:
    """Raises :class:`InputError` where modules share a weight and do not get the same rows."""
    modules = dict(model.named_modules())
    for path, updates in tokens.items():
        weight: Any = modules[path].weight
        if weight.device.type == "meta":
            raise InputError(
                f"the weight of layer {path} is offloaded, so nothing can be merged into it; use "
                "the adapters through a gate, or load the model without offloading"
            )
        for other, module in modules.items():
            if other == path or module._parameters.get("weight") is not weight:
                continue
            alike = [id(each) for _, each in updates] == [
                id(each) for _, each in tokens.get(other, ())
            ]
            if not alike or touched[path] or touched[other]:
                raise InputError(
                    f"layer {path} shares its weight with {other}, which merging would change too; "
                    "use the adapters through a gate"
                )


def merged_biases(
    model: nn.Module, adapters: Mapping[str, Adapter], weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """The biases that the base has once the adapters are merged, by their own paths.

    Raises :class:`InputError` where there is none, or another module would change too.
    """
    moves: dict[str, Tensor] = {}
    for name, weight in weights.items():
        adapter = adapters[name]
        for path, addition in adapter.additions.items():
            if addition.bias is None and addition.lora_bias is None:
                continue
            bias = _own(model, path)
            move = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
            if addition.bias is not None:
                move += weight * (addition.bias.to(move) - bias.to(move))
            if addition.lora_bias is not None:
                move += weight * adapter.factors[path].scaled(addition.lora_bias.to(move))
            key = f"{path}.bias".lstrip(".")
            moves[key] = moves.get(key, 0) + move
    return {
        key: (model.get_parameter(key) + move).to(model.get_parameter(key).dtype).detach()
        for key, move in moves.items()
    }


def _own(model: nn.Module, path: str) -> Tensor:
    module = model.get_submodule(path)
    bias: Any = getattr(module, "bias", None)
    if not isinstance(bias, nn.Parameter):
        raise InputError(
            f"layer {path} has no bias, into which the bias of an adapter's lora_B could be "
            "merged; use the adapters through a gate"
        )
    if bias.device.type == "meta":
        raise InputError(
            f"the bias of layer {path} is offloaded, so nothing can be merged into it; use the "
            "adapters through a gate, or load the model without offloading"
        )
    for other, each in model.named_modules():
        if each is not module and each._parameters.get("bias") is bias and adds_bias(each):
            raise InputError(
                f"layer {path} shares its bias with {other}, which merging would change too; use "
                "the adapters through a gate"
            )
    return bias.detach()
