"""Adapters on a HELM: in prompts and in cached decoding, one for all rows or one a row."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import DynamicCache

from geodapt.adapters import AdapterBank, Mix, Off, Route, TopAtoms
from geodapt.compress import compress
from geodapt.errors import InputError
from geodapt.helm.latent_attention import is_its_weight
from tests.helm import small

IDS = small.tokens(rows=3, length=9)
CLOSE = {"rtol": 1e-3, "atol": 1e-3}
KINDS = ["mha", "mla", "mla-query-latent", "mice-mha", "mixed"]
TARGETS = {"all-linear", "kv_b_proj", "o_proj"}


@torch.no_grad()
def in_steps(model, ids=IDS):
    """Logits of a prompt, of single tokens and of several at once, from one cache."""
    cache = DynamicCache(config=model.config)
    parts = ids.split([4, 1, 1, 3], dim=1)
    return torch.cat([model(input_ids=part, cache=cache).logits for part in parts], dim=1)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


def tuned(kind, targets, seed=1):
    """PEFT's model with an adapter that does something."""
    targets = targets if targets == "all-linear" else [targets]
    config = LoraConfig(r=3, lora_alpha=6, target_modules=targets)
    model = get_peft_model(small.talker(kind), config).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            draw = torch.Generator().manual_seed(seed + len(name))
            parameter.data.normal_(std=0.2, generator=draw)
    return model


def has(kind, target):
    names = {path.rsplit(".", 1)[-1] for path, _ in small.talker(kind).named_modules()}
    return target == "all-linear" or target in names


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_equals_peft_and_the_merged_base(kind, target, tmp_path):
    if not has(kind, target):
        pytest.skip("this kind has no such layer")
    peft = tuned(kind, target)
    peft.save_pretrained(tmp_path)
    whole, base = peft(input_ids=IDS).logits, small.talker(kind)(IDS).logits
    assert (whole - base).norm() > 0.05 * base.norm()
    torch.testing.assert_close(in_steps(peft), whole, **CLOSE)
    bank = AdapterBank(small.talker(kind))
    bank.load("a", tmp_path)
    with bank.use(Mix({"a": 1.0})):
        torch.testing.assert_close(bank(input_ids=IDS).logits, whole, **CLOSE)
        torch.testing.assert_close(in_steps(bank), whole, **CLOSE)
    with bank.use(Off()):
        torch.testing.assert_close(bank(input_ids=IDS).logits, base, rtol=0, atol=0)
        torch.testing.assert_close(in_steps(bank), base, **CLOSE)
    bank.merge_into_base({"a": 1.0})
    torch.testing.assert_close(bank(input_ids=IDS).logits, whole, **CLOSE)
    torch.testing.assert_close(in_steps(bank), whole, **CLOSE)
    peft.merge_adapter()
    torch.testing.assert_close(in_steps(peft), whole, **CLOSE)
    torch.testing.assert_close(in_steps(peft.unload()), whole, **CLOSE)


@pytest.mark.slow
@torch.no_grad()
def test_another_adapter_for_every_row(kind):
    bank = AdapterBank(small.talker(kind))
    for name, rank in (("a", 3), ("b", 2)):
        bank.create(name, rank=rank, targets="all-linear")
        for parameter in bank.parameters_of(name):
            parameter.normal_(std=0.2)
        bank.train_only(name)
    bank.train_only()
    alone = []
    for i, gate in enumerate((Mix({"a": 1.0}), Mix({"b": 1.0}), Off())):
        with bank.use(gate):
            alone.append(bank(input_ids=IDS[i : i + 1]).logits)
    with bank.use(Route(["a", "b", None])):
        torch.testing.assert_close(bank(input_ids=IDS).logits, torch.cat(alone), **CLOSE)
        torch.testing.assert_close(in_steps(bank), torch.cat(alone), **CLOSE)
    with bank.use(TopAtoms(2, Mix({"a": 1.0, "b": 1.0}), per="token")):
        torch.testing.assert_close(in_steps(bank), bank(input_ids=IDS).logits, **CLOSE)


