"""The model to compress, with its head, its tokenizer, and an adapter merged in."""

from pathlib import Path
from typing import Any

import torch

from geodapt.adapters import AdapterBank
from geodapt.errors import InputError
from geodapt.files import read_json
from geodapt.models import load_base, locate


def load_original(name: str, dtype: torch.dtype, adapter: str | None = None) -> tuple[Any, Any]:
    """The model and its tokenizer; raises :class:`InputError` for one that is quantized already."""
    _require_dense(name)
    model, tokenizer = load_base(name, dtype, head=True)
    if adapter is not None:
        bank = AdapterBank(model)
        bank.load("merged", adapter)
        bank.merge_into_base({"merged": 1.0})
        bank.remove("merged")  # takes the bank's hands off the layers
    return model, tokenizer


def _require_dense(name: str) -> None:
    folder = Path(locate(name))
    config = folder / "config.json"
    if config.is_file() and read_json(config, finite=False).get("quantization_config"):
        raise InputError(
            f"{name} is compressed or quantized already, as its config.json says; compress the "
            "model that it was made from"
        )
