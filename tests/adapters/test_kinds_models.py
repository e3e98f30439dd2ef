"""Adapters beside models: of transformers 4, of a resized vocabulary, quantized, changed, new."""

import copy
import dataclasses
import json
import warnings

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

from geodapt.adapters import Adapter, AdapterBank, Mix, Off, Route
from geodapt.adapters.base_model.sites import site_of
from geodapt.adapters.store.base_weights import row_scale
from geodapt.errors import InputError, InputWarning
from tests.adapters.kinds import (
    bert,
    deepseek,
    gpt2,
    gpt_oss,
    inputs,
    llama,
    mixtral,
    qwen,
    saved,
    seeded,
    tied_llama,
)
from tests.adapters.made_by_peft import output

UP, DOWN = (16, 24), (24, 16)
OLDER = {  # what transformers 4 had: the experts' layers, and others that have the same names
    "Mixtral": (
        mixtral,
        "model.layers.0.block_sparse_moe.experts",
        {"w1": UP, "w3": UP, "w2": DOWN},
        {"model.layers.0.self_attn.q_proj": (16, 16)},
    ),
    "Qwen3": (
        qwen,
        "model.layers.0.mlp.experts",
        {"gate_proj": UP, "up_proj": UP, "down_proj": DOWN},
        {},
    ),
    "DeepSeek": (
        deepseek,
        "model.layers.1.mlp.experts",
        {"gate_proj": UP, "up_proj": UP, "down_proj": DOWN},
        {
            "model.layers.0.mlp.down_proj": DOWN,
            "model.layers.1.mlp.shared_experts.up_proj": UP,
            "model.layers.1.mlp.shared_experts.down_proj": DOWN,
        },
    ),
}


