"""The bank computes what PEFT computes."""

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from geodapt.adapters import AdapterBank, Mix, Off, Route
from tests.adapters.made_by_peft import inputs, output, peft_model, seeded

NAMES = ("toys", "books", "tools")
ROUTES = [
    ["toys", "books", "tools", "toys"],  # a row each
    ["toys", "toys", "books", "books"],  # equal blocks
    ["books", "toys", "toys", "toys"],  # unequal runs
    [None, "toys", None, "tools"],
    ["tools", "tools", "tools", "tools"],
]


@pytest.fixture
def both(family, peft_folder):
    """PEFT's model and a bank with the same three adapters, read from PEFT's folders.

    In float64: sums in another order differ by some 1e-5 in float32, more on some processors.
    """
    reference = peft_model(family)
    where = peft_folder(reference)
    bank = AdapterBank(seeded(family).double())
    for name in NAMES:
        bank.load(name, where(name))
    return reference.double(), bank


@pytest.mark.parametrize("route", ROUTES)
def test_route_equals_adapter_names(both, family, route):
    reference, bank = both
    batch = inputs(family, len(route))
    names = [name or "__base__" for name in route]
    if family in ("t5", "deberta"):  # PEFT cannot route a decoder, nor what all rows share
        wanted = torch.cat(
            [_alone(reference, name, _row(batch, i)) for i, name in enumerate(route)]
        )
    else:
        wanted = reference(**batch, adapter_names=names)[0].detach()
    with bank.use(Route(route)):
        torch.testing.assert_close(output(bank.model, batch), wanted, atol=1e-5, rtol=1e-5)


def test_mix_equals_several_active_adapters(both, family):
    reference, bank = both
    batch = inputs(family, 3)
    reference.base_model.set_adapter(list(NAMES))
    wanted = output(reference, batch)
    with bank.use(Mix(dict.fromkeys(NAMES, 1.0))):
        torch.testing.assert_close(output(bank.model, batch), wanted, atol=1e-5, rtol=1e-5)


def test_weighted_mix_equals_scaled_adapters(both, family):
    reference, bank = both
    batch = inputs(family, 3)
    weights = {"toys": 0.5, "books": -0.25, "tools": 2.0}
    reference.base_model.set_adapter(list(NAMES))
    for module in reference.modules():
        for name, weight in weights.items():
            if isinstance(module, LoraLayer) and name in module.scaling:
                module.scaling[name] *= weight
    wanted = output(reference, batch)
    with bank.use(Mix(weights)):
        torch.testing.assert_close(output(bank.model, batch), wanted, atol=1e-5, rtol=1e-5)


def test_off_is_the_base_alone(both, family):
    _, bank = both
    batch = inputs(family, 3)
    wanted = output(seeded(family).double(), batch)
    torch.testing.assert_close(output(bank.model, batch), wanted, atol=1e-6, rtol=0)
    with bank.use(Mix({"toys": 1.0})):
        assert (output(bank.model, batch) - wanted).abs().max() > 1e-3
        with bank.use(Off()):
            torch.testing.assert_close(output(bank.model, batch), wanted, atol=1e-6, rtol=0)


def test_row_mixtures_equal_one_row_at_a_time(both, family):
    _, bank = both
    batch = inputs(family, 4)
    route = [{"toys": 0.5, "books": 0.5}, None, "tools", {"books": 1.5, "tools": -1.0}]
    wanted = []
    for i, entry in enumerate(route):
        with bank.use(Route([entry])):
            wanted.append(output(bank.model, _row(batch, i)))
    with bank.use(Route(route)):
        torch.testing.assert_close(
            output(bank.model, batch), torch.cat(wanted), atol=1e-5, rtol=1e-5
        )


def test_saved_adapters_load_in_peft(both, family, tmp_path):
    reference, bank = both
    batch = inputs(family, 2)
    for name in NAMES:
        bank.save(name, tmp_path / name)
        again = PeftModel.from_pretrained(seeded(family), tmp_path / name).double().eval()
        torch.testing.assert_close(
            output(again, batch), _alone(reference, name, batch), atol=1e-6, rtol=1e-6
        )


def _alone(reference, name, batch):
    if name is None:
        with reference.disable_adapter():
            return output(reference, batch)
    reference.set_adapter(name)
    return output(reference, batch)


def _row(batch, i):
    return {key: value[i : i + 1] for key, value in batch.items()}
