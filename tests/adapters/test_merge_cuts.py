"""How well merges cut large layers to a rank, and updates of any size."""

import math
from dataclasses import replace

import pytest
import torch

from geodapt.adapters import METHODS, Adapter, Factors, merge
from geodapt.adapters.merging import layer_seed
from geodapt.adapters.merging.registry import LowRank, Part
from geodapt.adapters.merging.subspace import leading_terms
from geodapt.adapters.merging.tiles import Tiles
from geodapt.errors import InputError
from tests.adapters.merges import PATHS, PEERS, WEIGHTS, adapter, cut


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].truncates])
def test_large_layers_are_cut_as_well_as_by_an_exact_svd(method):
    some = [adapter(i, 4, {"w": (512, 384)}, torch.float32) for i in range(3)]
    merged = merge(some, method, rank=4)
    parts = [Part(a.factors["w"].A, a.factors["w"].B * 0.5, _default(method)) for a in some]
    seed = {"seed": layer_seed("w")} if "seed" in METHODS[method].options else {}
    whole = METHODS[method](parts, **seed)
    whole = (whole.B @ whole.A if isinstance(whole, LowRank) else _dense(whole)).double()
    exact, found = cut(whole, 4), merged.factors["w"].delta().double()
    assert (found - whole).norm() <= (exact - whole).norm() * (1 + 1e-4)
    assert merged.errors["w"] == pytest.approx(
        ((found - whole).norm() / whole.norm()).item(), rel=1e-4
    )
    assert (found - exact).norm() < 0.02 * exact.norm()


@pytest.mark.filterwarnings("ignore:The density")
@pytest.mark.parametrize("method", PEERS)
def test_large_layers_are_trimmed_as_by_peft(method):
    some = [adapter(i, 4, {"w": (512, 384)}) for i in range(3)]
    parts = [Part(a.factors["w"].A, a.factors["w"].B * 0.5, 1.0) for a in some]
    full = [a.factors["w"].delta() for a in some]
    wanted = PEERS[method](full, torch.ones(3).double(), 0.3)
    torch.testing.assert_close(METHODS[method](parts, density=0.3), wanted)


def _default(method: str) -> float:
    return 1.0 if METHODS[method].averages else 1 / 3


def _dense(matrix):
    return matrix.dense() if isinstance(matrix, Tiles) else matrix


@pytest.mark.parametrize("tile", [7, 32, 500])
def test_tiles_multiply_as_the_matrix_that_they_stand_for(tile):
    some = [adapter(i, rank, {"w": (130, 90)}) for i, rank in enumerate((2, 5))]
    parts = [
        Part(a.factors["w"].A, a.factors["w"].B, weight)
        for a, weight in zip(some, (0.5, -1.0), strict=True)
    ]
    tiles = METHODS["dense_blocks"](parts, density=0.4, tile=tile)
    whole = tiles.dense()
    assert (whole == 0).any() or tile == 500
    x, y = torch.randn(90, 3).double(), torch.randn(130, 3).double()
    torch.testing.assert_close(tiles @ x, whole @ x)
    torch.testing.assert_close(tiles.T @ y, whole.T @ y)
    assert tiles.energy == pytest.approx(whole.square().sum().item())


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].truncates])
def test_a_large_update_with_nothing_to_cut_comes_back_whole(method):
    one = adapter(0, 4, {"w": (300, 200)}, torch.float32)
    density = {"density": 1.0} if "density" in METHODS[method].options else {}
    merged = merge([one], method, **density)
    torch.testing.assert_close(
        merged.factors["w"].delta(), one.factors["w"].delta(), atol=1e-4, rtol=1e-4
    )
    assert merged.errors["w"] < 2e-3  # the root of float32's rounding
    zero = Factors(torch.randn(4, 200), torch.zeros(300, 4), 1.0)
    nothing = Adapter({"w": zero, "v": one.factors["w"]}, one.config)  # in this layer
    assert not merge([nothing], method).factors["w"].delta().any()
    half = merge([nothing, one], method, [1.0, 1.0], **density).factors["w"].delta()
    torch.testing.assert_close(half, one.factors["w"].delta(), atol=1e-4, rtol=1e-4)


