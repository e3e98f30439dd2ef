"""A bounded number of adapters on the device, loaded and dropped while the model serves."""

import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
import torch
from torch import nn

from geodapt.adapters import Adapter, AdapterBank, Factors, Mix, Off, Route
from geodapt.adapters.peft_files.configuration import configure
from geodapt.errors import InputError
from tests.adapters.heads import KINDS, batch_for, from_peft, out
from tests.tiny_models import build


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(6, 6, bias=False)
        nn.init.zeros_(self.only.weight)

    def forward(self, x):
        return self.only(x)


def numbered(i: int) -> Adapter:
    """An adapter that multiplies by its number."""
    factors = {"only": Factors(torch.eye(6) * i, torch.eye(6))}
    return Adapter(factors, configure(factors))


def bank_of(count: int, capacity: int | None) -> AdapterBank:
    bank = AdapterBank(Layer(), capacity=capacity)
    for i in range(count):
        bank.add(f"n{i}", numbered(i))
    return bank


def answer(bank: AdapterBank, *numbers: int) -> list[int]:
    with bank.use(Route([f"n{i}" for i in numbers])), torch.no_grad():
        return [round(v) for v in bank(torch.ones(len(numbers), 6))[:, 0].tolist()]


def test_the_least_recently_used_makes_room():
    bank = bank_of(6, capacity=3)
    assert answer(bank, 0, 1) == [0, 1]
    assert answer(bank, 2) == [2]
    assert answer(bank, 0) == [0]
    assert answer(bank, 5) == [5]
    assert bank.resident == ["n2", "n0", "n5"]
    assert answer(bank, 1, 2, 5) == [1, 2, 5]


def test_memory_stays_bounded():
    bank = bank_of(200, capacity=4)
    for i in range(200):
        assert answer(bank, i) == [i]
    assert len(bank.resident) == 4
    like = torch.zeros(1)
    assert bank.store.stack("only", bank.resident, like).A.shape[0] <= 64


def test_more_than_the_bank_holds_is_refused():
    bank = bank_of(6, capacity=3)
    with pytest.raises(InputError, match="uses 4 adapters, the bank holds 3"):
        answer(bank, 0, 1, 2, 3)
    assert answer(bank, 0, 1, 2) == [0, 1, 2]


def test_a_nested_gate_that_can_never_fit_is_refused_at_once():
    bank = bank_of(6, capacity=3)
    with bank.use(Route(["n0", "n1"])), pytest.raises(InputError, match="no room"):
        answer(bank, 3, 4)
    assert answer(bank, 3, 4) == [3, 4]


def test_the_resting_gate_keeps_its_places_until_it_is_changed():
    bank = bank_of(6, capacity=3)
    bank.set(Route(["n0", "n1"]))
    assert answer(bank, 5) == [5]
    with pytest.raises(InputError, match="and 2 of them for the gate that is set"):
        answer(bank, 3, 4)
    with pytest.raises(InputError, match="uses 4 adapters"):
        bank.set(Route(["n2", "n3", "n4", "n5"]))
    with torch.no_grad():
        assert bank(torch.ones(2, 6))[:, 0].tolist() == [0, 1]
    bank.set(Route(["n2", "n3", "n4"]))  # no room beside the old one
    with torch.no_grad():
        assert bank(torch.ones(3, 6))[:, 0].tolist() == [2, 3, 4]
    bank.set(Off())
    assert answer(bank, 3, 4) == [3, 4]


def test_a_gate_waits_until_another_thread_makes_room():
    bank = bank_of(4, capacity=2)
    inside, leave, results = threading.Event(), threading.Event(), []

    def hold():
        with bank.use(Route(["n0", "n1"])):
            inside.set()
            leave.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait()
    waiter = threading.Thread(target=lambda: results.append(answer(bank, 2, 3)))
    waiter.start()
    time.sleep(0.05)
    assert not results
    leave.set()
    waiter.join()
    holder.join()
    assert results == [[2, 3]]


def test_loading_in_the_background(tmp_path):
    bank = AdapterBank(Layer(), capacity=2)
    for i in range(3):
        numbered(i).save_pretrained(tmp_path / str(i))
        bank.load(f"n{i}", tmp_path / str(i), background=True)
    bank.load("broken", tmp_path / "absent", background=True)
    assert len(bank) == 4
    assert answer(bank, 1, 2) == [1, 2]
    with pytest.raises(InputError, match="is not a folder"), bank.use(Mix({"broken": 1.0})):
        pass
    assert "broken" not in bank


def test_prefetched_adapters_are_on_the_device():
    bank = bank_of(4, capacity=2)
    bank.prefetch(["n2", "n3"])
    deadline = time.monotonic() + 60
    while set(bank.resident) != {"n2", "n3"} and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(bank.resident) == {"n2", "n3"}


def test_an_adapter_in_use_is_not_removed():
    bank = bank_of(2, None)
    with bank.use(Mix({"n1": 1.0})):
        with pytest.raises(InputError, match="used by a running gate"):
            bank.remove("n1")
        bank.remove("n0")
    bank.remove("n1")
    assert bank.names == []
    bank.add("n1", numbered(7))  # the name is free again, and nothing of the old one is left
    assert answer(bank, 1) == [7]


def from_four_threads(work: Callable[[int], list]) -> list:
    """What ``work`` found in each of four threads, which take turns in the middle of whatever is
    not locked."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            return list(chain.from_iterable(pool.map(work, range(4))))
    finally:
        sys.setswitchinterval(before)


@pytest.mark.slow
def test_many_adapters_from_four_threads_with_coming_and_going():
    bank, count, stop = bank_of(100, capacity=8), 100, time.monotonic() + 2

    def work(seed: int) -> list:
        draw, wrong = random.Random(seed), []
        while time.monotonic() < stop:
            numbers = [draw.randrange(count) for _ in range(draw.randrange(1, 3))]
            if answer(bank, *numbers) != numbers:
                wrong.append(numbers)
            name = f"own{seed}"
            bank.add(name, numbered(3))
            with bank.use(Mix({name: 2.0})), torch.no_grad():
                if bank(torch.ones(1, 6))[0, 0] != 6:
                    wrong.append(name)
            bank.remove(name)
        return wrong

    assert from_four_threads(work) == []
    assert len(bank.resident) <= 8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama classifier", "roberta classifier of two layers"])
def test_four_threads_on_a_model_with_coming_and_going(name, tmp_path):
    kind, config, _ = KINDS[name]
    batch, folders = batch_for(kind, rows=2), [tmp_path / str(i) for i in range(6)]
    expected = [out(from_peft(name, f, seed=i), batch) for i, f in enumerate(folders)]
    bank, stop = AdapterBank(build(kind, config), capacity=8), time.monotonic() + 4
    for i, folder in enumerate(folders):
        bank.load(f"n{i}", folder)

    def work(seed: int) -> list:
        draw, wrong, own = random.Random(seed), [], f"own{seed}"
        while time.monotonic() < stop:
            bank.load(own, folders[seed])
            first, second = draw.randrange(6), seed
            with bank.use(Route([f"n{first}", own])):
                answers = out(bank, batch)
            bank.remove(own)
            right = torch.stack([expected[first][0], expected[second][1]])
            if not torch.allclose(answers, right, atol=1e-4, rtol=1e-4):
                wrong.append((first, second, (answers - right).abs().max()))
        return wrong

    assert from_four_threads(work) == []
