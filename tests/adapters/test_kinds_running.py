"""Adapters of every kind under every gate, beside PEFT; or refused with the reason."""

import copy

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from geodapt.adapters import AdapterBank, Mix, Off, Route, TopAtoms
from geodapt.errors import InputError
from tests.adapters.families import output
from tests.adapters.kinds import KINDS, gemma, inputs, seeded, tied_llama, tuned


class Case:
    """Two adapters of one kind, on a bank and in PEFT's folders."""

    def __init__(self, name, folder):
        self.build, self.config = KINDS[name]
        self.dora = bool(self.config.get("use_dora"))
        self.folder, self.batch = folder, inputs(self.build)
        self.alone = {}
        self.bank = AdapterBank(seeded(self.build))
        for seed, key in enumerate("ab"):
            model = tuned(self.build, seed, **self.config)
            model.save_pretrained(folder / key)
            self.alone[key] = output(model, self.batch)
            self.bank.load(key, folder / key)
        self.base = output(seeded(self.build), self.batch)
        self.parameters = any(k.name == "parameter" for k in self.bank["a"].kinds.values())

    def under(self, gate):
        with self.bank.use(gate):
            return output(self.bank.model, self.batch)


@pytest.fixture(params=KINDS, scope="module")
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp("kind"))


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)


def test_one_adapter_and_none(case):
    close(case.under(Mix({"a": 1.0})), case.alone["a"])
    close(case.under(Off()), case.base)
    close(case.under(Route(["b", "b", "b"])), case.alone["b"])
    assert (case.alone["a"] - case.base).abs().max() > 1e-3


def test_an_adapter_per_row(case):
    wanted = torch.stack([case.alone["b"][0], case.base[1], case.alone["a"][2]])
    if case.parameters and "weight" not in str(case.config.get("target_parameters")):
        with pytest.raises(InputError, match=r"different adapters at .*a parameter that"):
            case.under(Route(["b", None, "a"]))
        return
    close(case.under(Route(["b", None, "a"])), wanted)


def test_a_mixture(case):
    gate = Mix({"a": 0.5, "b": -0.25})
    if case.dora:
        with pytest.raises(InputError, match=r"DoRA adapter, which rescales .* cannot be mixed"):
            case.under(gate)
        with pytest.raises(InputError, match=r"it has no weight of 0\.5"):
            case.under(Route([{"a": 0.5}, None, "b"]))
        return
    if case.config.get("ensure_weight_tying"):
        return  # PEFT ties the second adapter's head to the first one's
    wanted = PeftModel.from_pretrained(
        seeded(case.build), case.folder / "a", adapter_name="a"
    ).eval()
    wanted.load_adapter(case.folder / "b", adapter_name="b")
    wanted.base_model.set_adapter(["a", "b"])
    for module in wanted.modules():
        if isinstance(module, LoraLayer):
            for name, weight in (("a", 0.5), ("b", -0.25)):
                if name in module.scaling:
                    module.scaling[name] *= weight
    close(case.under(gate), output(wanted, case.batch))


def test_all_atoms_are_the_sum(case):
    gate = TopAtoms(1.0, Mix({"a": 1.0, "b": 1.0}))
    if case.dora or (case.parameters and "weight" not in str(case.config)):
        with pytest.raises(InputError, match="TopAtoms chooses among"):
            case.under(gate)
        return
    close(case.under(gate), case.under(Mix({"a": 1.0, "b": 1.0})))


def test_merged_into_the_base_and_out_of_it(case):
    before = copy.deepcopy(case.bank.model.state_dict())
    if case.build in (tied_llama, gemma):
        with pytest.raises(InputError, match="shares its weight with"):
            case.bank.merge_into_base({"a": 1.0})
    else:
        case.bank.merge_into_base({"a": 1.0})
        close(case.under(Off()), case.alone["a"])
        case.bank.unmerge()
    after = case.bank.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_saved_by_the_bank_it_acts_in_peft(case, tmp_path):
    case.bank.save("a", tmp_path / "a")
    again = PeftModel.from_pretrained(seeded(case.build), tmp_path / "a").eval()
    close(output(again, case.batch), case.alone["a"])
