"""What is computed from the base's own weights: DoRA's row lengths, and sketches that show a
change.

A weight may be changed without a trace (``weight.data += ...``), so what is derived from one is
kept together with the weight's product with a random vector.
"""

from functools import cache

import torch
from jaxtyping import Float
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn

from geodapt.adapters.base_model.sites import Site
from geodapt.adapters.peft_files.factors import Factors
from geodapt.errors import InputError

CHUNK = 1 << 24
"""How many numbers of ``W0 + s B A`` are formed at a time."""


def row_scale(
    site: Site, weight: Tensor, factors: Factors, magnitude: Float[Tensor, " out"]
) -> Float[Tensor, " out"]:
    """``m / |W0 + s B A|`` per row, in float32 at least, where the weight is.

    Source: DoRA, Liu et al. 2024, equation 5.
    """
    matrix = site.matrix(weight.detach())
    wide = torch.promote_types(matrix.dtype, torch.float32)
    A, B = (factor.detach().to(matrix.device, wide) for factor in (factors.A, factors.B))
    B = factors.scaled(B)
    rows = max(1, CHUNK // matrix.shape[1])
    norms = [
        torch.addmm(part.to(wide), b, A).norm(dim=1)
        for part, b in zip(matrix.split(rows), B.split(rows), strict=True)
    ]
    return magnitude.to(matrix.device, wide) / torch.cat(norms)


def plain_weight(site: Site, path: str) -> Tensor:
    """A layer's weight in floating point.

    Raises :class:`InputError` for one that is offloaded, or quantized in a way that PEFT cannot
    turn back.
    """
    weight = site.weight
    if weight.device.type == "meta":
        raise InputError(
            f"layer {path} is offloaded, and a DoRA adapter needs the lengths of its weight's "
            "rows; load it onto a device"
        )
    if type(weight) is nn.Parameter and weight.is_floating_point():
        return weight.detach()
    try:
        return dequantize_module_weight(site.module).detach()
    except (AttributeError, TypeError, ValueError, RuntimeError, ImportError) as error:
        raise InputError(
            f"layer {path} is quantized in a way that PEFT cannot turn back, and a DoRA adapter "
            "needs the lengths of its weight's rows; load the base without quantization"
        ) from error


def weight_sketch(matrix: Float[Tensor, "out in"]) -> Float[Tensor, " out"]:
    """A sketch of a weight that differs for any other weight."""
    return matrix @ _random(matrix.shape[1], matrix.dtype).to(matrix.device)


@cache
def _random(width: int, dtype: torch.dtype) -> Float[Tensor, " width"]:
    generator = torch.Generator().manual_seed(width)
    return torch.randn(width, generator=generator, device="cpu").to(dtype)


def device_of(site: Site) -> torch.device:
    """Where a layer computes; an offloaded weight is elsewhere in the meantime."""
    device: torch.device = site.weight.device
    if device.type == "meta":
        hook = getattr(site.module, "_hf_hook", None)  # accelerate's
        execution = getattr(hook, "execution_device", None)
        return torch.device("cpu" if execution is None else execution)
    return device
