"""Biases and rows of tokens beside what else a bank and a model may do."""

import warnings

import accelerate
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    XLNetConfig,
    XLNetModel,
)

from geodapt.adapters import Adapter, AdapterBank, Mix, Off, Route, merge
from geodapt.compress import compress
from geodapt.errors import InputError, InputWarning
from tests.adapters.kinds import bert, gpt2, gpt_oss, inputs, seeded, tied_llama
from tests.adapters.made_by_peft import output, randomise
from tests.tiny_models import NARROW, tiny_deberta


def xlnet():
    """Its layers get the tokens first."""
    return XLNetModel(XLNetConfig(vocab_size=60, d_model=16, n_layer=2, n_head=2, d_inner=24))


def siglip():
    """Its pooling head reads the weight and the bias of a layer."""
    sizes = {key: value for key, value in NARROW.items() if key != "vocab_size"}
    return SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=16, patch_size=8))


def convnext():
    """Its first norms have the channels first."""
    sizes = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 16}
    return ConvNextModel(ConvNextConfig(**sizes, patch_size=2, layer_scale_init_value=1.0))


def encoder():
    """PyTorch's own, which has a path that calls none of its layers."""
    layer = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 2))


def tuned(folder, build, seed=0, **config):
    model = get_peft_model(seeded(build), LoraConfig(r=2, lora_alpha=6, **config)).eval()
    randomise(model, seed)
    generator = torch.Generator().manual_seed(seed + 5)
    for name, parameter in model.named_parameters():
        if "trainable_tokens" in name or (name.endswith(".bias") and parameter.requires_grad):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = parameter.data + noise * 0.3
    model.save_pretrained(folder)
    return model


def batch_of(build):
    generator = torch.Generator().manual_seed(1)
    if build in (siglip, convnext):
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
    batch = inputs(build, rows=2)
    batch["input_ids"][:, 0] = 7
    return batch


def close(found, wanted, tolerance=2e-5):
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("build", "config"),
    [
        (
            xlnet,
            {"target_modules": ["layer_1"], "bias": "all", "trainable_token_indices": [7]},
        ),
        (siglip, {"target_modules": ["q_proj"], "bias": "all"}),
        (convnext, {"target_modules": ["pwconv1"], "bias": "all"}),
    ],
)
@torch.no_grad()
def test_rows_of_models_that_hold_them_elsewhere(build, config, tmp_path):
    model, batch = tuned(tmp_path / "a", build, **config), batch_of(build)
    bank = AdapterBank(seeded(build))
    bank.load("a", tmp_path / "a")
    key = "pooler_output" if build is siglip else "last_hidden_state"
    alone, base = (each(**batch)[key] for each in (model, seeded(build)))
    with bank.use("a"):
        close(bank.model(**batch)[key], alone)
    with bank.use(Route(["a", None])):
        close(bank.model(**batch)[key], torch.stack([alone[0], base[1]]))


@torch.no_grad()
def test_pytorchs_encoder_takes_the_path_on_which_biases_act(tmp_path):
    model = tuned(tmp_path / "a", encoder, target_modules=["linear1"], bias="all")
    bank, x = AdapterBank(seeded(encoder)), torch.randn(2, 4, 16)
    bank.load("a", tmp_path / "a")
    wanted = model.merge_and_unload()(x)  # before, PEFT's factors do not act on the fast path
    with bank.use("a"):
        close(bank.model(x), wanted)


@torch.no_grad()
def test_what_all_rows_share_is_refused_under_a_route(tmp_path):
    """DeBERTa's norm of its relative positions."""
    model = tuned(tmp_path / "a", tiny_deberta, target_modules=["query_proj"], bias="all")
    bank, batch = AdapterBank(seeded(tiny_deberta)), batch_of(bert)
    bank.load("a", tmp_path / "a")
    with bank.use("a"):
        close(output(bank.model, batch), output(model, batch))
    with (
        bank.use(Route(["a", None])),
        pytest.raises(InputError, match="does not depend on the rows"),
    ):
        bank.model(**batch)


@torch.no_grad()
def test_beams_under_a_route(tmp_path):
    alone = {
        "a": tuned(
            tmp_path / "a", tied_llama, target_modules=["q_proj"], trainable_token_indices=[7, 9]
        ),
        "b": tuned(tmp_path / "b", tied_llama, 1, target_modules=["v_proj"], lora_bias=True),
    }
    bank = AdapterBank(seeded(tied_llama))
    for key in alone:
        bank.load(key, tmp_path / key)
    ids = torch.tensor([[7, 9, 20], [7, 30, 9]])
    options = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    with bank.use(Route(["a", "b"])):
        found = bank.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    for row, model in zip(range(2), alone.values(), strict=True):
        mine = ids[row : row + 1]
        wanted = model.generate(input_ids=mine, attention_mask=torch.ones_like(mine), **options)
        assert torch.equal(found[row], wanted[0])


@torch.no_grad()
def test_offloaded_layers(tmp_path):
    """What is added acts; what stands in place of what is not there is refused."""
    model = tuned(tmp_path / "a", bert, target_modules=["query"], lora_bias=True)
    tuned(tmp_path / "b", bert, target_modules=["query"], bias="all")
    batch = batch_of(bert)
    bank = AdapterBank(accelerate.cpu_offload(seeded(bert), execution_device="cpu"))
    for key in "ab":
        bank.load(key, tmp_path / key)
    for _ in range(2):
        with bank.use("a"):
            close(output(bank.model, batch), output(model, batch))
    with bank.use("b"), pytest.raises(InputError, match=r"the bias of .* is offloaded, and the"):
        bank.model(**batch)


