"""What is done to a base under a bank: biases changed, vocabularies resized, parts compiled."""

import copy
import pickle

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from geodapt.adapters import AdapterBank, Mix, merge
from geodapt.errors import InputError
from tests.adapters.filled import filled
from tests.adapters.kinds import bert, gpt2, llama, tied_llama
from tests.adapters.made_by_peft import TARGETS, inputs, output, seeded

CASES = {
    "biases": (bert, {"target_modules": ["query"], "bias": "all"}),
    "biases of adapted layers": (gpt2, {"target_modules": ["c_attn"], "bias": "lora_only"}),
    "tokens": (llama, {"target_modules": ["q_proj"], "trainable_token_indices": [7, 9]}),
    "tied tokens": (tied_llama, {"target_modules": ["q_proj"], "trainable_token_indices": [7, 9]}),
}


def built(build):
    torch.manual_seed(0)
    return build().eval()


def out(model):
    result = model(input_ids=torch.tensor([[5, 7, 9, 11], [9, 6, 5, 7]]))
    return result[0]


@pytest.mark.parametrize("folded", [False, True], ids=["base", "merged base"])
@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_a_merge_from_a_bank_starts_from_the_base_as_it_is_now(case, folded, tmp_path):
    build, config = CASES[case]
    bank = AdapterBank(built(build))
    for seed, name in enumerate(("toys", "books"), 1):
        model = get_peft_model(built(build), LoraConfig(r=2, **config))
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.3 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path / name)
        bank.load(name, tmp_path / name)
    for key, parameter in bank.model.named_parameters():
        if key.endswith("bias") or "embed" in key:
            parameter.data += 0.5
    changed = copy.deepcopy(bank.model.state_dict())
    with bank.use(Mix({"toys": 0.5, "books": 0.25})):
        wanted = out(bank.model)
    if folded:
        bank.merge_into_base({"toys": 1.0})
    merged = merge([bank["toys"], bank["books"]], method="cat", weights=[0.5, 0.25])
    other = built(build)
    other.load_state_dict(changed)
    fresh = AdapterBank(other)
    base = out(other)
    fresh.add("both", merged)
    with fresh.use("both"):
        found = out(other)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert (found - base).abs().max() > 1e-2


@pytest.mark.parametrize("build", [llama, tied_llama])
@pytest.mark.parametrize("layer", ["embed_tokens", "lm_head"])
@torch.no_grad()
def test_a_vocabulary_resized_under_a_bank_is_refused_where_an_adapter_changes_it(build, layer):
    bank = filled(built(build), ["q_proj", layer])
    bank.create("inner", targets=["q_proj"])
    spare = bank["books"]
    bank.remove("books")
    bank.model.resize_token_embeddings(70, mean_resizing=False)
    with (
        bank.use("toys"),
        pytest.raises(
            InputError, match=rf"{layer} (has .*resize the model first|of .* was replaced)"
        ),
    ):
        out(bank.model)
    with pytest.raises(InputError, match=r"targets .* with (in|out)_features 60, the base has 70"):
        bank.add("books", spare)
    with bank.use("inner"):
        assert out(bank.model).shape[-1] == 70


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
@torch.no_grad()
def test_a_layer_or_block_that_a_bank_acts_on_is_not_pickled(family):
    model = seeded(family)
    bank = filled(model, "all-linear")
    layer = next(module for module in model.modules() if isinstance(module, nn.Linear))
    with pytest.raises(InputError, match=r"cannot be pickled; .* bank\.close"):
        pickle.dumps(layer)
    bank.close()
    x = torch.randn(2, layer.in_features)
    torch.testing.assert_close(pickle.loads(pickle.dumps(layer))(x), layer(x))


@pytest.mark.slow
def test_an_adapter_does_not_fit_what_torch_compile_renamed_but_acts_in_it():
    model, batch = seeded("bert"), inputs("bert", 2)
    compiled = torch.compile(model, backend="eager")
    bank = filled(model, ["query"])
    adapter = bank["toys"]
    parts = seeded("bert")
    parts.encoder.layer[0] = torch.compile(parts.encoder.layer[0], backend="eager")
    for renamed in (torch.compile(seeded("bert"), backend="eager"), parts):
        with pytest.raises(InputError, match=r"torch.compile.*make the bank on the model itself"):
            AdapterBank(renamed).add("toys", adapter)
    with torch.no_grad(), bank.use("toys"):
        torch.testing.assert_close(output(compiled, batch), output(model, batch))


CHANGES = {
    "loaded": lambda model, layer: model.load_state_dict(
        {key: value + 1 for key, value in model.state_dict().items()}
    ),
    "assigned": lambda model, layer: model.load_state_dict(
        {key: value.clone() for key, value in model.state_dict().items()}, assign=True
    ),
    "trained": lambda model, layer: layer.weight.data.view(-1)[3].add_(1e-3),
    "replaced": lambda model, layer: model.set_submodule(
        next(path for path, each in model.named_modules() if each is layer), copy.deepcopy(layer)
    ),
}


@pytest.mark.parametrize("family", ["llama", "deberta"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_happened_to_a_base_while_merged_is_not_undone_in_silence(change, family):
    bank = filled(seeded(family), TARGETS[family]["toys"])
    path = next(iter(bank["toys"].factors))
    start = bank.model.get_submodule(path).weight.detach().clone()
    bank.merge_into_base({"toys": 1.0})
    CHANGES[change](bank.model, bank.model.get_submodule(path))
    changed = bank.model.get_submodule(path).weight.detach().clone()
    with pytest.raises(InputError, match=r"changed or replaced since adapters were merged"):
        bank.unmerge()
    assert torch.equal(bank.model.get_submodule(path).weight, changed)
    bank.unmerge(discard=True)
    same = change in ("loaded", "trained")  # what is another's is left alone
    assert torch.equal(bank.model.get_submodule(path).weight, start if same else changed)
    bank.merge_into_base({"books": 1.0})
    bank.unmerge()


@pytest.mark.parametrize("family", ["bert", "t5"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_base_whose_type_changed_while_merged_is_restored_in_it(dtype, family):
    bank = filled(seeded(family), TARGETS[family]["toys"])
    wanted = {key: tensor.to(dtype) for key, tensor in bank.model.state_dict().items()}
    bank.merge_into_base({"toys": 1.0})
    bank.model.to(dtype)
    bank.unmerge()
    for key, tensor in bank.model.state_dict().items():
        assert torch.equal(tensor, wanted[key].to(tensor.dtype))
    assert {p.dtype for p in bank.model.parameters()} == {dtype}
