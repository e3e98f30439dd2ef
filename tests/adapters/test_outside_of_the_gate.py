"""Where a gate's block ends, or never was: threads, generators, backward passes, exports."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from geodapt.adapters import Mix, Off
from geodapt.errors import InputError
from tests.adapters.filled import filled
from tests.adapters.made_by_peft import TARGETS, inputs, output, seeded


@pytest.fixture(params=["bert", "t5"])
def bank(request):
    made = filled(seeded(request.param), TARGETS[request.param]["books"])
    made.family = request.param
    return made


def run(bank):
    return output(bank.model, inputs(bank.family, 2))


def under(bank, gate):
    with bank.use(gate):
        return run(bank)


def test_a_thread_inherits_no_gate_and_says_so(bank):
    wanted, base = under(bank, "toys"), under(bank, Off())
    with ThreadPoolExecutor(1) as pool:
        with bank.use("toys"):
            with pytest.raises(InputError, match="another one, from which threads"):
                pool.submit(run, bank).result()
            assert torch.equal(pool.submit(bank.bind(run), bank).result(), wanted)
            assert torch.equal(pool.submit(under, bank, Off()).result(), base)
        assert torch.equal(pool.submit(run, bank).result(), base)
        bank.set(Off())
        with bank.use("toys"):
            assert torch.equal(pool.submit(run, bank).result(), base)


def test_blocks_of_generators_that_take_turns_are_refused(bank):
    wanted = {name: under(bank, name) for name in ("toys", "books")}

    def steps(name):
        with bank.use(name):
            for _ in range(2):
                yield run(bank)

    alone = list(steps("toys"))
    assert all(torch.equal(found, wanted["toys"]) for found in alone)
    first, second = steps("toys"), steps("books")
    next(first), next(second), next(first)
    with pytest.raises(InputError, match="ended while another one was open"):
        next(first)
    second.close()
    assert torch.equal(under(bank, "toys"), wanted["toys"])


def test_a_block_that_ends_in_another_thread_is_refused(bank):
    def steps():
        with bank.use("toys"):
            yield

    held = steps()
    found = []

    def end():
        with pytest.raises(InputError, match="another context than it began in"):
            next(held)
        found.append(True)

    next(held)
    thread = threading.Thread(target=end)
    thread.start()
    thread.join()
    assert found


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputing_without_the_gate_is_refused(bank, reentrant):
    bank.train_only("toys")
    path = next(p for p in bank["toys"].factors)
    layer = bank.model.get_submodule(path)
    x = torch.randn(2, 3, layer.in_features, requires_grad=True)

    def gradients(block, ended=True):
        bank.zero_grad()
        with bank.use("toys"):
            y = checkpoint(block, x, use_reentrant=reentrant).square().sum()
            if not ended:
                y.backward()
        if ended:
            y.backward()
        return [p.grad for p in bank.parameters_of("toys") if p.grad is not None]

    with pytest.raises(InputError, match="backward pass runs a part of the model again"):
        gradients(layer)
    with bank.use("toys"):
        bound = bank.bind(layer.forward)
    wanted = gradients(layer, ended=False)
    assert wanted
    torch.testing.assert_close(gradients(bound), wanted)


def test_what_is_traced_or_exported_under_adapters_is_refused():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4))
    bank = filled(model, ["0", "2"])
    x = torch.randn(3, 6)
    with bank.use("toys"), torch.no_grad():
        wanted = model(x)
        with pytest.raises(InputError, match="exported or traced while adapters act"):
            torch.jit.trace(model, x)
        with pytest.raises(InputError, match="exported or traced while adapters act"):
            torch.export.export(model, (x,))
    bank.merge_into_base({"toys": 1.0})
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.trace(model, x)(x), wanted)
        torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), wanted)


@pytest.mark.parametrize("rank", [2, 16])
def test_a_wrapper_around_a_layer_acts_however_often_it_ran(rank):
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    inner = model[0].forward
    model[0].forward = lambda x: inner(x) * 2 + 1
    bank = filled(model, ["0"], rank=rank)
    x = torch.randn(64, 8)
    A, B, scale = bank["toys"].factors["0"]
    wanted = model[2](torch.tanh(inner(x) * 2 + 1 + scale * x @ A.T @ B.T))
    with torch.no_grad(), bank.use(Mix({"toys": 1.0})):
        for _ in range(5):
            torch.testing.assert_close(model(x), wanted, atol=1e-5, rtol=1e-5)


def test_a_layer_may_get_its_input_by_name():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.table = nn.Linear(6, 6), nn.Embedding(9, 6)

        def forward(self, x):
            return self.inner(input=self.table(input=x))

    model = Named()
    bank = filled(model, ["inner", "table"])
    x = torch.arange(4)[None]
    with bank.use("toys"):
        found = model(x)
        torch.testing.assert_close(found, model.inner(model.table(x)))
    assert not torch.equal(found, model(x))
