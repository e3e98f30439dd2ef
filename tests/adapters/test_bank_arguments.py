"""Arguments of another type than asked for: refused in a sentence before anything changes."""

import json

import numpy as np
import peft
import pytest
import torch
from torch import nn

from geodapt.adapters import AdapterBank, Mix, merge
from geodapt.errors import InputError
from tests.adapters.filled import filled
from tests.adapters.made_by_peft import seeded


@pytest.mark.parametrize("weights", ["toys", None, {"toys": "much"}, {"toys": 1e39}, [("toys", 1)]])
def test_weights_that_are_no_numbers_are_refused_before_the_base_changes(weights):
    bank = filled(seeded("bert"), ["query", "value"])
    before = {name: value.clone() for name, value in bank.model.state_dict().items()}
    with pytest.raises(InputError, match=r"takes \{name: weight\}|give a finite number"):
        bank.merge_into_base(weights)
    assert all(value.equal(before[name]) for name, value in bank.model.state_dict().items())
    bank.merge_into_base({"toys": torch.tensor(0.5)})
    bank.unmerge()


def test_numbers_that_are_too_large_or_no_whole_ranks_are_refused():
    with pytest.raises(InputError, match="give a finite number"):
        Mix({"toys": 10**400})
    bank = filled(seeded("bert"), ["query"])
    for rank in (2.5, "4", float("nan")):
        with pytest.raises(InputError, match="a whole number of 1 or more"):
            merge([bank["toys"], bank["books"]], "svd", rank=rank, same_base=True)


def test_what_is_no_model_no_capacity_and_no_list_is_refused():
    bank = filled(seeded("bert"), ["query"])
    for model in (None, "bert", bank):
        with pytest.raises(InputError, match="acts on a model itself"):
            AdapterBank(model)
    for capacity in (0, 1.5, "2"):
        with pytest.raises(InputError, match="a whole number of 1 or more"):
            AdapterBank(seeded("bert"), capacity=capacity)
    with pytest.raises(InputError, match="takes a list of adapters"):
        merge(bank["toys"])


CALLS = {
    "load of nothing": lambda bank, folder: bank.load("new", None),
    "load of a number": lambda bank, folder: bank.load("new", 5),
    "add of a name": lambda bank, folder: bank.add("new", "toys"),
    "save to nothing": lambda bank, folder: bank.save("toys", None),
    "a rank in words": lambda bank, folder: bank.create("new", rank="4"),
    "a rank of none": lambda bank, folder: bank.create("new", rank=0),
    "alpha in words": lambda bank, folder: bank.create("new", alpha="x"),
    "alpha without end": lambda bank, folder: bank.create("new", alpha=float("inf")),
    "dropout in words": lambda bank, folder: bank.create("new", dropout="x"),
    "all dropped out": lambda bank, folder: bank.create("new", dropout=1.0),
    "a number for targets": lambda bank, folder: bank.create("new", targets=5),
    "numbers for targets": lambda bank, folder: bank.create("new", targets=[5]),
    "a word for modules": lambda bank, folder: bank.create("new", modules_to_save="classifier"),
    "a list for a name": lambda bank, folder: bank.remove(["toys"]),
    "a list to train": lambda bank, folder: bank.train_only(["toys"]),
    "a list to look up": lambda bank, folder: bank[["toys"]],
    "a list to use": lambda bank, folder: bank.set(["toys"]),
}


@pytest.mark.parametrize("call", CALLS)
def test_arguments_of_another_type_are_refused_and_change_nothing(call, tmp_path):
    bank = filled(seeded("bert"), ["query"])
    with pytest.raises(InputError, match=r"expected|got|give|not an Adapter"):
        CALLS[call](bank, tmp_path)
    assert bank.names == ["toys", "books"]
    assert not [*tmp_path.iterdir()]


def test_numbers_of_numpy_are_numbers(tmp_path):
    bank = filled(seeded("bert"), ["query"])
    bank.create("new", rank=np.int64(2), alpha=np.float32(4), targets=["value"])
    bank.save("new", tmp_path / "new")
    config = json.loads((tmp_path / "new" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (2, 4)


def test_a_module_that_peft_adapts_as_a_whole_is_refused_by_its_name(tmp_path):
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn, self.last = nn.MultiheadAttention(8, 2), nn.Linear(8, 8)

        def forward(self, x):
            return self.last(self.attn(x, x, x)[0])

    peft.get_peft_model(Attends(), peft.LoraConfig(target_modules=["attn"])).save_pretrained(
        tmp_path / "whole"
    )
    with pytest.raises(InputError, match="targets attn as a whole, whose layer out_proj"):
        AdapterBank(Attends()).load("whole", tmp_path / "whole")
