"""Biases and rows of tokens beside the factors, in float64 beside PEFT."""

import copy
import dataclasses

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from geodapt.adapters import Adapter, AdapterBank, Mix, Off, Route, TopAtoms, merge
from geodapt.errors import InputError
from tests.adapters.additions import (
    CASES,
    UNFOLDED,
    Loaded,
    close,
    inputs,
    seeded,
    tuned,
)
from tests.adapters.kinds import (
    llama,
)
from tests.adapters.made_by_peft import output


@pytest.fixture(params=CASES, scope="module")
def case(request, tmp_path_factory):
    return Loaded(request.param, tmp_path_factory.mktemp("additions"))


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
