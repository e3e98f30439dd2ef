"""Every merge against full matrices in float64, and against PEFT where PEFT is exact."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from peft.utils import merge_utils

from geodapt.adapters import METHODS, Adapter, AdapterBank, Mix, merge
from geodapt.adapters.merging.layers import each_layer
from geodapt.adapters.merging.registry import Part
from tests.adapters.made_by_peft import inputs, output, peft_model, seeded
from tests.adapters.merges import PATHS, PEERS, WEIGHTS, adapter, cut


def deltas(adapters, path):
    """Full updates, zero for an adapter that does not touch the layer."""
    out, width = PATHS[path]
    return [
        a.factors[path].delta() if path in a.factors else torch.zeros(out, width).double()
        for a in adapters
    ]


@pytest.mark.parametrize("method", ["linear", "cat"])
def test_exact_methods_are_the_weighted_sum(three, method):
    merged = merge(three, method, WEIGHTS)
    for path in PATHS:
        wanted = sum(w * d for w, d in zip(WEIGHTS, deltas(three, path), strict=True))
        torch.testing.assert_close(merged.factors[path].delta(), wanted)
        ranks = sum(a.factors[path].rank for a in three if path in a.factors)
        assert merged.factors[path].rank <= ranks
        assert merged.errors[path] == 0
    assert merge([three[0], three[0]], "linear").rank == three[0].rank  # and no more than needed


@pytest.mark.parametrize("rank", [1, 3, 9])
def test_svd_is_the_best_approximation(three, rank):
    merged = merge(three, "svd", WEIGHTS, rank=rank)
    for path in PATHS:
        wanted = sum(w * d for w, d in zip(WEIGHTS, deltas(three, path), strict=True))
        torch.testing.assert_close(merged.factors[path].delta(), cut(wanted, rank))
        error = (merged.factors[path].delta() - wanted).norm() / wanted.norm()
        assert merged.errors[path] == pytest.approx(error.item(), abs=1e-7)


@settings(max_examples=30, deadline=None)
@given(energy=st.floats(0.05, 1.0), seed=st.integers(0, 50))
def test_an_energy_share_takes_the_fewest_terms_that_hold_it(energy, seed):
    two = [adapter(seed, 3), adapter(seed + 1, 2)]
    merged = merge(two, "svd", energy=energy)
    for path in PATHS:
        spectrum = torch.linalg.svdvals(sum(deltas(two, path)) / 2).square()
        held = spectrum.cumsum(0) / spectrum.sum()
        fewest = int((held < energy - 1e-9).sum()) + 1
        assert merged.factors[path].rank == fewest


@pytest.mark.parametrize("density", [0.1, 0.37, 0.5, 1.0])
@pytest.mark.parametrize("method", PEERS)
@pytest.mark.filterwarnings("ignore:The density")
def test_trimming_methods_equal_peft_on_full_matrices(method, density):
    some = [adapter(i, 3) for i in range(3)]
    merged = merge(some, method, WEIGHTS, rank=9, density=density)
    for path in PATHS:
        wanted = PEERS[method](deltas(some, path), torch.tensor(WEIGHTS).double(), density)
        torch.testing.assert_close(merged.factors[path].delta(), cut(wanted, 9))


def test_a_layer_that_an_adapter_lacks_has_no_say(three):
    merged = merge(three, "ties", density=1.0, rank=9)
    wanted = merge_utils.ties(
        [d for d in deltas(three, "layers.1.q") if d.any()], torch.ones(2).double(), 1.0
    )
    torch.testing.assert_close(merged.factors["layers.1.q"].delta(), cut(wanted, 9))


@pytest.mark.parametrize("method", ["dare", "dare_ties"])
def test_random_dropping(method):
    wide = {"w": (200, 150)}
    some = [adapter(i, 3, wide, torch.float64) for i in range(2)]
    whole = [a.factors["w"].delta() for a in some]
    function = METHODS[method].function
    parts = [Part(a.factors["w"].A, a.factors["w"].B * a.factors["w"].scale, 1.0) for a in some]
    result = function(parts, density=0.3, seed=4)
    assert torch.equal(result, function(parts, density=0.3, seed=4))
    assert not torch.equal(result, function(parts, density=0.3, seed=5))
    if method == "dare":
        # Every entry is a sum of whole[i] / density over those that stayed, the density being
        # as exact as its 16 binary digits.
        candidates = torch.stack(
            [a * whole[0] / 0.3 + b * whole[1] / 0.3 for a in (0, 1) for b in (0, 1)]
        )
        assert (candidates - result).abs().min(0).values.max() < 1e-4 * result.abs().max()
        assert (result != 0).double().mean() == pytest.approx(1 - 0.7**2, abs=0.02)
    else:
        agree = (whole[0].sign() * result.sign() >= 0) | (whole[1].sign() * result.sign() >= 0)
        assert agree.all()
    none_dropped = function(parts, density=1.0)
    wanted = sum(whole) if method == "dare" else merge_utils.ties(whole, torch.ones(2), 1.0)
    torch.testing.assert_close(none_dropped, wanted)


@pytest.mark.parametrize(("density", "tile"), [(0.25, 4), (0.5, 5), (1.0, 3), (0.01, 64)])
def test_dense_blocks_keeps_the_tiles_with_most_energy(three, density, tile):
    merged = merge(three, "dense_blocks", WEIGHTS, rank=9, density=density, tile=tile)
    for path, (out, width) in PATHS.items():
        wanted = torch.zeros(out, width).double()
        for weight, delta in zip(WEIGHTS, deltas(three, path), strict=True):
            corners = [(i, j) for i in range(0, out, tile) for j in range(0, width, tile)]
            energy = {
                (i, j): delta[i : i + tile, j : j + tile].square().sum().item() for i, j in corners
            }
            stay = sorted(corners, key=energy.get)[-math.ceil(density * len(corners)) :]
            for i, j in stay:
                wanted[i : i + tile, j : j + tile] += weight * delta[i : i + tile, j : j + tile]
        torch.testing.assert_close(merged.factors[path].delta(), cut(wanted, 9))


@pytest.mark.parametrize("calibrated", [False, True])
def test_atoms_keeps_the_terms_that_act_most(three, calibrated):
    calibration = None
    if calibrated:
        calibration = {
            path: torch.randn(20, width, dtype=torch.float64) * torch.linspace(0.1, 3, width)
            for path, (_, width) in PATHS.items()
        }
    merged = merge(three, "atoms", WEIGHTS, rank=4, calibration=calibration)
    for path in PATHS:
        terms = []
        for weight, adapter_ in zip(WEIGHTS, three, strict=True):
            if path not in adapter_.factors:
                continue
            U, d, Vt = torch.linalg.svd(weight * adapter_.factors[path].delta())
            for i in range(adapter_.factors[path].rank):
                x = Vt[i] if calibration is None else calibration[path] @ Vt[i]
                score = d[i] if calibration is None else (d[i] * x).abs().mean()
                terms.append((score.item(), d[i] * torch.outer(U[:, i], Vt[i])))
        terms.sort(key=lambda term: -term[0])
        torch.testing.assert_close(merged.factors[path].delta(), sum(t for _, t in terms[:4]))
    assert merge(three, "atoms").factors["layers.0.q"].rank == 3  # the mean of 2, 4 and 3


def test_layers_beside_each_other_give_what_one_after_the_other_gives():
    paths = {f"layers.{i}.q": (60, 200) for i in range(5)}
    some = [adapter(i, 3, paths, torch.float32) for i in range(2)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = merge(some, "ties")
        torch.set_num_threads(2)
        beside = merge(some, "ties")
        assert torch.get_num_threads() == 2
        assert list(each_layer(lambda x: x * x, range(100))) == [x * x for x in range(100)]
        with pytest.raises(ZeroDivisionError):
            list(each_layer(lambda x: 1 / x, [1, 0, 2]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert alone.sha256 == beside.sha256


def test_float_types_may_differ():
    narrow, wide = adapter(0, 2, dtype=torch.bfloat16), adapter(1, 3, dtype=torch.float64)
    for method in METHODS:
        assert merge([narrow, wide], method).factors["layers.0.q"].A.dtype == torch.float64
        assert merge([narrow, narrow], method).factors["layers.0.q"].A.dtype == torch.float32


@pytest.mark.parametrize("method", ["svd", "cat"])
def test_merges_equal_pefts_where_peft_is_exact(method, tmp_path, peft_folder):
    reference = peft_model("llama", ("toys", "tools"))
    where = peft_folder(reference)
    batch = inputs("llama", 2)
    reference.add_weighted_adapter(
        ["toys", "tools"], [0.7, 0.6], "both", combination_type=method, svd_rank=3
    )
    reference.set_adapter("both")
    merged = merge(
        [Adapter.from_pretrained(where(name)) for name in ("toys", "tools")],
        method,
        [0.7, 0.6],
        rank=3 if method == "svd" else None,
    )
    merged.save_pretrained(tmp_path / "merged")
    ours = PeftModel.from_pretrained(seeded("llama"), tmp_path / "merged").eval()
    torch.testing.assert_close(output(ours, batch), output(reference, batch), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_every_merge_loads_in_peft_with_equal_logits(method, tmp_path, peft_folder):
    where = peft_folder(peft_model("llama"))
    merged = merge(
        [Adapter.from_pretrained(where(name)) for name in ("toys", "books", "tools")], method
    )
    merged.save_pretrained(tmp_path / "merged")
    bank = AdapterBank(seeded("llama"))
    bank.add("merged", merged)
    batch = inputs("llama", 2)
    peft = PeftModel.from_pretrained(seeded("llama"), tmp_path / "merged").eval()
    with bank.use(Mix({"merged": 1.0})):
        torch.testing.assert_close(
            output(bank.model, batch), output(peft, batch), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("calibrated", [False, True])
def test_atoms_says_how_far_it_is_from_the_sum(three, calibrated):
    calibration = {p: torch.randn(20, w) for p, (_, w) in PATHS.items()} if calibrated else None
    for rank in (1, 3, 5, 9):
        merged = merge(three, "atoms", WEIGHTS, rank=rank, calibration=calibration)
        missing, whole = 0.0, 0.0
        for path in PATHS:
            wanted = sum(w * d for w, d in zip(WEIGHTS, deltas(three, path), strict=True))
            lost = (merged.factors[path].delta() - wanted).norm().item()
            assert merged.errors[path] == pytest.approx(lost / wanted.norm().item(), abs=1e-9)
            missing, whole = missing + lost**2, whole + wanted.norm().item() ** 2
        assert merged.error == pytest.approx((missing / whole) ** 0.5, abs=1e-9)
        assert merged.error > 0.01 if rank < 5 else merged.error >= 0
    assert merge(three[:1], "atoms", rank=2).error == 0


@pytest.mark.parametrize("family", ["bert", "deberta"])
def test_atoms_says_how_far_it_is_on_adapters_as_peft_saves_them(family, peft_folder):
    where = peft_folder(peft_model(family))
    some = [Adapter.from_pretrained(where(name)) for name in ("toys", "books")]
    merged = merge(some, "atoms", [1.0, 1.0], rank=2)
    missing, whole = 0.0, 0.0
    for path, factors in merged.factors.items():
        wanted = sum(a.factors[path].delta().double() for a in some if path in a.factors)
        missing += (factors.delta() - wanted).square().sum().item()
        whole += wanted.square().sum().item()
    assert 0.1 < merged.error == pytest.approx((missing / whole) ** 0.5, rel=1e-5)


def test_random_entries_differ_from_layer_to_layer():
    paths = {"a": (60, 50), "b": (60, 50)}
    f = adapter(0, 3, {"a": (60, 50)}).factors["a"]
    same = Adapter({p: f for p in paths}, adapter(0, 3, paths).config)
    merged = merge([same], "dare", rank=50, density=0.5)
    one, two = (merged.factors[p].delta().abs() > 1e-9 for p in paths)
    assert 0.4 < (one == two).double().mean() < 0.6
