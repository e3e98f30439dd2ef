"""The tensors of PEFT's adapter files, by name and shape, as factors per layer and back."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor

from geodapt.adapters.peft_files.addition_tensors import addition_tensors
from geodapt.adapters.peft_files.contents import AdapterContents
from geodapt.adapters.peft_files.diagonal_blocks import from_blocks, to_blocks, without_blocks
from geodapt.adapters.peft_files.factor_checks import PREFIX, tensor_key, unwrapped
from geodapt.adapters.peft_files.factors import Factors
from geodapt.adapters.peft_files.kinds import EMBEDDING, LINEAR, PARAMETER, LayerKind, indexed
from geodapt.adapters.peft_files.layer_rules import LayerRules
from geodapt.errors import InputError

LORA = re.compile(r"^(.+)\.lora_([AB])(?:\.default)?\.weight$")
LORA_EMBEDDING = re.compile(r"^(.+)\.lora_embedding_([AB])(?:\.default)?$")
MAGNITUDE = re.compile(r"^(.+)\.lora_magnitude_vector(?:\.default)?(?:\.weight)?$")
COPY = re.compile(r"^(.+)\.base_layer\.(weight|bias)$")
MATRICES = 10_000
"""How many matrices a fused parameter may hold."""
EMBEDDINGS = ("embed_tokens", "lm_head")
"""Modules whose weights PEFT puts beside an adapter, unasked, when the vocabulary was resized."""
ORDER = ("gate_up_proj", "down_proj")
"""Parameters of one module in the order in which transformers' models define them, on which
the names of their factors in a file depend."""


@dataclass
class FileTensors:
    """An adapter file taken apart."""

    factors: dict[str, Factors] = field(default_factory=dict)
    kinds: dict[str, LayerKind] = field(default_factory=dict)
    magnitudes: dict[str, Tensor] = field(default_factory=dict)
    copies: dict[str, Tensor] = field(default_factory=dict)
    rest: dict[str, Tensor] = field(default_factory=dict)
    """What is none of these, by its name without PEFT's prefix."""


def parse_tensors(
    source: Any, config: LoraConfig, tensors: Mapping[str, Tensor], layers: Collection[str] = ()
) -> FileTensors:
    """Sort an adapter file's tensors; ``source`` is what errors call the adapter.

    ``layers`` are paths that are known to be layers rather than owners of target parameters.

    Raises :class:`InputError` when a factor lacks its other half, when shapes do not belong
    together or to the configured rank, and when it is not clear which parameter a pair is for.
    """
    found = FileTensors()
    rules = LayerRules(config, f"adapter '{source}'")
    pairs: dict[tuple[str, LayerKind], dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        key = tensor_key(name)
        if match := LORA.match(key):
            pairs.setdefault((match[1], LINEAR), {})[match[2]] = tensor
        elif match := LORA_EMBEDDING.match(key):
            pairs.setdefault((match[1], EMBEDDING), {})[match[2]] = tensor
        elif match := MAGNITUDE.match(key):
            found.magnitudes[match[1]] = tensor.flatten()
        elif ".lora_velora_" in key:
            continue  # of VeLoRA's backward pass
        elif match := COPY.match(key):
            found.copies[f"{match[1]}.{match[2]}"] = tensor
        elif _is_embedding(key) and not _is_saved(config, key):
            found.copies[key] = tensor
        else:
            found.rest[key] = tensor
    places = {path for path, _ in pairs} - {*layers}
    parameters = _parameters(source, config, rules, places)
    for (path, kind), pair in pairs.items():
        A, B = (_half(source, path, pair, side, kind) for side in "AB")
        if path in parameters:
            _add_parameter(found, source, rules, parameters[path], A, B)
            continue
        if path in found.factors:
            raise InputError(f"adapter '{source}' holds two pairs of factors for {path}")
        where = f"adapter '{source}', layer {path}"
        known = path in layers or (config.ensure_weight_tying and _is_embedding(f"{path}.weight"))
        if not known and rules.names_layers and not rules.targets(path):
            whole, inside, layer = path.partition(".base_layer.")
            if inside and rules.targets(whole):
                raise InputError(
                    f"adapter '{source}' targets {whole} as a whole, whose layer {layer} is a part "
                    "of it, as in nn.MultiheadAttention; geodapt adapts single layers. Merge it "
                    "with PEFT (merge_and_unload), or train one that targets layers"
                )
            raise InputError(
                f"adapter '{source}' holds factors for layer {path}, which its own configuration "
                "does not target (target_modules, exclude_modules, layers_to_transform), so PEFT "
                "would not apply them; correct its adapter_config.json or save it again"
            )
        if config.use_dora != (path in found.magnitudes):
            raise InputError(
                f"adapter '{source}', layer {path} "
                + ("lacks its magnitudes" if config.use_dora else "has magnitudes")
                + f", and its adapter_config.json says use_dora={config.use_dora}; save it again"
            )
        if kind == LINEAR and A.ndim > 2 and B.ndim == A.ndim and set(B.shape[2:]) == {1}:
            groups = A.shape[0] // B.shape[1]
            kind = LayerKind("convolution", tuple(A.shape[2:]), groups)
            A, B = A.flatten(1), B.flatten(1)
            if groups > 1:
                B = from_blocks(B, groups, A.numel(), where)
        elif A.ndim == B.ndim == 2 and kind == LINEAR:
            A, B = without_blocks(config, path, A, B, where)
        if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1]:
            raise InputError(
                f"adapter '{source}', layer {path}: lora_A is {tuple(A.shape)} and lora_B "
                f"{tuple(B.shape)}; expected (rank, in) and (out, rank) of a linear layer"
            )
        rank = rules.rank(path)
        if A.shape[0] != rank:
            raise InputError(
                f"adapter '{source}', layer {path} has rank {A.shape[0]}, its adapter_config.json "
                f"says {rank}"
            )
        found.factors[path] = Factors(A, B, rules.scale(path, rank))
        if kind != LINEAR:
            found.kinds[path] = kind
    if stray := found.magnitudes.keys() - found.factors.keys():
        raise InputError(f"adapter '{source}' has a magnitude but no factors for {min(stray)}")
    return found