SPECTRA = {
    "steep": 0.5 ** torch.arange(260.0),
    "falling": 0.9 ** torch.arange(260.0),
    "slow": 1 / torch.arange(1.0, 261),
    "noise": torch.linspace(1.5, 0.1, 260),
    "terms in noise": torch.cat([torch.linspace(30, 10, 12), torch.linspace(1, 0.1, 248)]),
    "few terms": torch.cat([torch.ones(9), torch.zeros(251)]),
    "tiny": 1e-9 * 0.8 ** torch.arange(260.0),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("near", ["its terms", "two equal columns"])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_a_cut_loses_no_more_than_an_svd(spectrum, near, dtype):
    torch.manual_seed(0)
    d = SPECTRA[spectrum].double()
    U, V = (torch.linalg.qr(torch.randn(n, 260).double()).Q for n in (300, 260))
    matrix = (U * d @ V.T).to(dtype)
    B, A = (U[:, :20], V[:, :20].T) if near == "its terms" else (torch.ones(300, 2), V[:, :2].T)
    start = LowRank(B.to(dtype), A.to(dtype))
    found = leading_terms(matrix, d.square().sum().item(), 8, start)
    left = matrix.double() - (found.U * found.d).double() @ found.Vt.double()
    least, rounding = d[8:].square().sum(), torch.finfo(dtype).eps * d.square().sum()
    assert left.square().sum() <= least * (1 + 3e-4) + 4 * rounding
    torch.testing.assert_close(found.U.T @ found.U, torch.eye(8, dtype=dtype))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1e-25, 1e-12, 1e12])
def test_updates_of_any_size_are_merged_alike(method, size):
    """Powers of two change no digit, whatever the method squares."""
    size = 2.0 ** round(math.log2(size))
    some = [adapter(i, 3, dtype=torch.float32) for i in range(2)]
    plain = merge(some, method, [0.5, -1.5])
    for change in (
        {"A": lambda A: A * size},
        {"B": lambda B: B * size},
        {"A": lambda A: A / size, "B": lambda B: B * size},
        {"scale": lambda scale: scale * size},
    ):
        if "A" in change and "B" in change and size < 1e-18:
            continue  # A would be beyond what is read
        changed = [
            replace(
                a,
                factors={
                    p: f._replace(**{k: change[k](getattr(f, k)) for k in change})
                    for p, f in a.factors.items()
                },
            )
            for a in some
        ]
        merged = merge(changed, method, [0.5, -1.5])
        times = 1.0 if len(change) == 2 else size
        for path, factors in merged.factors.items():
            wanted = plain.factors[path].delta().double() * times
            torch.testing.assert_close(factors.delta().double(), wanted, atol=0, rtol=1e-3)
        assert merged.error == pytest.approx(plain.error, rel=1e-4)
    merged = merge(some, method, [0.5 * size, -1.5 * size])
    for path, factors in merged.factors.items():
        wanted = plain.factors[path].delta().double() * size
        torch.testing.assert_close(factors.delta().double(), wanted, atol=0, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_what_overflows_is_refused_before_anything_is_returned(method):
    some = [adapter(i, 2) for i in range(2)]
    for weights in ([1e39, 1.0], [1e308, 1e308], [1.0, -1e25]):
        with pytest.raises(InputError, match=r"the merged adapter, layer .* values of"):
            merge(some, method, weights)
    for value in (1e30, math.inf, math.nan):
        f = some[0].factors["layers.0.q"]
        broken = {**some[0].factors, "layers.0.q": f._replace(B=f.B * value)}
        with pytest.raises(InputError, match=r"an adapter, layer layers\.0\.q: its update holds"):
            merge([replace(some[0], factors=broken), some[1]], method)


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].truncates])
def test_the_loss_over_all_layers(three, method):
    merged = merge(three, method, WEIGHTS, rank=2)
    whole = merge(three, method, WEIGHTS, energy=1.0)
    lost, total = 0.0, 0.0
    for path in PATHS:
        lost += (whole.factors[path].delta() - merged.factors[path].delta()).square().sum().item()
        total += whole.factors[path].delta().square().sum().item()
    assert merged.error == pytest.approx((lost / total) ** 0.5, rel=1e-4)
