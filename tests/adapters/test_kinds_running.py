"""Adapters of every kind under every gate, beside PEFT; or refused with the reason."""

import copy

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import Llama4ForCausalLM, Llama4TextConfig

from geodapt.adapters import AdapterBank, Mix, Off, Route, TopAtoms
from geodapt.errors import InputError
from tests.adapters.kinds import (
    EXPERTS,
    KINDS,
    gemma,
    gpt_oss,
    inputs,
    mixtral,
    seeded,
    tied_llama,
    tuned,
)
from tests.adapters.made_by_peft import output
from tests.tiny_models import NARROW


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


@pytest.mark.slow
def test_one_adapter_and_none(case):
    close(case.under(Mix({"a": 1.0})), case.alone["a"])
    close(case.under(Off()), case.base)
    close(case.under(Route(["b", "b", "b"])), case.alone["b"])
    assert (case.alone["a"] - case.base).abs().max() > 1e-3


def test_an_adapter_per_row(case):
    wanted = torch.stack([case.alone["b"][0], case.base[1], case.alone["a"][2]])
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


@pytest.mark.parametrize("build", [mixtral, gpt_oss])
def test_rows_of_a_generation_run_through_their_own_experts(build, tmp_path):
    """With beams, and against each row by itself in PEFT."""
    bank, alone = AdapterBank(seeded(build)), {None: seeded(build)}
    for seed, key in enumerate("ab"):
        alone[key] = tuned(build, seed, target_modules=[], target_parameters=EXPERTS)
        alone[key].save_pretrained(tmp_path / key)
        bank.load(key, tmp_path / key)
    ids, rows = inputs(build)["input_ids"], ["b", None, "a"]
    options = {"num_beams": 2, "max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    with bank.use(Route(rows)):
        found = bank.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    for row, key in enumerate(rows):
        mine = ids[row : row + 1]
        wanted = alone[key].generate(
            input_ids=mine, attention_mask=torch.ones_like(mine), **options
        )
        assert torch.equal(found[row], wanted[0])


def test_a_route_trains_the_experts_of_its_rows():
    bank = AdapterBank(seeded(mixtral))
    for key in "ab":
        bank.create(key, rank=2, targets=["experts.gate_up_proj"])
        for parameter in bank.parameters_of(key):
            parameter.data.normal_(std=0.3)
    bank.train_only("a")
    batch = inputs(mixtral)
    with bank.use(Route(["b", "a", "a"])):
        bank.model(**batch).logits[1:].sum().backward()
    apart = [p.grad.clone() for p in bank.parameters_of("a")]
    bank.zero_grad()
    with bank.use("a"):
        bank.model(input_ids=batch["input_ids"][1:]).logits.sum().backward()
    for one, other in zip(apart, bank.parameters_of("a"), strict=True):
        torch.testing.assert_close(one, other.grad, atol=1e-5, rtol=1e-4)


def test_experts_whose_tokens_do_not_lie_in_the_rows_order_are_refused():
    """Llama 4's get every token once for each expert."""
    config = Llama4TextConfig(
        **NARROW,
        intermediate_size_mlp=24,
        num_key_value_heads=2,
        head_dim=8,
        num_local_experts=3,
        interleave_moe_layer_step=1,
        pad_token_id=0,
    )
    bank = AdapterBank(Llama4ForCausalLM(config).eval())
    for key in "ab":
        bank.create(key, rank=2, targets=["experts.gate_up_proj"])
        for parameter in bank.parameters_of(key):
            parameter.data.normal_(std=0.3)
    bank.train_only()
    batch = inputs(mixtral)
    with bank.use(Route(["a", "a", "a"])):
        bank.model(**batch)
    with (
        bank.use(Route(["a", "b", None])),
        pytest.raises(InputError, match=r"layer .*feed_forward\.experts of .* does not keep"),
    ):
        bank.model(**batch)