def test_trains_in_a_bank(kind):
    bank = AdapterBank(small.talker(kind))
    bank.create("a", rank=2, targets="all-linear")
    bank.train_only("a")
    optimizer = torch.optim.Adam(bank.parameters_of("a"), lr=0.02)
    losses = []
    with bank.use(Mix({"a": 1.0})):
        for _ in range(6):
            loss = bank(input_ids=IDS, labels=IDS).loss
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.1


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mha", "mla"])
def test_dora_acts_as_in_peft_and_is_merged_where_that_is_the_same(kind, tmp_path):
    """It rescales a Lorentz linear's output with its time, which no weight alone can do."""

    def loaded(*targets):
        config = LoraConfig(r=3, lora_alpha=6, target_modules=list(targets), use_dora=True)
        peft = get_peft_model(small.talker(kind), config).eval()
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                noise = torch.rand(parameter.shape, generator=torch.manual_seed(len(name)))
                parameter.mul_(1 + noise) if "magnitude" in name else parameter.copy_(noise - 0.5)
        peft.save_pretrained(tmp_path / targets[0])
        bank = AdapterBank(small.talker(kind))
        bank.load("a", tmp_path / targets[0])
        return bank, peft(input_ids=IDS).logits

    bank, wanted = loaded("o_proj", "down_proj")
    with bank.use(Mix({"a": 1.0})):
        torch.testing.assert_close(bank(input_ids=IDS).logits, wanted, **CLOSE)
        torch.testing.assert_close(in_steps(bank), wanted, **CLOSE)
    with pytest.raises(InputError, match=r"LorentzLinear.*through a gate"):
        bank.merge_into_base({"a": 1.0})
    bank, wanted = loaded("kv_b_proj" if kind == "mla" else "lm_head")
    bank.merge_into_base({"a": 1.0})
    torch.testing.assert_close(bank(input_ids=IDS).logits, wanted, **CLOSE)
    torch.testing.assert_close(in_steps(bank), wanted, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("int8", {}),
        ("int4", {"group": 8}),
        ("svd", {"rank": 5}),
        ("lowrank_plus_int8", {"rank": 2}),
    ],
)
@pytest.mark.parametrize("kind", ["mla", "mla-query-latent", "mice"])
def test_compressed_ones_decode(kind, method, target):
    sizes = {"hidden_size": 32, "kv_lora_rank": 16, "qk_nope_head_dim": 9, "v_head_dim": 9}
    sizes |= {"intermediate_size": 32, "moe_intermediate_size": 16}
    if kind == "mla-query-latent":
        sizes |= {"q_lora_rank": 16}
    helm = small.talker(kind, **sizes)
    before = helm(IDS).logits
    compress(helm, method, **target)
    whole = helm(IDS).logits
    assert not torch.equal(whole, before)
    torch.testing.assert_close(in_steps(helm), whole, **CLOSE)


@torch.no_grad()
def test_whatever_stands_around_the_layer_acts_in_decoding():
    """A hook, a replaced forward, a parametrization and another class."""

    def hooked(layer):
        layer.register_forward_hook(lambda module, args, out: 2 * out)

    def replaced(layer):
        forward = layer.forward
        layer.forward = lambda x: 2 * forward(x)

    def parametrized(layer):
        class Twice(nn.Module):
            def forward(self, weight):
                return 2 * weight

        nn.utils.parametrize.register_parametrization(layer, "weight", Twice())

    for change in (hooked, replaced, parametrized):
        helm = small.talker("mla")
        assert is_its_weight(helm.model.layers[0].self_attn.kv_b_proj)
        before = helm(IDS).logits
        for layer in helm.model.layers:
            change(layer.self_attn.kv_b_proj)
            assert not is_its_weight(layer.self_attn.kv_b_proj)
        whole = helm(IDS).logits
        assert not torch.allclose(whole, before, rtol=1e-2)
        torch.testing.assert_close(in_steps(helm), whole, **CLOSE)
