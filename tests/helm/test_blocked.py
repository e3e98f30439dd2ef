"""Attention in blocks of queries is attention, and keeps out where it cannot be."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from geodapt.helm import blocked
from tests.helm import small


def draw(n, heads=3, size=6, value=4, rows=2):
    """Queries, keys and values as layers make them, tokens before heads."""
    shapes = ((rows, n, heads, size), (rows, n, heads, size), (rows, n, heads, value))
    return [torch.randn(s, dtype=torch.float64).transpose(1, 2).requires_grad_() for s in shapes]


@pytest.mark.parametrize("compiling", [False, True])
@pytest.mark.parametrize("n", [129, 256, 300])
def test_values_and_gradients_are_those_of_whole_attention(n, compiling, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    q, k, v = draw(n)
    found = blocked.causal_attention(q, k, v)
    wanted = scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0).transpose(1, 2)
    torch.testing.assert_close(found, wanted)
    slope = torch.randn_like(wanted)
    gradients = torch.autograd.grad(found, (q, k, v), slope)
    torch.testing.assert_close(gradients, torch.autograd.grad(wanted, (q, k, v), slope))


def test_gradients_of_gradients():
    def penalty(attention):
        torch.manual_seed(0)
        q, k, v = (torch.randn(1, 1, 150, 4).double().requires_grad_() for _ in "qkv")
        (slope,) = torch.autograd.grad(attention(q, k, v).sin().sum(), k, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (q, k, v))

    def whole(q, k, v):
        later = torch.ones(150, 150, dtype=torch.bool).triu(1)
        scores = (q @ k.mT).masked_fill(later, -torch.inf)
        return (scores.softmax(-1) @ v).transpose(1, 2)

    torch.testing.assert_close(penalty(blocked.causal_attention), penalty(whole))


def test_where_it_suits():
    q, k, _ = draw(200)
    assert blocked.suits(q, k, None)
    assert not blocked.suits(q, k, torch.ones(200, 200, dtype=torch.bool))
    assert not blocked.suits(q, k[:, :1], None)  # keys that heads share
    assert not blocked.suits(q[:, :, :1], k, None)  # a step after others
    assert not blocked.suits(*draw(blocked.BLOCK)[:2], None)
    assert not blocked.suits(*draw(blocked.LONGEST + 1, 1, 1)[:2], None)
    assert not blocked.suits(q.bfloat16(), k.bfloat16(), None)
    with torch.no_grad():
        assert not blocked.suits(q, k, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not blocked.suits(q, k, None)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", ["mha", "mla", "mice", "relative", "grouped-queries"])
def test_models_learn_from_blocks_what_they_learn_from_whole_rows(kind, compiled, monkeypatch):
    """Rows, packed rows and padded rows."""
    monkeypatch.setattr(blocked, "BLOCK", 4)
    helm = small.model(kind, torch.float64)
    torch._dynamo.reset()
    ids = small.tokens(length=11)
    padded, labels = torch.ones_like(ids), ids.clone()
    padded[0, :3], labels[0, :4] = 0, -100
    packed = torch.arange(11).remainder(6).expand(2, -1)
    run = torch.compile(helm, backend="aot_eager") if compiled else helm
    for more in ({}, {"attention_mask": padded}, {"position_ids": packed}):
        gradients = []
        for implementation, model in (("eager", helm), ("sdpa", run)):
            helm.set_attn_implementation(implementation)
            helm.zero_grad()
            model(input_ids=ids, labels=labels, use_cache=False, **more).loss.backward()
            gradients.append([p.grad.clone() for p in helm.parameters() if p.grad is not None])
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)
