"""Weights, factors and layers that are changed or replaced under a bank."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from geodapt.adapters import Adapter, AdapterBank, Factors, Mix, Off, Route, TopAtoms
from geodapt.adapters.peft_files.configuration import configure
from geodapt.errors import InputError
from tests.adapters.filled import filled
from tests.adapters.made_by_peft import TARGETS, inputs, output, seeded


@pytest.mark.slow
@pytest.mark.parametrize("change", ["data", "row", "swap", "in place", "new"])
@torch.no_grad()
def test_a_weight_changed_in_any_way_is_seen(change):
    bank = filled(seeded("bert"), ["value", "output.dense"], std=1.0)
    for name in bank:
        bank.remove(name)
    bank.create("wide", rank=24, targets=["value", "output.dense"])
    for parameter in bank.parameters_of("wide"):
        torch.nn.init.normal_(parameter, std=0.2)
    bank.train_only("wide")
    bank.train_only()
    layer, batch = bank.model.encoder.layer[1].output.dense, inputs("bert", 8)
    with bank.use("wide"):
        for _ in range(12):
            output(bank.model, batch)
        if change == "data":
            layer.weight.data += 1.0
        elif change == "row":
            layer.weight.data[3] = 0.5
        elif change == "swap":
            layer.weight.data[:2] = layer.weight.data[:2].flip(0)
        elif change == "in place":
            layer.weight.mul_(-1)
        else:
            layer.weight = nn.Parameter(torch.randn_like(layer.weight), requires_grad=False)
        found = output(bank.model, batch)
    with AdapterBank(bank.model).use(Off()):
        base = output(bank.model, batch)
    fresh = AdapterBank(bank.model)
    fresh.add("wide", Adapter(wide := bank.store.adapters["wide"].factors, configure(wide)))
    with fresh.use("wide"):
        torch.testing.assert_close(found, output(bank.model, batch), atol=1e-4, rtol=1e-4)
    assert (found - base).abs().max() > 1e-3


class WideLinear(nn.Linear):
    """Keeps its weight in a narrow type and computes in float32, as bitsandbytes' layers may."""

    def __init__(self, weight: torch.Tensor, scale: float) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=False)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scale = scale

    def forward(self, x):
        return nn.functional.linear(x.float(), self.weight.float() * self.scale)


@pytest.mark.parametrize("narrow", [torch.int8, torch.uint8, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("gate", [Mix({"a": 1.0}), Route(["a", "b"]), TopAtoms(3)])
def test_layers_that_compute_in_a_wider_type_than_their_weight(narrow, gate):
    model = nn.Sequential(WideLinear(torch.randint(0, 9, (6, 8)).to(narrow), 0.1), nn.Tanh())
    bank, deltas = AdapterBank(model), {}
    for name in "ab":
        factors = {"0": Factors(torch.randn(3, 8), torch.randn(6, 3))}
        bank.add(name, Adapter(factors, configure(factors)))
        deltas[name] = factors["0"].B.double() @ factors["0"].A.double()
    x = torch.randn(2, 8)
    with bank.use(gate):
        found = bank(x)
    if isinstance(gate, TopAtoms):  # of six terms three; all of them are a plain sum
        with bank.use(TopAtoms(6)):
            found = bank(x)
        deltas = dict.fromkeys("ab", deltas["a"] + deltas["b"])
    weight = model[0].weight.double() * 0.1
    rows = "ab" if isinstance(gate, Route) else "aa"
    wanted = torch.stack(
        [(weight + deltas[n]) @ row for n, row in zip(rows, x.double(), strict=True)]
    )
    torch.testing.assert_close(found.double(), wanted.tanh(), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "llama"])
@torch.no_grad()
def test_frozen_factors_that_are_changed_by_hand_act(family):
    targets, batch = TARGETS[family]["toys"], inputs(family, 2)
    bank = filled(seeded(family), targets)
    with bank.use("toys"):
        before = output(bank.model, batch)
    for parameter in bank.parameters_of("toys"):
        parameter.data *= 1.5  # leaves no trace in the version
    with bank.use("toys"):
        found = output(bank.model, batch)
    again = AdapterBank(seeded(family))
    again.add("toys", bank["toys"])
    with again.use("toys"):
        torch.testing.assert_close(found, output(again.model, batch))
    assert (found - before).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["bert", "t5", "deberta"])