def serialise_tensors(adapter: AdapterContents) -> dict[str, Tensor]:
    """An adapter's tensors under the names that PEFT gives them."""
    tensors: dict[str, Tensor] = {}
    matrices: dict[str, list[Factors]] = {}
    for path, factors in adapter.factors.items():
        kind = adapter.kinds.get(path, LINEAR)
        A, B, _ = factors
        if kind.name == "parameter":
            matrices.setdefault(indexed(path)[0], []).append(factors)
        elif kind.name == "embedding":
            tensors[f"{path}.lora_embedding_A"] = A
            tensors[f"{path}.lora_embedding_B"] = B
        else:
            ones = (1,) * len(kind.kernel)
            tensors[f"{path}.lora_A.weight"] = A.unflatten(1, (-1, *kind.kernel)) if ones else A
            if kind.groups > 1:
                B = to_blocks(B, kind.groups, f"layer {path}")
            tensors[f"{path}.lora_B.weight"] = B.reshape(*B.shape, *ones)
    for owner, names in groupby(
        sorted(matrices, key=_nesting), lambda path: path.rpartition(".")[0]
    ):
        for depth, path in enumerate(reversed(list(names))):
            A = torch.cat([factors.A for factors in matrices[path]])
            B = torch.stack([factors.B for factors in matrices[path]], dim=2).flatten(1)
            place = owner + ".base_layer" * depth
            tensors[f"{place}.lora_A.weight"] = A
            tensors[f"{place}.lora_B.weight"] = B
    for path, magnitude in adapter.magnitudes.items():
        kernel = adapter.kinds.get(path, LINEAR).kernel
        shape = (1, -1, *(1 for _ in kernel)) if kernel else (-1,)
        tensors[f"{path}.lora_magnitude_vector"] = magnitude.view(shape)
    for path, addition in adapter.additions.items():
        tensors |= addition_tensors(path, addition, path in adapter.factors)
    for path, head in adapter.heads.items():
        tensors |= {f"{path}.{name}": tensor for name, tensor in head.items()}
    for path, tensor in adapter.copies.items():
        tensors[f"{_copy_key(adapter, path)}"] = tensor
    return {PREFIX + unwrapped(key): tensor for key, tensor in tensors.items()}


