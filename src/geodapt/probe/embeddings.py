"""A model's token embeddings, or its classifier's rows, as vectors."""

import re
from typing import Any

import numpy as np
import torch

from geodapt.errors import InputError

PLACEHOLDER = re.compile(r"[\[<].*(unused|reserved).*\d+.*[\]>]")  # BERT's, Gemma's, Llama's


def model_embeddings(base: str, tensor: str | None = None) -> tuple[np.ndarray, list[str]]:
    """A model's token embeddings with their tokens, or its classifier's rows with class names."""
    if tensor == "classes":
        return _class_embeddings(base)
    # transformers is slow to import, and files need none
    from geodapt.models import input_embeddings, load_base

    model, tokenizer = load_base(base)
    # Of a model that reads pictures this is the patches' module, which has no table.
    weight: Any = getattr(input_embeddings(model), "weight", None)
    if weight is None:
        raise InputError(f"model '{base}' has no token embeddings; give a file instead")
    if weight.dim() != 2:
        raise InputError(f"model '{base}' has no token embeddings but an input of {weight.shape}")
    words = {index: word for word, index in tokenizer.get_vocab().items()}
    # Rows at the end that no token has and placeholders were never trained: they lie in a heap.
    rows = [i for i in range(len(weight)) if i in words and not PLACEHOLDER.fullmatch(words[i])]
    return weight.detach()[rows].float().numpy(), [words[i] for i in rows]


def _class_embeddings(base: str) -> tuple[np.ndarray, list[str]]:
    from transformers import AutoConfig

    from geodapt.models import as_input_errors, load_weights, locate_base, model_class, pretrained

    location = locate_base(base)
    with as_input_errors(base):
        config = pretrained(AutoConfig, location)
        names = [config.id2label[i] for i in range(config.num_labels)]
        architecture = model_class((config.architectures or ["none"])[0])
        model = load_weights(base, location, kind=architecture) if architecture else None
    heads = [
        layer.weight
        for layer in (model.modules() if model else ())
        if isinstance(layer, torch.nn.Linear) and layer.out_features == len(names)
    ]
    if not heads:
        raise InputError(f"model '{base}' has no classifier over its {len(names)} labels")
    return heads[-1].detach().float().numpy(), names
