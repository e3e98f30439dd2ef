"""Methods compared row by row at rates that validation chose; folds in which every row tests."""

import json
from types import SimpleNamespace

import pytest

from geodapt.data.domain import split_of
from geodapt.metrics.resampling import paired_bootstrap
from geodapt.xcross.comparing import compared_rows
from tests.xcross.worlds import recipe, training

pytestmark = pytest.mark.slow

FACTORS = [0.01, 1.0, 1e33]  # the last one diverges


@pytest.fixture(scope="module")
def paired(world, geodapt):
    recipe(
        world,
        "ratings",
        methods=["mix", "lora", "xcross"],
        rate_factors=FACTORS,
        against="lora",
        curve={"fractions": [0.5], "methods": ["lora", "xcross"]},
        source_training=training(4),
        lora_training=training(6),
        training=training(6),
    )
    done = geodapt("run", "ratings.yaml", "--out", "paired")
    assert done.code == 0, done.err
    return SimpleNamespace(
        path=world / "paired", **json.loads((world / "paired/results.json").read_text())
    )


def test_every_method_answers_the_same_rows(paired):
    ranks = paired.answers["ranks"]
    assert set(ranks) == {"mix", "lora", "xcross", "lora@0.5", "xcross@0.5"}
    assert {len(each) for each in ranks.values()} == {len(paired.answers["groups"])}
    for row in paired.rows:
        own = ranks[row["method"]]
        assert row["hit_at_1"] == pytest.approx(sum(rank == 1 for rank in own) / len(own))
        assert row["mrr"] == pytest.approx(sum(1 / rank for rank in own) / len(own))
        assert "answers" not in row


def test_rates_are_chosen_on_validation_rows(paired):
    for row in [*paired.rows[1:], *paired.curve]:
        tried = dict(row["validated"])
        assert sorted(tried) == FACTORS
        assert tried.pop(1e33) is None
        assert row["rate_factor"] == max(tried, key=tried.get)
        assert row["at_an_end"] == (row["rate_factor"] == 0.01)
    assert "validated" not in paired.rows[0]  # nothing trains
    lines = [json.loads(line) for line in (paired.path / "metrics.jsonl").read_text().splitlines()]
    stages = {line["stage"] for line in lines}
    assert {"method-lora-rate-0.01", "method-xcross-rate-1", "method-xcross"} <= stages


def test_differences_have_paired_intervals(paired):
    against = {(line["method"], line["against"]) for line in paired.comparisons}
    assert against == {("mix", "lora"), ("xcross", "lora"), ("xcross@0.5", "lora@0.5")}
    for line in paired.comparisons:
        ours, theirs = (
            [float(rank == 1) for rank in paired.answers["ranks"][line[side]]]
            for side in ("method", "against")
        )
        expected = paired_bootstrap(ours, theirs, paired.answers["groups"])
        got = line["hit_at_1"]
        assert (got["difference"], got["low"]) == (expected.difference, expected.low)
    assert compared_rows(paired.answers, None) == {}


def test_every_group_tests_in_one_fold():
    names = [f"file {number}" for number in range(400)]
    tested = [[n for n in names if split_of(n, 3, fold) == "test"] for fold in range(5)]
    assert sorted(name for some in tested for name in some) == sorted(names)
    assert all(50 < len(some) < 110 for some in tested)
    assert split_of("a", 1) == split_of("a", 1, 0)


def test_what_does_not_fit_is_refused(world, geodapt):
    recipe(world, "ratings", methods=["mix"], against="lora")
    done = geodapt("run", "ratings.yaml", "--out", "wrong")
    assert done.code == 2
    assert "'lora' is not among the methods" in done.err
