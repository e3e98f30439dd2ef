"""Copies of a bank, norms over the batch, layers without rows: refused, or right."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from geodapt.adapters import AdapterBank, Mix, Off, Route, TopAtoms
from geodapt.errors import InputError
from tests.adapters.filled import filled
from tests.adapters.made_by_peft import inputs, output, seeded


@pytest.mark.parametrize(
    "take",
    [copy.copy, copy.deepcopy, pickle.dumps, lambda bank: torch.save(bank, io.BytesIO())],
    ids=["copy", "deepcopy", "pickle", "torch.save"],
)
def test_a_bank_is_neither_copied_nor_pickled(take):
    bank = filled(seeded("bert"), ["query"])
    with pytest.raises(InputError, match=r"cannot be copied or pickled; .* bank\.save"):
        take(bank)


def test_a_model_that_has_a_bank_is_copied_without_it_and_not_pickled():
    model, batch = seeded("bert"), inputs("bert", 2)
    base = output(model, batch)
    bank = filled(model, ["query"])
    for take in (pickle.dumps, lambda model: torch.save(model, io.BytesIO())):
        with pytest.raises(InputError, match=r"cannot be pickled; .* bank\.close"):
            take(model)
    with bank.use("toys"):
        torch.testing.assert_close(output(AdapterBank(copy.deepcopy(model)).model, batch), base)
    bank.close()
    again = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(output(again, batch), base)


class Normed(nn.Module):
    """A norm over the batch before an adapted layer, so that rows change each other."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 6), norm, nn.Linear(6, 6)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


@pytest.mark.parametrize("layer", ["first", "last"])
def test_a_route_is_refused_where_a_norm_mixes_the_batch(layer):
    model = Normed(nn.BatchNorm1d(6)).train()
    bank = filled(model, [layer])
    x = torch.randn(4, 6)
    before = {name: value.clone() for name, value in model.norm.named_buffers()}
    gate = Route(["toys", None, "books", "toys"])
    with bank.use(gate), pytest.raises(InputError, match=r"norm is a BatchNorm1d in training mode"):
        model(x)
    for name, value in model.norm.named_buffers():
        assert torch.equal(value, before[name])
    with bank.use("toys"):
        assert model(x).shape == (4, 6)
    model.eval()
    with bank.use(gate):
        found = model(x)
    for i, name in enumerate(["toys", None, "books", "toys"]):
        with bank.use(name or Off()):
            torch.testing.assert_close(found[i : i + 1], model(x[i : i + 1]))


class Sends(nn.Module):
    """Sends each row to one of two layers, and calls both whether or not any row is for them."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        high = x.mean((1, 2)) > 0
        y = torch.empty_like(x)
        y[~high], y[high] = self.low(x[~high]), self.high(x[high])
        return y


@pytest.mark.parametrize(
    "gate", [Mix({"toys": 1.0, "books": -0.5}), "books", TopAtoms(1, Mix({"toys": 1.0}))]
)
def test_a_layer_without_rows_gives_none(gate):
    model = Sends()
    bank = filled(model, ["low", "high"])
    x = torch.rand(3, 5, 4)
    with bank.use(gate):
        found = model(x)
        torch.testing.assert_close(found, model.high(x))
        assert model.low(x[:0]).shape == (0, 5, 4)
    embedding = nn.Sequential(nn.Embedding(7, 4))
    bank = filled(embedding, ["0"])
    with bank.use(gate):
        assert bank(torch.zeros(0, 3, dtype=torch.long)).shape == (0, 3, 4)


def test_a_layer_without_rows_passes_under_a_route():
    bank = filled(Sends(), ["low", "high"])
    with bank.use(Route(["toys", "books"])):
        assert bank.model.low(torch.zeros(0, 5, 4)).shape == (0, 5, 4)


def test_training_begins_after_a_gate_of_atoms_was_used():
    bank = filled(seeded("bert"), ["query"])
    batch = inputs("bert", 2)
    with bank.use(TopAtoms(1, Mix({"toys": 1.0}))):
        output(bank.model, batch)
    bank.train_only("toys")
    with pytest.raises(InputError, match="acts on frozen adapters"):
        bank.set(TopAtoms(1, Mix({"toys": 1.0})))
    with bank.use("toys"):
        output(bank.model, batch)
