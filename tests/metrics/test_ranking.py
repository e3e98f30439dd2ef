"""Ranking metrics against a naive reference, torchmetrics and scikit-learn."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, top_k_accuracy_score
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_reciprocal_rank,
)

from geodapt.errors import InputError
from geodapt.metrics import RankingMetrics, ranking_metrics, recall_at, target_ranks


def naive(scores, target_column):
    """Sort each user's candidates, the target behind all that tie with it, and look where it is."""
    hits = {k: 0.0 for k in (1, 3, 5, 10)}
    reciprocal, gain = 0.0, 0.0
    for row in scores:
        order = sorted(range(len(row)), key=lambda c: (-row[c], c == target_column))
        rank = order.index(target_column) + 1
        for k in hits:
            hits[k] += rank <= k
        reciprocal += 1 / rank
        gain += 1 / math.log2(1 + rank) if rank <= 10 else 0
    users = len(scores)
    result = {f"hit_at_{k}": value / users for k, value in hits.items()}
    return {**result, "mrr": reciprocal / users, "ndcg_at_10": gain / users}


tables = st.integers(1, 25).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(-3, 3).map(float), min_size=width, max_size=width),
        min_size=1,
        max_size=8,
    )
)


@given(tables, st.data())
def test_equals_the_naive_reference_with_ties(table, data):
    column = data.draw(st.integers(0, len(table[0]) - 1))
    found = ranking_metrics(torch.tensor(table), column)
    assert found == pytest.approx(naive(table, column), abs=1e-12)


def test_a_column_for_each_user():
    scores = torch.randint(-3, 4, (30, 7)).double()
    columns = torch.randint(7, (30,))
    each = [
        target_ranks(row[None], int(column)) for row, column in zip(scores, columns, strict=True)
    ]
    assert torch.equal(target_ranks(scores, columns), torch.cat(each))
    with pytest.raises(InputError, match="expected"):
        target_ranks(scores, columns[:29])


def test_equals_torchmetrics():
    # Positive scores: torchmetrics counts a target with a score of 0 or less as not retrieved.
    scores = torch.rand(40, 30) + 0.1
    target = torch.zeros(30, dtype=torch.long)
    target[4] = 1
    found = ranking_metrics(scores, target_column=4)
    for k in (1, 3, 5, 10):
        peer = torch.stack([retrieval_hit_rate(row, target, top_k=k) for row in scores]).mean()
        assert found[f"hit_at_{k}"] == pytest.approx(peer.item(), abs=1e-6)
    peer = torch.stack([retrieval_reciprocal_rank(row, target) for row in scores]).mean()
    assert found["mrr"] == pytest.approx(peer.item(), abs=1e-6)
    peer = torch.stack([retrieval_normalized_dcg(row, target, top_k=10) for row in scores]).mean()
    assert found["ndcg_at_10"] == pytest.approx(peer.item(), abs=1e-6)


def test_equals_sklearn():
    scores = torch.randn(50, 20, dtype=torch.float64)
    relevant = torch.zeros(50, 20)
    relevant[:, 0] = 1
    found = ranking_metrics(scores)
    assert found["ndcg_at_10"] == pytest.approx(ndcg_score(relevant, scores, k=10), abs=1e-12)
    for k in (1, 3, 5, 10):
        peer = top_k_accuracy_score([0] * 50, scores, k=k, labels=range(20))
        assert found[f"hit_at_{k}"] == pytest.approx(peer, abs=1e-12)


def test_a_constant_model_earns_nothing():
    assert target_ranks(torch.zeros(3, 30)).tolist() == [30, 30, 30]
    assert ranking_metrics(torch.zeros(3, 30))["hit_at_10"] == 0


def test_batches_add_up():
    scores = torch.randn(17, 12)
    metric = RankingMetrics()
    for batch in scores.split(5):
        metric.update(batch)
    assert metric.compute() == ranking_metrics(scores)


def test_infinite_scores_are_ranked():
    scores = torch.tensor([[0.0, -math.inf, math.inf], [math.inf, 0.0, -math.inf]])
    assert target_ranks(scores).tolist() == [2, 1]


def test_nan_is_refused_with_its_user():
    scores = torch.randn(4, 5)
    scores[2, 3] = math.nan
    with pytest.raises(InputError, match="user 2 hold NaN"):
        ranking_metrics(scores)


@pytest.mark.parametrize(
    ("shape", "column"), [((5,), 0), ((2, 3, 4), 0), ((4, 5), 5), ((4, 5), -1)]
)
def test_wrong_shapes_are_refused(shape, column):
    with pytest.raises(InputError, match="expected"):
        ranking_metrics(torch.zeros(shape), column)


def test_no_users_are_refused():
    with pytest.raises(InputError, match="empty"):
        ranking_metrics(torch.zeros(0, 30))
    with pytest.warns(UserWarning, match="before"), pytest.raises(InputError, match="empty"):
        RankingMetrics().compute()


def test_what_is_left_out_is_not_found():
    scores = torch.tensor([[-torch.inf, 1.0, 2.0], [3.0, -torch.inf, 2.0], [2.0, 3.0, -torch.inf]])
    relevant = torch.tensor([[True, False, False], [True, True, False], [True, False, True]])
    assert recall_at(scores, relevant, (1, 2)) == {
        "recall_at_1": pytest.approx(1 / 3),
        "recall_at_2": pytest.approx(2 / 3),
    }
    with pytest.raises(InputError, match="one truth value each"):
        recall_at(scores, relevant.long())
