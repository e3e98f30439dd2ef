"""Hierarchy metrics against slow references that follow the published definitions, and scipy."""

import math
from itertools import combinations, groupby

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, rankdata
from torchmetrics.functional import spearman_corrcoef

from geodapt.errors import InputError
from geodapt.metrics import (
    hierarchical_retrieval,
    lexical_entailment,
    recall_at,
    retrieve_chains,
    tau_d,
)
from geodapt.metrics.hierarchy import kendall

# --- tau_d -------------------------------------------------------------------------------------


def naive_tau(radii):
    """Count the pairs of levels that are in order and those that are not."""
    signs = [1 if b >= a else -1 for a, b in combinations(radii, 2)]
    return sum(signs) / len(signs)


chains = st.integers(2, 6).flatmap(
    lambda n: st.lists(
        st.lists(st.integers(-4, 4).map(float), min_size=n, max_size=n), min_size=1, max_size=6
    )
)


@given(chains)
def test_tau_equals_a_count_of_pairs(table):
    found = kendall(torch.tensor(table, dtype=torch.float64))
    assert found.tolist() == pytest.approx([naive_tau(row) for row in table], abs=1e-12)
    assert tau_d(torch.tensor(table)) == pytest.approx(np.mean([naive_tau(r) for r in table]))


def test_tau_equals_scipy_over_the_order_of_radii():
    # As it is published: the correlation of the sorted positions with 1, 2, 3, 4.
    radii = torch.randn(200, 4, dtype=torch.float64)
    peer = [kendalltau(row.argsort().numpy(), [1, 2, 3, 4]).statistic for row in radii]
    assert kendall(radii).tolist() == pytest.approx(peer, abs=1e-12)
    assert tau_d(radii) == pytest.approx(np.mean(peer), abs=1e-12)


def test_tau_of_known_orders():
    assert tau_d(torch.tensor([[0.1, 0.2, 0.3, 0.4]])) == 1
    assert tau_d(torch.tensor([[0.4, 0.3, 0.2, 0.1]])) == -1
    assert tau_d(torch.tensor([[0.2, 0.1, 0.3, 0.4]])) == pytest.approx(4 / 6)


def test_tau_of_paths_of_several_lengths_is_the_mean_over_paths():
    paths = [torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0, 2.0]), torch.tensor([1.0, 0.0])]
    assert tau_d(paths) == pytest.approx(np.mean([naive_tau(path.tolist()) for path in paths]))


# --- retrieval along a radius -------------------------------------------------------------------


def naive_chains(similarity, radii, steps):
    """Mask the candidates within each radius and take the best, step by step."""
    found = []
    for row in similarity:
        taken = []
        for radius in np.linspace(min(radii), max(radii), steps):
            within = [c for c in range(len(radii)) if radii[c] <= radius]
            taken.append(min(within, key=lambda c: (-row[c], radii[c], c)))
        found.append([candidate for candidate, _ in groupby(taken)])
    return found


def naive_scores(retrieved, references):
    precision, recall = [], []
    for taken, own in zip(retrieved, references, strict=True):
        right = {item for chain in own for item in chain}
        precision.append(len(set(taken) & right) / len(set(taken)))
        levels = range(len(own[0]))
        recall.append(np.mean([any(chain[level] in taken for chain in own) for level in levels]))
    return {"precision": np.mean(precision), "recall": np.mean(recall)}


@given(st.integers(1, 12), st.integers(1, 4), st.integers(2, 60), st.data())
def test_retrieval_equals_masks_at_every_step(candidates, queries, steps, data):
    # Eighths, so that radii and steps meet exactly now and then, and ties occur.
    number = st.integers(-8, 8).map(lambda n: n / 8)
    row = st.lists(number, min_size=candidates, max_size=candidates)
    radii = data.draw(row)
    similarity = data.draw(st.lists(row, min_size=queries, max_size=queries))
    found = retrieve_chains(
        torch.tensor(similarity, dtype=torch.float64), torch.tensor(radii).double(), steps
    )
    assert found == naive_chains(similarity, radii, steps)


def test_radii_of_their_own_are_each_querys():
    similarity, radii = torch.randn(300, 40), torch.rand(300, 40)
    found = retrieve_chains(similarity, radii)
    for query in range(0, 300, 37):
        alone = retrieve_chains(similarity[query : query + 1], radii[query])
        assert found[query] == alone[0]
    assert retrieve_chains(similarity, radii[0]) == retrieve_chains(
        similarity, radii[0].expand(300, 40)
    )


