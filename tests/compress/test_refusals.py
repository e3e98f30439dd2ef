"""What cannot be compressed is refused before anything is changed."""

import pytest
import torch
from torch import nn
from torchao.quantization import Int8WeightOnlyConfig, quantize_

from geodapt.compress import compress
from geodapt.errors import InputError
from tests.compress.small import batches, seeded


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
