"""What cannot be compressed is refused before anything is changed."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig, quantize_
from transformers import MistralConfig, MistralForCausalLM

from geodapt.adapters import AdapterBank
from geodapt.compress import compress
from geodapt.compress.compressed_tensor import build_compressed
from geodapt.compress.install import install_weights
from geodapt.compress.layer_format import LayerFormat
from geodapt.compress.layers import compressible, weight_of
from geodapt.compress.svd import Whitening
from geodapt.errors import InputError
from tests.compress.small import batches, seeded
from tests.tiny_models import tiny_llama


def tiny_mistral():
    config = MistralConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=48,
    )  # fmt: skip
    return MistralForCausalLM(config).eval()


def broken(model):
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[2, 3] = torch.inf
    return model


def torchao(model):
    quantize_(model.model, Int8WeightOnlyConfig())
    return model


def twice(model):
    compress(model, "int4")
    return model


def as_codes(model):
    layer = model.model.layers[0].mlp.up_proj
    layer.weight = nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    return model


MODELS = {
    "no linear layer": (lambda m: nn.Sequential(nn.Conv1d(1, 1, 1)), "has no linear layer"),
    "infinite weights": (broken, r"layers.1.mlp.up_proj holds NaN or infinite weights"),
    "quantized by torchao": (torchao, "compressed or quantized already"),
    "compressed": (twice, "compressed or quantized already"),
    "integers": (as_codes, "holds torch.int8"),
}


@pytest.mark.parametrize("case", MODELS)
def test_models(case):
    make, message = MODELS[case]
    with pytest.raises(InputError, match=message):
        compress(make(seeded("llama")), "int4")


TARGETS = {
    "unknown method": ("zip", {}, "no method 'zip'; there are svd"),
    "no size": ("svd", {}, "needs to know how small"),
    "two sizes": ("svd", {"rank": 3, "loss": 0.1}, "give one of"),
    "rank over full": ("svd", {"rank": 33}, r"rank 33 is outside of 1 to 32"),
    "rank of integers": ("int4", {"rank": 3}, "has no rank"),
    "rank without width": ("lowrank_plus_int", {"rank": 3}, "lowrank_plus_int4"),
    "group of an SVD": ("svd", {"rank": 3, "group": 16}, "has no groups"),
    "group that does not divide": ("int4", {"group": 48}, "which groups of 48 do not"),
    "too few bits": ("int4", {"bits_per_weight": 4.0}, "cannot be met"),
    "too few bytes": ("int", {"megabytes": 1e-4}, "cannot be met"),
    "too few bits of an SVD": ("svd", {"bits_per_weight": 0.5}, "cannot be met"),
    "no correction of nothing": ("lowrank_plus_int4", {"bits_per_weight": 3}, "cannot be met"),
    "too little loss": ("int4", {"loss": 1e-9}, "cannot be met"),
}


@pytest.mark.parametrize("case", TARGETS)
def test_targets(case):
    method, target, message = TARGETS[case]
    model = seeded("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        compress(model, method, **target)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_calibration_set_that_is_too_small():
    model = seeded("llama")
    with pytest.raises(InputError, match="too small"):
        compress(model, "svd", batches("llama", 1)[:1], bits_per_weight=8)


def banked(model):
    bank = AdapterBank(model)
    bank.create("toys", rank=2, targets=["q_proj"])
    return model


def adapted(model):
    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))


def hooked(model):
    model.model.layers[0].mlp.up_proj.register_forward_hook(lambda m, x, y: 2 * y)
    return model


def offloaded(model):
    model.model.layers[1].self_attn.k_proj.to("meta")
    return model


def huge(model):
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = 1e30
    return model


IN_USE = {
    "a bank": (banked, "q_proj is under a hook that changes what it computes"),
    "an adapter of PEFT": (adapted, "carries an adapter of PEFT"),
    "a hook": (hooked, "up_proj is under a hook"),
    "offloaded": (offloaded, "k_proj is offloaded"),
    "huge weights": (huge, r"holds a weight of 1e\+30"),
}


@pytest.mark.parametrize("case", IN_USE)
@pytest.mark.parametrize("make", [tiny_llama, tiny_mistral])
def test_models_in_use(case, make):
    change, message = IN_USE[case]
    with pytest.raises(InputError, match=message):
        compress(change(make()), "svd", rank=2)


class Exports(nn.Module):
    """Hands its weight to code that takes plain memory only."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x):
        return x @ torch.from_numpy(self.second.weight.detach().numpy()).T + self.first(x)


@pytest.mark.parametrize("method", ["int8", "svd"])
def test_what_does_not_run_afterwards_is_left_as_it_was(method):
    model, batch = Exports(), {"x": torch.randn(40, 16)}
    before = dict(model.named_parameters())
    with pytest.raises(InputError, match=r"the compressed Exports does not run .* left as it was"):
        install_from(model, batch, method)
    assert all(model.get_parameter(name) is parameter for name, parameter in before.items())


def install_from(model, batch, method):
    layers = compressible(model)
    form = LayerFormat(8, 16) if method == "int8" else LayerFormat(rank=4)
    weights = {
        path: build_compressed(weight_of(layer), form, Whitening())
        for path, layer in layers.items()
    }
    install_weights(model, layers, weights, batch)


def test_groups_of_one():
    with pytest.raises(InputError, match="a scale per weight"):
        compress(seeded("bert"), "int4", group=1)
