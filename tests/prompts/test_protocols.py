"""What protocols train on and ask, their figures as published, and paired intervals."""

import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from PIL import Image as Pillow

from geodapt.data.vision import LABELLED, Pictures
from geodapt.errors import InputError
from geodapt.prompts.protocols import (
    average_of_sets,
    harmonic_mean,
    paired_difference,
    plan_task,
    protocol_figures,
)

buffer = io.BytesIO()
Pillow.new("L", (2, 2)).save(buffer, "PNG")
FONTS = ["sans", "serif", "hand"]


def rows(labels, domains):
    columns = {
        "image": [{"bytes": buffer.getvalue(), "path": None}] * len(labels),
        "label": labels,
        "domain": domains,
    }
    return Dataset.from_dict(columns, Features({**LABELLED, "domain": ClassLabel(names=FONTS)}))


def letters(names="abcde"):
    count = len(names)
    train = rows(list(range(count)) * 4, [0] * 4 * count)
    test = rows(list(range(count)) * 3, [0] * count + [1] * count + [2] * count)
    return Pictures(tuple(names), "{}", {"train": train, "test": test}, "letters")


def labels(pictures, split):
    return sorted(pictures.splits[split]["label"])


def test_base_to_new_draws_from_all_classes_then_halves():
    trial = plan_task("base-to-new", letters(), 2, seed=1)
    assert trial.train.names == ("a", "b", "c")
    assert labels(trial.train, "train") == [0, 0, 1, 1, 2, 2]
    assert {name: one.names for name, one in trial.tests.items()} == {
        "base": ("a", "b", "c"),
        "new": ("d", "e"),
    }
    assert len(trial.tests["new"].splits["test"]) == 6


def test_few_shot_cross_and_domain():
    pictures, other = letters(), letters("xyz")
    few = plan_task("few-shot", pictures, 3, seed=1)
    assert list(few.tests) == ["all"]
    assert len(few.train.splits["train"]) == 15
    cross = plan_task("cross", pictures, 1, 1, {"other": other})
    assert [one.names for one in cross.tests.values()] == [tuple("abcde"), tuple("xyz")]
    domain = plan_task("domain", pictures, 1, 1)
    assert list(domain.tests) == ["serif", "hand"]  # training has sans
    assert [len(one.splits["test"]) for one in domain.tests.values()] == [5, 5]
    fewer = pictures.of_classes([1, 3])
    named = plan_task("domain", pictures, 1, 1, {"film": fewer})
    assert named.tests["film"].names == ("b", "d")
    for arguments, message in (
        (("cross", pictures, 1, 1), "needs other data sets"),
        (("domain", pictures, 1, 1, {"x": other}), "'x' has the class 'x'"),
        (("domain", pictures.of_domains(["sans"]), 1, 1), "no domain that only tests"),
        (("rest", pictures, 1, 1), "'rest' is unknown"),
        (("few-shot", pictures, 5, 1), "'a' has 4 training pictures"),
    ):
        with pytest.raises(InputError, match=message):
            plan_task(*arguments)


def test_the_average_row_is_the_published_one():
    """82.28 and 75.14 give 78.55: the harmonic mean of means (MaPLe's table)."""
    assert harmonic_mean(0.8228, 0.7514) == pytest.approx(0.7855, abs=5e-5)
    sets = [{"base": 0.9, "new": 0.5}, {"base": 0.6, "new": 0.8}]
    found = average_of_sets("base-to-new", sets)
    assert found["harmonic_mean"] == pytest.approx(2 * 0.75 * 0.65 / 1.4)
    means = [protocol_figures("base-to-new", one)["harmonic_mean"] for one in sets]
    assert found["harmonic_mean"] != pytest.approx(np.mean(means), abs=1e-3)
    assert harmonic_mean(0, 0) == 0
    moved = protocol_figures("cross", {"source": 0.9, "a": 0.4, "b": 0.6})
    assert moved["average"] == pytest.approx(0.5)
    with pytest.raises(InputError, match="no rows"):
        average_of_sets("few-shot", [])
    with pytest.raises(InputError, match="expected the same"):
        average_of_sets("few-shot", [{"all": 1.0}, {"rest": 1.0}])


def answers(generator, count, share):
    return generator.random(count) < share


@pytest.mark.slow
def test_the_interval_beside_a_plain_bootstrap():
    """Pictures drawn one by one, in place of the four counts."""
    generator = np.random.default_rng(0)
    pairs = []
    for _ in range(4):
        one = {"base": answers(generator, 90, 0.8), "new": answers(generator, 60, 0.5)}
        flips = {part: answers(generator, len(right), 0.2) for part, right in one.items()}
        pairs.append((one, {part: right ^ flips[part] for part, right in one.items()}))
    found = paired_difference("base-to-new", pairs, "harmonic_mean", resamples=3000)

    def figure(side, chosen):
        base, new = (np.mean([pair[side][part].mean() for pair in chosen]) for part in one)
        return harmonic_mean(base, new)

    assert found.difference == pytest.approx(figure(0, pairs) - figure(1, pairs))
    drawn = []
    for _ in range(3000):
        some = []
        for pair in (pairs[i] for i in generator.integers(4, size=4)):
            places = {part: generator.integers(len(a), size=len(a)) for part, a in pair[0].items()}
            some.append(tuple({p: side[p][at] for p, at in places.items()} for side in pair))
        drawn.append(figure(0, some) - figure(1, some))
    wanted = np.quantile(drawn, [0.025, 0.975])
    assert [found.low, found.high] == pytest.approx(wanted, abs=0.15 * (wanted[1] - wanted[0]))
    assert (found.pairs, found.pictures) == (4, 600)


def test_equal_learners_differ_by_nothing_and_a_better_one_by_more():
    right = np.arange(100) < 50
    same = paired_difference("few-shot", [({"all": right}, {"all": right})], "all")
    assert (same.difference, same.low, same.high, same.better) == (0, 0, 0, 0)
    better = paired_difference("few-shot", [({"all": np.arange(100) < 70}, {"all": right})], "all")
    assert better.difference == pytest.approx(0.2)
    assert 0 < better.low < 0.2 < better.high < 0.4
    assert better.better == 1
    for pairs, figure, message in (
        ([], "all", "no pairs"),
        ([({"all": right}, {"all": right[:9]})], "all", "100 and 9 answers"),
        ([({"all": right}, {"new": right})], "all", "answers about"),
        ([({"all": right}, {"all": right})], "best", "'best' is no figure"),
    ):
        with pytest.raises(InputError, match=message):
            paired_difference("few-shot", pairs, figure)
