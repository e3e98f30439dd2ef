"""The model to compress, with its head, its tokenizer, and an adapter merged in."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open

from geodapt.adapters import AdapterBank
from geodapt.errors import InputError
from geodapt.files import read_json
from geodapt.models import load_base, locate_base

SINGLE = "model.safetensors"


def load_original(name: str, dtype: torch.dtype, adapter: str | None = None) -> tuple[Any, Any]:
    """The model and its tokenizer; raises :class:`InputError` for one that is quantized already."""
    _require_dense(name)
    model: Any
    model, tokenizer = load_base(name, dtype, head=True)
    named = model.config.architectures
    if named and type(model).__name__ not in named:
        raise InputError(
            f"{name} names the model class {named[0]!r} in its config.json, which transformers "
            "does not have, so that its head would be lost; name its class under 'architectures'"
        )
    if getattr(model, "pooler", None) is not None and not _has_pooler(locate_base(name)):
        model.pooler = None  # transformers would have drawn it at random
    if adapter is not None:
        bank = AdapterBank(model)
        bank.load("merged", adapter)
        bank.merge_into_base({"merged": 1.0})
        bank.remove("merged")  # takes the bank's hands off the layers
    return model, tokenizer


def _has_pooler(location: str) -> bool:
    """Whether the weights hold a pooler."""
    files = sorted(Path(location).glob("*.safetensors"))
    if not files and isinstance(found := try_to_load_from_cache(location, SINGLE), str):
        files = [Path(found)]
    return not files or any("pooler" in key for file in files for key in _keys(file))


def _keys(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as tensors:
        return list(tensors.keys())


def quantization_of(config: Path) -> dict[str, Any]:
    """What a model's ``config.json`` says of its quantization; nothing where it says nothing."""
    content = read_json(config, finite=False)
    found = content.get("quantization_config") if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def _require_dense(name: str) -> None:
    folder = Path(locate_base(name))
    config = folder / "config.json"
    if config.is_file() and quantization_of(config):
        raise InputError(
            f"{name} is compressed or quantized already, as its config.json says; compress the "
            "model that it was made from"
        )
