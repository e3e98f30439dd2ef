"""PEFT's adapter folders: ``adapter_config.json`` beside ``adapter_model.safetensors``."""

import copy
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import LoraConfig
from torch import Tensor

from geodapt.adapters.peft_files.addition_tensors import announce_additions, take_additions
from geodapt.adapters.peft_files.contents import AdapterContents
from geodapt.adapters.peft_files.factor_checks import (
    check_header,
    check_values,
    tensor_key,
    unwrapped,
)
from geodapt.adapters.peft_files.field_types import check_types
from geodapt.adapters.peft_files.fields import READ, check_fields
from geodapt.adapters.peft_files.model_class import PEFT_HEADS
from geodapt.adapters.peft_files.peft_tensors import FileTensors, parse_tensors, serialise_tensors
from geodapt.adapters.peft_files.saved_modules import group_heads
from geodapt.cards import plain, short, write_card
from geodapt.errors import InputError
from geodapt.files import atomic_folder, read_json, read_tensors, write_json, write_tensors
from geodapt.headers import read_header
from geodapt.models.hub import ADAPTER_CONFIG as CONFIG
from geodapt.models.hub import ADAPTER_PICKLE as PICKLE
from geodapt.models.hub import ADAPTER_WEIGHTS as WEIGHTS
from geodapt.models.hub import adapter_folder
from geodapt.paths import given

AnyAdapter = TypeVar("AnyAdapter", bound=AdapterContents)
LARGEST_CONFIG = 16_000_000
KEPT = READ | {"fan_in_fan_out", "inference_mode", "ensure_weight_tying"}

USAGE = """
from peft import PeftModel

model = PeftModel.from_pretrained(base, "this folder, or its name on the hub")
"""


def read_adapter(source: str | Path, kind: type[AnyAdapter]) -> AnyAdapter:
    """Read an adapter folder or hub name; see :meth:`geodapt.adapters.Adapter.from_pretrained`.

    ``kind`` is the class of the result.
    """
    folder = adapter_folder(source)
    config = _config(folder / CONFIG)
    weights = folder / WEIGHTS
    if not weights.is_file():
        if (folder / PICKLE).is_file():
            read_tensors(folder / PICKLE)  # says why a pickle is not read
        raise InputError(f"{folder} has no {WEIGHTS}; save the adapter again with PEFT")
    header = read_header(weights)
    check_header(folder, header)
    tensors = dict(read_tensors(weights, header))
    _name_task_heads(config, tensors)
    additions = take_additions(folder, config, tensors)
    found = parse_tensors(folder, config, tensors)
    if not found.factors:
        raise InputError(f"adapter '{folder}' holds no LoRA factors")
    check_values(f"adapter '{folder}'", found.factors)
    heads = _heads(folder, config, found)
    config.use_bdlora = None  # the factors are whole
    return kind(
        found.factors,
        config,
        header.metadata.get("base_sha256"),
        heads,
        kinds=found.kinds,
        magnitudes=found.magnitudes,
        additions=additions,
        copies=found.copies,
        name=short(source),
    )


def write_adapter(adapter: AdapterContents, folder: str | Path) -> None:
    """Write an adapter folder that PEFT loads."""
    folder = Path(os.path.realpath(given(folder)))
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder to save the adapter in")
    try:
        if not folder.exists():
            with atomic_folder(folder) as temporary:
                _write_files(adapter, temporary, folder.name)
        elif not (folder / CONFIG).exists():  # then it is none until the configuration is there
            _write_files(adapter, folder, folder.name)
        elif folder.samefile(".") or folder.is_mount():  # which cannot be exchanged
            (folder / CONFIG).unlink()
            _write_files(adapter, folder, folder.name)
        else:
            with atomic_folder(folder) as temporary:
                shutil.copytree(
                    folder, temporary, symlinks=True, copy_function=_link, dirs_exist_ok=True
                )
                _write_files(adapter, temporary, folder.name)
    except OSError as error:
        raise InputError(
            f"the adapter cannot be written to {folder}: {error.strerror or error}"
        ) from error


