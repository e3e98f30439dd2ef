"""Every merge against full matrices in float64, and against PEFT where PEFT is exact."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import merge_utils
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from geodapt.adapters import METHODS, Adapter, AdapterBank, Factors, Mix, merge
from geodapt.adapters.adapter import configure
from geodapt.adapters.merging import layer_seed
from geodapt.adapters.merging.layers import each
from geodapt.adapters.merging.registry import LowRank, Part
from geodapt.adapters.merging.subspace import leading_terms
from geodapt.adapters.merging.tiles import Tiles
from geodapt.errors import InputError
from tests.adapters.families import inputs, output, peft_model, randomise, seeded

PATHS = {"layers.0.q": (14, 12), "layers.0.v": (9, 12), "layers.1.q": (14, 12)}


def adapter(seed: int, rank: int, paths=PATHS, dtype=torch.float64, scale=0.5) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    factors = {
        path: Factors(
            torch.randn(rank, width, generator=generator).to(dtype),
            torch.randn(out, rank, generator=generator).to(dtype),
            scale,
        )
        for path, (out, width) in paths.items()
    }
    config = configure(factors)
    config.base_model_name_or_path = "somebody/small"
    return Adapter(factors, config)


@pytest.fixture
def three() -> list[Adapter]:
    """Different ranks, scales and targets."""
    some = {path: PATHS[path] for path in ("layers.0.q", "layers.0.v")}
    return [adapter(0, 2), adapter(1, 4, some, scale=2.0), adapter(2, 3, scale=-1.0)]


WEIGHTS = [0.5, -1.0, 2.0]


def deltas(adapters, path):
    """Full updates, zero for an adapter that does not touch the layer."""
    out, width = PATHS[path]
    return [
        a.factors[path].delta() if path in a.factors else torch.zeros(out, width).double()
        for a in adapters
    ]


def cut(matrix, rank):
    U, d, Vt = torch.linalg.svd(matrix, full_matrices=False)
    return U[:, :rank] @ torch.diag(d[:rank]) @ Vt[:rank]


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


PEERS = {"ties": merge_utils.ties, "magnitude": merge_utils.magnitude_prune}


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
        assert list(each(lambda x: x * x, range(100))) == [x * x for x in range(100)]
        with pytest.raises(ZeroDivisionError):
            list(each(lambda x: 1 / x, [1, 0, 2]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert alone.sha256 == beside.sha256


def test_float_types_may_differ():
    narrow, wide = adapter(0, 2, dtype=torch.bfloat16), adapter(1, 3, dtype=torch.float64)
    for method in METHODS:
        assert merge([narrow, wide], method).factors["layers.0.q"].A.dtype == torch.float64
        assert merge([narrow, narrow], method).factors["layers.0.q"].A.dtype == torch.float32


def test_an_adapter_of_zeros_is_refused(three):
    fresh = {p: Factors(f.A, torch.zeros_like(f.B), 1.0) for p, f in three[0].factors.items()}
    with pytest.raises(InputError, match="adapter 2 of 3 is all zeros"):
        merge([three[0], Adapter(fresh, three[0].config), three[1]])


# Against PEFT's own merges, through its models


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


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "average"}, "no merge method 'average'; there are .*svd"),
        ({"weights": [1.0]}, "1 weights for 3 adapters"),
        ({"weights": [1.0, math.nan, 1.0]}, "not a finite number"),
        ({"rank": 10}, "rank 10 is more than layer layers.0.v .9 x 12. can have; give at most 9"),
        ({"rank": 0}, "rank 0 is out of range"),
        ({"method": "ties", "density": 0.0}, "density 0.0 is out of range"),
        ({"method": "ties", "density": 1.5}, "density 1.5 is out of range"),
        ({"density": 0.5}, "'svd' takes no density; .*ties"),
        ({"method": "cat", "rank": 2}, "'cat' is exact and takes no rank"),
        ({"method": "linear", "energy": 0.5}, "'linear' takes no energy share"),
        ({"energy": 1.5}, "energy share 1.5 is out of range"),
        ({"energy": 0.5, "rank": 2}, "not both"),
        ({"method": "dense_blocks", "tile": 0}, "tile 0 is out of range"),
        ({"method": "dare", "seed": -1}, "seed -1 is out of range"),
        ({"method": "atoms", "calibration": {}}, "none for layer layers.0.q"),
    ],
)
def test_wrong_options_are_refused(three, options, message):
    with pytest.raises(InputError, match=message):
        merge(three, **options)


def test_adapters_of_different_bases_are_refused(three):
    with pytest.raises(InputError, match="no adapters"):
        merge([])
    with pytest.raises(InputError, match="14 x 12 in one adapter and 14 x 8 in another"):
        merge([three[0], adapter(0, 2, {"layers.0.q": (14, 8)})])
    bases = [
        ("somebody/small-1b", "somebody/other-1b", "different bases"),
        ("somebody/small-1b", "/models/small-1b", "different bases .'somebody/small-1b' and '/mod"),
        ("somebody/small-1b", None, "do not say .* is 'somebody/small-1b' and ''"),
        ("", None, "do not say that they belong to one base"),
    ]
    for one, two, message in bases:
        three[0].config.base_model_name_or_path = three[2].config.base_model_name_or_path = one
        three[1].config.base_model_name_or_path = two
        with pytest.raises(InputError, match=message):
            merge(three)
        assert merge(three, same_base=True).rank == 4
    for one, two in (("./models/small/", "models/small"), ("a/b", "a/b")):
        three[0].config.base_model_name_or_path = three[2].config.base_model_name_or_path = one
        three[1].config.base_model_name_or_path = two
        assert merge(three).rank == 4
    marked = [Adapter(adapter(0, 2).factors, adapter(0, 2).config, sha) for sha in ("x", "y")]
    for same_base in (True, False):
        with pytest.raises(InputError, match=r"different bases .* whose weights differ"):
            merge(marked, same_base=same_base)
    unnamed = [replace(a, config=configure(a.factors), base_sha256="x") for a in marked]
    assert merge(unnamed).rank == 2


def test_adapters_without_a_common_layer_are_strangers():
    one, two = adapter(0, 2, {"q": (14, 12)}), adapter(1, 2, {"v": (14, 12)})
    both = adapter(2, 2, {"q": (14, 12), "v": (14, 12)})
    with pytest.raises(InputError, match=r"adapter 1 of 2 has no layer in common .* touches q"):
        merge([one, two])
    assert set(merge([one, two], same_base=True).factors) == {"q", "v"}
    assert set(merge([one, two, both]).factors) == {"q", "v"}
    with pytest.raises(InputError, match="adapter 3 of 3 has no layer in common"):
        merge([one, both, adapter(3, 2, {"k": (14, 12)})])
    assert merge([one]).rank == 2


@pytest.mark.parametrize(
    ("strangers", "message"),
    [
        ((("gpt2", ["c_attn"]), ("t5", ["q", "v"])), "no layer in common"),
        ((("llama", ["q_proj"]), ("mistral", ["q_proj"])), "do not say that they belong to one"),
        ((("llama", ["q_proj", "v_proj"]), ("llama", ["v_proj"])), None),
    ],
)
def test_adapters_of_unnamed_bases_by_their_model_class(tmp_path, strangers, message):
    """As PEFT saves them from models that have no name."""
    saved = []
    for number, (family, targets) in enumerate(strangers):
        model = get_peft_model(UNNAMED[family](), LoraConfig(r=2, target_modules=targets))
        randomise(model, number)
        model.save_pretrained(tmp_path / str(number))
        saved.append(Adapter.from_pretrained(tmp_path / str(number)))
    assert not any(a.config.base_model_name_or_path for a in saved)
    if message is None:
        assert len(merge(saved).factors) == 4
        return
    with pytest.raises(InputError, match=message):
        merge(saved)


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_adapters_of_one_bank_are_of_one_base(family):
    """Whatever its name, and whatever layers they touch."""
    bank, other = AdapterBank(seeded(family)), AdapterBank(seeded(family))
    for name, targets in zip(
        "ab", {"bert": ["query", "key"], "t5": ["q", "k"]}[family], strict=True
    ):
        for each_bank in (bank, other):
            each_bank.create(name, rank=2, targets=[targets])
            for parameter in each_bank.parameters_of(name):
                parameter.data.normal_()
            each_bank.train_only(name)
    merged = merge([bank["a"], bank["b"]], "linear")
    assert len(merged.factors) == len(bank["a"].factors) + len(bank["b"].factors)
    with pytest.raises(InputError, match="no layer in common"):
        merge([bank["a"], other["b"]])


TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
UNNAMED = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4)),
    "t5": lambda: seeded("t5"),
    "llama": lambda: seeded("llama"),
    "mistral": lambda: MistralForCausalLM(
        MistralConfig(**TINY, vocab_size=100, num_key_value_heads=2, intermediate_size=64)
    ),
}


# Values of any size


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


@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].truncates])
def test_the_loss_over_all_layers(three, method):
    merged = merge(three, method, WEIGHTS, rank=2)
    whole = merge(three, method, WEIGHTS, energy=1.0)
    lost, total = 0.0, 0.0
    for path in PATHS:
        lost += (whole.factors[path].delta() - merged.factors[path].delta()).square().sum().item()
        total += whole.factors[path].delta().square().sum().item()
    assert merged.error == pytest.approx((lost / total) ** 0.5, rel=1e-4)


def test_random_entries_differ_from_layer_to_layer():
    paths = {"a": (60, 50), "b": (60, 50)}
    f = adapter(0, 3, {"a": (60, 50)}).factors["a"]
    same = Adapter({p: f for p in paths}, adapter(0, 3, paths).config)
    merged = merge([same], "dare", rank=50, density=0.5)
    one, two = (merged.factors[p].delta().abs() > 1e-9 for p in paths)
    assert 0.4 < (one == two).double().mean() < 0.6
