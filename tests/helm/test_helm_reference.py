"""The model agrees with formulas that carry explicit times, in float64; points stay points."""

import math

import pytest
import torch

from geodapt.geometry import lorentz
from geodapt.helm import HelmForCausalLM
from geodapt.helm.experts import HelmExperts
from geodapt.helm.lorentz_layers import (
    Curvature,
    HelmMLP,
    HelmRMSNorm,
    LorentzLinear,
    LorentzResidual,
    PointLinear,
    time_component,
)
from tests.helm import reference, small
from tests.helm.reference import Reference


@pytest.mark.parametrize("kind", small.KINDS)
def test_whole_model(kind):
    helm, ids = small.model(kind, torch.float64), small.tokens(rows=1)
    expected = torch.stack([Reference(helm).logits(row.tolist()) for row in ids])
    # Cosines and sines are float32 in every transformers model, whatever the weights are.
    close = 1e-6 if helm.config.position == "hope" else 1e-10
    torch.testing.assert_close(helm(ids).logits, expected, rtol=close, atol=close)


@pytest.mark.parametrize("kind", ["mha", "mla", "mixed"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations_in_float32(kind, implementation):
    helm, ids = small.model(kind), small.tokens()
    helm.set_attn_implementation(implementation)
    expected = torch.stack([Reference(helm).logits(row.tolist()) for row in ids])
    torch.testing.assert_close(helm(ids).logits.double(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["biases", "learned-curvature", "mla-query-latent", "mixed"])
def test_gradients_of_gradients(kind):
    """In the inputs and in what is written out by hand, against finite differences."""
    helm = small.model(kind, torch.float64)
    helm.set_attn_implementation("eager")  # of whose kernels this one alone has them
    ends = ("offset", "layernorm.weight", "time_weight", "_time", "gate.weight")
    weights = {n: p.detach() for n, p in helm.named_parameters() if n.endswith(ends)}

    def logits(x, *values):
        given = dict(zip(weights, values, strict=True))
        return torch.func.functional_call(helm, given, kwargs={"inputs_embeds": x}).logits

    x = torch.randn(1, 4, helm.config.hidden_size, dtype=torch.float64)
    inputs = [part.requires_grad_() for part in (x, *weights.values())]
    assert torch.autograd.gradgradcheck(logits, inputs, fast_mode=True, atol=1e-4)


@pytest.mark.parametrize("kind", ["mha", "mla", "mice", "mixed"])
def test_every_block_gives_points(kind):
    """The times that travel beside space components are those of the points they stand for."""
    helm, found = small.model(kind, torch.float64), []

    def look(name):
        def hook(module, args, output):
            c = helm.config.curvature
            if isinstance(module, HelmRMSNorm):
                found.append((*output, c))
            elif isinstance(module, HelmMLP):
                found.append((*args[:2], args[2].c))
            elif isinstance(module, LorentzLinear) and "shared_experts" not in name:
                found.append((*args, c))

        return hook

    for name, module in helm.named_modules():
        module.register_forward_hook(look(name))
    with torch.no_grad():
        helm(small.tokens())
    assert len(found) > 12
    for x, time, c in found:
        whole = torch.cat([time, x], dim=-1).flatten(0, -2)
        assert all(reference.on_manifold(p, float(c)) for p in whole)


def test_layers_one_by_one():
    torch.manual_seed(0)
    c, x, y = 0.6, torch.randn(5, 8).double(), torch.randn(5, 8).double()
    space = Curvature.of(c)
    layer = LorentzLinear(8, 6, bias=True).double()
    torch.nn.init.normal_(layer.time_weight)
    got = layer(x, time_component(x, space))
    for row, point in zip(got, x, strict=True):
        expected = reference.linear(
            reference.lift(point, c), layer.weight, layer.time_weight, layer.bias, c
        )
        torch.testing.assert_close(row, expected[1:])
    norm = HelmRMSNorm(8, 1e-6).double()
    torch.nn.init.normal_(norm.weight)
    h, time = norm(x, space)
    for i, point in enumerate(x):
        expected = reference.rms_norm(reference.lift(point, c), norm.weight, 1e-6, c)
        torch.testing.assert_close(h[i], expected[1:])
        torch.testing.assert_close(time[i, 0], expected[0])
    join = LorentzResidual().double()
    torch.nn.init.normal_(join.weight.offset)
    weight = math.exp(join.weight.offset.item())
    for i, got in enumerate(join(x, y, space)):
        expected = reference.residual(
            reference.lift(x[i], c), reference.lift(y[i], c), weight, 2.0, c
        )
        torch.testing.assert_close(got, expected[1:])
    torch.testing.assert_close(join(x, y, space), 2 * lorentz.residual(x, y, weight, c))


def test_flat_limit_of_the_residual_is_the_sum():
    x, y = torch.randn(2, 3, 8, dtype=torch.float64)
    join = LorentzResidual().double()
    torch.testing.assert_close(join(x, y, Curvature.of(1e-9)), x + y, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", ["mha", "mla-query-latent", "mice"])
def test_a_fresh_model_reads_no_times(kind):
    """A time is as long as all space components together: its weights start at 0 everywhere."""
    helm = HelmForCausalLM(small.config(**small.KINDS[kind]))
    longer, shorter = torch.full((3, 1), 9.0), torch.ones(3, 1)
    for module in helm.modules():
        x = torch.randn(3, getattr(module, "in_features", 1))
        if isinstance(module, LorentzLinear):
            assert torch.equal(module(x, longer), module(x, shorter))
        elif isinstance(module, PointLinear):
            points = [torch.cat([x[:, 1:], t], dim=-1) for t in (longer, shorter)]
            assert torch.equal(*map(module, points))
        elif isinstance(module, HelmExperts):
            assert not module.gate_up_time.any()
            assert not module.down_time.any()
