"""Linear maps by oneDNN are those of PyTorch's operators."""

import pytest
import torch
from torch import nn

from geodapt.helm import products
from geodapt.helm.grouped import grouped_linear
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


@pytest.mark.parametrize("rows", [1, products.LONG])
def test_without_gradients(rows):
    layer, x, time = LorentzLinear(13, 21), torch.randn(rows, 13), torch.rand(rows)
    nn.init.normal_(layer.time_weight)
    with torch.no_grad():
        assert products.suits(x, layer.weight) == (rows > 1)
        exact = x @ layer.weight.mT + time[:, None] * layer.time_weight
        torch.testing.assert_close(layer(x, time), exact, rtol=1e-4, atol=1e-4)


def experts(counts):
    """Rows for each expert, and their weights: the arguments of ``grouped_linear``."""
    ends = torch.tensor(counts).cumsum(0)
    expert = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    weight, time_weight = torch.randn(len(counts), 20, 12), torch.randn(len(counts), 20)
    rows = torch.randn(len(expert), 12), torch.rand(len(expert))
    return *rows, weight, time_weight, expert, ends.to(torch.int32)


def reference(x, time, weight, time_weight, expert, ends):
    """Every row by its expert's weights, copied for it."""
    return torch.einsum("roi,ri->ro", weight[expert], x) + time[:, None] * time_weight[expert]


def in_float64(inputs):
    return [x.double() if x.is_floating_point() else x for x in inputs]


@pytest.mark.parametrize("counts", [(ROWS, 0, ROWS + 7, 3), (0, ROWS, 0)])
@pytest.mark.parametrize("wanted", [(0, 1, 2, 3), (0, 1), (2, 3)])
def test_values_and_gradients_of_experts(counts, wanted):
    def run(linear, inputs):
        inputs = [x.detach().requires_grad_(i in wanted) for i, x in enumerate(inputs)]
        y = linear(*inputs)
        return y, *torch.autograd.grad(y.sin().sum(), [inputs[i] for i in wanted])

    inputs = experts(counts)
    assert products.suits(inputs[0], inputs[2])
    exact = run(reference, in_float64(inputs))
    for a, b in zip(run(grouped_linear, inputs), exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-3)


def test_a_compiler_uses_the_same_products():
    """In a whole graph; its gradients, too."""
    layer = LorentzLinear(12, 12, bias=True)
    counts = (ROWS, 3, 0, ROWS + 5)
    x, time, weight, time_weight, expert, ends = experts(counts)

    def both(x, time, weight, time_weight):
        h = grouped_linear(layer(x, time).sin(), time, weight, time_weight, expert, ends)
        return h * h

    def outputs_and_slopes(function):
        inputs = [t.detach().requires_grad_() for t in (x, time, weight, time_weight)]
        out = function(*inputs)
        return out, *torch.autograd.grad(out.sum(), [*inputs, *layer.parameters()])

    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    compiled = torch.compile(both, fullgraph=True, backend=backend)
    for a, b in zip(outputs_and_slopes(compiled), outputs_and_slopes(both), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
    assert "geodapt.grouped_linear" in graphs[0].print_readable(print_output=False)


@pytest.mark.parametrize("rows", [3, ROWS])
def test_operators_are_what_they_tell_a_compiler(rows):
    x, g, weight, bias = (torch.randn(s) for s in ((2, rows, 5), (2 * rows, 7), (7, 5), (7,)))
    flat, runs = x.flatten(0, 1), experts((rows, 0, rows))
    wanted = [True, False, True, True, False, False]
    for operator, inputs in {
        "linear": (x, weight, bias),
        "linear_gradient": (g, flat),
        "grouped_linear": runs,
        "grouped_linear_gradients": (torch.randn(2 * rows, 20), *runs, wanted),
    }.items():
        called = getattr(torch.ops.geodapt, operator).default
        checks = ("test_schema", "test_faketensor")
        torch.library.opcheck(called, inputs, test_utils=checks)


def test_gradients_of_gradients_of_experts():
    def penalty(linear, inputs):
        x, time, weight, *rest = inputs
        x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
        y = linear(x, time, weight, *rest)
        (slope,) = torch.autograd.grad((y**3).sum(), x, create_graph=True)
        return torch.autograd.grad((slope**2).sum(), weight)[0]

    inputs = experts((ROWS, 8))
    exact = penalty(reference, in_float64(inputs))
    assert (penalty(grouped_linear, inputs) - exact).norm() < 1e-4 * exact.norm()


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