def _link(source: str, target: str) -> None:
    """The same file under another name, or a copy of it where the file system has no links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _write_files(adapter: AdapterContents, folder: Path, name: str) -> None:
    metadata = {"format": "pt"}
    if adapter.base_sha256:
        metadata["base_sha256"] = adapter.base_sha256
    settings = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in _complete(adapter).to_dict().items()
    }
    write_tensors(folder / WEIGHTS, serialise_tensors(adapter), metadata)
    write_json(folder / CONFIG, unwrapped(settings) | {"inference_mode": True})
    _write_card(adapter, folder, name)


def _write_card(adapter: AdapterContents, folder: Path, name: str) -> None:
    """The folder's ``README.md``."""
    made = dict(adapter.made)
    sources = made.pop("from", [])
    if not made and not sources and adapter.name:
        sources = [{"adapter": adapter.name, "sha256": adapter.sha256}]
    summary = (
        f"A {'DoRA' if adapter.magnitudes else 'LoRA'} adapter of rank {adapter.rank} on "
        f"{len(adapter.factors)} layers: {plain(adapter.targets)}."
    )
    if adapter.additions:
        summary += f" It also brings biases or rows of tokens for {len(adapter.additions)} modules."
    if adapter.heads:
        summary += f" Trained in full beside it: {plain(list(adapter.heads))}."
    write_card(
        folder,
        name,
        summary,
        base=adapter.config.base_model_name_or_path,
        relation="adapter",
        library="peft",
        tags=["lora"],
        facts={"task": adapter.config.task_type, **made},
        sources=sources,
        usage=USAGE,
    )


def _complete(adapter: AdapterContents) -> LoraConfig:
    """The adapter's configuration, made to name all that it changes and nothing else.

    PEFT applies a factor, and a module trained in full, only where the configuration names it,
    and fails on a module that it names and the file lacks.
    """
    config: Any = copy.deepcopy(adapter.config)
    names = list(config.modules_to_save or ()) if adapter.heads else []
    if not config.ensure_weight_tying:  # else the configuration names the embedding alone
        names += [path for path in adapter.heads if not path.endswith(tuple(names))]
    config.modules_to_save = names or None
    if not adapter.heads and config.task_type in PEFT_HEADS:
        config.task_type = None
    announce_additions(config, adapter.additions, adapter.factors)
    named = config.target_modules == "all-linear" or adapter.targeted(adapter.layers)
    if named is not True and len(named) < len(adapter.layers):
        config.target_modules = set(adapter.layers)
        config.layers_to_transform = config.layers_pattern = config.exclude_modules = None
    return config


def _config(path: Path) -> LoraConfig:
    """PEFT's configuration; raises when it describes something else than a low-rank update."""
    if path.is_file() and path.stat().st_size > LARGEST_CONFIG:
        raise InputError(
            f"{path} has {path.stat().st_size:,} bytes; geodapt reads up to {LARGEST_CONFIG:,}"
        )
    content = read_json(path)
    check_types(path, content)
    check_fields(path.parent, content)
    values = unwrapped({key: value for key, value in content.items() if key in KEPT})
    for key in ("rank_pattern", "alpha_pattern"):
        values[key] = values.get(key) or {}
    try:
        return LoraConfig(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is not a valid LoRA configuration: {error}") from error


def _name_task_heads(config: LoraConfig, tensors: Mapping[str, Tensor]) -> None:
    """Let the configuration name the head that PEFT trains for its task, where the file has one.

    Early versions of PEFT wrote it without naming it in ``modules_to_save``, and every version
    reads it.
    """
    named = list(config.modules_to_save or ())
    plain = [key for key in map(tensor_key, tensors) if ".lora_" not in key]
    ends = {part for key in plain for part in key.split(".")[:-1]}
    brought = [name for name in PEFT_HEADS.get(str(config.task_type), ()) if name in ends]
    config.modules_to_save = [*named, *(n for n in brought if n not in named)] or None


def _heads(folder: Path, config: LoraConfig, found: FileTensors) -> dict[str, dict[str, Tensor]]:
    """The modules that were trained in full, of which the tensors are that are no factors.

    With ``ensure_weight_tying`` a copy of an embedding that was trained in full is the layer
    that is tied to it.
    """
    heads = group_heads(found.rest, config.modules_to_save or ())
    if "" in heads:
        raise InputError(
            f"adapter '{folder}' holds '{next(iter(heads['']))}', which is no LoRA factor of a "
            "linear layer, and of no module that its modules_to_save names"
        )
    if config.ensure_weight_tying:
        trained = [tensor for head in heads.values() for tensor in head.values()]
        for key, tensor in list(found.copies.items()):
            if any(torch.equal(tensor, other) for other in trained):
                path, _, name = key.rpartition(".")
                heads[path] = {name: found.copies.pop(key)}
    return heads
