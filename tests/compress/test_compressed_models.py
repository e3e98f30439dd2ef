"""Whole models: compressed, saved, loaded, generating, with adapters on top."""

import copy
import json

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import nn

from geodapt.adapters import AdapterBank, Mix, Route
from geodapt.compress import METHODS, compress, load, save
from geodapt.compress.compressed_tensor import Compressed, build_compressed, dense
from geodapt.compress.layer_format import LayerFormat
from geodapt.compress.layers import compressible
from geodapt.compress.svd import Whitening
from geodapt.errors import InputError
from tests.compress import small
from tests.compress.small import batches, inputs, output, seeded, target

BODY = {"bert": 12, "llama": 14, "t5": 32, "gpt2": 8, "helm": 14}


@pytest.mark.slow
@pytest.mark.parametrize("family", small.FAMILIES)
@pytest.mark.parametrize("method", METHODS)
def test_save_and_load_give_the_same_model(family, method, tmp_path):
    model = seeded(family)
    dense_output = output(model, inputs(family))
    reports = compress(model, method, batches(family), **target(method))
    assert len(reports.layers) == BODY[family]
    wanted = output(model, inputs(family))
    assert not torch.equal(wanted, dense_output)
    save(model, tmp_path / "smaller")
    loaded = load(tmp_path / "smaller")
    assert torch.equal(output(loaded, inputs(family)), wanted)
    assert type(loaded) is type(model)
    # every compressed layer computes what its dense matrix does
    for layer in compressible_after(loaded):
        x = torch.randn(3, layer.in_features)
        wanted = nn.functional.linear(x, dense(layer.weight), layer.bias)
        found = nn.functional.linear(x, layer.weight, layer.bias)  # HELM's layers read more than x
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def compressible_after(model):
    return [
        layer
        for layer in model.modules()
        if isinstance(layer, nn.Linear) and type(layer.weight.data) is not torch.Tensor
    ]


@pytest.mark.parametrize("method", METHODS)
def test_bytes_on_disk_are_those_of_the_formula(method, tmp_path):
    model = seeded("llama")
    others = {name: t for name, t in model.state_dict().items() if "proj" not in name}
    rest = sum(t.numel() * t.itemsize for t in others.values())
    weights = sum(layer.weight.numel() for layer in compressible(model).values())
    reports = compress(model, method, batches("llama"), **target(method))
    assert sum(report.bytes for report in reports.layers) <= 6 / 8 * weights or method == "int8"
    save(model, tmp_path / "out")
    content = (tmp_path / "out/model.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    assert len(content) - header == rest + sum(report.bytes for report in reports.layers)
    described = json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]
    if method == "int8":  # torchao's own
        assert described["quant_method"] == "torchao"
    else:
        paths = [name.removesuffix(".weight") for name in described["weights"]]
        assert sorted(paths) == sorted(report.path for report in reports.layers)


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_full_rank_gives_the_model_back_to_rounding(family):
    model = seeded(family)
    wanted = output(model, inputs(family))
    compress(model, "svd", batches(family), bits_per_weight=40)
    found = output(model, inputs(family))
    # factors are stored in float16
    torch.testing.assert_close(found, wanted, atol=2e-3 * float(wanted.abs().max()), rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_generate(method):
    model = seeded("llama")
    compress(model, method, batches("llama"), **target(method))
    stands_for = seeded("llama")
    for path in compressible(stands_for):
        weight = model.get_submodule(path).weight.data
        stands_for.get_submodule(path).weight.data = dense(weight)
    ids = inputs("llama")["input_ids"][1:]
    kwargs = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, **kwargs), stands_for.generate(ids, **kwargs))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_adapters_on_top(method, tmp_path):
    model = seeded("llama")
    bank = AdapterBank(model)
    for name in ("toys", "books"):
        bank.create(name, rank=4, targets=["q_proj", "down_proj"])
        for parameter in bank.parameters_of(name):
            parameter.data = torch.randn(parameter.shape) * 0.1
        bank.save(name, tmp_path / name)
    compress(model := seeded("llama"), method, batches("llama"), **target(method))
    bank = AdapterBank(model)
    for name in ("toys", "books"):
        bank.load(name, tmp_path / name)
    layer = model.model.layers[0].self_attn.q_proj
    x = torch.randn(3, 4, 32)
    delta = {n: bank[n].factors["model.layers.0.self_attn.q_proj"].delta() for n in bank.names}
    with torch.no_grad():
        base = layer(x)
        with bank.use(Route(["toys", None, "books"])):
            found = layer(x)
        for row, name in enumerate(["toys", None, "books"]):
            wanted = base[row] + (x[row] @ delta[name].T if name else 0)
            torch.testing.assert_close(found[row], wanted, atol=1e-5, rtol=1e-4)
        with bank.use(Mix({"toys": 1.0, "books": -0.5})):
            bank.model.generate(inputs("llama")["input_ids"], max_new_tokens=2, pad_token_id=0)


