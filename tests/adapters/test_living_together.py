"""Banks beside other banks, other libraries' wrappers, offloaded weights, threads and odd names."""

import copy
import threading
import traceback

import accelerate
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from torch import nn

from geodapt.adapters import Adapter, AdapterBank, Factors, Mix, Off, Route, TopAtoms, merge
from geodapt.adapters.peft_files.configuration import configure
from geodapt.errors import InputError
from tests.adapters.filled import filled
from tests.adapters.made_by_peft import TARGETS, inputs, output, seeded

GATES = [Mix({"toys": 1.0}), Route(["books", None, "toys"]), TopAtoms(2)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "family"),
    [("cpu_offload", "t5"), ("disk_offload", "bert"), ("dispatch", "bert"), ("later", "t5")],
)
def test_offloaded_weights(how, family, tmp_path):
    targets, batch = TARGETS[family]["books"], inputs(family, 3)
    plain = filled(seeded(family), targets)
    model = seeded(family)

    def offload():
        if how == "disk_offload":
            accelerate.disk_offload(model, tmp_path, execution_device="cpu")
        elif how == "dispatch":
            parts = {name: "cpu" for name, _ in model.named_children()}
            parts[next(iter(parts))] = "disk"
            accelerate.dispatch_model(
                model, parts, main_device="cpu", offload_dir=tmp_path, force_hooks=True
            )
        else:
            accelerate.cpu_offload(model, execution_device="cpu")

    if how != "later":
        offload()
    bank = filled(model, targets)
    if how == "later":
        offload()
    for gate in GATES:
        with plain.use(gate):
            wanted = output(plain.model, batch)
        for _ in range(2):
            with bank.use(gate):
                torch.testing.assert_close(output(model, batch), wanted)
    if how == "cpu_offload":
        bank.save("toys", tmp_path)
        with pytest.raises(InputError, match="offloaded"):
            bank.merge_into_base({"toys": 1.0})


