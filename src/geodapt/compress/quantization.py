"""Weights as torchao's integers, and these integers packed into bytes."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from geodapt.compress.layer_format import LayerFormat
from geodapt.extras import require_torchao


def torchao_quantization() -> Any:
    """torchao's quantization; raises :class:`InputError` where it is not installed."""
    require_torchao()
    import torchao.quantization

    return torchao.quantization


def narrow(dtype: torch.dtype) -> torch.dtype:
    """The 16-bit type in which a model of this type stores scales and factors."""
    return dtype if dtype.itemsize == 2 else torch.float16


def quantise(W: Float[Tensor, "out in"], form: LayerFormat) -> Tensor:
    """The weight as torchao's tensor subclass: rounded to nearest, symmetric about zero.

    Plain int8 rows are what ``Int8WeightOnlyConfig()`` makes, all others what
    ``IntxWeightOnlyConfig(torch.intN, PerGroup(group))`` makes with 16-bit scales.
    """
    out_features, in_features = W.shape
    assert form.width is not None
    assert form.group is not None
    ao = torchao_quantization()
    if form.is_int8_by_rows(in_features):
        config = ao.Int8WeightOnlyConfig(set_inductor_config=False)
    else:
        config = ao.IntxWeightOnlyConfig(
            getattr(torch, f"int{form.width}"),
            ao.PerAxis(0) if form.group == in_features else ao.PerGroup(form.group),
            scale_dtype=narrow(W.dtype),
        )
    layer = torch.nn.Linear(in_features, out_features, bias=False, device="meta")
    layer.weight = torch.nn.Parameter(W.detach(), requires_grad=False)
    ao.quantize_(layer, config)
    return layer.weight.detach()


def pack(weight: Tensor) -> dict[str, Tensor]:
    """The codes, packed, and the scales."""
    width = width_of(weight)
    codes = weight.qdata.to(torch.int16) + 2 ** (width - 1)  # type: ignore[attr-defined]
    scale: Tensor = weight.scale  # type: ignore[attr-defined]
    if type(weight).__name__ != "Int8Tensor":  # whose scales are float32 in every model
        scale = scale.to(narrow(weight.dtype))
    return {"codes": pack_bits(codes.to(torch.uint8), width), "scale": scale}


def unpack(
    tensors: dict[str, Tensor], form: LayerFormat, shape: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """The tensor that :func:`pack` took apart."""
    assert form.width is not None
    assert form.group is not None
    ao = torchao_quantization()
    count = shape[0] * shape[1]
    codes = unpack_bits(tensors["codes"], form.width, count).to(torch.int16)
    scale = tensors["scale"]
    qdata = (codes - 2 ** (form.width - 1)).to(torch.int8).reshape(shape).to(scale.device)
    block = (1, form.group)
    if form.is_int8_by_rows(shape[1]):
        zero = torch.zeros_like(scale, dtype=torch.int8)
        return ao.Int8Tensor(qdata, scale, list(block), dtype, zero_point=zero)
    zero = torch.zeros_like(scale, dtype=torch.int8)
    target = getattr(torch, f"int{form.width}")
    return ao.IntxUnpackedToInt8Tensor(qdata, scale, zero, target, block, dtype, None)


def width_of(weight: Tensor) -> int:
    """Bits of an integer."""
    if type(weight).__name__ == "Int8Tensor":
        return 8
    return int(str(weight.target_dtype).removeprefix("torch.int"))  # type: ignore[attr-defined]


def integer_format(weight: Tensor) -> LayerFormat:
    """Width in bits and group size of a tensor that :func:`quantise` made."""
    return LayerFormat(width_of(weight), weight.block_size[1])  # type: ignore[attr-defined]


def pack_bits(codes: UInt8[Tensor, "..."], width: int) -> UInt8[Tensor, "bytes"]:
    """The low bits of every code one after another, least significant first."""
    bits = np.unpackbits(codes.cpu().numpy().reshape(-1, 1), axis=1, bitorder="little")
    return torch.from_numpy(np.packbits(bits[:, :width].ravel(), bitorder="little"))


def unpack_bits(packed: UInt8[Tensor, "bytes"], width: int, count: int) -> Int[Tensor, " count"]:
    """The codes that :func:`pack_bits` packed."""
    bits = np.unpackbits(packed.cpu().numpy(), count=count * width, bitorder="little")
    whole = np.zeros((count, 8), dtype=np.uint8)
    whole[:, :width] = bits.reshape(count, width)
    return torch.from_numpy(np.packbits(whole, axis=1, bitorder="little")[:, 0])
