"""The layers of a model that are compressed: the linear ones of its blocks and heads."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from geodapt.compress.weights import is_compressed
from geodapt.errors import InputError


def compressible(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers by path, without the output embedding and without a pooler.

    Those two see a token a text or share their weight with the embedding. Raises
    :class:`InputError` when there are none, when one is quantized already, or holds a NaN.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    layers: dict[str, nn.Module] = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and "pooler" not in path
    }
    if not layers:
        raise InputError(
            f"{type(model).__name__} has no linear layer to compress; give a transformer such as "
            "BERT, Llama or GPT-2"
        )
    for path, layer in layers.items():
        weight: Any = layer.weight
        if is_compressed(weight) or type(weight) is not nn.Parameter:
            raise InputError(
                f"layer {path} is compressed or quantized already ({type(weight).__name__}); "
                "compress the model that it was made from"
            )
        if not weight.is_floating_point():
            raise InputError(
                f"layer {path} holds {weight.dtype}, not numbers of a float type: it is quantized "
                "already; compress the model that it was made from"
            )
        if not torch.isfinite(weight).all():
            raise InputError(
                f"layer {path} holds NaN or infinite weights; was the model saved from a training "
                "that diverged?"
            )
    return layers


def shape_of(layer: Any) -> tuple[int, int]:
    """Outputs and inputs."""
    rows, columns = layer.weight.shape
    return (columns, rows) if isinstance(layer, Conv1D) else (rows, columns)


def weight_of(layer: nn.Module) -> Float[Tensor, "out in"]:
    """The weight, output by input (GPT-2's Conv1D stores it the other way round)."""
    weight: Any = layer.weight
    return weight.detach().T.contiguous() if isinstance(layer, Conv1D) else weight.detach()


def replace_weight(model: nn.Module, path: str, weight: Tensor) -> None:
    """Give a layer another weight; a Conv1D becomes the ``nn.Linear`` that it computes."""
    layer: Any = model.get_submodule(path)
    if isinstance(layer, Conv1D):
        linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
        linear.bias = layer.bias
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, linear)
        layer = linear.train(layer.training)
    layer.weight = nn.Parameter(weight, requires_grad=False)