def test_the_published_evaluation_of_captions_and_images():
    """Images with several chains each, candidates all captions, 50 radii."""
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(20, 8, generator=generator), dim=-1)
    chains = torch.nn.functional.normalize(torch.randn(50, 4, 8, generator=generator), dim=-1)
    root = torch.nn.functional.normalize(torch.randn(8, generator=generator), dim=0)
    of_image = [[n for n in range(50) if n % 20 == image] for image in range(20)]

    radii = (chains - root).norm(dim=-1)
    precision, recall = [], []
    for image, own in zip(images, of_image, strict=True):
        scores, taken = chains @ image, []
        for radius in np.linspace(radii.min().item(), radii.max().item(), 50):
            within = (radii <= radius + 1e-9).flatten().nonzero().flatten()
            best = within[scores.flatten()[within].argmax()].item()
            if not taken or taken[-1] != best:
                taken.append(best)
        right = {4 * n + level for n in own for level in range(4)}
        precision.append(len(set(taken) & right) / len(set(taken)))
        recall.append(sum(any(4 * n + k in taken for n in own) for k in range(4)) / 4)

    flat = chains.flatten(0, 1)
    found = hierarchical_retrieval(
        retrieve_chains(images @ flat.T, radii.flatten()),
        [[[4 * n + level for level in range(4)] for n in own] for own in of_image],
    )
    wanted = {"precision": np.mean(precision), "recall": np.mean(recall)}
    assert found == pytest.approx(wanted, abs=1e-12)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 9), min_size=1, max_size=6),
            st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_precision_and_recall_equal_a_count(cases):
    retrieved, references = zip(*cases, strict=True)
    found = hierarchical_retrieval(retrieved, references)
    assert found == pytest.approx(naive_scores(retrieved, references), abs=1e-12)


def test_references_of_several_lengths_have_as_many_levels_as_the_longest():
    found = hierarchical_retrieval([[1, 2]], [[[1, 5], [3, 2, 4]]])
    assert found == {"precision": 1.0, "recall": pytest.approx(2 / 3)}


# --- lexical entailment -------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=30))
def test_lexical_entailment_is_the_correlation_of_ranks(pairs):
    angles, scores = (torch.tensor(column).double() for column in zip(*pairs, strict=True))
    if len(set(angles.tolist())) == 1 or len(set(scores.tolist())) == 1:
        with pytest.raises(InputError, match="no order"):
            lexical_entailment(angles, scores)
        return
    a, b = rankdata(-angles), rankdata(scores)
    wanted = np.corrcoef(a, b)[0, 1]
    assert lexical_entailment(angles, scores) == pytest.approx(wanted, abs=1e-9)


def test_lexical_entailment_equals_torchmetrics():
    angles, scores = torch.rand(300), torch.rand(300)
    peer = spearman_corrcoef(-angles, scores).item()
    assert lexical_entailment(angles, scores) == pytest.approx(peer, abs=1e-4)


# --- plain recall -------------------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(1, 5), st.data())
def test_recall_equals_a_sorted_list(candidates, queries, data):
    row = st.lists(st.integers(-3, 3).map(float), min_size=candidates, max_size=candidates)
    marks = st.lists(st.booleans(), min_size=candidates, max_size=candidates).filter(any)
    scores = data.draw(st.lists(row, min_size=queries, max_size=queries))
    relevant = data.draw(st.lists(marks, min_size=queries, max_size=queries))
    hits = {1: 0, 5: 0}
    for values, right in zip(scores, relevant, strict=True):
        order = sorted(range(candidates), key=lambda c: (-values[c], right[c]))
        for k in hits:
            hits[k] += any(right[c] for c in order[:k])
    found = recall_at(torch.tensor(scores), torch.tensor(relevant))
    assert found == pytest.approx({f"recall_at_{k}": hits[k] / queries for k in hits}, abs=1e-12)


def test_a_constant_model_recalls_nothing():
    assert recall_at(torch.zeros(4, 9), torch.eye(4, 9).bool()) == {
        "recall_at_1": 0,
        "recall_at_5": 0,
    }


# --- what can be wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: tau_d([]), "no chains"),
        (lambda: tau_d(torch.tensor([[1.0, math.nan]])), "radii hold NaN"),
        (lambda: tau_d(torch.ones(2, 1)), "at least 2"),
        (lambda: retrieve_chains(torch.zeros(2, 3), torch.zeros(4)), "expected"),
        (lambda: retrieve_chains(torch.zeros(2, 0), torch.zeros(0)), "no candidates"),
        (lambda: retrieve_chains(torch.zeros(2, 3), torch.zeros(3), 1), "takes 2"),
        (lambda: retrieve_chains(torch.full((2, 3), math.nan), torch.zeros(3)), "similarities"),
        (lambda: hierarchical_retrieval([], []), "at least one"),
        (lambda: hierarchical_retrieval([[1]], [[]]), "query 0 has no reference"),
        (lambda: hierarchical_retrieval([[1]], []), "expected one for each"),
        (lambda: lexical_entailment(torch.rand(3), torch.rand(4)), "expected"),
        (lambda: lexical_entailment(torch.tensor([math.nan, 1.0]), torch.rand(2)), "angles hold"),
        (lambda: recall_at(torch.zeros(2, 3), torch.zeros(2, 4).bool()), "expected both"),
        (lambda: recall_at(torch.zeros(2, 3), torch.eye(2, 3).bool()[[0, 0]] & False), "query 0"),
        (lambda: recall_at(torch.full((1, 2), math.nan), torch.ones(1, 2).bool()), "NaN"),
    ],
)
def test_wrong_input_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()
