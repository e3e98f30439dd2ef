"""Which merges are refused: wrong options, adapters of different bases, adapters of zeros."""

import math
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from geodapt.adapters import Adapter, AdapterBank, Factors, merge
from geodapt.adapters.peft_files.configuration import configure
from geodapt.errors import InputError
from tests.adapters.made_by_peft import randomise, seeded
from tests.adapters.merges import adapter


def test_an_adapter_of_zeros_is_refused(three):
    fresh = {p: Factors(f.A, torch.zeros_like(f.B), 1.0) for p, f in three[0].factors.items()}
    with pytest.raises(InputError, match="adapter 2 of 3 is all zeros"):
        merge([three[0], Adapter(fresh, three[0].config), three[1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "average"}, "no merge method 'average'; there are .*svd"),
        ({"weights": [1.0]}, "1 weights for 3 adapters"),
        ({"weights": [1.0, math.nan, 1.0]}, "not a finite number"),
        ({"rank": 10}, "rank 10 is more than layer layers.0.v .9 x 12. can have; give at most 9"),
        ({"rank": 0}, "rank is 0; expected a whole number"),
        ({"method": "ties", "density": 0.0}, "density 0.0 is out of range"),
        ({"method": "ties", "density": 1.5}, "density 1.5 is out of range"),
        ({"density": 0.5}, "'svd' takes no density; .*ties"),
        ({"method": "cat", "rank": 2}, "'cat' is exact and takes no rank"),
        ({"method": "linear", "energy": 0.5}, "'linear' takes no energy share"),
        ({"energy": 1.5}, "energy share 1.5 is out of range"),
        ({"energy": 0.5, "rank": 2}, "not both"),
        ({"method": "dense_blocks", "tile": 0}, "tile 0 is out of range"),
        ({"method": "dare", "seed": -1}, "seed -1 is out of range"),
        ({"method": "atoms", "calibration": {}}, "none for layer layers.0.q"),
    ],
)
def test_wrong_options_are_refused(three, options, message):
    with pytest.raises(InputError, match=message):
        merge(three, **options)


def test_adapters_of_different_bases_are_refused(three):
    with pytest.raises(InputError, match="no adapters"):
        merge([])
    with pytest.raises(InputError, match="14 x 12 in one adapter and 14 x 8 in another"):
        merge([three[0], adapter(0, 2, {"layers.0.q": (14, 8)})])
    bases = [
        ("somebody/small-1b", "somebody/other-1b", "different bases"),
        ("somebody/small-1b", "/models/small-1b", "different bases .'somebody/small-1b' and '/mod"),
        ("somebody/small-1b", None, "do not say .* is 'somebody/small-1b' and ''"),
        ("", None, "do not say that they belong to one base"),
    ]
    for one, two, message in bases:
        three[0].config.base_model_name_or_path = three[2].config.base_model_name_or_path = one
        three[1].config.base_model_name_or_path = two
        with pytest.raises(InputError, match=message):
            merge(three)
        assert merge(three, same_base=True).rank == 4
    for one, two in (("./models/small/", "models/small"), ("a/b", "a/b")):
        three[0].config.base_model_name_or_path = three[2].config.base_model_name_or_path = one
        three[1].config.base_model_name_or_path = two
        assert merge(three).rank == 4
    marked = [Adapter(adapter(0, 2).factors, adapter(0, 2).config, sha) for sha in ("x", "y")]
    for same_base in (True, False):
        with pytest.raises(InputError, match=r"different bases .* whose weights differ"):
            merge(marked, same_base=same_base)
    unnamed = [replace(a, config=configure(a.factors), base_sha256="x") for a in marked]
    assert merge(unnamed).rank == 2


def test_adapters_without_a_common_layer_are_strangers():
    one, two = adapter(0, 2, {"q": (14, 12)}), adapter(1, 2, {"v": (14, 12)})
    both = adapter(2, 2, {"q": (14, 12), "v": (14, 12)})
    with pytest.raises(InputError, match=r"adapter 1 of 2 has no layer in common .* touches q"):
        merge([one, two])
    assert set(merge([one, two], same_base=True).factors) == {"q", "v"}
    assert set(merge([one, two, both]).factors) == {"q", "v"}
    with pytest.raises(InputError, match="adapter 3 of 3 has no layer in common"):
        merge([one, both, adapter(3, 2, {"k": (14, 12)})])
    assert merge([one]).rank == 2


@pytest.mark.parametrize(
    ("strangers", "message"),
    [
        ((("gpt2", ["c_attn"]), ("t5", ["q", "v"])), "no layer in common"),
        ((("llama", ["q_proj"]), ("mistral", ["q_proj"])), "do not say that they belong to one"),
        ((("llama", ["q_proj", "v_proj"]), ("llama", ["v_proj"])), None),
    ],
)
def test_adapters_of_unnamed_bases_by_their_model_class(tmp_path, strangers, message):
    """As PEFT saves them from models that have no name."""
    saved = []
    for number, (family, targets) in enumerate(strangers):
        model = get_peft_model(UNNAMED[family](), LoraConfig(r=2, target_modules=targets))
        randomise(model, number)
        model.save_pretrained(tmp_path / str(number))
        saved.append(Adapter.from_pretrained(tmp_path / str(number)))
    assert not any(a.config.base_model_name_or_path for a in saved)
    if message is None:
        assert len(merge(saved).factors) == 4
        return
    with pytest.raises(InputError, match=message):
        merge(saved)


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_adapters_of_one_bank_are_of_one_base(family):
    """Whatever its name, and whatever layers they touch."""
    bank, other = AdapterBank(seeded(family)), AdapterBank(seeded(family))
    for name, targets in zip(
        "ab", {"bert": ["query", "key"], "t5": ["q", "k"]}[family], strict=True
    ):
        for each_bank in (bank, other):
            each_bank.create(name, rank=2, targets=[targets])
            for parameter in each_bank.parameters_of(name):
                parameter.data.normal_()
            each_bank.train_only(name)
    merged = merge([bank["a"], bank["b"]], "linear")
    assert len(merged.factors) == len(bank["a"].factors) + len(bank["b"].factors)
    with pytest.raises(InputError, match="no layer in common"):
        merge([bank["a"], other["b"]])


TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
UNNAMED = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4)),
    "t5": lambda: seeded("t5"),
    "llama": lambda: seeded("llama"),
    "mistral": lambda: MistralForCausalLM(
        MistralConfig(**TINY, vocab_size=100, num_key_value_heads=2, intermediate_size=64)
    ),
}