@torch.no_grad()
def test_a_compressed_base(tmp_path):
    config = {"target_modules": ["c_attn"], "bias": "all", "lora_bias": True}
    model, batch, base = tuned(tmp_path / "a", gpt2, **config), batch_of(gpt2), seeded(gpt2)
    compress(base, "int8")
    bank = AdapterBank(base)
    bank.load("a", tmp_path / "a")
    with bank.use("a"):
        close(output(bank.model, batch), output(model, batch), 2e-3)


@torch.no_grad()
def test_adapters_come_and_go(tmp_path):
    """One place on the device; once all are removed, nothing is left on the model."""
    batch, models = batch_of(bert), {}
    bank = AdapterBank(seeded(bert), capacity=1)
    for seed, key in enumerate("abc"):
        models[key] = tuned(tmp_path / key, bert, seed, target_modules=["query"], bias="all")
        bank.load(key, tmp_path / key)
    for key in "abcab":
        with bank.use(key):
            close(output(bank.model, batch), output(models[key], batch))
    for key in "abc":
        bank.remove(key)
    close(output(bank.model, batch), output(seeded(bert), batch))
    assert not any(
        "forward" in module.__dict__ for name, module in bank.model.named_modules() if name
    )


def test_a_new_adapter_trains_beside_one_with_biases(tmp_path):
    tuned(tmp_path / "a", bert, target_modules=["query"], bias="all", trainable_token_indices=[7])
    bank, batch = AdapterBank(seeded(bert)), batch_of(bert)
    bank.load("a", tmp_path / "a")
    bank.create("new", rank=2, targets=["query", "key"])
    bank.train_only("new")
    with bank.use(Mix({"a": 1.0, "new": 1.0})):
        bank.model(**batch).last_hidden_state.square().sum().backward()
    assert all(parameter.grad is not None for parameter in bank.parameters_of("new"))


def test_a_router_with_a_bias_is_refused(tmp_path):
    tuned(tmp_path / "a", gpt_oss, target_modules=["q_proj"], bias="all")
    with pytest.raises(InputError, match=r"mlp\.router, a GptOssTopKRouter, which does not add"):
        AdapterBank(seeded(gpt_oss)).load("a", tmp_path / "a")


@torch.no_grad()
def test_tokens_trained_with_a_tied_head_on_the_bare_model(tmp_path):
    config = {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    model = tuned(tmp_path / "a", tied_llama, trainable_token_indices=[7, 9], **config)
    bank, batch = AdapterBank(seeded(tied_llama).model), batch_of(tied_llama)
    bank.load("a", tmp_path / "a")
    with bank.use("a"):
        found = output(bank.model, batch)
    close(found, output(model.base_model.model.model, batch))
    bank.save("a", tmp_path / "saved")
    again = PeftModel.from_pretrained(seeded(tied_llama), tmp_path / "saved").eval()
    close(output(again, batch), output(model, batch))


@torch.no_grad()
def test_biases_trained_while_others_are_merged(tmp_path):
    """Each is taken from the base's own, whatever is merged when it is loaded."""
    models = {
        key: tuned(tmp_path / key, bert, seed, target_modules=["query"], bias="lora_only")
        for seed, key in enumerate("ab")
    }
    bank, batch = AdapterBank(seeded(bert)), batch_of(bert)
    bank.load("a", tmp_path / "a")
    bank.merge_into_base({"a": 1.0})
    bank.load("b", tmp_path / "b")
    with bank.use("b"):
        above = output(bank.model, batch)
    bank.add("half", merge([bank["b"]], "cat", [0.5]))
    bank.unmerge()
    with bank.use("half"):
        half = output(bank.model, batch)
    with bank.use(Mix({"b": 0.5})):
        close(output(bank.model, batch), half)
    with bank.use(Mix({"a": 1.0, "b": 1.0})):
        close(output(bank.model, batch), above)
    with bank.use("b"):
        close(output(bank.model, batch), output(models["b"], batch))
    with bank.use(Off()):
        close(output(bank.model, batch), output(seeded(bert), batch))


def test_the_command_line_shows_and_merges_them(tmp_path, monkeypatch, geodapt):
    config = {"target_modules": ["query"], "bias": "all", "trainable_token_indices": [7]}
    for seed, key in enumerate("ab"):
        tuned(tmp_path / key, bert, seed, **config)
    monkeypatch.chdir(tmp_path)
    shown = geodapt("adapters", "info", "a")
    assert "beside     biases of 10 modules, 1 rows of tokens" in shown.out
    assert geodapt("merge", "a", "b", "--out", "merged").code == 0
    assert Adapter.from_pretrained("merged").additions.keys() == (
        Adapter.from_pretrained("a").additions.keys()
    )
    refused = geodapt("merge", "a", "b", "--weights", "1", "1", "--out", "other")
    assert refused.code == 2
    assert "do not sum to 1" in refused.err


@torch.no_grad()
def test_biases_that_were_not_saved_are_missed(tmp_path):
    """As some versions of PEFT did; where the layers have none, nothing is missed."""
    for key, build, target in (("a", bert, "query"), ("b", tied_llama, "q_proj")):
        tuned(tmp_path / key, build, target_modules=[target], bias="lora_only")
        path = tmp_path / key / "adapter_model.safetensors"
        kept = {name: t for name, t in load_file(path).items() if not name.endswith(".bias")}
        save_file(kept, path)
    with pytest.warns(InputWarning, match="bias='lora_only' and its file holds no biases"):
        AdapterBank(seeded(bert)).load("a", tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        AdapterBank(seeded(tied_llama)).load("b", tmp_path / "b")
