"""Adapters that bring modules trained in full (``modules_to_save``) act with them, row by row."""

import pytest
import torch
import transformers as T
from peft import PeftModel
from safetensors.torch import load_file, save_file

from geodapt.adapters import Adapter, AdapterBank, Factors, Mix, Off, Route, TopAtoms
from geodapt.adapters.peft_files.configuration import configure
from geodapt.errors import InputError, InputWarning
from geodapt.files import hash_tensors
from tests.adapters.heads import KINDS, batch_for, close, from_peft, out
from tests.adapters.test_adapter_paths import IDS
from tests.tiny_models import SMALL, build


@pytest.fixture(params=KINDS, scope="module")
def case(request, tmp_path_factory):
    """A model's name, a bank with two adapters, and what the base and they give in PEFT."""
    kind, config, _ = KINDS[request.param]
    tmp_path = tmp_path_factory.mktemp("heads")
    batch = batch_for(kind)
    bank = AdapterBank(build(kind, config))
    wanted = {None: out(build(kind, config), batch)}
    for seed, name in enumerate("ab"):
        wanted[name] = out(from_peft(request.param, tmp_path / name, seed), batch)
        bank.load(name, tmp_path / name)
    return kind, config, batch, bank, wanted, tmp_path


def test_every_gate_gives_each_row_its_own_head(case):
    _, _, batch, bank, wanted, _ = case
    for gate, name in ((Mix({"a": 1.0}), "a"), (Mix({"b": 1.0}), "b"), (Off(), None)):
        with bank.use(gate):
            close(out(bank, batch), wanted[name])
        if name:
            with bank.use(TopAtoms(1.0, gate)):
                close(out(bank, batch), wanted[name])
    for route in (["a", None, "b", "a"], ["a", "a", "b", "b"], [None, "b", None, None]):
        rows = torch.stack([wanted[name][i] for i, name in enumerate(route)])
        for gate in (Route(route), TopAtoms(1.0, Route(route))):
            with bank.use(gate):
                close(out(bank, batch), rows)


def test_what_is_written_loads_in_peft_with_its_heads(case):
    kind, config, batch, bank, wanted, tmp_path = case
    bank.save("a", tmp_path / "saved")
    bank["b"].save_pretrained(tmp_path / "again")
    Adapter.from_pretrained(tmp_path / "b").save_pretrained(tmp_path / "copied")
    for folder, name in (("saved", "a"), ("again", "b"), ("copied", "b")):
        close(out(PeftModel.from_pretrained(build(kind, config), tmp_path / folder), batch),
              wanted[name])  # fmt: skip


def test_merging_into_the_base_swaps_heads_in_and_out(case):
    _, _, batch, bank, wanted, _ = case
    before = hash_tensors(bank.model.state_dict())
    heads = [bank.model.get_submodule(path) for path in bank["a"].heads]
    both = (bank.model.get_input_embeddings(), bank.model.get_output_embeddings())
    if both[1] is not None and both[0].weight is both[1].weight and {*both} & {*heads}:
        with pytest.raises(InputError, match="shares its weight with another module"):
            bank.merge_into_base({"a": 1.0})
    else:
        bank.merge_into_base({"a": 1.0})
        close(out(bank, batch), wanted["a"])
        with pytest.raises(InputError, match="merged into the base already"):
            bank.merge_into_base({"b": 1.0})
        bank.unmerge()
    assert hash_tensors(bank.model.state_dict()) == before
    with pytest.raises(InputError, match="heads cannot be mixed"):
        bank.merge_into_base({"a": 0.5, "b": 0.5})
    assert hash_tensors(bank.model.state_dict()) == before


def test_heads_are_not_mixed_nor_weighed(case):
    _, _, batch, bank, wanted, _ = case
    for gate in (
        Mix({"a": 0.5, "b": 0.5}),
        Route(["a", {"a": 0.5, "b": 0.5}]),
        TopAtoms(4, Mix({"a": 1.0, "b": 1.0})),
        TopAtoms(),
    ):
        with pytest.raises(InputError, match="'a' and 'b' each bring their own"), bank.use(gate):
            pass
    with pytest.raises(InputError, match=r"and has weight 0\.5"), bank.use(Mix({"a": 0.5})):
        pass
    bank.add("b without", bank["b"].without_heads())
    with bank.use(Mix({"a": 1.0, "b without": 0.5})):
        assert out(bank, batch).shape == wanted["a"].shape
    bank.remove("b without")


