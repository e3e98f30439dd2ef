"""Merges and comparisons of anything, with any numbers: right, or one sentence, at once."""

import itertools
import math
import random
import shutil
import time
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from geodapt.adapters import METHODS, Adapter, merge
from geodapt.adapters.peft_files import safe_regex
from geodapt.errors import InputError
from tests.adapters import mutations
from tests.adapters.made_by_peft import randomise, seeded
from tests.adapters.test_hostile_folders import ROUNDS, SECONDS

TARGETS = {"bert": ["query", "value"], "t5": ["q", "wo"]}
NUMBERS = (
    *(1e39, 1e308, -1e308, 5e-324, 1e-39, 0.0, -0.0, 1.0, -1.0, 0.5, 2**53, -(2**70), 10**400),
    *(math.nan, math.inf, -math.inf, None, "1", True, [1.0]),
)
OPTIONS = {
    "rank": (0, -1, 1, 3, 31, 10**9),
    "energy": (0.0, -1.0, 1e-300, 0.5, 1.0, 1.5, math.nan),
    "density": (0.0, 1e-300, 1e-9, 0.5, 1.0, 1.5, -1.0, math.nan, math.inf),
    "tile": (0, -1, 1, 7, 10**12),
    "seed": (-1, 0, 2**31, 2**62, 2**64, 10**30),
}


@pytest.fixture(scope="module", params=TARGETS)
def folders(request, tmp_path_factory):
    """Two adapters of one base, as PEFT saves them."""
    place = tmp_path_factory.mktemp(request.param)
    for number, name in enumerate("ab"):
        config = LoraConfig(r=2 + number, target_modules=TARGETS[request.param])
        model = get_peft_model(seeded(request.param), config)
        randomise(model, number)
        model.save_pretrained(place / name)
    return place


def attempt(adapters, **options) -> Adapter | None:
    """The merged adapter, which is finite and true to the method's claims, or None if refused."""
    start = time.thread_time()
    try:
        merged = merge(adapters, **options)
    except InputError:
        return None
    finally:
        assert time.thread_time() - start < SECONDS, options
    for factors in merged.factors.values():
        assert factors.A.isfinite().all(), options
        assert factors.B.isfinite().all(), options
    assert merged.error >= 0, options
    return merged


@pytest.mark.slow
def test_any_weights_give_the_weighted_sum_or_a_sentence(folders):
    a, b = (Adapter.from_pretrained(folders / name) for name in "ab")
    for one, two in itertools.product(NUMBERS, NUMBERS):
        for method in ("cat", "linear", "svd"):
            merged = attempt([a, b], method=method, weights=[one, two])
            if merged is None:
                continue
            for path, factors in merged.factors.items():
                parts = [
                    float(weight) * adapter.factors[path].delta().double()
                    for adapter, weight in ((a, one), (b, two))
                ]
                size = max(part.abs().max().item() for part in parts)
                if method == "svd" and merged.error > 1e-6:
                    continue
                found = factors.B.double() @ factors.A.double()
                assert (found - sum(parts)).abs().max() <= 1e-4 * size + 1e-44, (one, two)
    assert attempt([a, b], method="cat", weights=[1.0, -0.5]) is not None


@pytest.mark.parametrize("method", METHODS)
def test_any_options_are_taken_or_refused(folders, method):
    adapters = [Adapter.from_pretrained(folders / name) for name in "ab"]
    done = 0
    for option, values in OPTIONS.items():
        for value in values:
            done += attempt(adapters, method=method, **{option: value}) is not None
    rng = random.Random(0)
    for _ in range(10 * ROUNDS):
        chosen = {key: rng.choice(values) for key, values in OPTIONS.items() if rng.random() < 0.4}
        weights = [rng.choice([0.5, -1.0, 1e-30, 1e15, 1e39]) for _ in adapters]
        done += attempt(adapters, method=method, weights=weights, **chosen) is not None
    assert done or METHODS[method].exact  # and without options


@pytest.mark.parametrize("method", METHODS)
def test_factors_of_any_size_are_merged_or_refused(folders, method):
    a, b = (Adapter.from_pretrained(folders / name) for name in "ab")
    for size_A, size_B, scale in itertools.product((1e-30, 1.0, 1e14), (1e-30, 1e14), (1e-9, 1e9)):
        factors = {
            p: f._replace(A=f.A * size_A, B=f.B * size_B, scale=scale) for p, f in b.factors.items()
        }
        changed = replace(b, factors=factors)
        merged = attempt([a, changed], method=method)
        if merged is not None and METHODS[method].exact:
            for path, found in merged.factors.items():
                parts = [f.factors[path].delta().double() / 2 for f in (a, changed)]
                size = max(part.abs().max().item() for part in parts)
                torch.testing.assert_close(
                    found.delta().double(), sum(parts), atol=1e-5 * size, rtol=1e-4
                )


@pytest.mark.slow
def test_no_folder_stops_merge_or_info_with_a_traceback(folders, geodapt, tmp_path, monkeypatch):
    """Every mutation with ``make fuzz``, some of them otherwise, by the command line."""
    monkeypatch.setattr(safe_regex, "SECONDS", 0.2)
    layer = TARGETS["bert" if "bert" in folders.name else "t5"][0]
    everything = [(name, mutate) for name, mutate in mutations.crafted(layer)]
    everything += [(str(seed), mutations.at_random(seed)) for seed in range(30 * ROUNDS)]
    for name, mutate in everything[:: 1 if ROUNDS > 1 else 41]:
        shutil.rmtree(tmp_path / "it", ignore_errors=True)
        shutil.copytree(folders / "b", tmp_path / "it")
        mutate(tmp_path / "it")
        start = time.thread_time()
        done = geodapt("adapters", "info", folders / "a", tmp_path / "it", "--layers")
        assert (done.code, bool(done.err)) in ((0, False), (2, True)), name
        assert not done.err or done.err.count("\n") == 1, name
        done = geodapt(
            "merge", folders / "a", tmp_path / "it", "--out", tmp_path / "out", "--force"
        )
        assert (done.code, bool(done.err)) in ((0, False), (2, True)), name
        if not done.code:
            Adapter.from_pretrained(tmp_path / "out")
        assert time.thread_time() - start < 2 * SECONDS, name
