"""Every form of the product agrees with a loop over rows and adapters in float64."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from geodapt.adapters import Adapter, AdapterBank, Factors, Mix, Off, Route, TopAtoms
from geodapt.adapters.execution import lora_matmul
from geodapt.adapters.execution.strategy import Strategy
from geodapt.adapters.peft_files.configuration import configure
from geodapt.adapters.store.layer_factors import LayerFactors
from geodapt.errors import InputError
from tests.adapters.made_by_peft import seeded

NAMES = ("toys", "books", "tools", "films")
RANKS = (3, 5, 1, 3)


class Two(nn.Module):
    """Two linear layers: one that every adapter touches, one that only the first two do."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 9)
        self.second = nn.Linear(9, 7, bias=False)

    def forward(self, x):
        return self.second(self.first(x).tanh())


def filled(dtype=torch.float64) -> AdapterBank:
    bank = AdapterBank(Two().to(dtype))
    for name, rank in zip(NAMES, RANKS, strict=True):
        bank.add(name, adapter(rank, both=name in NAMES[:2]))
    return bank


def adapter(rank: int, both: bool = True) -> Adapter:
    factors = {"first": Factors(torch.randn(rank, 12), torch.randn(9, rank), 0.5)}
    if both:
        factors["second"] = Factors(torch.randn(rank, 9), torch.randn(7, rank), 2.0)

    return Adapter(factors, configure(factors))


def reference(bank: AdapterBank, x: torch.Tensor, entries, select=None) -> torch.Tensor:
    """Row by row, adapter by adapter, with full matrices."""
    rows = []
    for row, entry in zip(x, entries, strict=True):
        for path in ("first", "second"):
            layer = bank.model.get_submodule(path)
            weight, bias = layer.weight.double(), layer.bias
            out = row.double() @ weight.T + (0 if bias is None else bias.double())
            deltas = [
                (w, bank[name].factors[path])
                for name, w in entry.items()
                if path in bank[name].factors
            ]
            if select is None:
                for w, factors in deltas:
                    delta = factors.scale * factors.B.double() @ factors.A.double()
                    out = out + w * (row.double() @ delta.T)
            elif deltas:
                out = out + select(row.double(), deltas)
            row = out.tanh() if path == "first" else out
        rows.append(row)
    return torch.stack(rows)


def as_dict(entry) -> dict[str, float]:
    return {} if entry is None else {entry: 1.0} if isinstance(entry, str) else entry


