"""Caches, masks and generation: every way to the same logits."""

import pytest
import torch
from transformers import DynamicCache, StaticCache

from geodapt.helm.latent_attention import HelmLatentAttention
from tests.helm import small

CLOSE = {"rtol": 1e-3, "atol": 2e-4}


@torch.no_grad()
def in_pieces(helm, ids, sizes, cache):
    out = []
    for part in ids.split(sizes, dim=1):
        out.append(helm(part, cache=cache, use_cache=True).logits)
    return torch.cat(out, dim=1)


@pytest.mark.parametrize("kind", small.MAIN)
def test_cached_equals_uncached(kind):
    helm, ids = small.model(kind), small.tokens(length=12)
    full = helm(ids).logits
    one_by_one = in_pieces(helm, ids, [5] + 7 * [1], DynamicCache(config=helm.config))
    torch.testing.assert_close(one_by_one, full, **CLOSE)
    chunks = in_pieces(helm, ids, [6, 2, 4], DynamicCache(config=helm.config))
    torch.testing.assert_close(chunks, full, **CLOSE)
    static = in_pieces(helm, ids, [5] + 7 * [1], StaticCache(helm.config, max_cache_len=16))
    torch.testing.assert_close(static, full, **CLOSE)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["mla", "mla-query-latent", "mla-relative"])
def test_absorbed_equals_rebuilt(kind, implementation, monkeypatch):
    helm, ids = small.model(kind), small.tokens(length=12)
    helm.set_attn_implementation(implementation)
    taken = []
    decode = HelmLatentAttention._decode
    monkeypatch.setattr(
        HelmLatentAttention, "_decode", lambda *a, **k: taken.append(1) or decode(*a, **k)
    )
    absorbed = in_pieces(helm, ids, [8, 1, 2, 1], DynamicCache(config=helm.config))
    assert len(taken) == 3 * helm.config.num_hidden_layers
    monkeypatch.setattr(HelmLatentAttention, "_absorbs", lambda *a: False)
    rebuilt = in_pieces(helm, ids, [8, 1, 2, 1], DynamicCache(config=helm.config))
    assert len(taken) == 3 * helm.config.num_hidden_layers
    torch.testing.assert_close(absorbed, rebuilt, **CLOSE)


def test_latent_cache_holds_what_the_formula_says():
    helm, ids = small.model("mla"), small.tokens(rows=3, length=7)
    cache = helm(ids, use_cache=True).past_key_values
    config = helm.config
    a_token = config.kv_lora_rank + config.qk_rope_head_dim + 2 * config.num_attention_heads
    for layer in cache.layers:
        assert layer.keys.numel() + layer.values.numel() == 3 * 7 * a_token


@pytest.mark.parametrize("kind", small.MAIN)
def test_left_padding_equals_single_rows(kind):
    helm, ids = small.model(kind), small.tokens(rows=1, length=9)
    short = ids[:, 4:]
    rows = torch.cat([ids, torch.cat([torch.zeros_like(ids[:, :4]), short], dim=1)])
    mask = (rows != 0).long()
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    batch = helm(rows, attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(batch[:1], helm(ids).logits, **CLOSE)
    torch.testing.assert_close(batch[1:, 4:], helm(short).logits, **CLOSE)


@pytest.mark.parametrize("kind", ["mha", "mla", "relative", "mice"])
@pytest.mark.parametrize("cached", [False, True])
def test_packed_equals_separate(kind, cached):
    helm = small.model(kind)
    first, second = small.tokens(rows=1, length=5), small.tokens(rows=1, length=7)
    packed = torch.cat([first, second], dim=1)
    positions = torch.cat([torch.arange(5), torch.arange(7)]).unsqueeze(0)
    together = helm(packed, position_ids=positions, use_cache=cached).logits
    separate = torch.cat([helm(first).logits, helm(second).logits], dim=1)
    torch.testing.assert_close(together, separate, **CLOSE)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kind", ["mha", "mla"])
def test_compiled_decoding_with_a_static_cache(kind):
    helm, ids = small.model(kind, num_hidden_layers=1), small.tokens(length=8)
    full = helm(ids).logits
    cache = StaticCache(helm.config, max_cache_len=12)
    helm(ids[:, :4], cache=cache, use_cache=True)
    torch._dynamo.reset()
    step = torch.compile(helm, fullgraph=True, backend="aot_eager")
    for i in range(4, 8):
        got = step(input_ids=ids[:, i : i + 1], cache=cache, use_cache=True).logits
        torch.testing.assert_close(got[:, -1], full[:, i], **CLOSE)
