"""The integrator against its formula, written with loops in float64."""

import pytest
import torch

from geodapt.xcross.integrator import Integrator
from geodapt.xcross.settings import IntegratorSettings
from tests.xcross.naive import integrate


@pytest.mark.parametrize("streams", [2, 3, 4])
@pytest.mark.parametrize(
    "changed",
    [{}, {"terms": "direct"}, {"terms": "interaction"}, {"dynamic": False},
     {"scale": "sqrt_width"}, {"scale": "none"}, {"beta": 0.3, "gamma": -0.7}],
    ids=str,
)  # fmt: skip
def test_equals_the_formula(streams, changed):
    settings = IntegratorSettings(**changed)
    integrator = Integrator(streams, 8, settings)
    torch.nn.init.normal_(integrator.weight)
    h = torch.randn(streams, 2, 5, 8)
    expected = integrate(h.double(), integrator.weight.double(), settings)
    torch.testing.assert_close(integrator(h), expected.float(), rtol=1e-5, atol=1e-5)


def test_starts_as_the_identity():
    h = torch.randn(3, 2, 5, 8)
    assert torch.equal(Integrator(3, 8, IntegratorSettings())(h), h)


def test_without_strength_the_streams_are_left_alone():
    integrator = Integrator(3, 8, IntegratorSettings(beta=0, gamma=0))
    torch.nn.init.normal_(integrator.weight)
    h = torch.randn(3, 2, 5, 8)
    assert torch.equal(integrator(h), h)


def test_the_scale_of_the_input_does_not_change_z():
    integrator = Integrator(3, 8, IntegratorSettings())
    torch.nn.init.normal_(integrator.weight)
    h = torch.randn(3, 2, 5, 8)
    for small, large in zip(integrator.terms(h), integrator.terms(1000 * h), strict=True):
        torch.testing.assert_close(small, large)


def test_a_zero_token_is_finite():
    integrator = Integrator(2, 4, IntegratorSettings())
    torch.nn.init.normal_(integrator.weight)
    h = torch.zeros(2, 1, 1, 4, requires_grad=True)
    integrator(h).sum().backward()
    assert torch.isfinite(h.grad).all()
    assert torch.isfinite(integrator.weight.grad).all()


def test_gradients_equal_the_formula():
    settings = IntegratorSettings()
    integrator = Integrator(3, 4, settings).double()
    torch.nn.init.normal_(integrator.weight)
    h = torch.randn(3, 1, 2, 4, dtype=torch.float64, requires_grad=True)

    def fused(h, weight):
        return torch.func.functional_call(integrator, {"weight": weight}, (h,)).square().sum()

    ours = torch.autograd.grad(fused(h, integrator.weight), [h, integrator.weight])
    theirs = torch.autograd.grad(
        integrate(h, integrator.weight, settings).square().sum(), [h, integrator.weight]
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
