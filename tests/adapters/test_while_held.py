"""An adapter that another thread removes, or adds anew, while a gate is being prepared with it."""

import pytest
import torch

from geodapt.errors import InputError
from tests.adapters.filled import filled
from tests.adapters.made_by_peft import TARGETS, inputs, output, seeded


def before_held(bank, monkeypatch, change):
    """Let ``change`` happen after a gate's adapters were looked up, and before they are held."""
    hold = bank.store.cache.hold

    def late(*args, **kwargs):
        monkeypatch.undo()
        change()
        return hold(*args, **kwargs)

    monkeypatch.setattr(bank.store.cache, "hold", late)


@pytest.mark.parametrize("family", ["bert", "llama"])
@torch.no_grad()
def test_an_adapter_added_anew_meanwhile_acts_as_it_is_now(family, monkeypatch):
    bank, batch = filled(seeded(family), TARGETS[family]["toys"]), inputs(family, 2)
    other = bank["books"]
    with bank.use("books"):
        wanted = output(bank.model, batch)
    with bank.use("toys"):
        before = output(bank.model, batch)

    def anew():
        bank.remove("toys")
        bank.add("toys", other)

    before_held(bank, monkeypatch, anew)
    with bank.use("toys"):
        found = output(bank.model, batch)
        with pytest.raises(InputError, match="is used by a running gate"):
            bank.remove("toys")
    torch.testing.assert_close(found, wanted)
    assert (found - before).abs().max() > 1e-3


@torch.no_grad()
def test_an_adapter_removed_meanwhile_is_missed_and_holds_nothing(monkeypatch):
    bank, batch = filled(seeded("bert"), ["query"]), inputs("bert", 2)
    before_held(bank, monkeypatch, lambda: bank.remove("toys"))
    with pytest.raises(InputError, match="no adapter 'toys'"), bank.use("toys"):
        pass
    with bank.use("books"):
        output(bank.model, batch)
    bank.remove("books")  # nothing holds it


@torch.no_grad()
def test_an_adapter_that_trains_meanwhile_acts(monkeypatch):
    bank, batch = filled(seeded("bert"), ["query"]), inputs("bert", 2)
    with bank.use("toys"):
        wanted = output(bank.model, batch)
    before_held(bank, monkeypatch, lambda: bank.train_only("toys"))
    with bank.use("toys"):
        torch.testing.assert_close(output(bank.model, batch), wanted)
