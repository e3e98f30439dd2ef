"""Integers equal torchao's own, through packing and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchao.quantization import (
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    PerAxis,
    PerGroup,
    quantize_,
)

from geodapt.compress import quantization
from geodapt.compress.layer_format import LayerFormat

FORMS = [
    *(LayerFormat(width, group) for width in range(2, 9) for group in (16, 32, 64)),
    LayerFormat(2, 96),
    LayerFormat(8, 96),
]


def peer(W, form):
    """torchao's own layer with this weight."""
    layer = nn.Linear(W.shape[1], W.shape[0], bias=False, dtype=W.dtype)
    layer.weight.data = W.clone()
    narrow = torch.bfloat16 if W.dtype == torch.bfloat16 else torch.float16
    if form == LayerFormat(8, 96):
        quantize_(layer, Int8WeightOnlyConfig())
    else:
        how = PerAxis(0) if form.group == 96 else PerGroup(form.group)
        quantize_(
            layer,
            IntxWeightOnlyConfig(getattr(torch, f"int{form.width}"), how, scale_dtype=narrow),
        )
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_codes_scales_and_products_are_torchaos(form, dtype):
    width = 192 if form.group == 64 else 96
    W = torch.randn(10, width, dtype=dtype)
    layer = peer(W, form)
    made = quantization.quantise(W, form)
    packed = quantization.pack(made)
    back = quantization.unpack(packed, form, (10, width), dtype)
    for weight in (made, back):
        assert type(weight) is type(layer.weight.data)
        assert torch.equal(weight.qdata, layer.weight.qdata)
        assert torch.equal(weight.scale, layer.weight.scale)
        assert torch.equal(weight.dequantize(), layer.weight.dequantize())
        assert quantization.integer_format(weight) == form
        x = torch.randn(3, width, dtype=dtype)
        assert torch.equal(nn.functional.linear(x, weight), layer(x))
    size = sum(part.numel() * part.itemsize for part in packed.values())
    assert size == form.bytes(10, width)


@pytest.mark.parametrize(
    "form", [LayerFormat(4, 16), LayerFormat(3, 32), LayerFormat(8, 96)], ids=str
)
def test_rounding_by_hand(form):
    """No integer in range is nearer, but for ties: torchao divides by a rounded scale."""
    W = torch.randn(5, 96)
    made = quantization.quantise(W, form)
    scale = made.scale.double().repeat_interleave(form.group, 1)
    levels = torch.arange(-(2 ** (form.width - 1)), 2 ** (form.width - 1))
    nearest = (W.double()[..., None] - scale[..., None] * levels).abs().amin(-1)
    found = (W.double() - made.dequantize().double()).abs()
    torch.testing.assert_close(found, nearest, atol=1e-3, rtol=0)


@given(
    width=st.integers(1, 8),
    codes=st.lists(st.integers(0, 255), min_size=1, max_size=50),
)
def test_bits_survive_packing(width, codes):
    codes = torch.tensor([code % 2**width for code in codes], dtype=torch.uint8)
    packed = quantization.pack_bits(codes, width)
    assert len(packed) == -(-len(codes) * width // 8)
    assert torch.equal(quantization.unpack_bits(packed, width, len(codes)), codes)


def test_bits_lie_one_after_another():
    packed = quantization.pack_bits(torch.tensor([0b101, 0b011, 0b111], dtype=torch.uint8), 3)
    assert packed.tolist() == [0b11011101, 0b1]
