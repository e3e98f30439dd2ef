"""Embeddings and convolutions as linear layers.

An embedding is a linear layer on one-hot vectors, which stay indices here; a convolution is one
on the patches that its kernel sees. So every way of applying factors to rows serves them too.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers.pytorch_utils import Conv1D

from geodapt.adapters.base_model.biases import channels_first
from geodapt.adapters.base_model.sites import CONVOLUTIONS
from geodapt.errors import InputError

Lowering = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]]
"""From a layer's input and output to those of a linear layer ``(rows, ..., features)``, and back
from its output."""


def lowering_of(layer: nn.Module) -> Lowering | None:
    """How a layer's input and output become a linear layer's; None for a linear layer."""
    if isinstance(layer, nn.Embedding):
        return lambda x, y: (x.unsqueeze(-1), y, lambda result: result)
    if isinstance(layer, CONVOLUTIONS):
        return lambda x, y: _convolution(layer, x, y)
    if channels_first(layer):
        return _channels_last
    return None


def patches(layer: nn.Module, x: Tensor) -> Tensor:
    """What a convolution's kernel sees at each place, ``(rows, places, channels * kernel)``."""
    x = pad(x, layer._reversed_padding_repeated_twice)  # type: ignore[arg-type]
    for dim, (size, step) in enumerate(zip(layer.kernel_size, layer.stride, strict=True), 2):  # type: ignore[arg-type]
        x = x.unfold(dim, size, step)
    places = len(layer.kernel_size)  # type: ignore[arg-type]
    return x.movedim(1, places + 1).flatten(places + 1).flatten(1, places)


def check_lowering(layer: nn.Module, path: str, name: str) -> None:
    """Raises :class:`InputError` for a layer for which the meaning of an update is not known.

    ``name`` is the adapter's.
    """
    if isinstance(layer, CONVOLUTIONS) and (
        any(step > 1 for step in layer.dilation)
        or layer.padding_mode != "zeros"
        or not acts_plainly(layer)
    ):
        raise InputError(
            f"adapter '{name}' targets {path}, a convolution with dilation, a padding other than "
            "zeros or a forward of its own: PEFT's first factor is a plain convolution, which sees "
            "other places than this one; leave it out of the targets, or train a layer without"
        )
    if isinstance(layer, nn.Embedding) and (layer.max_norm or not acts_plainly(layer)):
        raise InputError(
            f"adapter '{name}' targets {path}, a {type(layer).__name__}, which does more than "
            "look up rows of its weight, so that an update of the weight cannot be added to its "
            "output; leave it out of the targets"
        )


@torch.no_grad()
def acts_plainly(layer: nn.Module) -> bool | None:
    """Whether a layer's output is what its weight and bias say: ``W x + b``.

    A subclass may scale its weight or its output, transform its input, or pad; an update of the
    weight then has another effect on the output. Tested on a small input; None for a layer that
    needs more arguments.
    """
    own: Any = type(layer).forward
    if own in (kind.forward for kind in (nn.Linear, Conv1D, nn.Embedding, *CONVOLUTIONS)):
        return True
    twin = object.__new__(type(layer))  # without the wrappers of this layer's forward
    twin.__dict__.update({k: v for k, v in layer.__dict__.items() if k != "forward"})
    weight: Any = layer.weight
    generator = torch.Generator().manual_seed(0)
    if isinstance(layer, nn.Embedding):
        x = torch.arange(min(layer.num_embeddings, 4), device=weight.device)[None]
        wanted = weight[x] * multiplier(layer)
    elif isinstance(layer, CONVOLUTIONS):
        shape = (1, layer.in_channels, *(4 * size for size in layer.kernel_size))
        x = torch.randn(shape, generator=generator, device="cpu").to(weight)
        wanted = next(k for k in CONVOLUTIONS if isinstance(layer, k)).forward(twin, x)  # type: ignore[arg-type]
    else:
        x = torch.randn(2, layer.in_features, generator=generator, device="cpu").to(weight)  # type: ignore[call-overload]
        wanted = nn.functional.linear(x, weight, layer.bias)  # type: ignore[arg-type]
    try:
        found = own(twin, x)
    except Exception:  # it takes something else, or more
        return None
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        return False
    tolerance = 10 * torch.finfo(wanted.dtype).eps
    return torch.allclose(found, wanted.to(found.dtype), rtol=tolerance, atol=tolerance)


def multiplier(layer: nn.Module) -> float:
    """What an embedding multiplies the rows of its weight with (Gemma's and BART's do)."""
    scale = getattr(layer, "embed_scale", 1.0) if isinstance(layer, nn.Embedding) else 1.0
    if isinstance(scale, Tensor):
        scale = scale.to(layer.weight.dtype).item()  # type: ignore[arg-type]
    return float(scale)


def _channels_last(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    shape = y.movedim(1, -1).shape
    x, y = (each.movedim(1, -1).flatten(1, -2) if each.ndim > 2 else each for each in (x, y))
    return x, y, lambda result: result.reshape(shape).movedim(-1, 1)


def _convolution(
    layer: nn.Module, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    shape = y.shape
    if y.ndim == 1 + len(layer.kernel_size):  # type: ignore[arg-type]  # one picture by itself
        x, y = x[None], y[None]
    return (
        patches(layer, x.to(y.dtype)),
        y.flatten(2).transpose(1, 2),
        lambda result: result.transpose(1, 2).reshape(shape),
    )
