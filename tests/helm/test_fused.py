"""The written-out gradients are those of the formulas, also in bfloat16's wide scalars."""

import pytest
import torch

from geodapt.helm import fused
from geodapt.helm.grouped import add_times


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def rotation(n, pairs):
    angle = torch.randn(1, n, pairs, dtype=torch.float64)
    return angle.cos(), angle.sin()


def calls():
    """Each function's inputs, and how it is called."""
    turned = rotation(3, 2)
    expert = torch.tensor([0, 0, 1, 1])
    return {
        "square": (fused.square, draw(3, 4)),
        "scale": (fused.scale, draw(3, 4), draw(3)),
        "weighted_sum": (fused.weighted_sum, draw(3, 4), draw(3, 4), draw()),
        "rms_norm": (lambda x, w: fused.rms_norm(x, w, 1e-6), draw(3, 4), draw(4)),
        "product": (fused.product, draw(3, 4), draw(3, 4)),
        "add_time": (fused.add_time, draw(2, 3, 4), draw(2, 3), draw(4)),
        "add_times": (
            lambda y, t, w: add_times(y * 1, t, expert, w),
            draw(4, 3),
            draw(4),
            draw(2, 3),
        ),
        "whole": (
            lambda x, t, f: fused.whole(x, t, turned, f),
            draw(1, 3, 2, 5),
            draw(1, 3, 2),
            draw(),
        ),
        "whole_unturned": (lambda x, t: fused.whole(x, t, None), draw(1, 3, 2, 5), draw(1, 3, 2)),
        "split_sums": (fused.split_sums, draw(3, 4)),
    }


@pytest.mark.parametrize("name", calls())
def test_gradients(name):
    function, *inputs = calls()[name]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("name", calls())
def test_values_and_gradients_are_those_of_the_plain_formula(name, monkeypatch):
    """The formula that the compiler sees, and that runs where no gradient is asked for."""
    function, *inputs = calls()[name]

    def outputs_and_gradients():
        out = function(*inputs)
        out = out if isinstance(out, tuple) else (out,)
        total = sum((o * o.detach().cos()).sum() for o in out)
        return *out, *torch.autograd.grad(total, inputs)

    ours = outputs_and_gradients()
    with torch.no_grad():
        plain = function(*inputs)
    plain = plain if isinstance(plain, tuple) else (plain,)
    for a, b in zip(plain, ours[: len(plain)], strict=True):
        torch.testing.assert_close(a, b)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for a, b in zip(ours, outputs_and_gradients(), strict=True):
        torch.testing.assert_close(a, b)


def test_bfloat16_scalars_are_float32():
    x = torch.randn(5, 64).bfloat16().requires_grad_()
    square = fused.square(x)
    torch.testing.assert_close(square, x.detach().float().square().sum(-1))
    square.sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())
    h, h2 = fused.rms_norm(x, torch.ones(64).bfloat16(), 1e-6)
    assert h.dtype == torch.bfloat16
    torch.testing.assert_close(h2, torch.full((5,), 64.0), rtol=1e-2, atol=0)