def _half(source: Any, path: str, pair: Mapping[str, Tensor], side: str, kind: LayerKind) -> Tensor:
    if side not in pair:
        name = f"lora_embedding_{side}" if kind == EMBEDDING else f"lora_{side}.weight"
        raise InputError(
            f"adapter '{source}' lacks {path}.{name}: the file is not complete, save or download "
            "it again"
        )
    return pair[side]


def _add_parameter(
    found: FileTensors, source: Any, rules: LayerRules, path: str, A: Tensor, B: Tensor
) -> None:
    """Factors of a parameter, which holds several matrices where A has several times the rank.

    PEFT lays them out as ``A (experts * rank, in)``, expert after expert, and ``B (out, rank *
    experts)``, the experts of one rank-one term side by side.
    """
    rank = rules.rank(path)
    if A.ndim != 2 or B.ndim != 2 or A.shape[0] != B.shape[1] or A.shape[0] % rank:
        raise InputError(
            f"adapter '{source}', parameter {path}: lora_A is {tuple(A.shape)} and lora_B "
            f"{tuple(B.shape)}; expected (matrices * {rank}, in) and (out, {rank} * matrices)"
        )
    scale = rules.scale(path, rank)
    count = A.shape[0] // rank
    if count > MATRICES:
        raise InputError(
            f"adapter '{source}', parameter {path}: {count:,} matrices of rank {rank}; geodapt "
            f"reads up to {MATRICES:,}"
        )
    if count == 1:
        found.factors[path], found.kinds[path] = Factors(A, B, scale), PARAMETER
        return
    As, Bs = A.view(count, rank, -1), B.view(B.shape[0], rank, count).permute(2, 0, 1)
    for i in range(count):
        found.factors[f"{path}[{i}]"] = Factors(As[i], Bs[i], scale)
        found.kinds[f"{path}[{i}]"] = PARAMETER


def _parameters(
    source: Any, config: LoraConfig, rules: LayerRules, here: Collection[str]
) -> dict[str, str]:
    """The parameter that is meant where a path of the file stands for one.

    PEFT wraps a module once per targeted parameter: the last of them is at the module's own
    path, and every one before it has one more ``.base_layer``.
    """
    wanted = sorted(config.target_parameters or ())
    if not wanted:
        return {}
    owners = {path.partition(".base_layer")[0] for path in here}
    found = {}
    for owner in owners:
        if rules.targets(owner):
            continue  # a layer
        whole = [name for name in wanted if "." in name and _owns(owner, name)]
        names = {name.rpartition(".")[2] for name in whole or wanted if _owns(owner, name)}
        places = [owner]
        while places[-1] + ".base_layer" in here:
            places.append(places[-1] + ".base_layer")
        if not names:
            continue
        if len(names) != len(places) or (len(names) > 1 and not names <= set(ORDER)):
            raise InputError(
                f"adapter '{source}' has {len(places)} pairs of factors at {owner}, and its "
                f"target_parameters {wanted} do not say which parameter each is for; save an "
                "adapter for one of them at a time"
            )
        for place, name in zip(reversed(places), sorted(names, key=_place), strict=True):
            found[place] = f"{owner}.{name}"
    return found


def _owns(owner: str, target: str) -> bool:
    """Whether a target parameter can be one of a module's."""
    module = target.rpartition(".")[0]
    return not module or owner == module or owner.endswith("." + module)


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


def _nesting(path: str) -> tuple[str, int, str]:
    owner, _, name = path.rpartition(".")
    return owner, _place(name), name


def _is_embedding(key: str) -> bool:
    path, _, name = key.rpartition(".")
    return name in ("weight", "bias") and path.rpartition(".")[2] in EMBEDDINGS


def _is_saved(config: LoraConfig, key: str) -> bool:
    """Whether a tensor belongs to a module that was trained in full."""
    parts = key.split(".")
    return any(name.split(".")[-1] in parts for name in config.modules_to_save or ())


def _copy_key(adapter: AdapterContents, path: str) -> str:
    module, _, name = path.rpartition(".")
    return f"{module}.base_layer.{name}" if module in adapter.factors else path