def test_adapters_may_share_one_head(tmp_path):
    from_peft("bert tagger", tmp_path / "a", 0)
    from_peft("bert tagger", tmp_path / "b", 1)
    a, b = (Adapter.from_pretrained(tmp_path / name) for name in "ab")
    kind, config, _ = KINDS["bert tagger"]
    bank = AdapterBank(build(kind, config))
    bank.add("a", a)
    bank.add("b", Adapter(b.factors, b.config, heads=a.heads))
    batch = batch_for(kind)
    with bank.use(Mix({"a": 0.5, "b": 0.5})):
        found = out(bank, batch)
    reference = AdapterBank(build(kind, config))
    reference.add("a", a.without_heads())
    reference.add("b", b.without_heads())
    reference.model.classifier.load_state_dict(a.heads["classifier"])
    with reference.use(Mix({"a": 0.5, "b": 0.5})):
        close(found, out(reference, batch))
    with pytest.raises(InputError, match="nor train together"), bank.use(Mix({"a": 1.0, "b": 1.0})):
        bank.train_only("a")


def test_a_head_on_a_base_that_lacks_it_is_left_out_with_a_warning(tmp_path):
    peft = from_peft("llama classifier", tmp_path / "a")
    kind, config, _ = KINDS["llama classifier"]
    bank = AdapterBank(build(kind, config).model)
    with pytest.warns(InputWarning, match="also changes score, which this LlamaModel"):
        bank.load("a", tmp_path / "a")
    with bank.use(Mix({"a": 1.0})), torch.no_grad():
        states = bank(input_ids=IDS).last_hidden_state
    close(states, peft.get_base_model().model(input_ids=IDS).last_hidden_state)
    bank.save("a", tmp_path / "saved")
    again = PeftModel.from_pretrained(build(kind, config), tmp_path / "saved")
    close(out(again, batch_for(kind)), out(peft, batch_for(kind)))


@pytest.mark.parametrize("name", ["mistral's embedding and norms", "a tied embedding alone"])
def test_heads_act_on_the_bare_model(name, tmp_path):
    peft = from_peft(name, tmp_path / "a")
    kind, config, _ = KINDS[name]
    bank = AdapterBank(build(kind, config).model)
    bank.load("a", tmp_path / "a")
    with bank.use(Mix({"a": 1.0})), torch.no_grad():
        found = bank(input_ids=IDS).last_hidden_state
    close(found, peft.get_base_model().model(input_ids=IDS).last_hidden_state)


def test_heads_that_do_not_fit_are_refused(tmp_path):
    kind, config, _ = KINDS["bert tagger"]
    from_peft("bert tagger", tmp_path / "a")
    other = T.BertConfig(**SMALL, num_labels=5)
    with pytest.raises(InputError, match=r"shape \(3,\), the base's is \(5,\); load the base"):
        AdapterBank(build(kind, other)).load("a", tmp_path / "a")
    weights = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(weights)
    bias = tensors.pop("base_model.model.classifier.bias")
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(InputError, match="without bias, which the base's Linear has"):
        AdapterBank(build(kind, config)).load("a", tmp_path / "a")
    tensors.pop("base_model.model.classifier.weight")
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(InputError, match="no tensors for classifier, which its configuration"):
        AdapterBank(build(kind, config)).load("a", tmp_path / "a")
    tensors["base_model.model.stranger.bias"] = bias
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(InputError, match="no module that its modules_to_save names"):
        Adapter.from_pretrained(tmp_path / "a")


def test_another_adapters_factors_inside_of_a_head(tmp_path):
    """One adapter brings the classifier, another changes a layer in the base's."""
    name = "roberta classifier of two layers"
    peft, (kind, config, _) = from_peft(name, tmp_path / "a"), KINDS[name]
    bank = AdapterBank(build(kind, config))
    bank.load("a", tmp_path / "a")
    factors = {"classifier.dense": Factors(torch.randn(2, 32), torch.randn(32, 2) * 0.3)}
    bank.add("b", Adapter(factors, configure(factors)))
    batch = batch_for(kind)
    alone = {"a": out(peft, batch), None: out(build(kind, config), batch)}
    with bank.use(Mix({"b": 1.0})):
        alone["b"] = out(bank, batch)
    route = ["b", "a", None, "b"]
    with bank.use(Route(route)):
        close(out(bank, batch), torch.stack([alone[n][i] for i, n in enumerate(route)]))
    with pytest.raises(InputError, match=r"'b' changes classifier\.dense, which adapter"):
        bank.set(Mix({"a": 1.0, "b": 1.0}))
