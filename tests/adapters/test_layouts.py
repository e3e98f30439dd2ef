"""What a new gate needs to know of layers is shared by those at which the same adapters lie."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from geodapt.adapters import Adapter, AdapterBank, Factors, Route
from geodapt.adapters.peft_files.configuration import configure
from geodapt.adapters.store.factors import Stack

CHANGES = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 5)), max_size=20)


@settings(max_examples=50, deadline=None)
@given(changes=CHANGES)
def test_stacks_that_see_the_same_changes_have_one_layout_and_keep_every_row(changes):
    stacks = [Stack(width, 2, torch.float64, torch.device("cpu")) for width in (3, 4)]
    held: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, rank in changes:
        leaves = name in held
        held.pop(name, None)
        if not leaves:
            held[name] = torch.randn(rank, 3).double(), torch.randn(rank, 2).double()
        for stack in stacks:
            if leaves:
                stack.drop(name)
            else:
                A, B = held[name]
                stack.put(name, A[:, :1].expand(-1, stack.A.shape[1]) if stack.width > 5 else A, B)
        assert stacks[0].layout is stacks[1].layout
    assert stacks[0].spans.keys() == held.keys()
    for name, (A, B) in held.items():
        start, rank = stacks[0].spans[name]
        assert torch.equal(stacks[0].A[start : start + rank], A)
        assert torch.equal(stacks[0].B[start : start + rank], B)
    assert not stacks[0].A[0].any()
    assert not stacks[0].B[0].any()


def adapter(*layers: str) -> Adapter:
    factors = {path: Factors(torch.randn(2, 4), torch.randn(4, 2), 1.0) for path in layers}
    return Adapter(factors, configure(factors))


def test_layers_share_a_gate_s_entries_as_adapters_come_and_go():
    bank = AdapterBank(nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))))
    bank.add("all", adapter("0", "1", "2"))
    bank.add("some", adapter("0", "1"))

    def shared(rows):
        with bank.use(Route(rows)), torch.no_grad():
            bank(torch.randn(2, 4))
            updates = [bank.runner.active().update(path) for path in ("0", "1", "2")]
            return [None if each is None else each.entries for each in updates]

    one, other, third = shared(["all", "some"])
    assert one is other
    assert third == [(("all", 1.0),), ()]
    assert shared(["some", None])[2] is None
    bank.remove("all")
    assert bank.store.acting.at("2").touching == frozenset()
    bank.add("all", adapter("2"))
    assert [bank.store.acting.at(path).touching for path in "012"] == [{"some"}, {"some"}, {"all"}]
    assert shared(["all", "some"])[0] == [(), (("some", 1.0),)]
