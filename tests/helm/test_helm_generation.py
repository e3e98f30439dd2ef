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
        out.append(helm(part, past_key_values=cache, use_cache=True).logits)
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
    kwargs = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    together = helm.generate(rows, attention_mask=mask, **kwargs)
    assert together[0].tolist() == helm.generate(ids, **kwargs)[0].tolist()
    assert together[1, 4:].tolist() == helm.generate(short, **kwargs)[0].tolist()


@pytest.mark.parametrize("kind", ["mha", "mla", "relative", "mice"])
def test_packed_equals_separate(kind):
    helm = small.model(kind)
    first, second = small.tokens(rows=1, length=5), small.tokens(rows=1, length=7)
    packed = torch.cat([first, second], dim=1)
    positions = torch.cat([torch.arange(5), torch.arange(7)]).unsqueeze(0)
    together = helm(packed, position_ids=positions, use_cache=False).logits
    separate = torch.cat([helm(first).logits, helm(second).logits], dim=1)
    torch.testing.assert_close(together, separate, **CLOSE)


@pytest.mark.parametrize("kind", ["mha", "mla", "mixed"])
def test_generation(kind):
    helm, ids = small.model(kind), small.tokens(rows=2, length=5)
    kwargs = {"max_new_tokens": 6, "eos_token_id": None, "attention_mask": torch.ones_like(ids)}
    expected = ids
    for _ in range(6):
        best = helm(expected, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat([expected, best], dim=1)
    assert helm.generate(ids, do_sample=False, **kwargs).tolist() == expected.tolist()
    static = helm.generate(ids, do_sample=False, cache_implementation="static", **kwargs)
    assert static.tolist() == expected.tolist()
    beams = helm.generate(ids, num_beams=3, do_sample=False, **kwargs)
    assert log_likelihood(helm, beams).ge(log_likelihood(helm, expected) - 1e-3).all()
    assert helm.generate(ids, do_sample=True, top_k=5, **kwargs).shape == (2, 11)


def log_likelihood(helm, ids) -> torch.Tensor:
    """Of the last 6 tokens of each row."""
    logs = helm(ids, use_cache=False).logits[:, :-1].log_softmax(-1)
    return logs.gather(-1, ids[:, 1:, None]).squeeze(-1)[:, -6:].sum(-1)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mha", "mla"])
def test_compiled_decoding_with_a_static_cache(kind):
    helm, ids = small.model(kind, num_hidden_layers=1), small.tokens(length=8)
    full = helm(ids).logits
    cache = StaticCache(helm.config, max_cache_len=12)
    helm(ids[:, :4], past_key_values=cache, use_cache=True)
    torch._dynamo.reset()
    step = torch.compile(helm, fullgraph=True, backend="aot_eager")
    for i in range(4, 8):
        got = step(input_ids=ids[:, i : i + 1], past_key_values=cache, use_cache=True).logits
        torch.testing.assert_close(got[:, -1], full[:, i], **CLOSE)