@pytest.mark.parametrize("method", ["svd", "int4", "lowrank_plus_int4"])
def test_adapters_train_on_top(method):
    model = seeded("llama")
    compress(model, method, batches("llama"), **target(method))
    bank = AdapterBank(model)
    bank.create("new", rank=2, targets=["q_proj", "v_proj"])
    bank.train_only("new")
    bank.set(Mix({"new": 1.0}))
    ids = inputs("llama")["input_ids"]
    optimizer = torch.optim.Adam(bank.parameters_of("new"), lr=0.03)
    losses = []
    for _ in range(6):
        loss = bank(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.02


def test_peft_on_top():
    from peft import get_peft_model

    model = seeded("llama")
    compress(model, "lowrank_plus_int4", batches("llama"), bits_per_weight=6)
    wanted = output(model, inputs("llama"))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    torch.testing.assert_close(output(adapted, inputs("llama")), wanted)


def test_merged_adapters_are_compressed_with_the_base():
    model = seeded("llama")
    bank = AdapterBank(model)
    bank.create("toys", rank=4, targets=["q_proj"])
    for parameter in bank.parameters_of("toys"):
        parameter.data = torch.randn(parameter.shape)
    bank.merge_into_base({"toys": 1.0})
    merged = copy.deepcopy(model)
    for module in merged.modules():
        module.__dict__.pop("forward", None)
    wanted = output(merged, inputs("llama"))
    compress(merged, "int8")
    torch.testing.assert_close(output(merged, inputs("llama")), wanted, atol=0.05, rtol=0.05)
    change = (output(seeded("llama"), inputs("llama")) - wanted).abs().max()
    assert change > 4 * (output(merged, inputs("llama")) - wanted).abs().max()


@pytest.mark.parametrize("method", ["int8", "int4", "svd"])
def test_a_compressed_model_in_another_float_type(method):
    model = seeded("bert")
    compress(model, method, batches("bert"), **target(method))
    wanted = output(model, inputs("bert"))
    found = output(model.to(torch.bfloat16), inputs("bert"))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=0.05, rtol=0.05)


def test_other_float_types():
    model = seeded("llama").to(torch.bfloat16)
    compress(model, "lowrank_plus_int4", batches("llama"), bits_per_weight=6)
    assert output(model, inputs("llama")).dtype == torch.bfloat16
    weight = model.model.layers[0].self_attn.q_proj.weight
    assert isinstance(weight, Compressed)
    wide = weight.to(torch.float32)
    x = torch.randn(2, 32)
    torch.testing.assert_close(
        nn.functional.linear(x, wide), x @ wide.dequantize().T, atol=1e-4, rtol=1e-3
    )


@pytest.mark.slow
def test_torch_compile():
    weight = build_compressed(torch.randn(24, 32), LayerFormat(4, 16, 3), Whitening())
    layer = nn.Linear(32, 24)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    x = torch.randn(5, 32)
    with torch.no_grad():
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["svd", "int", "lowrank_plus_int"])
def test_more_bytes_lose_less(method):
    errors = []
    for bits in (4, 6, 8):
        model = seeded("bert")
        reports = compress(model, method, batches("bert"), bits_per_weight=bits)
        errors.append(sum(report.output_error for report in reports.layers))
    assert errors[0] > errors[1] > errors[2]


def test_a_correction_never_loses_more_than_integers_alone():
    model = seeded("bert")
    W = model.encoder.layer[0].output.dense.weight.detach()
    x = torch.randn(300, 64) * 0.5 ** torch.arange(64)
    whitening = Whitening(x.T @ x / 300)
    plain = whitening.energy(W - build_compressed(W, LayerFormat(4, 32), whitening).dequantize())
    last = plain
    for rank in (1, 4, 16):
        weight = build_compressed(W, LayerFormat(4, 32, rank), whitening)
        error = whitening.energy(W - weight.dequantize())
        assert error < last
        last = error


def edit(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config, config["quantization_config"]["weights"])
    (folder / "config.json").write_text(json.dumps(config))


BROKEN = {
    "unknown class": (
        lambda c, w: c.update(architectures=["pipeline"]),
        "no model of transformers",
    ),
    "class of another package": (lambda c, w: c.update(architectures=["os:system"]), "no model of"),
    "other shape": (lambda c, w: first(w).update(shape=[8, 64]), "have it in another shape"),
    "shape without groups": (lambda c, w: first(w).update(shape=[8, 8]), "does not fit a matrix"),
    "shape of words": (lambda c, w: first(w).update(shape="big"), "compress the model again"),
    "no float type": (lambda c, w: first(w).update(dtype="load"), "compress the model again"),
    "too many experts": (lambda c, w: first(w).update(experts=10**9), "compress the model again"),
    "unknown form": (lambda c, w: first(w).update(form="zip"), "'zip' is no form"),
    "unknown key": (lambda c, w: first(w).update(more=1), "compress the model again"),
    "missing layer": (lambda c, w: w.popitem(), "has an unknown tensor"),
    "layer too many": (
        lambda c, w: w.update({"lm_head.weight": {"shape": [100, 32], "form": "int4 by 32"}}),
        r"lm_head.weight_codes was not loaded",
    ),
}


def first(weights):
    return next(iter(weights.values()))


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders(case, tmp_path):
    change, message = BROKEN[case]
    model = seeded("llama")
    compress(model, "int4")
    save(model, tmp_path / "out")
    edit(tmp_path / "out", change)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "out")


def test_a_file_that_lacks_a_part_is_refused_by_transformers_too(tmp_path):
    model = seeded("llama")
    compress(model, "lowrank_plus_int4", batches("llama"), bits_per_weight=6)
    save(model, tmp_path / "out")
    tensors = load_file(tmp_path / "out/model.safetensors")
    name = next(name for name in tensors if name.endswith("weight_scale"))
    del tensors[name]
    save_file(tensors, tmp_path / "out/model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=f"{name} was not loaded"):
        type(model).from_pretrained(tmp_path / "out")


def test_other_folders_are_refused(tmp_path):
    seeded("bert").save_pretrained(tmp_path / "dense")
    with pytest.raises(InputError, match="is no compressed model"):
        load(tmp_path / "dense")
    for content in ("[]", '{"quantization_config": [1]}'):
        (tmp_path / "dense" / "config.json").write_text(content)
        with pytest.raises(InputError, match="is no compressed model"):
            load(tmp_path / "dense")
    with pytest.raises(InputError, match="no compressed layer"):
        save(seeded("bert"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
