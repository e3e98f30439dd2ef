"""A compressed model on disk: a folder that one call loads.

::

    config.json           the model's own configuration
    model.safetensors     all tensors; compressed ones as PATH.codes, .scale, .A, .B
    compression.json      which layers are in which form
    tokenizer.json, ...   the tokenizer
"""

import importlib
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from geodapt.compress.compression import compressed_layers
from geodapt.compress.forms import Form
from geodapt.compress.layers import replace_weight
from geodapt.compress.weights import form_of, put_together, take_apart
from geodapt.errors import InputError
from geodapt.files import atomic_folder, read_json, read_tensors, write_json, write_tensors
from geodapt.settings import Settings

WEIGHTS, DESCRIPTION = "model.safetensors", "compression.json"
TRUSTED = ("transformers", "geodapt")  # packages whose model classes a folder may name


class Layer(Settings):
    """One compressed layer, as ``compression.json`` has it."""

    shape: tuple[int, int]
    width: int | None = None
    group: int | None = None
    rank: int = 0

    @property
    def form(self) -> Form:
        return Form(self.width, self.group, self.rank)


class Description(Settings):
    """What ``compression.json`` holds."""

    model: str
    """The model's class as ``module:name``."""
    dtype: str
    layers: dict[str, Layer]


def save(model: PreTrainedModel, folder: Path | str, tokenizer: Any = None) -> None:
    """Write a compressed model, atomically, for :func:`load`."""
    found = dict(compressed_layers(model))
    if not found:
        raise InputError("the model has no compressed layer; save it with save_pretrained")
    layers, tensors = {}, _others(model, found)
    for path, layer in found.items():
        form = form_of(layer.weight)
        shape = (layer.weight.shape[0], layer.weight.shape[1])
        layers[path] = Layer(shape=shape, width=form.width, group=form.group, rank=form.rank)
        parts = take_apart(layer.weight.detach())
        tensors |= {f"{path}.{name}": part for name, part in parts.items()}
    kind = type(model)
    description = Description(
        model=f"{kind.__module__}:{kind.__name__}",
        dtype=str(model.dtype).removeprefix("torch."),
        layers=layers,
    )
    with atomic_folder(folder) as inside:
        model.config.save_pretrained(inside)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(inside)
        if tokenizer is not None:
            tokenizer.save_pretrained(inside)
        write_tensors(inside / WEIGHTS, tensors)
        write_json(inside / DESCRIPTION, description.model_dump(exclude_defaults=True))


def load(folder: Path | str) -> PreTrainedModel:
    """A model that :func:`save` or ``geodapt compress`` wrote, in eval mode on the CPU.

    Raises :class:`InputError` when the folder is not such a one, or is incomplete.
    """
    folder = Path(folder)
    if not (folder / DESCRIPTION).is_file():
        raise InputError(
            f"{folder} has no {DESCRIPTION}: it is no compressed model; load it with "
            "from_pretrained"
        )
    description = _description(folder)
    kind = _class(description.model, folder)
    config = kind.config_class.from_pretrained(folder)
    with no_init_weights():
        model = kind._from_config(config, dtype=getattr(torch, description.dtype))
    model.tie_weights()  # left out with the initialisation
    tensors = read_tensors(folder / WEIGHTS)
    for path, layer in description.layers.items():
        replace_weight(model, path, _weight(folder, path, layer, tensors, model))
    _fill(model, tensors, folder)
    return model.requires_grad_(False).eval()


def _others(model: nn.Module, compressed: dict[str, nn.Linear]) -> dict[str, Tensor]:
    """All tensors but the compressed weights; of those that are tied, one."""
    weights = {f"{path}.weight" for path in compressed}
    kept: dict[str, Tensor] = {}
    seen = set()
    for name, tensor in model.state_dict().items():
        if name not in weights and tensor.data_ptr() not in seen:
            kept[name] = tensor
            seen.add(tensor.data_ptr())
    return kept


def _description(folder: Path) -> Description:
    try:
        return Description.model_validate(read_json(folder / DESCRIPTION))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{folder / DESCRIPTION}: {where}: {first['msg']}; it was edited or written by another "
            "version: compress the model again"
        ) from error


def _class(name: str, folder: Path) -> Any:
    """The model's class, of a package that is trusted with it."""
    module, _, kind = name.partition(":")
    if module.split(".")[0] in TRUSTED:
        try:
            found = getattr(importlib.import_module(module), kind)
            if issubclass(found, PreTrainedModel):
                return found
        except (ImportError, AttributeError, TypeError):
            pass
    raise InputError(
        f"{folder / DESCRIPTION} names the model class '{name}', which is no model of "
        f"{' or '.join(TRUSTED)}; install the version that wrote it"
    )


def _weight(
    folder: Path, path: str, layer: Layer, tensors: dict[str, Tensor], model: PreTrainedModel
) -> Tensor:
    names = (["codes", "scale"] if layer.width else []) + (["A", "B"] if layer.rank else [])
    lacking = [f"{path}.{name}" for name in names if f"{path}.{name}" not in tensors]
    if lacking or not names:
        raise InputError(
            f"{folder / WEIGHTS} lacks {lacking[0] if lacking else path}; it is incomplete: "
            "compress the model again"
        )
    parts = {name: tensors.pop(f"{path}.{name}") for name in names}
    stored = sum(part.numel() * part.itemsize for part in parts.values())
    if stored != layer.form.bytes(*layer.shape):
        raise InputError(
            f"{folder / WEIGHTS}: layer {path} takes {stored:,} bytes, but {layer.form} of shape "
            f"{layer.shape} takes {layer.form.bytes(*layer.shape):,}; the file and "
            f"{DESCRIPTION} belong to different models"
        )
    return put_together(parts, layer.form, layer.shape, model.dtype)


def _fill(model: Any, tensors: dict[str, Tensor], folder: Path) -> None:
    """The tensors that are not compressed; what is tied to one of them has its memory already."""
    if not any(name.startswith("pooler.") for name in tensors) and hasattr(model, "pooler"):
        model.pooler = None  # the saved one was made without it, which no configuration tells
    problems = model.load_state_dict(tensors, strict=False)
    owned = model.state_dict()
    filled = {owned[name].data_ptr() for name in tensors if name in owned}
    compressed = {f"{path}.weight" for path, _ in compressed_layers(model)}
    missing = [
        name
        for name in problems.missing_keys
        if name not in compressed and owned[name].data_ptr() not in filled
    ]
    if missing or problems.unexpected_keys:
        name = (missing or problems.unexpected_keys)[0]
        raise InputError(
            f"{folder / WEIGHTS} {'lacks' if missing else 'has an unknown'} tensor '{name}'; it "
            "is incomplete or of another model: compress the model again"
        )