ENTRY = st.one_of(
    st.none(),
    st.sampled_from(NAMES),
    st.dictionaries(st.sampled_from(NAMES), st.floats(-2, 2, width=32), max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(entries=st.lists(ENTRY, min_size=1, max_size=7), tokens=st.integers(1, 4))
def test_any_route_equals_a_loop_over_rows(entries, tokens):
    bank = filled()
    x = torch.randn(len(entries), tokens, 12, dtype=torch.float64)
    with bank.use(Route(entries)), torch.no_grad():
        found = bank(x)
    torch.testing.assert_close(found, reference(bank, x, [as_dict(e) for e in entries]))


@settings(max_examples=40, deadline=None)
@given(entries=st.lists(ENTRY, min_size=2, max_size=6), training=st.booleans())
def test_all_forms_agree_forward_and_backward(entries, training):
    bank = filled()
    if training:
        bank.train_only("toys", "tools")
    gate = Route(entries)
    x = torch.randn(len(entries), 3, 12, dtype=torch.float64, requires_grad=True)
    y = torch.randn(len(entries), 3, 9, dtype=torch.float64)
    with bank.use(gate):
        step = bank.runner.active().update("first")
        if step is None:
            return
        source = LayerFactors(bank.store, "first", step.training, y, atoms=False)
        results = {}
        for name in Strategy.costs(source, step.entries, 3):
            out = Strategy.make(name, source, step.entries)(x, y)
            wanted = torch.autograd.grad(out.square().sum(), [x], allow_unused=True)[0]
            results[name] = (out.detach(), wanted)
    for (out, grad), (other, other_grad) in itertools.pairwise(results.values()):
        torch.testing.assert_close(out, other)
        torch.testing.assert_close(grad, other_grad)


@pytest.mark.parametrize(
    ("entries", "rows", "tokens", "form"),
    [
        (["toys"], 4, 8, "masked"),
        (["toys"] * 8 + ["books"] * 8 + ["tools"] * 8, 24, 8, "batched"),
        ([f"n{i}" for i in range(16)], 16, 1, "indexed"),
        ([f"n{i}" for i in range(16)], 16, 8, "batched"),
        ([f"n{i % 2}" for i in range(64)], 64, 1, "masked"),
        ([f"n{i % 16}" for i in range(256)], 256, 1, "segmented"),
    ],
)
def test_the_form_follows_the_shapes(entries, rows, tokens, form):
    bank = AdapterBank(nn.Sequential(nn.Linear(512, 512)))
    for name in dict.fromkeys(entries):
        factors = {"0": Factors(torch.zeros(16, 512), torch.zeros(512, 16))}

        bank.add(name, Adapter(factors, configure(factors)))
    with bank.use(Route(entries)):
        step = bank.runner.active().update("0")
        factors = LayerFactors(bank.store, "0", frozenset(), torch.zeros(1))
        assert Strategy.cheapest(factors, step.entries, rows * tokens) == form


def products(model, *inputs) -> int:
    """What a call costs: the operations of its matrix products."""
    with FlopCounterMode(display=False) as counter:
        model(*inputs)
    return counter.get_total_flops()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_constant_sum_is_merged_into_the_weight_and_stays_equal(dtype):
    bank = filled(dtype)
    x = torch.randn(5, 4, 12, dtype=dtype)
    weights = dict(zip(NAMES, (0.5, -1.0, 2.0, 1.0), strict=True))
    with bank.use(Mix(weights)), torch.no_grad():
        first, later = bank(x[:1, :1]), [bank(x) for _ in range(3)]
        cost = products(bank, x)
    with bank.use(Off()), torch.no_grad():
        assert (cost == products(bank, x)) == (dtype == torch.float32)
    tolerance = (
        {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.5, "rtol": 0.1}
    )
    wanted = reference(bank, x, [weights] * 5).to(dtype)
    torch.testing.assert_close(first, wanted[:1, :1], **tolerance)
    for found in later:
        torch.testing.assert_close(found, wanted, **tolerance)


def test_a_changed_base_weight_is_merged_anew():
    bank = filled(torch.float32)
    x = torch.randn(20, 12)
    weights = dict.fromkeys(NAMES, 1.0)
    with bank.use(Mix(weights)), torch.no_grad():
        bank(x)
        bank.model.first.weight.mul_(2)
        torch.testing.assert_close(
            bank(x), reference(bank, x, [weights] * 20).float(), atol=1e-4, rtol=1e-4
        )


def test_blocks_of_rows_share_an_entry():
    bank = filled()
    x = torch.randn(6, 2, 12, dtype=torch.float64)
    with bank.use(Route(["toys", None, "tools"])), pytest.raises(InputError, match="6 rows"):
        bank(x)
    with bank.use(Route(["toys", None, "tools"], blocks=True)), torch.no_grad():
        found = bank(x)
    entries = [{"toys": 1.0}] * 2 + [{}] * 2 + [{"tools": 1.0}] * 2
    torch.testing.assert_close(found, reference(bank, x, entries))


# Atoms


def top(keep):
    """The sum over the largest |k_i|, from the SVD of each full update."""

    def select(row, deltas):
        terms = []
        for w, factors in deltas:
            delta = factors.scale * factors.B.double() @ factors.A.double()
            U, d, Vt = torch.linalg.svd(delta)
            for i in range(factors.rank):
                terms.append((w * d[i] * (row @ Vt[i]), U[:, i]))
        coefficients = torch.stack([k for k, _ in terms], -1)  # tokens, terms
        count = keep(len(terms), len(deltas))
        chosen = coefficients.abs().topk(count, dim=-1).indices
        mask = torch.zeros_like(coefficients).scatter(-1, chosen, 1.0)
        return (coefficients * mask) @ torch.stack([u for _, u in terms])

    return select


KEEPS = [
    (None, lambda total, n: -(-total // n)),
    (2, lambda total, n: min(2, total)),
    (0.5, lambda total, n: -(-total // 2)),
    (1.0, lambda total, n: total),
]
INNER = [
    Mix({"toys": 1.0, "books": -0.5, "tools": 2.0}),
    Route(["toys", {"toys": 0.5, "books": 0.5}, None, {"books": 1.0, "films": 2.0}]),
    Route(["toys", "toys", "books", "books"]),
    Route(["toys", "books", "books", "toys"]),
]


@pytest.mark.parametrize("of", INNER)
@pytest.mark.parametrize(("keep", "count"), KEEPS)
def test_top_atoms_keeps_the_largest_terms_of_the_full_matrices(of, keep, count):
    bank = filled()
    x = torch.randn(4, 3, 12, dtype=torch.float64)
    with bank.use(TopAtoms(keep, of)), torch.no_grad():
        found = bank(x)
    entries = [dict(terms) for terms in of.entries] * (4 // len(of.entries))
    torch.testing.assert_close(found, reference(bank, x, entries, top(count)))


def test_keeping_every_atom_is_the_plain_sum():
    bank = filled()
    x = torch.randn(4, 3, 12, dtype=torch.float64)
    with bank.use(TopAtoms(1.0)), torch.no_grad():
        found = bank(x)
    with bank.use(Mix(dict.fromkeys(NAMES, 1.0))), torch.no_grad():
        torch.testing.assert_close(found, bank(x))


@pytest.mark.parametrize("of", [Mix(dict.fromkeys(NAMES, 1.0)), Route(["toys", "books"])])
def test_one_choice_for_a_whole_sequence(of):
    bank = filled()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    with bank.use(TopAtoms(2, of, per="sequence")):
        step = bank.runner.active().update("first")
        y = torch.zeros(2, 5, 9, dtype=torch.float64)
        found = step.add(x, y, False, bank.runner.rows.place)
    for i in range(2):
        terms = []
        for name, w in of.entries[i % len(of.entries)]:
            factors = bank[name].factors["first"]
            U, d, Vt = torch.linalg.svd(factors.scale * factors.B.double() @ factors.A.double())
            terms += [(w * d[j] * (x[i] @ Vt[j]), U[:, j]) for j in range(factors.rank)]
        score = torch.stack([k.abs().mean() for k, _ in terms])
        wanted = sum(torch.outer(*terms[j]) for j in score.topk(2).indices)
        torch.testing.assert_close(found[i], wanted)


@settings(max_examples=30, deadline=None)
@given(
    route=st.permutations(["toys", "books", "tools", None, "films", "toys"]),
    per=st.sampled_from(["token", "sequence"]),
)
def test_forms_agree_on_atoms(route, per):
    bank = filled()
    gate = TopAtoms(2, Route(route), per)
    x = torch.randn(6, 3, 12, dtype=torch.float64)
    y = torch.zeros(6, 3, 9, dtype=torch.float64)
    with bank.use(gate), torch.no_grad():
        step = bank.runner.active().update("first")
        source = LayerFactors(bank.store, "first", frozenset(), y, atoms=True)
        results = [
            Strategy.make(name, source, step.entries, gate)(x, y.clone())
            for name in Strategy.costs(source, step.entries, 18)
        ]
    for a, b in itertools.pairwise(results):
        torch.testing.assert_close(a, b)


def test_the_same_route_in_bfloat16_is_near_the_float32_one():
    wanted = None
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(3)
        bank = AdapterBank(seeded("bert").to(dtype))
        for name in ("toys", "books"):
            bank.create(name, rank=4, targets=["query", "value"])
            for parameter in bank.parameters_of(name):
                torch.nn.init.normal_(parameter, std=0.1)
            bank.train_only(name)
        bank.train_only()
        ids = torch.arange(3, 35).view(4, 8)
        with bank.use(Route(["toys", "toys", "books", "books"])), torch.no_grad():
            found = bank(input_ids=ids)[0].float()
        wanted = found if wanted is None else wanted
        torch.testing.assert_close(found, wanted, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_few_atoms_are_read_one_by_one_with_the_same_result_and_gradient(dtype):
    torch.manual_seed(1)
    x = torch.randn(3, 4, 12).to(dtype).requires_grad_()
    y = torch.randn(3, 4, 9).to(dtype)
    A, B = torch.randn(16, 12).to(dtype), torch.randn(16, 9).to(dtype)
    gate = lora_matmul.weigh(torch.rand(3, 16).to(dtype))
    out = lora_matmul.gathered(x, y, A, B, gate, 3, 2)
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    h = gate((x.view(-1, 12) @ A.T).view(3, -1, 16)).view(-1, 16)
    best = h.detach().abs().topk(2, dim=-1).indices
    kept = torch.zeros_like(h).scatter(-1, best, h.gather(-1, best))
    wide = torch.promote_types(dtype, torch.float32)
    wanted = y + (kept.to(wide) @ B.to(wide)).view(y.shape).to(dtype)
    (wanted_gradient,) = torch.autograd.grad(wanted.square().sum(), x)
    tolerance = {"atol": 0.1, "rtol": 0.05} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(out, wanted, **tolerance)
    if dtype != torch.bfloat16:
        torch.testing.assert_close(gradient, wanted_gradient)


@pytest.mark.parametrize(
    ("dtype", "top"),
    [
        (torch.float64, None),
        (torch.float32, None),
        (torch.bfloat16, None),
        (torch.float32, TopAtoms(2)),
        (torch.float32, TopAtoms(0.5, per="sequence")),
    ],
)
@pytest.mark.parametrize("tokens", [1, 3])
def test_rows_read_from_the_stack_equal_sorted_rows_in_float64(dtype, top, tokens):
    """Unequal ranks, weights, and a row under no adapter."""
    bank = filled(dtype)
    route = Route(["films", None, {"toys": 0.5, "books": -2.0}, {"tools": 1.5}, "toys"])
    gate = route if top is None else TopAtoms(top.keep, route, top.per)
    x = torch.randn(5, tokens, 12, dtype=dtype)
    y = torch.randn(5, tokens, 9, dtype=dtype)
    with bank.use(gate), torch.no_grad():
        entries = bank.runner.active().update("first").entries
        results = []
        for form, kind in (("indexed", dtype), ("segmented", torch.float64)):
            like = y.to(kind, copy=True)
            source = LayerFactors(bank.store, "first", frozenset(), like, atoms=top is not None)
            results.append(Strategy.make(form, source, entries, top)(x.to(kind), like).double())
    near = 3e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(*results, rtol=near, atol=10 * near)
