"""Biases and rows of tokens beside the factors, in float64 beside PEFT."""

import copy
import dataclasses
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from geodapt.adapters import Adapter, AdapterBank, Mix, Off, Route, TopAtoms, merge
from geodapt.errors import InputError, InputWarning
from tests.adapters import kinds
from tests.adapters.families import output, randomise
from tests.adapters.kinds import (
    WIDTHS,
    bart,
    bert,
    gemma,
    gpt2,
    llama,
    tied_llama,
    vit,
    wav2vec2,
)

TOKENS = [7, 9]


def masked():
    """Its decoder shares a bias with the module that holds it."""
    return BertForMaskedLM(BertConfig(**WIDTHS))


def classifier():
    return BertForSequenceClassification(BertConfig(**WIDTHS))


def mamba():
    return MambaForCausalLM(
        MambaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, state_size=4)
    )


def t5():
    """Its embedding is tied to those of both towers and to the head."""
    return T5ForConditionalGeneration(
        T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    )


CASES = {
    "biases of adapted layers": (bert, ["query", "dense"], {"bias": "lora_only"}),
    "all biases": (bert, ["query"], {"bias": "all"}),
    "all biases, one shared": (masked, ["query"], {"bias": "all"}),
    "biases beside a head": (classifier, ["query"], {"bias": "all", "task_type": "SEQ_CLS"}),
    "biases stored transposed": (gpt2, ["c_attn"], {"bias": "all"}),
    "biases of convolutions": (vit, ["projection", "q_proj"], {"bias": "all"}),
    "biases of channels": (wav2vec2, ["q_proj"], {"bias": "all"}),
    "biases of two towers": (bart, ["q_proj"], {"bias": "all"}),
    "no biases to train": (llama, ["q_proj"], {"bias": "all"}),
    "dora's biases": (bert, ["query", "dense"], {"bias": "lora_only", "use_dora": True}),
    "lora_bias": (bert, ["query"], {"lora_bias": True}),
    "lora_bias without a bias": (llama, ["q_proj", "down_proj"], {"lora_bias": True}),
    "lora_bias and biases": (gpt2, ["c_attn"], {"lora_bias": True, "bias": "all"}),
    "lora_bias of a convolution": (vit, ["projection"], {"lora_bias": True}),
    "tokens": (llama, ["q_proj"], {"trainable_token_indices": TOKENS}),
    "tokens beside a head's factors": (
        llama,
        ["q_proj", "lm_head"],
        {"trainable_token_indices": TOKENS},
    ),
    "tied tokens": (tied_llama, ["q_proj"], {"trainable_token_indices": TOKENS}),
    "tied tokens by name": (
        tied_llama,
        ["q_proj"],
        {"trainable_token_indices": {"embed_tokens": TOKENS, "lm_head": TOKENS}},
    ),
    "tied tokens that differ": (
        tied_llama,
        ["q_proj"],
        {"trainable_token_indices": {"embed_tokens": TOKENS, "lm_head": [7, 8]}},
    ),
    "a head's tokens": (llama, ["q_proj"], {"trainable_token_indices": {"lm_head": TOKENS}}),
    "scaled tokens": (gemma, ["q_proj"], {"trainable_token_indices": TOKENS}),
    "tokens of towers": (t5, ["q"], {"trainable_token_indices": TOKENS}),
    "tokens and biases": (bert, ["query"], {"trainable_token_indices": TOKENS, "bias": "all"}),
}
UNFOLDED = {  # of which merging into the base is refused, and why
    "lora_bias without a bias": "has no bias, into which",
    "tied tokens that differ": "shares its weight with",
}


def seeded(build):
    return kinds.seeded(build).double()


def tuned(case, seed=0):
    """A PEFT model whose factors, biases and tokens do something."""
    build, targets, config = CASES[case]
    settings = LoraConfig(r=2, lora_alpha=6, target_modules=targets, **config)
    model = get_peft_model(seeded(build), settings, autocast_adapter_dtype=False).eval()
    randomise(model, seed)
    generator = torch.Generator().manual_seed(seed + 50)
    for name, parameter in model.named_parameters():
        if "trainable_tokens" in name or (name.endswith(".bias") and parameter.requires_grad):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data = parameter.data + noise * 0.3
        parameter.data = parameter.data.double()
    return model


