"""Overlap, calibration, evaluation and search."""

import json
import math
import os
import signal
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from geodapt.adapters import (
    Adapter,
    AdapterBank,
    Factors,
    calibrate,
    merge,
    overlap,
    overlaps,
    search,
)
from geodapt.adapters.evaluation import centroid_accuracy, evaluator, language_loss
from geodapt.adapters.overlap import spectrum
from geodapt.adapters.peft_files.configuration import configure
from geodapt.errors import InputError
from tests.adapters.made_by_peft import seeded
from tests.forked import fork


def factors(rank: int, seed: int) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    return Factors(
        torch.randn(rank, 12, generator=generator).double(),
        torch.randn(9, rank, generator=generator).double(),
        0.5,
    )


def single(value: Factors) -> Adapter:
    config = configure({"w": value})
    config.base_model_name_or_path = "somebody/small"
    return Adapter({"w": value}, config)


@settings(max_examples=40, deadline=None)
@given(r1=st.integers(1, 5), r2=st.integers(1, 5), seed=st.integers(0, 1000))
def test_overlap_is_that_of_the_full_matrices(r1, r2, seed):
    one, two = factors(r1, seed), factors(r2, seed + 1)
    found = overlap(one, two)
    D1, D2 = one.delta(), two.delta()
    assert found.agreement == pytest.approx(
        ((D1 * D2).sum() / (D1.norm() * D2.norm())).item(), abs=1e-9
    )
    V1 = torch.linalg.svd(D1).Vh[:r1]
    V2 = torch.linalg.svd(D2).Vh[:r2]
    torch.testing.assert_close(found.cosines, torch.linalg.svdvals(V1 @ V2.T).clamp(max=1))
    assert overlap(two, one).agreement == pytest.approx(found.agreement)
    torch.testing.assert_close(
        spectrum(one).double(), torch.linalg.svdvals(D1)[:r1], atol=1e-4, rtol=1e-4
    )


def test_overlap_of_the_same_the_opposite_the_orthogonal_and_nothing():
    one = factors(3, 0)
    opposite = Factors(one.A, -one.B, one.scale)
    assert overlap(one, one).agreement == pytest.approx(1)
    assert overlap(one, one).shared == pytest.approx(1)
    assert overlap(one, opposite).agreement == pytest.approx(-1)
    apart = Factors(torch.linalg.svd(one.A).Vh[3:6], one.B, 1.0)
    assert overlap(one, apart).shared == pytest.approx(0, abs=1e-12)
    nothing = Factors(one.A, torch.zeros_like(one.B), 1.0)
    assert overlap(one, nothing).agreement == 0 == overlap(one, nothing).shared
    assert list(overlaps(single(one), single(apart))) == ["w"]


def test_calibration_collects_what_the_layers_see():
    model = seeded("llama")
    ids = torch.randint(3, 100, (4, 6))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    seen = []
    path = "model.layers.1.self_attn.q_proj"
    handle = model.get_submodule(path).register_forward_pre_hook(lambda m, a: seen.append(a[0]))
    model(input_ids=ids, attention_mask=mask)
    handle.remove()
    batches = [{"input_ids": ids, "attention_mask": mask}]
    found = calibrate(model, batches, [path, "model.layers.9.self_attn.q_proj"])
    assert list(found) == [path]
    torch.testing.assert_close(found[path], seen[0][mask.bool()].detach())
    few = calibrate(model, batches * 3, [path], tokens=5)[path]
    assert few.shape == (5, 32)
    assert all((row == found[path]).all(1).any() for row in few)
    assert not model.get_submodule(path)._forward_pre_hooks


def test_nearest_mean_accuracy_equals_a_loop():
    torch.manual_seed(0)
    x, labels = torch.randn(30, 4), [f"l{i % 3}" for i in range(30)]
    right = 0
    unit = torch.nn.functional.normalize(x, dim=-1)
    for i in range(30):
        means = {
            label: sum(unit[j] for j in range(30) if labels[j] == label and j != i)
            for label in set(labels)
        }
        best = max(means, key=lambda label: unit[i] @ means[label] / means[label].norm())
        right += best == labels[i]
    assert centroid_accuracy(x, labels) == pytest.approx(right / 30)


@pytest.fixture
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<pad>": 0, "<unk>": 1} | {f"w{i}": i + 2 for i in range(90)}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>")


ROWS = [
    {"text": " ".join(f"w{(i * 7 + j) % 90}" for j in range(3 + i)), "label": i % 2}
    for i in range(20)
]


def test_language_loss_is_transformers_own(tokenizer):
    model = seeded("llama")
    losses, counts = [], []
    for row in ROWS:
        ids = torch.tensor([tokenizer(row["text"])["input_ids"]])
        losses.append(model(input_ids=ids, labels=ids).loss.item())
        counts.append(ids.shape[1] - 1)
    wanted = sum(a * n for a, n in zip(losses, counts, strict=True)) / sum(counts)
    with torch.no_grad():
        found = language_loss(model, tokenizer, [row["text"] for row in ROWS])
    assert found == pytest.approx(wanted, rel=1e-5)


def two_for(model) -> list[Adapter]:
    bank = AdapterBank(model)
    for i, name in enumerate(("toys", "books")):
        bank.create(name, rank=2, targets=["q_proj", "v_proj"])
        for j, parameter in enumerate(bank.parameters_of(name)):
            generator = torch.Generator().manual_seed(10 * i + j)
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return [bank["toys"], bank["books"]]


