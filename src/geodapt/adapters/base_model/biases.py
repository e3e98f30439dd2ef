"""Modules whose bias is added to their output, so that another bias shifts it."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

CHANNELS_FIRST: tuple[Any, ...] = (
    *(nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
"""Modules, beside convolutions, whose output has its channels in dimension 1."""
PLAIN: frozenset[Any] = frozenset(
    kind.forward
    for kind in (
        *(nn.Linear, Conv1D, nn.LayerNorm, nn.Conv1d, nn.Conv2d, nn.Conv3d),
        *CHANNELS_FIRST,
    )
)
"""Modules of PyTorch that add their bias to their output, along its features or channels."""


def channels_first(module: nn.Module) -> bool:
    """Whether a module, a convolution apart, has its output's channels in dimension 1.

    So has the layer norm that transformers' models for pictures use, by its ``data_format``.
    """
    norm = isinstance(module, nn.LayerNorm)
    return isinstance(module, CHANNELS_FIRST) or (
        norm and getattr(module, "data_format", None) == "channels_first"
    )


@torch.no_grad()
def adds_bias(module: nn.Module) -> bool:
    """Whether a module's bias is added to its output, so that another one shifts it.

    A subclass of a linear layer or a norm may do something else with it; that is seen on a small
    input, with and without another bias.
    """
    own: Any = type(module).forward
    if own in PLAIN:
        return True
    bias = module.bias
    if not isinstance(bias, Tensor) or bias.ndim != 1 or bias.device.type == "meta":
        return False
    dim = 1 if channels_first(module) else -1
    generator = torch.Generator().manual_seed(0)
    more = torch.randn(len(bias), generator=generator, device="cpu").to(bias)
    width = getattr(module, "in_features", len(bias))
    shape = (2, width, 3, 5) if dim == 1 else (2, 3, width)
    x = torch.randn(shape, generator=generator, device="cpu").to(bias)
    try:
        one, other = (own(_twin(module, b), x) for b in (bias, bias + more))
        rounding = 8 * torch.finfo(one.dtype).eps * (1 + float(one.abs().max()))
        shifted = (one.movedim(dim, -1) + more).movedim(-1, dim)
        return torch.allclose(other, shifted, rtol=0, atol=rounding)
    except Exception:  # it takes another shape, or more than one input
        return False


def _twin(module: nn.Module, bias: Tensor) -> nn.Module:
    """The module with another bias, not training, and without the wrappers of its forward."""
    twin = object.__new__(type(module))
    twin.__dict__.update({k: v for k, v in module.__dict__.items() if k != "forward"})
    twin.__dict__["_parameters"] = {**module._parameters, "bias": bias}
    twin.__dict__["training"] = False
    return twin