def inputs(build):
    if build is t5:
        batch = kinds.inputs(bert)
        batch["decoder_input_ids"] = batch["input_ids"].flip(1)[:, :3]
    else:
        batch = kinds.inputs(build)
    for key in ("input_ids", "decoder_input_ids"):
        if key in batch:
            batch[key][:, 0], batch[key][:, -1] = TOKENS
    return {
        key: value.double() if value.is_floating_point() else value for key, value in batch.items()
    }


class Loaded:
    """Two adapters of one kind, on a bank and in PEFT's folders."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.build, _, self.config = CASES[name]
        self.batch, self.alone, self.parameters = inputs(self.build), {}, {}
        self.bank = AdapterBank(seeded(self.build))
        for seed, key in enumerate("ab"):
            model = tuned(name, seed)
            model.save_pretrained(folder / key)
            self.alone[key] = output(model, self.batch)
            self.bank.load(key, folder / key)
            if name not in UNFOLDED:
                self.parameters[key] = model.merge_and_unload().state_dict()
        self.base = output(seeded(self.build), self.batch)

    def under(self, gate):
        with self.bank.use(gate):
            return output(self.bank.model, self.batch)

    def mixed(self, weights):
        """The base with a weighted sum of what the adapters change in its parameters."""
        model = seeded(self.build)
        own = model.state_dict()
        for key, tensor in own.items():
            change = sum(w * (self.parameters[name][key] - tensor) for name, w in weights.items())
            own[key] = tensor + change if tensor.is_floating_point() else tensor
        model.load_state_dict(own)
        return output(model, self.batch)


@pytest.fixture(params=CASES, scope="module")
def case(request, tmp_path_factory):
    return Loaded(request.param, tmp_path_factory.mktemp("additions"))


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=1e-9)


WEIGHTS = {"a": 0.5, "b": -0.25}


def mixes(case):
    """Whether two of a kind can act in one row: heads and DoRA's magnitudes cannot."""
    return "dora" not in case.name and "head" not in case.name.replace("a head's", "")


def test_one_adapter_and_none(case):
    close(case.under("a"), case.alone["a"])
    close(case.under(Off()), case.base)
    assert (case.alone["a"] - case.base).abs().max() > 1e-4


def test_an_adapter_per_row(case):
    wanted = torch.stack([case.alone["b"][0], case.base[1], case.alone["a"][2]])
    close(case.under(Route(["b", None, "a"])), wanted)


def test_a_mixture_is_one_of_the_parameters(case):
    if not mixes(case) or case.name in UNFOLDED:
        return
    wanted = case.mixed(WEIGHTS)
    close(case.under(Mix(WEIGHTS)), wanted)
    close(
        case.under(Route([WEIGHTS, None, "b"])),
        torch.stack([wanted[0], case.base[1], case.alone["b"][2]]),
    )


def test_all_atoms_are_the_sum(case):
    if not mixes(case):
        return
    close(case.under(TopAtoms(1.0, Mix(WEIGHTS))), case.under(Mix(WEIGHTS)))
    few = case.under(TopAtoms(1, Mix({"a": 1.0})))
    assert (few - case.alone["a"]).abs().max() > 1e-6


def test_merged_into_the_base_and_out_of_it(case):
    before = copy.deepcopy(case.bank.model.state_dict())
    if case.name in UNFOLDED:
        with pytest.raises(InputError, match=UNFOLDED[case.name]):
            case.bank.merge_into_base({"a": 1.0})
    else:
        case.bank.merge_into_base({"a": 1.0})
        close(case.under(Off()), case.alone["a"])
        if mixes(case):  # on top of what is merged
            close(case.under(Mix({"b": 0.5})), case.mixed({"a": 1.0, "b": 0.5}))
        case.bank.unmerge()
    after = case.bank.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_saved_by_the_bank_it_acts_in_peft(case, tmp_path):
    case.bank.save("a", tmp_path / "a")
    again = PeftModel.from_pretrained(
        seeded(case.build), tmp_path / "a", autocast_adapter_dtype=False
    )
    close(output(again.eval(), case.batch), case.alone["a"])


