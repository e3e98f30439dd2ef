"""The weights of a model that are compressed, those that are left as they are, and why."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from geodapt.compress.compressed_tensor import is_compressed
from geodapt.errors import InputError

LARGEST = torch.finfo(torch.float16).max
"""Larger weights would not fit the 16-bit scales and factors."""


@dataclass(frozen=True)
class Expert:
    """One matrix of a stack of fused experts."""

    module: nn.Module
    name: str
    number: int
    transposed: bool
    """Whether the stack is ``(expert, in, out)`` and not ``(expert, out, in)``."""

    @property
    def weight(self) -> Tensor:
        """As the stack has it."""
        return self.module._parameters[self.name][self.number]  # type: ignore[index]


Layer = nn.Module | Expert


@dataclass
class Survey:
    """What of a model can be compressed."""

    layers: dict[str, Layer] = field(default_factory=dict)
    """Path -> linear layer, or expert as ``path.parameter.number``."""
    left: Counter[str] = field(default_factory=Counter)
    """Kind of parameter -> how many numbers of it are left as they are."""
    numbers: int = 0
    """Of the whole model; what is shared counts once."""


def compressible(model: nn.Module) -> dict[str, Layer]:
    """The layers that are compressed, by path; see :func:`survey`."""
    return survey(model).layers


def survey(model: nn.Module) -> Survey:
    """The linear layers and fused experts of a model, and what is left as it is.

    Left are the output embedding and a pooler, which see one token per text or share their weight
    with the embedding, and weights that several layers share. Raises :class:`InputError` when
    nothing can be compressed, when a layer is quantized already, carries adapters or hooks, is
    offloaded, or holds NaN or huge numbers.
    """
    _refuse_quantized(model)
    head = getattr(model, "get_output_embeddings", lambda: None)()
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    found = Survey()
    seen: set[int] = set()
    for path, module in model.named_modules():
        if type(module).__module__.startswith("peft."):
            raise InputError(
                f"the model carries an adapter of PEFT at {path}; merge it with merge_and_unload, "
                "or take it off with unload, and compress the model then"
            )
        for name, parameter in module._parameters.items():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            found.numbers += parameter.numel()
            shared = uses[id(parameter)] > 1
            kind = "output embedding" if module is head else _kind(path, module, name, parameter)
            if kind is not None or shared:
                found.left[kind or "weights that several layers share"] += parameter.numel()
                continue
            _require_plain(path, module, name, parameter)
            found.layers.update(_layers(path, module, name, parameter))
    if not found.layers:
        raise InputError(
            f"{type(model).__name__} has no linear layer to compress; give a transformer such as "
            "BERT, Llama or GPT-2"
        )
    return found


def _kind(path: str, module: nn.Module, name: str, parameter: Tensor) -> str | None:
    """What a parameter that is left is called; none for one that is compressed."""
    if name == "weight" and isinstance(module, nn.Linear | Conv1D):
        return "pooler" if "pooler" in path else None
    if parameter.dim() < 2:
        return "norms and biases"
    if isinstance(module, nn.Embedding):
        return "embeddings"
    if isinstance(module, nn.modules.conv._ConvNd):
        return "convolutions"
    if isinstance(module, nn.MultiheadAttention):
        return "input projections of nn.MultiheadAttention"
    if parameter.dim() == 3 and "expert" in f"{path} {type(module).__name__}".lower():
        return None
    return "experts" if "expert" in path.lower() else "other parameters"


def _layers(
    path: str, module: nn.Module, name: str, parameter: Tensor
) -> Iterator[tuple[str, Layer]]:
    if parameter.dim() == 2:
        yield path, module
        return
    transposed = bool(getattr(module, "is_transposed", False))
    for number in range(len(parameter)):
        yield f"{path}.{name}.{number}", Expert(module, name, number, transposed)


def _refuse_quantized(model: nn.Module) -> None:
    config = getattr(model, "config", None)
    if getattr(model, "hf_quantizer", None) or getattr(config, "quantization_config", None):
        raise InputError(
            f"this {type(model).__name__} is compressed or quantized already, as its configuration "
            "says; compress the model that it was made from"
        )


def _require_plain(path: str, module: nn.Module, name: str, weight: Any) -> None:
    """Raise :class:`InputError` for a weight that cannot be replaced, or is not worth it."""
    where = path if name == "weight" else f"{path}.{name}"
    if is_compressed(weight) or type(weight) is not nn.Parameter:
        raise InputError(
            f"layer {where} is compressed or quantized already ({type(weight.data).__name__}); "
            "compress the model that it was made from"
        )
    if weight.is_meta or hasattr(module, "_hf_hook"):
        raise InputError(
            f"layer {where} is offloaded or on several devices, under a hook of accelerate; load "
            "the model whole on one device, and compress it then"
        )
    if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
        raise InputError(
            f"layer {where} is under a hook that changes what it computes, such as an "
            "AdapterBank's; take it off, and compress the model then"
        )
    if not weight.is_floating_point() or weight.itemsize < 2:
        raise InputError(
            f"layer {where} holds {weight.dtype}, not numbers of a float type: it is quantized "
            "already; compress the model that it was made from"
        )
    largest = weight.detach().abs().amax().item() if weight.numel() else 0.0
    if not math.isfinite(largest):
        raise InputError(
            f"layer {where} holds NaN or infinite weights; was the model saved from a training "
            "that diverged?"
        )
    if largest > LARGEST:
        raise InputError(
            f"layer {where} holds a weight of {largest:.3g}, but scales and factors of 16 bits end "
            f"at {LARGEST:.0f}; was the model saved from a training that diverged?"
        )


def shape_of(layer: Any) -> tuple[int, int]:
    """Outputs and inputs."""
    rows, columns = layer.weight.shape
    return (columns, rows) if _transposed(layer) else (rows, columns)


def weight_of(layer: Layer) -> Float[Tensor, "out in"]:
    """The weight, output by input; GPT-2's Conv1D and some experts store it the other way round."""
    weight: Any = layer.weight
    return weight.detach().T.contiguous() if _transposed(layer) else weight.detach()


def _transposed(layer: Any) -> bool:
    return layer.transposed if isinstance(layer, Expert) else isinstance(layer, Conv1D)