def older(folder, experts, layers, others, count):
    """An adapter folder that names each expert's layers; returns the updates by layer."""
    generator, tensors, deltas = torch.Generator().manual_seed(0), {}, {}
    everything = {
        f"{experts}.{e}.{name}": shape for e in range(count) for name, shape in layers.items()
    }
    for path, (width, out) in (everything | others).items():
        A = torch.randn(2, width, generator=generator) * 0.3
        B = torch.randn(out, 2, generator=generator) * 0.3
        tensors[f"base_model.model.{path}.lora_A.weight"] = A
        tensors[f"base_model.model.{path}.lora_B.weight"] = B
        deltas[path] = 3 * B @ A
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    names = sorted({path.rpartition(".")[2] for path in deltas})
    config = LoraConfig(r=2, lora_alpha=6, task_type="CAUSAL_LM").to_dict()
    config |= {"target_modules": names, "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return deltas


@pytest.mark.parametrize("name", OLDER)
def test_experts_of_transformers_4_act_on_fused_ones(name, tmp_path):
    """Against the updates added to the experts' weights by hand."""
    build, experts, layers, others = OLDER[name]
    wanted = seeded(build)
    parameters = dict(wanted.named_parameters())
    fused = experts.replace("block_sparse_moe", "mlp")
    up = parameters[f"{fused}.gate_up_proj"].data
    deltas = older(tmp_path / "a", experts, layers, others, len(up))
    first, second, third = layers
    for e in range(len(up)):
        of = f"{experts}.{e}"
        up[e] += torch.cat([deltas[f"{of}.{first}"], deltas[f"{of}.{second}"]])
        parameters[f"{fused}.down_proj"].data[e] += deltas[f"{of}.{third}"]
    for path in others:
        parameters[f"{path}.weight"].data += deltas[path]
    bank = AdapterBank(seeded(build))
    bank.load("a", tmp_path / "a")
    batch = inputs(build)
    with bank.use(Mix({"a": 1.0})):
        found = output(bank.model, batch)
    torch.testing.assert_close(found, output(wanted, batch), atol=2e-5, rtol=2e-5)


def test_half_of_a_fused_parameter_is_refused(tmp_path):
    _, experts, layers, _ = OLDER["Mixtral"]
    older(tmp_path / "a", experts, {"w1": layers["w1"], "w2": layers["w2"]}, {}, 3)
    with pytest.raises(InputError, match="w1 without also targeting w3"):
        AdapterBank(seeded(mixtral)).load("a", tmp_path / "a")


@pytest.mark.parametrize("build", [mixtral, qwen, deepseek, gpt_oss, llama, bert])
def test_all_linear_is_what_peft_makes_of_it(build, tmp_path):
    wanted = get_peft_model(seeded(build), LoraConfig(r=2, target_modules="all-linear"))
    wanted.save_pretrained(tmp_path / "peft")
    bank = AdapterBank(seeded(build))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        bank.create("new", rank=2)
    said = [str(w.message) for w in said if w.category is InputWarning]
    theirs = Adapter.from_pretrained(tmp_path / "peft")
    assert {p: f.rank for p, f in bank["new"].factors.items()} == {
        p: f.rank for p, f in theirs.factors.items()
    }
    if build is gpt_oss:
        assert "leaves out experts.down_proj, experts.gate_up_proj of GptOss" in said[0]
    elif build is deepseek:
        assert "shared_experts.down_proj" in said[0]
    else:
        assert not said


def test_experts_train(tmp_path):
    bank = AdapterBank(seeded(qwen))
    bank.create("a", rank=2, targets=["q_proj", "experts.gate_up_proj", "experts.down_proj"])
    bank.train_only("a")
    optimizer = torch.optim.SGD(bank.parameters_of("a"), lr=1.0)
    batch = inputs(qwen)
    with bank.use(Mix({"a": 1.0})):
        start = bank(**batch, labels=batch["input_ids"]).loss
        for _ in range(5):
            optimizer.zero_grad()
            bank(**batch, labels=batch["input_ids"]).loss.backward()
            optimizer.step()
        end = bank(**batch, labels=batch["input_ids"]).loss
        trained = output(bank.model, batch)
    assert end < start - 0.01
    bank.save("a", tmp_path / "a")
    again = PeftModel.from_pretrained(seeded(qwen), tmp_path / "a").eval()
    torch.testing.assert_close(output(again, batch), trained, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match=r"dropout 0\.1 cannot act on experts"):
        AdapterBank(seeded(qwen)).create("b", targets=["experts.down_proj"], dropout=0.1)


@pytest.mark.parametrize("build", [llama, tied_llama])
def test_embeddings_train_as_in_peft(build, tmp_path):
    bank = AdapterBank(seeded(build))
    bank.create("a", rank=2, targets=["embed_tokens", "lm_head"])
    batch = inputs(build)
    with bank.use(Mix({"a": 1.0})):  # changes nothing yet
        torch.testing.assert_close(output(bank.model, batch), output(seeded(build), batch))
    bank.train_only("a")
    bank.set(Mix({"a": 1.0}))
    bank(**batch, labels=batch["input_ids"]).loss.backward()
    gradients = [p.grad.abs().sum() for p in bank.parameters_of("a")]
    assert sum(g > 0 for g in gradients) == 2  # the A of the embedding, the B of the head
    for p in bank.parameters_of("a"):
        p.data -= p.grad
    bank.save("a", tmp_path / "a")
    again = PeftModel.from_pretrained(seeded(build), tmp_path / "a").eval()
    torch.testing.assert_close(output(again, batch), output(bank.model, batch))


@pytest.mark.parametrize(("build", "target"), [(llama, "lm_head"), (tied_llama, "embed_tokens")])
def test_a_resized_vocabulary_is_refused_with_what_to_do(build, target, tmp_path):
    model = seeded(build)
    model.resize_token_embeddings(64, mean_resizing=False)
    peft = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", target])).eval()
    peft.save_pretrained(tmp_path / "a")
    with pytest.raises(InputError, match=r"is \(64, 16\), here it is \(60, 16\).*Resize"):
        AdapterBank(seeded(build)).load("a", tmp_path / "a")
    base = seeded(build)
    torch.manual_seed(9)
    base.resize_token_embeddings(64, mean_resizing=False)
    if not any("embed_tokens" in key for key in Adapter.from_pretrained(tmp_path / "a").copies):
        base.model.embed_tokens.weight.data = model.get_input_embeddings().weight.data.clone()
    with pytest.raises(InputError, match=r"differs from this base's.*load_state_dict"):
        AdapterBank(base).load("a", tmp_path / "a")
    base.load_state_dict(Adapter.from_pretrained(tmp_path / "a").copies, strict=False)
    bank, batch = AdapterBank(base), inputs(build)
    bank.load("a", tmp_path / "a")
    with bank.use(Mix({"a": 1.0})):
        torch.testing.assert_close(output(base, batch), output(peft, batch))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_copies_are_compared_within_the_rounding_of_their_type(dtype, tmp_path):
    folder = saved(tmp_path / "a", llama, target_modules=["lm_head"])
    AdapterBank(seeded(llama).to(dtype)).load("a", folder)
    adapter = Adapter.from_pretrained(folder)
    rounded = {name: copy.to(dtype) for name, copy in adapter.copies.items()}
    AdapterBank(seeded(llama)).add("a", dataclasses.replace(adapter, copies=rounded))


def test_position_embeddings_are_refused(tmp_path):
    """They are looked up by more than what is handed to them, or shared by all rows."""
    from transformers import OPTConfig, OPTModel

    def opt():
        return OPTModel(
            OPTConfig(
                vocab_size=60,
                hidden_size=16,
                num_hidden_layers=1,
                ffn_dim=24,
                num_attention_heads=2,
                max_position_embeddings=32,
                word_embed_proj_dim=16,
            )
        )

    folder = saved(tmp_path / "a", opt, target_modules=["embed_positions"])
    with pytest.raises(InputError, match="OPTLearnedPositionalEmbedding, which does more than"):
        AdapterBank(seeded(opt)).load("a", folder)


@pytest.mark.parametrize(("build", "target"), [(llama, "q_proj"), (bert, "query")])
def test_dora_follows_a_weight_that_changes(build, target, tmp_path):
    """Changed in any way: the lengths of the rows are those of the weight as it is."""
    folder = saved(tmp_path / "a", build, target_modules=[target], use_dora=True)
    bank, batch = AdapterBank(seeded(build)), inputs(build)
    bank.load("a", folder)
    layer = next(m for p, m in bank.model.named_modules() if p.endswith(target))
    with bank.use(Mix({"a": 1.0})):
        output(bank.model, batch)
        layer.weight.data[0] *= 3.0
        layer.weight.data[1, 1] += 0.5
        found = output(bank.model, batch)
    changed = seeded(build)
    same = next(m for p, m in changed.named_modules() if p.endswith(target))
    same.weight.data.copy_(layer.weight)
    wanted = PeftModel.from_pretrained(changed, folder).eval()
    torch.testing.assert_close(found, output(wanted, batch), atol=1e-5, rtol=1e-5)


def test_the_scale_of_rows_is_that_of_the_definition(monkeypatch):
    monkeypatch.setattr("geodapt.adapters.store.base_weights.CHUNK", 100)  # several pieces
    torch.manual_seed(0)
    for layer in (torch.nn.Linear(24, 40), gpt2().transformer.h[0].mlp.c_fc):
        site = site_of(layer)
        A, B = torch.randn(3, site.in_features), torch.randn(site.out_features, 3)
        magnitude = torch.rand(site.out_features)
        from geodapt.adapters import Factors

        weight = site.matrix(layer.weight).double()
        wanted = magnitude.double() / (weight + 0.7 * B.double() @ A.double()).norm(dim=1)
        found = row_scale(site, layer.weight, Factors(A, B, 0.7), magnitude)
        torch.testing.assert_close(found.double(), wanted, atol=1e-6, rtol=1e-6)


def test_dora_on_a_quantized_base(tmp_path):
    pytest.importorskip("torchao")
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    folder = saved(tmp_path / "a", bert, target_modules=["query", "value"], use_dora=True)
    base = seeded(bert)
    quantize_(base, Int8WeightOnlyConfig())
    bank, batch = AdapterBank(base), inputs(bert)
    bank.load("a", folder)
    dense = seeded(bert)
    for (_, module), (_, other) in zip(dense.named_modules(), base.named_modules(), strict=True):
        if isinstance(module, torch.nn.Linear):
            module.weight.data = other.weight.dequantize().data
    wanted = PeftModel.from_pretrained(dense, folder).eval()
    with bank.use(Route(["a", "a", None])):
        found = output(base, batch)
    with bank.use(Off()):
        plain = output(base, batch)
    torch.testing.assert_close(found[:2], output(wanted, batch)[:2], atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(found[2], plain[2])
    with pytest.raises(InputError, match="is quantized"):
        bank.merge_into_base({"a": 1.0})


def test_dora_does_not_train_here(tmp_path):
    bank = AdapterBank(seeded(llama))
    bank.load("a", saved(tmp_path / "a", llama, target_modules=["q_proj"], use_dora=True))
    with pytest.raises(InputError, match="the bank runs and does not train"):
        bank.train_only("a")


def test_plain_adapters_beside_dora_where_it_has_no_layers(tmp_path):
    bank = AdapterBank(seeded(llama))
    bank.load("a", saved(tmp_path / "a", llama, target_modules=["q_proj"], use_dora=True))
    bank.load("b", saved(tmp_path / "b", llama, target_modules=["down_proj"]))
    batch = inputs(llama)
    with bank.use(Mix({"a": 1.0, "b": 0.5})):
        found = output(bank.model, batch)
    wanted = PeftModel.from_pretrained(seeded(llama), tmp_path / "a", adapter_name="a")
    wanted.load_adapter(tmp_path / "b", "b")
    wanted.base_model.set_adapter(["a", "b"])
    wanted.base_model.model.model.layers[0].mlp.down_proj.scaling["b"] *= 0.5
    torch.testing.assert_close(found, output(wanted.eval(), batch), atol=1e-5, rtol=1e-5)


class Scaled(torch.nn.Linear):
    """More than its weight."""

    def forward(self, x):
        return super().forward(x) * 2


class Standardised(torch.nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


def test_a_layer_that_does_more_with_its_weight_is_not_merged_into(tmp_path):
    """A gate adds to its output, as PEFT does, and merging would add something else."""

    def build():
        return torch.nn.Sequential(Scaled(8, 8)).eval()

    bank = AdapterBank(seeded(build))
    bank.load("a", saved(tmp_path / "a", build, target_modules=["0"]))
    peft = PeftModel.from_pretrained(seeded(build), tmp_path / "a").eval()
    x = torch.randn(2, 8)
    with bank.use(Mix({"a": 1.0})):
        torch.testing.assert_close(bank.model(x), peft(x))
    with pytest.raises(InputError, match="does more with its weight than a plain layer"):
        bank.merge_into_base({"a": 1.0})


CONVOLUTIONS = {
    "dilated": lambda: torch.nn.Conv1d(4, 4, 3, dilation=2),
    "reflected": lambda: torch.nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    "standardised": lambda: Standardised(3, 4, 3),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_whose_factors_are_no_update_are_refused(name, tmp_path):
    def build():
        return torch.nn.Sequential(CONVOLUTIONS[name]()).eval()

    with pytest.raises(InputError, match="convolution"):
        AdapterBank(seeded(build)).load("a", saved(tmp_path / "a", build, target_modules=["0"]))


@pytest.mark.parametrize(
    "layer",
    [
        torch.nn.Conv1d(3, 4, 3, padding=2, stride=2),
        torch.nn.Conv2d(3, 4, (3, 2), padding="same"),
        torch.nn.Conv2d(3, 4, 3, padding=(1, 2), stride=(1, 2), bias=False),
        torch.nn.Conv3d(3, 4, 2, stride=2),
    ],
)
@pytest.mark.parametrize("dora", [False, True])
def test_convolutions_of_every_shape_equal_peft(layer, dora, tmp_path):
    def build():
        return torch.nn.Sequential(copy.deepcopy(layer)).eval()

    bank = AdapterBank(build())
    bank.load("a", saved(tmp_path / "a", build, target_modules=["0"], use_dora=dora))
    peft = PeftModel.from_pretrained(build(), tmp_path / "a").eval()
    x = torch.randn(3, 3, *(7 for _ in layer.kernel_size))
    with bank.use(Route([None, "a", "a"])):
        found = bank.model(x)
    torch.testing.assert_close(found[1:], peft(x)[1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[0], layer(x)[0])
    bank.merge_into_base({"a": 1.0})
    torch.testing.assert_close(bank.model(x), peft(x), atol=1e-5, rtol=1e-5)
