"""Biases and rows of tokens on the base that they were trained on, and on others."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from geodapt.adapters import AdapterBank, Mix, Off, Route
from geodapt.errors import InputError, InputWarning
from tests.adapters.additions import TOKENS, classifier, close, inputs, mamba, masked, seeded, tuned
from tests.adapters.kinds import (
    bert,
    llama,
)
from tests.adapters.made_by_peft import output, randomise


def test_a_bias_stands_in_place_of_the_bases_as_it_is_now(tmp_path):
    tuned("all biases").save_pretrained(tmp_path / "a")
    bank, batch = AdapterBank(seeded(bert)), inputs(bert)
    bank.load("a", tmp_path / "a")
    with bank.use("a"):
        before = output(bank.model, batch)
        for module in bank.model.modules():
            if getattr(module, "bias", None) is not None:
                module.bias.data += 1.0
        close(output(bank.model, batch), before)


def test_an_adapter_of_a_classifier_acts_on_the_bare_model(tmp_path):
    tuned("biases beside a head").save_pretrained(tmp_path / "a")
    whole = tuned("biases beside a head")
    bank, batch = AdapterBank(seeded(classifier).bert), inputs(bert)
    with pytest.warns(InputWarning, match="classifier, which this BertModel is without"):
        bank.load("a", tmp_path / "a")
    with bank.use("a"):
        found = bank.model(**batch).last_hidden_state
    close(found, whole.base_model.model.bert(**batch).last_hidden_state)


def test_a_bias_that_the_model_reads_without_calling_the_module_is_refused(tmp_path):
    """Mamba reads dt_proj's; merged into the base it acts."""
    model = get_peft_model(
        seeded(mamba), LoraConfig(r=2, target_modules=["in_proj"], bias="all")
    ).eval()
    randomise(model)
    for name, parameter in model.named_parameters():
        if name.endswith("dt_proj.bias"):
            parameter.data += 1.0
    model.save_pretrained(tmp_path / "a")
    bank, batch = AdapterBank(seeded(mamba)), inputs(llama)
    bank.load("a", tmp_path / "a")
    with (
        bank.use("a"),
        pytest.raises(InputError, match=r"weight of layer .*(conv1d|dt_proj) is read without"),
    ):
        bank.model(**batch)
    bank.merge_into_base({"a": 1.0})
    torch.testing.assert_close(output(bank.model, batch), output(model, batch))


class Odd(torch.nn.LayerNorm):
    """Multiplies with its bias."""

    def forward(self, x):
        return super().forward(x) * self.bias


def test_a_bias_that_is_not_added_is_refused(tmp_path):
    tuned("all biases").save_pretrained(tmp_path / "a")
    model = seeded(bert)
    model.embeddings.LayerNorm.__class__ = Odd
    with pytest.raises(InputError, match=r"embeddings\.LayerNorm, a Odd, which does not add"):
        AdapterBank(model).load("a", tmp_path / "a")


def test_tokens_of_a_tied_head_with_a_bias_are_refused(tmp_path):
    model = get_peft_model(
        seeded(masked), LoraConfig(target_modules=["query"], trainable_token_indices=TOKENS)
    )
    model.save_pretrained(tmp_path / "a")
    with pytest.raises(InputError, match="PEFT leaves the bias out while the adapter acts"):
        AdapterBank(seeded(masked)).load("a", tmp_path / "a")


def test_tokens_trained_on_a_tied_base_are_refused_where_it_is_not(tmp_path):
    tuned("tied tokens by name").save_pretrained(tmp_path / "a")
    with pytest.raises(InputError, match=r"tied in the base that it was trained on and not in"):
        AdapterBank(seeded(llama)).load("a", tmp_path / "a")


def test_adapters_with_additions_are_not_trained_here(tmp_path):
    tuned("tokens").save_pretrained(tmp_path / "a")
    bank = AdapterBank(seeded(llama))
    bank.load("a", tmp_path / "a")
    with pytest.raises(InputError, match="brings biases or tokens, which the bank runs and does"):
        bank.train_only("a")


@pytest.mark.slow
def test_compiled_it_acts_the_same(tmp_path):
    tuned("tokens and biases").save_pretrained(tmp_path / "a")
    bank, batch = AdapterBank(seeded(bert)), inputs(bert)
    bank.load("a", tmp_path / "a")
    model = torch.compile(bank.model, backend="eager")
    with torch.no_grad():
        for gate in (Off(), Mix({"a": 0.5}), Route(["a", None, {"a": 0.5}])):
            with bank.use(gate):
                close(output(model, batch), output(bank.model, batch))


# Broken folders


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trainable_token_indices": [7]}, r"2 rows for 1 tokens"),
        ({"trainable_token_indices": [7, 7]}, r"hold one token twice"),
        ({"trainable_token_indices": [7, 60]}, r"tokens up to 60 of .*resize the base's"),
        ({"trainable_token_indices": {"wte": [7, 9]}}, r"name it 0 times"),
        ({"trainable_token_indices": None}, r"does not say of which"),
        ({"trainable_token_indices": [-1, 2]}, r"indices is \[-1, 2\]; expected token ids"),
        ({"trainable_token_indices": "7"}, r"trainable_token_indices is '7'"),
        ({"lora_bias": True}, r"lacks what lora_bias stands for"),
        ({"bias": "some"}, r"bias is 'some'; expected none, all or lora_only"),
    ],
)
def test_a_configuration_that_does_not_belong_is_refused(change, reason, tmp_path):
    folder = tmp_path / "a"
    tuned("tokens").save_pretrained(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=reason):
        AdapterBank(seeded(llama)).load("a", folder)


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        ("encoder.layer.0.attention.self.key.bias", torch.ones(3), r"a bias of shape \(3,\) for"),
        ("encoder.layer.0.attention.self.key.bias", torch.ones(16) * 1e30, r"overflow in float32"),
        (
            "encoder.layer.0.attention.self.key.bias",
            torch.ones(16, 1),
            r"a bias of shape \(16, 1\) for",
        ),
        ("encoder.layer.0.attention.self.other.bias", torch.ones(16), r"which BertModel does not"),
        ("encoder.layer.0.attention.self.key.lora_B.bias", torch.ones(16), r"says lora_bias=False"),
    ],
)
def test_a_bias_that_does_not_belong_is_refused(name, tensor, reason, tmp_path):
    folder = tmp_path / "a"
    tuned("all biases").save_pretrained(folder)
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), f"base_model.model.{name}": tensor}, path)
    with pytest.raises(InputError, match=reason):
        AdapterBank(seeded(bert)).load("a", folder)
