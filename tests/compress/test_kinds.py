"""Weights that are stacked, read without a call, or shared: each is the matrix it stands for."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from geodapt.adapters import AdapterBank
from geodapt.compress import compress, load, save
from geodapt.compress.compressed_tensor import Experts, dense, is_compressed
from geodapt.compress.install import examples
from geodapt.errors import InputError
from geodapt.helm import HelmConfig, HelmForCausalLM
from tests.compress import zoo
from tests.compress.zoo import made, outputs


def with_dense_weights(model, original):
    """The original, whose weights are the matrices that the compressed ones stand for."""
    reference = copy.deepcopy(original)
    for name, parameter in model.named_parameters():
        if is_compressed(parameter.data):
            path, _, own = name.rpartition(".")
            value = dense(parameter.data)
            reference.get_submodule(path)._parameters[own] = nn.Parameter(value)
    return reference


@pytest.mark.slow
@pytest.mark.parametrize("method", ["int8", "svd"])
@pytest.mark.parametrize("name", zoo.ZOO)
def test_the_model_computes_with_the_matrices_that_the_weights_stand_for(name, method, tmp_path):
    model = made(name)
    inputs = examples(model)
    report = compress(model, method, **({} if method == "int8" else {"bits_per_weight": 8}))
    found = outputs(model, inputs)
    wanted = outputs(with_dense_weights(model, made(name)), inputs)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert not torch.equal(found, outputs(made(name), inputs))
    save(model, tmp_path / "small")
    for loaded in (load(tmp_path / "small"), type(model).from_pretrained(tmp_path / "small")):
        torch.testing.assert_close(outputs(loaded, inputs), found, atol=1e-6, rtol=1e-5)
    assert report.compressed == sum(r.shape[0] * r.shape[1] for r in report.layers)
    assert report.numbers == sum(p.numel() for p in made(name).parameters())


@pytest.mark.parametrize("name", zoo.EXPERTS)
def test_fused_experts_are_compressed_and_counted(name):
    model = made(name)
    whole = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 3)
    report = compress(model, "int4", group=8)
    stacks = [p.data for p in model.parameters() if isinstance(p.data, Experts)]
    assert sum(stack.numel() for stack in stacks) == whole > 0.25 * report.numbers
    experts = [layer for layer in report.layers if layer.path[-1].isdigit()]
    assert sum(layer.shape[0] * layer.shape[1] for layer in experts) == whole
    assert f"Compressed {100 * report.compressed / report.numbers:.2f} %" in str(report)
    assert "embeddings" in str(report)


def test_an_expert_at_a_time_is_that_of_the_stack():
    model = made("gpt_oss")
    compress(model, "lowrank_plus_int4", bits_per_weight=7)
    stack = model.model.layers[0].mlp.experts.down_proj.data
    whole = stack.dequantize()
    assert stack.transposed
    assert torch.equal(stack[2], whole[2])
    assert torch.equal(stack[torch.tensor(-1)], whole[-1])
    assert torch.equal(stack[torch.tensor([1])], whole[[1]])
    assert torch.equal(stack[torch.tensor([3, 1])], whole[[3, 1]])
    assert torch.equal(copy.deepcopy(stack).dequantize(), whole)


def test_torch_modules_with_fast_paths():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    x = torch.randn(2, 5, 32)
    original = copy.deepcopy(model)
    report = compress(model, "int8")
    with torch.no_grad():
        found, wanted = model(x), with_dense_weights(model, original)(x)
        attention = model.layers[0].self_attn
        heads, _ = attention(x, x, x)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert report.left["input projections of nn.MultiheadAttention"] == 2 * 96 * 32
    assert is_compressed(attention.out_proj.weight.data)
    assert heads.isfinite().all()


def test_latent_attention_decodes_with_a_cache():
    torch.manual_seed(0)
    config = HelmConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, attention="mla", kv_lora_rank=16, qk_nope_head_dim=8,
        qk_rope_head_dim=8, v_head_dim=8,
    )  # fmt: skip
    model = HelmForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape)
    for method in ("int8", "svd"):
        small = copy.deepcopy(model)
        compress(small, method, **({} if method == "int8" else {"rank": 4}))
        ids = torch.randint(0, 99, (2, 9))
        with torch.no_grad():
            whole = small(input_ids=ids).logits[:, -1]
            past = small(input_ids=ids[:, :-1], use_cache=True).past_key_values
            step = small(input_ids=ids[:, -1:], past_key_values=past, use_cache=True).logits[:, -1]
        torch.testing.assert_close(step, whole, atol=1e-4, rtol=1e-4)


def test_shared_weights_are_left_and_said():
    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.own = (nn.Linear(16, 16) for _ in range(3))
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.own(self.two(self.one(x)))

    model = Twins()
    report = compress(model, "int8")
    assert [layer.path for layer in report.layers] == ["own"]
    assert report.left["weights that several layers share"] == 256
    assert model.one.weight is model.two.weight


def test_a_compressed_weight_is_not_changed_in_place():
    model = made("falcon")
    compress(model, "svd", rank=4)
    weight = model.transformer.h[0].mlp.dense_h_to_4h.weight
    with torch.no_grad(), pytest.raises(InputError, match="put an adapter on top"):
        weight.mul_(2)
    with torch.no_grad():
        torch.testing.assert_close(weight * 2, dense(weight.data) * 2)


@pytest.mark.parametrize("form", ["svd", "int8", "int4"])
def test_adapters_are_not_merged_into_compressed_weights(form):
    """By the bank, and, where the weight is made of parts, by PEFT."""
    model = made("falcon")
    compress(model, form, **({"rank": 4} if form == "svd" else {}))
    bank = AdapterBank(model)
    bank.create("a", rank=2, targets=["dense_h_to_4h"])
    with pytest.raises(InputError, match="is quantized, or its weight is made of others"):
        bank.merge_into_base({"a": 1.0})
    bank.close()
    if form == "svd":
        peft = get_peft_model(model, LoraConfig(target_modules=["dense_h_to_4h"]))
        with pytest.raises(InputError, match="compressed weight cannot be changed in place"):
            peft.merge_and_unload()
