"""The formulas that a block is made of: first and second derivatives, and their types."""

import pytest
import torch
from torch import nn

from geodapt.helm import lorentz_layers as layers
from geodapt.helm.experts import Dispatch, HelmExperts, Spaces, grouped_linear
from geodapt.helm.lorentz_layers import Curvature, LorentzLinear, head_centroids
from geodapt.helm.positions import key_points, query_points
from tests.helm import small


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def positive(*shape):
    return (torch.rand(shape, dtype=torch.float64) + 0.5).requires_grad_()


def of_zero(*shape):
    """Points of which the first is the origin, as padding's embedding is."""
    x = draw(*shape).detach()
    x[0] = 0
    return x.requires_grad_()


def rotation(n, pairs):
    angle = torch.randn(1, n, pairs, dtype=torch.float64)
    return angle.cos().unsqueeze(2), angle.sin().unsqueeze(2)


def calls():
    """Each formula, and its inputs."""
    torch.manual_seed(0)
    turned = rotation(3, 2)
    chosen = torch.tensor([[2, 0], [0, 2]])  # two tokens with two experts each, none with the third
    rows = Dispatch.of(chosen, 3)
    linear = LorentzLinear(4, 3, bias=True).double()
    nn.init.normal_(linear.time_weight)
    config = small.config(hidden_size=4, n_routed_experts=3, moe_intermediate_size=3)
    experts = HelmExperts(config).double()
    for parameter in experts.parameters():
        nn.init.normal_(parameter)
    return {
        "linear": (linear, draw(2, 4), positive(2, 1)),
        "square": (layers.squared_norm, of_zero(3, 4)),
        "scaled": (layers.scale_points, draw(3, 4), draw(3, 1)),
        "residual": (
            lambda x, y, w, g, c: layers.lorentz_residual(x, y, w / (1 + w), g, Curvature.of(c)),
            *(of_zero(3, 4), draw(3, 4), positive(), positive(), positive()),
        ),
        "rms_norm": (
            lambda x, w, c: layers.lorentz_rms_norm(x, w, 1e-2, Curvature.of(c)),
            *(of_zero(3, 4), draw(4), positive()),
        ),
        "queries": (
            lambda x, f, c: query_points(x, turned, f, Curvature.of(c)),
            *(draw(1, 3, 2, 5), positive(), positive()),
        ),
        "keys": (lambda x, c: key_points(x, turned, Curvature.of(c)), draw(1, 3, 2, 5), positive()),
        "centroid": (
            lambda s, u, c: head_centroids(
                torch.cat([s, s.square().sum(-1, True) + u], -1), Curvature.of(c)
            ),
            *(draw(1, 3, 2, 4), positive(1, 3, 2, 1), positive()),
        ),
        "to_rows": (rows.to_rows, draw(2, 3)),
        "to_tokens": (rows.to_tokens, draw(4, 3)),
        "experts": (
            lambda x, t, w, v: grouped_linear(x, t, w, v, rows),
            *(draw(4, 3), positive(4, 1), draw(3, 2, 3), draw(3, 2)),
        ),
        "mixture": (
            lambda x, w, a, c: experts(x, chosen, w, Spaces(a, a**2 / c), Curvature.of(c)),
            *(draw(2, 4), positive(2, 2), positive(3), positive()),
        ),
    }


@pytest.mark.parametrize("name", calls())
def test_first_and_second_derivatives(name):
    function, *inputs = calls()[name]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("rows", [3, 300])
def test_a_lorentz_linear_in_float32(rows):
    layer, x, time = (
        LorentzLinear(13, 21, bias=True),
        torch.randn(2, rows, 13),
        torch.rand(2, rows, 1),
    )
    nn.init.normal_(layer.time_weight)
    wide = [p.double() for p in (layer.weight, layer.time_weight, layer.bias)]
    exact = x.double() @ wide[0].mT + time.double() * wide[1] + wide[2]
    torch.testing.assert_close(layer(x, time).double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", [12, 13])  # PyTorch's grouped product takes the first alone
@pytest.mark.parametrize("counts", [(64, 0, 71, 3), (0, 5, 0)])
def test_experts_in_float32_equal_a_copy_of_the_weights_per_row(counts, width):
    """Values, gradients, and gradients of gradients."""
    torch.manual_seed(0)
    expert = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    dispatch = Dispatch.of(expert.unsqueeze(-1), len(counts))
    inputs = [
        torch.randn(len(expert), width),
        torch.rand(len(expert), 1),
        torch.randn(len(counts), 20, width),
        torch.randn(len(counts), 20),
    ]

    def copied(x, time, weight, time_weight):
        return torch.einsum("roi,ri->ro", weight[expert], x) + time * time_weight[expert]

    def run(linear, dtype):
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        y = linear(*leaves)
        slopes = torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(slopes[0].square().sum(), leaves[2])
        return [t.double() for t in (y, *slopes, *second)]

    ours = run(lambda *leaves: grouped_linear(*leaves, dispatch), torch.float32)
    for a, b in zip(ours, run(copied, torch.float64), strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm() + 1e-6


def test_bfloat16_scalars_are_float32():
    x = torch.randn(5, 64).bfloat16().requires_grad_()
    square = layers.squared_norm(x)
    torch.testing.assert_close(square, x.detach().float().square().sum(-1, True))
    square.sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())
    h, time = layers.lorentz_rms_norm(x, torch.ones(64).bfloat16(), 1e-6, Curvature.of(1.0))
    assert h.dtype == torch.bfloat16
    assert time.dtype == torch.float32
    torch.testing.assert_close(time, torch.full((5, 1), 65.0).sqrt(), rtol=1e-2, atol=0)


def test_torch_func_goes_through():
    x, weight = torch.randn(5, 3, 4), torch.randn(4)

    def norm(x):
        return layers.lorentz_rms_norm(x, weight, 1e-6, Curvature.of(0.7))

    for each, whole in zip(torch.func.vmap(norm)(x), norm(x), strict=True):
        torch.testing.assert_close(each, whole)


@pytest.mark.parametrize("kind", ["mha", "mla", "mice", "relative", "grouped-queries"])
def test_models_learn_by_every_attention_what_they_learn_step_by_step(kind):
    """Rows, packed rows and padded rows: PyTorch's kernel against attention with its weights."""
    helm = small.model(kind, torch.float64)
    ids = small.tokens(length=11)
    padded, labels = torch.ones_like(ids), ids.clone()
    padded[0, :3], labels[0, :4] = 0, -100
    packed = torch.arange(11).remainder(6).expand(2, -1)
    for more in ({}, {"attention_mask": padded}, {"position_ids": packed}):
        gradients = []
        for implementation in ("eager", "sdpa"):
            helm.set_attn_implementation(implementation)
            helm.zero_grad()
            helm(input_ids=ids, labels=labels, use_cache=False, **more).loss.backward()
            gradients.append([p.grad.clone() for p in helm.parameters() if p.grad is not None])
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)
