"""What forward takes: the cache under both of its names, and no keyword that it does not read."""

import pytest
import torch
from transformers import DynamicCache

from geodapt.errors import InputError
from geodapt.helm import HelmForSequenceClassification
from tests.helm import small

IDS = small.tokens()


@torch.no_grad()
@pytest.mark.parametrize("name", ["cache", "past_key_values"])
@pytest.mark.parametrize("kind", ["mha", "mla", "relative", "mixed"])
def test_a_cache_under_either_name(kind, name):
    helm = small.talker(kind)
    for model, result in ((helm, "logits"), (helm.model, "last_hidden_state")):
        full = model(IDS, use_cache=False)[result]
        cache = DynamicCache(config=helm.config)
        for part in IDS.split([6, 1, 2], dim=1):
            out = model(part, **{name: cache})
            assert out.past_key_values is cache
            torch.testing.assert_close(
                out[result][:, -1], full[:, cache.get_seq_length() - 1], rtol=1e-3, atol=1e-3
            )


@torch.no_grad()
def test_a_cache_by_position_is_the_fourth_argument():
    helm = small.model()
    cache = helm(IDS[:, :5], use_cache=True).past_key_values
    got = helm(IDS[:, 5:], None, None, cache).logits
    torch.testing.assert_close(got, helm(IDS).logits[:, 5:], rtol=1e-3, atol=2e-4)


def test_two_caches_are_refused():
    helm = small.model()
    one, two = DynamicCache(config=helm.config), DynamicCache(config=helm.config)
    with pytest.raises(TypeError, match="both 'cache' and 'past_key_values'"):
        helm(IDS, cache=one, past_key_values=two)


@pytest.mark.parametrize("name", ["caches", "token_type_ids", "head_mask", "is_causal"])
def test_an_unknown_keyword_is_refused_by_name(name):
    helm = small.model()
    classifier = HelmForSequenceClassification(small.config(num_labels=2))
    for model in (helm, helm.model, classifier):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            model(IDS, **{name: torch.ones(1)})
    torch.testing.assert_close(helm(IDS, **{name: None}).logits, helm(IDS).logits)


def test_what_trainers_pass():
    helm = small.model("mixed").train()
    whole = helm(IDS, labels=IDS)
    counted = helm(IDS, labels=IDS, num_items_in_batch=torch.tensor(2 * 16))
    aux = helm.config.router_aux_loss_coef * whole.aux_loss
    torch.testing.assert_close(counted.loss - aux, (whole.loss - aux) / 2)
    ahead = torch.nn.functional.pad(IDS[:, 1:], (0, 1), value=-100)
    torch.testing.assert_close(helm(IDS, shift_labels=ahead).loss, whole.loss)
    assert whole.router_logits is not None
    assert helm(IDS, output_router_logits=False).router_logits is None
    classifier = HelmForSequenceClassification(small.config(num_labels=2))
    classifier(IDS, labels=torch.tensor([0, 1]), num_items_in_batch=torch.tensor(2)).loss.backward()


def test_packing_that_attention_would_not_see_is_refused():
    helm = small.model()
    starts = torch.tensor([0, 4, 9], dtype=torch.int32)
    with pytest.raises(InputError, match="position_ids that start again at 0"):
        helm(IDS[:1], cu_seq_lens_q=starts, cu_seq_lens_k=starts)
    positions = torch.cat([torch.arange(4), torch.arange(5)]).unsqueeze(0)
    got = helm(IDS[:1], position_ids=positions, cu_seq_lens_q=starts, cu_seq_lens_k=starts).logits
    apart = torch.cat([helm(IDS[:1, :4]).logits, helm(IDS[:1, 4:]).logits], dim=1)
    torch.testing.assert_close(got, apart, rtol=1e-3, atol=2e-4)


def test_a_cache_under_gradient_checkpointing_is_refused():
    helm = small.model().train()
    helm.gradient_checkpointing_enable()
    with pytest.raises(InputError, match="gradient checkpointing"):
        helm(IDS, cache=DynamicCache(config=helm.config))
    assert helm(IDS, use_cache=True).past_key_values is None