def test_adapters_on_offloaded_weights_train():
    gradients = []
    for offloaded in (False, True):
        model = seeded("llama")
        if offloaded:
            accelerate.cpu_offload(model, execution_device="cpu")
        bank = filled(model, ["q_proj", "down_proj"])
        bank.train_only("toys")
        with bank.use(Route(["toys", "books"])):
            model(**inputs("llama", 2)).logits.square().mean().backward()
        gradients.append([p.grad for p in bank.parameters_of("toys")])
    for found, wanted in zip(*reversed(gradients), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_second_bank_takes_over(family):
    targets, batch = TARGETS[family]["toys"], inputs(family, 2)
    model = seeded(family)
    for _ in range(3):  # a notebook's cell, run again and again
        bank = filled(model, targets)
        bank.set(Mix({"toys": 1.0}))
    alone = filled(seeded(family), targets)
    with alone.use("toys"):
        wanted = output(alone.model, batch)
    torch.testing.assert_close(output(model, batch), wanted)
    inner = filled(model.get_submodule("encoder" if family == "bert" else "model"), targets)
    with pytest.raises(InputError, match="another AdapterBank was made"), bank.use("toys"):
        pass
    torch.testing.assert_close(output(model, batch), output(seeded(family), batch))
    inner.close()
    inner.close()
    assert not any("forward" in module.__dict__ for module in model.modules())


@pytest.mark.slow
def test_a_bank_that_is_at_work_is_not_taken_over():
    bank = filled(seeded("llama"), ["q_proj"])
    with bank.use("toys"), pytest.raises(InputError, match="gate of this bank is running"):
        AdapterBank(bank.model)
    bank.merge_into_base({"toys": 1.0})
    with pytest.raises(InputError, match=r"call unmerge\(\) first"):
        AdapterBank(bank.model.model)
    bank.unmerge()
    AdapterBank(bank.model)


def test_a_bank_on_a_deep_copy_leaves_the_original_alone():
    bank = filled(seeded("llama"), ["q_proj"])
    batch = inputs("llama", 2)
    bank.set("toys")
    wanted = output(bank.model, batch)
    twin = filled(copy.deepcopy(bank.model), ["q_proj"])
    torch.testing.assert_close(output(twin.model, batch), output(seeded("llama"), batch))
    twin.set("toys")
    for each in (twin, bank):
        torch.testing.assert_close(output(each.model, batch), wanted)


class Doubled(ModelHook):
    """Another library's wrapper: twice the layer's output."""

    def post_forward(self, module, output):
        return output * 2


@pytest.mark.parametrize("first", ["bank", "other"])
@pytest.mark.parametrize("goes", ["bank", "other"])
def test_wrappers_of_others_stay_and_ours_goes(first, goes):
    model, batch = seeded("bert"), inputs("bert", 2)
    layer = model.encoder.layer[0].output.dense
    base = output(model, batch)
    add_hook_to_module(layer, Doubled())
    doubled = output(model, batch)
    remove_hook_from_module(layer)
    if first == "other":
        add_hook_to_module(layer, Doubled())
    bank = filled(model, ["output.dense"])
    if first == "bank":
        add_hook_to_module(layer, Doubled())
    with bank.use(Off()):
        torch.testing.assert_close(output(model, batch), doubled)
    with bank.use("toys"):
        assert (output(model, batch) - doubled).abs().max() > 1e-3
    if goes == "bank":
        for name in list(bank):
            bank.remove(name)
        torch.testing.assert_close(output(model, batch), doubled)
        remove_hook_from_module(layer)
        torch.testing.assert_close(output(model, batch), base)
        bank = filled(model, ["output.dense"])
        alone = filled(seeded("bert"), ["output.dense"])
        with bank.use("toys"), alone.use("toys"):  # once, whatever stayed below
            torch.testing.assert_close(output(model, batch), output(alone.model, batch))


@pytest.mark.parametrize("name", ["train", "keys", "items", "", "forward", "a.b", "modules", "0"])
def test_any_name_trains(name):
    bank = AdapterBank(nn.Sequential(nn.Linear(4, 4)))
    bank.create(name, rank=2, targets="all-linear")
    bank.train_only(name)
    with bank.use(name):
        bank(torch.randn(3, 4)).square().sum().backward()
    assert bank.parameters_of(name)[1].grad.abs().sum() > 0
    bank.train_only()
    assert list(bank) == bank.names == [name]
    assert isinstance(bank[name], Adapter)
    bank.remove(name)
    assert not list(bank.parameters())


@pytest.mark.parametrize("name", [None, 3, "\ud800", "a\nb", "\0"])
def test_what_is_no_name_is_refused(name):
    bank = AdapterBank(nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(InputError, match="printable text"):
        bank.create(name)


def test_a_name_or_weights_stand_for_a_mix():
    bank = filled(nn.Sequential(nn.Linear(4, 4)), "all-linear")
    x = torch.randn(3, 4)
    with bank.use(Mix({"toys": 1.0})):
        wanted = bank(x)
    with bank.use("toys"):
        assert torch.equal(bank(x), wanted)
    bank.set({"toys": 1})
    assert torch.equal(bank(x), wanted)
    for wrong in (["toys"], None, Off, 1.0):
        with pytest.raises(InputError, match="is no gate; give"), bank.use(wrong):
            pass
    with pytest.raises(InputError, match="no adapter 'films'"), bank.use("films"):
        pass
    with pytest.raises(InputError, match="merge takes adapters, got 'toys'"):
        merge(["toys", "books"])


def test_how_banks_adapters_and_gates_look():
    bank = filled(nn.Sequential(nn.Linear(4, 4)), "all-linear")
    bank.set("toys")
    assert repr(bank) == (
        "AdapterBank(Sequential, adapters: 'toys', 'books', gate: Mix({'toys': 1.0}))"
    )
    assert repr(bank["books"]) == "Adapter(rank 3, 1 layers: 0)"
    assert repr(Route(["toys", None, {"toys": 0.5}])) == "Route(['toys', None, {'toys': 0.5}])"
    assert len(repr(Route(["toys"] * 1000))) < 120
    assert repr(TopAtoms(2, Mix({"toys": 1}))) == (
        "TopAtoms(keep=2, of=Mix({'toys': 1.0}), per='token')"
    )


def test_threads_that_use_and_remove_one_adapter_get_answers_or_input_errors():
    layer = nn.Linear(3, 3, bias=False)
    bank, stop, wrong = AdapterBank(nn.Sequential(layer)), threading.Event(), []
    factors = {"0": Factors(torch.eye(3), torch.eye(3))}
    adapter = Adapter(factors, configure(factors))

    def work(do):
        while not stop.is_set():
            try:
                do()
            except InputError:
                pass
            except Exception as error:
                wrong.append("".join(traceback.format_exception(error)))

    def use():
        with bank.use("a"), torch.no_grad():
            x = torch.ones(1, 3)
            if not torch.allclose(bank(x), x @ layer.weight.T + x):
                wrong.append("answer")

    jobs = [use, use, lambda: bank.remove("a"), lambda: bank.remove("a"), lambda: bank["a"]]
    jobs += [lambda: bank.add("a", adapter), lambda: bank.train_only("a"), lambda: list(bank)]
    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    stop.wait(1.0)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("gate", [Mix({"a": 1.0, "b": 1.0}), Route(["a", "b"]), TopAtoms(2)])
def test_gates_of_removed_adapters_are_forgotten(gate):
    """As when a recipe trains one adapter after another, and Trainer moves the model each time."""
    bank, x = filled(nn.Sequential(nn.Linear(4, 4)), "all-linear", "ab"), torch.randn(2, 4)
    with bank.use(gate):
        bank(x)
    bank.remove("b")
    bank.to("cpu")
    with bank.use("a"):
        bank(x)
    if not isinstance(gate, TopAtoms):
        with pytest.raises(InputError, match="no adapter 'b'"), bank.use(gate):
            pass
    bank.add("b", bank["a"])
    with bank.use(gate):
        found = bank(x)
    assert (found - bank(x)).abs().max() > 1e-4