@pytest.mark.parametrize("what", ["layer", "block"])
@torch.no_grad()
def test_a_layer_replaced_after_the_bank_was_made_is_refused(family, what):
    model, batch = seeded(family), inputs(family, 2)
    bank = filled(model, TARGETS[family]["toys"])
    with bank.use("toys"):
        output(model, batch)
    path = next(iter(bank["toys"].factors))
    if what == "block":
        path = path.rpartition(".")[0]
    parent, _, name = path.rpartition(".")
    old = model.get_submodule(path)
    new = copy.deepcopy(old)
    for module in new.modules():
        module.__dict__.pop("forward", None)
    setattr(model.get_submodule(parent), name, new)
    base = output(seeded(family), batch)
    for gate in (Mix({"toys": 1.0}), Route(["toys", None])):
        with bank.use(gate), pytest.raises(InputError, match=r"was replaced"):
            output(model, batch)
    with bank.use(Off()):
        torch.testing.assert_close(output(model, batch), base)
    setattr(model.get_submodule(parent), name, old)
    with bank.use("toys"):
        assert not torch.allclose(output(model, batch), base)


@torch.no_grad()
def test_a_head_replaced_after_the_bank_was_made_is_refused():
    bank = AdapterBank(seeded("bert"))
    bank.create("toys", targets=["query"], modules_to_save=["LayerNorm"])
    bank.model.embeddings.LayerNorm = nn.LayerNorm(32)
    with bank.use("toys"), pytest.raises(InputError, match=r"embeddings.LayerNorm.*was replaced"):
        output(bank.model, inputs("bert", 2))


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_model_that_peft_has_wrapped_is_refused_with_the_reason(family):
    adapter = filled(seeded(family), TARGETS[family]["toys"])["toys"]
    model = get_peft_model(seeded(family), LoraConfig(target_modules=TARGETS[family]["toys"]))
    for place in (model, model.base_model.model):
        with pytest.raises(InputError, match="PEFT has put its own layer"):
            AdapterBank(place).add("toys", adapter)


@pytest.mark.parametrize("what", ["layer", "embedding", "head"])
def test_what_a_model_has_at_two_places_is_refused(what):
    """PEFT puts its own layer at one of them, so that it acts in a part of the calls."""
    layers = {"one": nn.Linear(4, 4), "table": nn.Embedding(5, 4)}
    model = nn.ModuleDict({**layers, "block": nn.ModuleDict()})
    model["block"]["two"] = model["one" if what != "embedding" else "table"]
    bank = AdapterBank(model)
    target, heads = {"layer": ("one", []), "embedding": ("table", [])}.get(what, ("table", ["one"]))
    with pytest.raises(InputError, match=r"at 2 places .*block\.two"):
        bank.create("a", rank=2, targets=[target], modules_to_save=heads)
    nest = nn.ModuleDict({"first": nn.ModuleDict({"one": nn.Linear(4, 4)})})
    nest["second"] = nest["first"]  # a block at two places holds a layer in one, also in PEFT
    AdapterBank(nest).create("a", rank=2, targets=["one"])


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_copy_in_which_layers_are_replaced_is_refused(family):
    bank = filled(seeded(family), TARGETS[family]["books"])
    batch = inputs(family, 2)
    twin = copy.deepcopy(bank.model)
    with bank.use("toys"):
        torch.testing.assert_close(output(twin, batch), output(bank.model, batch))
        path = next(iter(bank["toys"].factors))
        twin.set_submodule(path, copy.deepcopy(seeded(family).get_submodule(path)))
        with pytest.raises(InputError, match=r"a copy of the model, in which .* was replaced"):
            output(twin, batch)
        with pytest.raises(InputError, match=r"put in the place of a module|was replaced"):
            output(torch.ao.quantization.quantize_dynamic(bank.model, {nn.Linear}), batch)
    output(twin, batch)


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("rank", [2, 24])
def test_a_base_that_trains_beside_frozen_adapters_gets_its_gradients(family, rank):
    """A wide adapter is merged into the weight after some calls, which is no parameter then."""
    bank = filled(seeded(family), TARGETS[family]["toys"], rank=rank)
    batch = inputs(family, 8)
    layer = bank.model.get_submodule(next(iter(bank["toys"].factors)))
    with bank.use("toys"):
        with torch.no_grad():
            for _ in range(8):
                output(bank.model, batch)
        layer.weight.requires_grad_(True)
        y = bank.model(**batch)[0]
        (found,) = torch.autograd.grad(y.square().sum(), layer.weight)
    bank.merge_into_base({"toys": 1.0})
    (wanted,) = torch.autograd.grad(bank.model(**batch)[0].square().sum(), layer.weight)
    torch.testing.assert_close(found, wanted, atol=1e-2, rtol=1e-3)
