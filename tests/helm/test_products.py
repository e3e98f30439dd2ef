"""Linear maps by oneDNN are those of PyTorch's operators."""

import pytest
import torch
from torch import nn

from geodapt.helm import products
from geodapt.helm.products import Linear, LorentzLinear

pytestmark = pytest.mark.skipif(not products.HAVE, reason="PyTorch without oneDNN")
ROWS = products.MANY


def outputs_and_gradients(layer, *inputs):
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = layer(*inputs)
    slopes = torch.linspace(-1, 2, out.numel()).to(out.dtype).view(out.shape)
    return out, *torch.autograd.grad(out, [*inputs, *layer.parameters()], slopes)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [Linear, LorentzLinear])
@pytest.mark.parametrize("strided", [False, True])
def test_values_and_gradients(kind, bias, strided):
    layer = kind(13, 21, bias=bias)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, ROWS, 26)[..., ::2] if strided else torch.randn(2, ROWS, 13)
    inputs = [x, torch.rand(2, ROWS)][: 2 if kind is LorentzLinear else 1]
    assert products.suits(x, layer.weight)
    ours = outputs_and_gradients(layer, *inputs)
    exact = outputs_and_gradients(layer.double(), *(x.double() for x in inputs))
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-3)


def test_gradients_of_gradients():
    layer, x = LorentzLinear(5, 3), torch.randn(ROWS, 5)

    def penalty(x, time):
        x = x.detach().requires_grad_()
        out = layer(x, time)
        (slope,) = torch.autograd.grad((out**3).sum(), x, create_graph=True)
        (by_weight,) = torch.autograd.grad((slope**2).sum(), layer.weight)
        return by_weight

    time = torch.rand(ROWS)
    ours = penalty(x, time)
    layer.double()
    exact = penalty(x.double(), time.double())
    torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-2)


def test_what_is_left_to_the_operators():
    x, weight = torch.randn(ROWS, 8), torch.randn(4, 8)
    assert products.suits(x, weight)
    assert not products.suits(x[1:], weight)
    assert not products.suits(x.double(), weight.double())
    with torch.no_grad():
        assert not products.suits(x, weight)
    with torch.autocast("cpu"):
        assert not products.suits(x, weight)