def test_what_peft_wrote_is_written_again_tensor_by_tensor(case, tmp_path):
    adapter = Adapter.from_pretrained(case.folder / "a")
    adapter.save_pretrained(tmp_path / "again")
    wanted = {
        key: tensor
        for key, tensor in load_file(case.folder / "a" / "adapter_model.safetensors").items()
        if ".original_module." not in key and ".modules_to_save." not in key  # PEFT reads neither
    }
    found = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in wanted.items())
    assert Adapter.from_pretrained(tmp_path / "again").sha256 == adapter.sha256


@pytest.mark.parametrize("method", ["cat", "svd", "ties"])
def test_a_merged_adapter_acts_in_peft_as_the_mixture(case, method, tmp_path):
    """By ``ties`` biases and tokens are averaged, as it averages by itself."""
    parts = [case.bank[name] for name in "ab"]
    if not mixes(case):
        with pytest.raises(InputError, match=r"DoRA adapter|heads cannot"):
            merge(parts, method)
        return
    if method == "ties":
        merge(parts, method).save_pretrained(tmp_path / "merged")
        again = Adapter.from_pretrained(tmp_path / "merged")
        for path, addition in again.additions.items():
            for key, tensor in addition.tensors():
                one, other = (dict(part.additions[path].tensors())[key] for part in parts)
                scales = [p.factors[path].scale if key == "lora_bias" else 1.0 for p in parts]
                torch.testing.assert_close(
                    tensor.double(), (scales[0] * one + scales[1] * other) / 2, check_dtype=False
                )
        return
    rank = {"rank": 4} if method == "svd" else {}
    merge(parts, method, list(WEIGHTS.values()), **rank).save_pretrained(tmp_path / "merged")
    again = PeftModel.from_pretrained(
        seeded(case.build), tmp_path / "merged", autocast_adapter_dtype=False
    )
    torch.testing.assert_close(
        output(again.eval(), case.batch), case.under(Mix(WEIGHTS)), atol=2e-5, rtol=2e-5
    )


# Merging without a base


def both(tmp_path, name):
    for seed, key in enumerate("ab"):
        tuned(name, seed).save_pretrained(tmp_path / key)
    return [Adapter.from_pretrained(tmp_path / key) for key in "ab"]


@pytest.mark.parametrize("name", ["all biases", "tokens"])
def test_from_folders_what_stands_in_place_of_the_bases_needs_weights_that_sum_to_1(name, tmp_path):
    parts = both(tmp_path, name)
    merged = merge(parts, "linear", [0.75, 0.25], same_base=True)
    for path, addition in merged.additions.items():
        for key, tensor in addition.tensors():
            one, other = (dict(part.additions[path].tensors())[key] for part in parts)
            torch.testing.assert_close(tensor, (0.75 * one + 0.25 * other).to(tensor.dtype))
    with pytest.raises(InputError, match=r"weights of the adapters that bring it do not sum to 1"):
        merge(parts, "linear", [0.5, 0.25], same_base=True)
    plain = dataclasses.replace(parts[1], additions={})
    with pytest.raises(InputError, match=r"merge bank\[name\]"):
        merge([parts[0], plain], "linear", same_base=True)


def test_other_tokens_of_another_adapter_move_by_their_weight(tmp_path):
    parts = both(tmp_path, "tokens")
    moved = parts[1].additions["model.embed_tokens"]
    other = dataclasses.replace(moved, tokens=moved.tokens._replace(ids=torch.tensor([9, 11])))
    config = copy.deepcopy(parts[1].config)
    config.trainable_token_indices = [9, 11]
    second = dataclasses.replace(parts[1], additions={"model.embed_tokens": other}, config=config)
    bank = AdapterBank(seeded(llama))
    bank.add("a", parts[0])
    bank.add("b", second)
    merged = merge([bank["a"], bank["b"]], "cat", [0.5, 2.0])
    assert merged.additions["model.embed_tokens"].tokens.ids.tolist() == [7, 9, 11]
    bank.add("merged", merged)
    batch = inputs(llama)
    batch["input_ids"][0, 1] = 11
    with bank.use("merged"):
        found = output(bank.model, batch)
    with bank.use(Mix({"a": 0.5, "b": 2.0})):
        torch.testing.assert_close(found, output(bank.model, batch), atol=2e-5, rtol=2e-5)


# What the base is, and is not


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
