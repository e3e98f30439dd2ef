"""Biases and rows of tokens in PEFT's adapter files."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor

from geodapt.adapters.peft_files.additions import Addition, TokenRows
from geodapt.adapters.peft_files.factor_checks import LARGEST, largest, tensor_key
from geodapt.adapters.peft_files.field_types import shown
from geodapt.adapters.peft_files.saved_modules import Endings
from geodapt.errors import InputError

LORA_BIAS = re.compile(r"^(.+)\.lora_B(?:\.default)?\.bias$")
TOKENS = re.compile(r"^(.+)\.token_adapter\.trainable_tokens_delta(?:\.default)?$")
BIAS = re.compile(r"^(.+?)(?:\.base_layer)?\.bias$")
UNUSED = (".original_module.", ".modules_to_save.")
"""Copies that PEFT writes beside a module that was trained in full, and never reads."""
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def take_additions(
    source: Any, config: LoraConfig, tensors: dict[str, Tensor]
) -> dict[str, Addition]:
    """Take the biases and rows of tokens out of an adapter file's tensors, by module path.

    ``source`` is what errors call the adapter.

    Raises :class:`InputError` for tensors that the configuration does not announce, or announces
    and the file lacks, for ids that do not belong to the rows, and for values that are too large.
    """
    found: dict[str, Addition] = {}
    heads = Endings(config.modules_to_save or ())
    for name in list(tensors):
        key = tensor_key(name)
        if match := LORA_BIAS.match(key):
            part: dict[str, Any] = {"lora_bias": tensors.pop(name)}
        elif match := TOKENS.match(key):
            ids = _ids(source, config, match[1])
            part = {"tokens": TokenRows(ids, tensors.pop(name))}
        elif config.bias != "none" and (match := BIAS.match(key)):
            if any(unused in key for unused in UNUSED):
                del tensors[name]
                continue
            if heads.first_within(key):
                continue
            part = {"bias": tensors.pop(name)}
        else:
            continue
        found[match[1]] = replace(found.get(match[1], Addition()), **part)
    for path, addition in found.items():
        _check(f"adapter '{source}', {path}", addition)
    _check_announced(source, config, found)
    return found


def addition_tensors(path: str, addition: Addition, wrapped: bool) -> dict[str, Tensor]:
    """A module's additions under the names that PEFT gives them.

    ``wrapped`` says that the module has factors, too, so that PEFT puts its own layer around it.
    """
    tensors = {}
    if addition.bias is not None:
        tensors[f"{path}.base_layer.bias" if wrapped else f"{path}.bias"] = addition.bias
    if addition.lora_bias is not None:
        tensors[f"{path}.lora_B.bias"] = addition.lora_bias
    if addition.tokens is not None:
        tensors[f"{path}.token_adapter.trainable_tokens_delta"] = addition.tokens.rows
    return tensors


def announce_additions(
    config: Any, additions: Mapping[str, Addition], wrapped: Mapping[str, Any]
) -> None:
    """Set the fields of a PEFT configuration that say which additions there are.

    ``wrapped`` are the layers that have factors. Fields that are right already stay.
    """
    biases = {path for path, addition in additions.items() if addition.bias is not None}
    if not biases <= wrapped.keys():
        config.bias = "all"
    elif biases and config.bias == "none":
        config.bias = "lora_only"
    config.lora_bias = any(each.lora_bias is not None for each in additions.values())
    tokens = {path: each.tokens.ids for path, each in additions.items() if each.tokens}
    if not tokens:
        config.trainable_token_indices = None
        return
    named = config.trainable_token_indices or []
    known = [
        ids
        for path in tokens
        for ids in ([named] if isinstance(named, list) else _of(named, path).values())
    ]
    if len(known) != len(tokens) or any(
        ids != row.tolist() for ids, row in zip(known, tokens.values(), strict=True)
    ):
        config.trainable_token_indices = {path: ids.tolist() for path, ids in tokens.items()}


def _of(named: Mapping[str, list[int]], path: str) -> dict[str, list[int]]:
    """The entries of ``trainable_token_indices`` that name a module, as PEFT does."""
    return {name: ids for name, ids in named.items() if path.endswith(name)}


def _ids(source: Any, config: LoraConfig, path: str) -> Tensor:
    named = config.trainable_token_indices
    if isinstance(named, dict):
        entries = _of(named, path)
        if len(entries) != 1:
            raise InputError(
                f"adapter '{source}' has rows of tokens for {path}, and its "
                f"trainable_token_indices name it {len(entries)} times ({shown(named)}); save it "
                "again"
            )
        named = next(iter(entries.values()))
    if named is None:
        raise InputError(
            f"adapter '{source}' has rows of tokens for {path}, and its adapter_config.json does "
            "not say of which (trainable_token_indices); save it again"
        )
    if len(set(named)) < len(named) or min(named, default=0) < 0:
        raise InputError(
            f"adapter '{source}': trainable_token_indices for {path} hold one token twice, or one "
            "below 0; correct its adapter_config.json"
        )
    return torch.tensor(named, dtype=torch.long, device="cpu")


def _check(where: str, addition: Addition) -> None:
    for name, tensor in addition.tensors():
        if name == "token_ids":
            continue
        fits = tensor.ndim == 2 if name == "token_rows" else tensor.ndim > 0
        if tensor.dtype not in FLOATS or not fits or not tensor.numel():
            raise InputError(
                f"{where}: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected "
                "float16, bfloat16, float32 or float64, "
                + ("a row for each token" if name == "token_rows" else "a number for each output")
            )
        if not largest(tensor) <= LARGEST:
            raise InputError(
                f"{where}: {name} holds values of {largest(tensor):.1e}, which overflow in "
                "float32; was it trained until it diverged?"
            )
    if addition.tokens is not None and len(addition.tokens.ids) != len(addition.tokens.rows):
        raise InputError(
            f"{where}: {len(addition.tokens.rows)} rows for {len(addition.tokens.ids)} tokens "
            "(trainable_token_indices); save the adapter again"
        )


def _check_announced(source: Any, config: LoraConfig, found: Mapping[str, Addition]) -> None:
    has = {
        "lora_bias": any(each.lora_bias is not None for each in found.values()),
        "trainable_token_indices": any(each.tokens is not None for each in found.values()),
    }
    for field, here in has.items():
        if bool(getattr(config, field)) != here:
            raise InputError(
                f"adapter '{source}' "
                + (f"has what {field} stands for" if here else f"lacks what {field} stands for")
                + f", and its adapter_config.json says {field}={shown(getattr(config, field))}; "
                "save it again"
            )
    if isinstance(config.trainable_token_indices, dict):
        for name in config.trainable_token_indices:
            trained = [path for path, each in found.items() if each.tokens is not None]
            tied = len(trained) == 1  # PEFT writes the rows of tied modules once
            if not tied and not any(path.endswith(name) for path in trained):
                raise InputError(
                    f"adapter '{source}' lacks the rows of {name}'s tokens, which its "
                    "trainable_token_indices name; save it again"
                )