@pytest.mark.parametrize("metric", ["loss", "perplexity", "accuracy"])
def test_an_evaluator_leaves_the_bank_as_it_was(metric, tokenizer):
    model = seeded("llama")
    bank = AdapterBank(model)
    evaluate = evaluator(bank, tokenizer, ROWS, metric)
    one, two = two_for(seeded("llama"))
    assert evaluate(one) == evaluate(one) != evaluate(two)
    assert bank.names == []


def test_evaluators_refuse_what_they_cannot_use(tokenizer):
    bank = AdapterBank(seeded("llama"))
    for rows, metric, message in (
        (ROWS, "beauty", "no metric 'beauty'"),
        ([{"label": 1}], "loss", "row 1 of the search data has no 'text'"),
        ([{"text": "w1"}], "accuracy", "no 'label'"),
        ([{"text": "w1", "label": 1}], "accuracy", "two labels or more"),
    ):
        with pytest.raises(InputError, match=message):
            evaluator(bank, tokenizer, rows, metric)


def target(seed: int = 5):
    """A loss whose best merge is known: the distance to a weighted sum."""
    one, two = single(factors(2, seed)), single(factors(2, seed + 1))
    goal = 0.9 * one.factors["w"].delta() - 0.3 * two.factors["w"].delta()
    return [one, two], lambda a: ((a.factors["w"].delta() - goal).norm() / goal.norm()).item()


def test_the_search_improves_on_every_default_and_can_be_resumed(tmp_path):
    adapters, loss = target()
    defaults = [loss(merge(adapters, m)) for m in ("linear", "svd", "ties")]
    calls = []

    def counted(adapter):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return loss(adapter)

    options = {"methods": ["linear", "svd", "ties"], "seed": 1}
    with pytest.raises(KeyboardInterrupt):
        search(adapters, counted, 30, tmp_path, **options)
    assert len(json.loads((tmp_path / "trials.json").read_text())) == 7
    best, trials = search(adapters, counted, 30, tmp_path, **options)
    assert len(trials) == 30
    assert len(calls) == 31
    assert trials[0].value == min(trial.value for trial in trials) < min(defaults)
    assert loss(best) == pytest.approx(trials[0].value)
    assert json.loads((tmp_path / "trials.json").read_text())[0]["value"] == trials[0].value
    again, _ = search(adapters, counted, 30, tmp_path, **options)
    assert len(calls) == 31  # nothing was left to try
    assert again.sha256 == best.sha256


def killed_search(folder, options):
    """A search that is killed as it measures the third merge."""
    adapters, loss = target()
    calls = []

    def evaluate(adapter):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(adapter)

    search(adapters, evaluate, 9, folder, **options)


@pytest.mark.slow
def test_a_search_that_is_killed_ends_with_the_trials_of_one_that_is_not(tmp_path):
    adapters, loss = target()
    options = {"methods": ["linear", "ties", "dare", "svd"], "seed": 3}
    best, wanted = search(adapters, loss, 9, tmp_path / "whole", **options)
    done = fork(tmp_path, run=partial(killed_search, tmp_path / "killed", options))
    assert done.wait(120) == -signal.SIGKILL, done.communicate()
    with pytest.raises(ZeroDivisionError):  # at the third method's own settings, and once more
        search(adapters, lambda a: 1 / 0, 9, tmp_path / "killed", **options)
    again, trials = search(adapters, loss, 9, tmp_path / "killed", **options)
    assert trials == wanted
    assert {trial.method for trial in trials if trial.number < 4} == set(options["methods"])
    assert again.sha256 == best.sha256
    (tmp_path / "killed" / "trials.json").write_text('[{"value": 1}]')
    with pytest.raises(InputError, match="is not a table of trials"):
        search(adapters, loss, 9, tmp_path / "killed", **options)


def test_a_search_folder_belongs_to_one_question(tmp_path):
    adapters, loss = target()
    search(adapters, loss, 2, tmp_path, methods=["linear"], about={"metric": "loss"})
    for changed, options in (
        ("seed", {"seed": 1}),
        ("methods", {"methods": ["svd"]}),
        ("maximise", {"maximise": True}),
        ("metric", {"about": {"metric": "perplexity"}}),
        ("metric", {"about": {}}),
    ):
        given = {"methods": ["linear"], "about": {"metric": "loss"}, **options}
        with pytest.raises(InputError, match=f"holds a search with other {changed}; give another"):
            search(adapters, loss, 2, tmp_path, **given)
    with pytest.raises(InputError, match="holds a search with other adapters"):
        search(adapters[::-1], loss, 2, tmp_path, methods=["linear"], about={"metric": "loss"})


def test_merges_whose_value_is_not_finite_come_last(tmp_path):
    adapters, _ = target()
    values = iter([math.nan, 3.0, math.inf, *[2.0] * 9])
    _, trials = search(adapters, lambda a: next(values), 6, tmp_path, methods=["linear", "svd"])
    assert [trial.value for trial in trials] == [2.0, 2.0, 2.0, 3.0, None, None]
    with pytest.raises(InputError, match="no merge gave a finite value"):
        search(adapters, lambda a: math.nan, 2, tmp_path / "b", methods=["linear"])


def test_the_search_maximises_when_told(tmp_path):
    adapters, loss = target()
    _, trials = search(adapters, lambda a: -loss(a), 6, tmp_path, maximise=True, methods=["linear"])
    assert trials[0].value == max(trial.value for trial in trials)


def test_the_search_refuses_an_empty_budget_and_unknown_methods(tmp_path):
    adapters, loss = target()
    with pytest.raises(InputError, match="budget 0"):
        search(adapters, loss, 0, tmp_path / "a")
    with pytest.raises(InputError, match="no merge method 'x'"):
        search(adapters, loss, 3, tmp_path / "a", methods=["x"])
    assert not (tmp_path / "a").exists()
    assert math.isfinite(loss(adapters[0]))
