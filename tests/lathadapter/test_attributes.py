"""How many attributes there are, where they start, and what they are said to have learned."""

import math

import pytest
import torch

from geodapt.errors import InputError
from geodapt.lathadapter import (
    LatHAdapter,
    ancestor_shares,
    nearest_to_attributes,
    tree_agreement,
)
from geodapt.lathadapter.meaning import radius_order
from geodapt.lathadapter.number import (
    FEWEST,
    MOST,
    centres,
    first_number,
    rank_of_points,
    still_used,
)


def clusters(groups, each, width, spread=0.05, seed=0):
    generator = torch.Generator().manual_seed(seed)
    middle = torch.nn.functional.normalize(torch.randn(groups, width, generator=generator), dim=-1)
    points = middle.repeat_interleave(each, 0)
    return points + spread * torch.randn(points.shape, generator=generator), middle


def test_effective_rank_of_known_shapes():
    assert rank_of_points(torch.eye(8)) == pytest.approx(7)  # a simplex
    line = torch.arange(5.0)[:, None] * torch.ones(1, 3)
    assert rank_of_points(line) == pytest.approx(1)
    assert rank_of_points(torch.ones(4, 3)) == 1
    values = torch.diag(torch.tensor([3.0, 1.0]))
    cross = torch.cat([values, -values])
    wanted = math.exp(-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)))
    assert rank_of_points(cross) == pytest.approx(wanted)


def test_the_first_number_grows_with_what_classes_span():
    numbers = []
    for groups in (5, 12, 40):
        texts, _ = clusters(groups, 3, 64, spread=0.02)
        images = texts.repeat_interleave(4, 0) + 0.5  # another place: how CLIP's spaces lie
        numbers.append(first_number(images, texts))
    assert numbers == sorted(set(numbers))
    assert numbers[0] < 8
    assert numbers[2] > 25
    assert first_number(torch.ones(4, 3), torch.ones(2, 3)) == FEWEST
    assert first_number(*[torch.randn(500, 300)] * 2) == MOST


def test_centres_are_found_and_repeat():
    points, middle = clusters(5, 40, 16)
    found = centres(points, 5, seed=0)
    assert torch.equal(found, centres(points, 5, seed=0))
    nearest = torch.cdist(found / 0.9, middle).min(0).values
    assert (nearest < 0.15).all()
    assert centres(points[:3], 6, seed=0).shape == (6, 16)  # fewer points than centres
    assert centres(torch.ones(9, 4), 3, seed=0).isfinite().all()


def test_what_is_not_used_goes():
    distances = 2 * (torch.ones(4, 4) - torch.eye(4))
    used = torch.ones(4, dtype=torch.bool)
    kept = still_used(distances, used, torch.tensor([50.0, 49.0, 0.5, 0.0]), 0.1)
    assert kept.tolist() == [True, True, False, False]
    distances[0, 1] = distances[1, 0] = 0.05
    kept = still_used(distances, used, torch.tensor([10.0, 20.0, 30.0, 40.0]), 0.1)
    assert kept.tolist() == [False, True, True, True]  # beside one that is chosen more
    assert still_used(0 * distances, used, torch.ones(4), 0.1).sum() == 1
    assert still_used(distances, used, torch.zeros(4), 0.1).all()  # nothing known


def test_auto_drops_between_a_third_and_two_thirds_and_is_saved_so():
    images, middle = clusters(4, 12, 8)
    made = LatHAdapter(8, attributes="auto")
    made.start(images, middle, seed=0)
    started = made.number
    with torch.no_grad():
        made.attributes[0] = 9.0  # far from everything
    assert started == 2 * made.first_number
    labels = torch.arange(4).repeat_interleave(12)
    numbers = []
    for epoch in range(6):
        for _ in range(3):
            made.losses(images, middle, made.refine(middle), labels, None, torch.tensor(20.0))
        made.end_epoch(epoch, 6)
        numbers.append(made.number)
    assert numbers[0] == started  # the first epoch ends before a third
    assert numbers[3] == numbers[5]
    assert 1 <= numbers[5] < started
    assert not made.used[0]
    assert made.chosen.sum() > 0  # of the last epoch, to be reported
    copy = LatHAdapter.from_configuration(made.configuration())
    copy.load_state_dict(made.state_dict())
    assert copy.number == made.number
    assert torch.equal(copy.refine(middle), made.refine(middle))
    assert copy.configuration() == made.configuration()


def test_a_given_number_stays():
    made = LatHAdapter(8, attributes=5, initial="random")
    made.start(*clusters(4, 6, 8), seed=0)
    for epoch in range(6):
        made.chosen[0] = 100
        made.end_epoch(epoch, 6)
    assert made.number == 5


@pytest.mark.slow
def test_a_curvature_is_chosen_by_pictures_that_are_kept_back():
    """Features at the tower's lengths, of which a steep curvature leaves no distance to tell."""
    images, middle = clusters(5, 8, 8, spread=0.3)
    labels, scale = torch.arange(5).repeat_interleave(8), torch.tensor(0.01)
    scores = {}
    for c in (1e-3, 2.0):
        made = LatHAdapter(8, attributes=4, norm="raw", curvature=[c])
        made.start(4 * images, 4 * middle, 0, labels, scale)
        refined = made.refine(4 * middle)
        found = made.logits(4 * images, refined, scale)
        scores[c] = torch.nn.functional.cross_entropy(found, labels).item()
    best = min(scores, key=scores.get)
    for order in ([1e-3, 2.0], [2.0, 1e-3]):
        made = LatHAdapter(8, attributes=4, norm="raw", curvature=order)
        with pytest.raises(InputError, match="call start"):
            made.curvature  # noqa: B018
        made.start(4 * images, 4 * middle, 0, labels, scale)
        assert made.curvature == best
        copy = LatHAdapter.from_configuration(made.configuration())
        assert copy.curvature == best
    with pytest.raises(InputError, match="no class has a second picture"):
        made.start(middle, middle, 0, torch.arange(5), scale)
    with pytest.raises(InputError, match="needs the scale"):
        made.start(images, middle, 0)


def test_the_same_start_twice():
    for initial in ("kmeans", "random"):
        made = [LatHAdapter(8, initial=initial) for _ in range(2)]
        for one in made:
            one.start(*clusters(4, 6, 8), seed=3)
        assert torch.equal(made[0].attributes, made[1].attributes)


def test_nearest_words_are_those_in_the_same_direction_from_the_mean():
    """All words lie along one direction; which they are shows only beside it."""
    offset = torch.tensor([5.0, 0, 0, 0])
    words = torch.tensor([[0, 1.0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) + offset
    attributes = torch.tensor([[0, 0, 0.9, 0.1]]) + offset
    assert nearest_to_attributes(attributes, words, 2).tolist() == [[1, 2]]
    assert nearest_to_attributes(attributes, words, 9).shape == (1, 3)
    with pytest.raises(InputError, match="nothing to compare"):
        nearest_to_attributes(attributes, words[:0], 2)


def test_ancestor_shares_by_hand():
    distances = torch.tensor([[1.0, 3.0], [2.0, 1.5], [9.0, 1.0], [0.5, 4.0]])
    labels = torch.tensor([0, 0, 0, 1])
    # Pairs of class 0: (0,1): max 2, 3 -> first; (0,2): 9, 3 -> second; (1,2): 9, 1.5 -> second.
    shares = ancestor_shares(distances, labels, 3)
    torch.testing.assert_close(shares[0], torch.tensor([1 / 3, 2 / 3]).double())
    assert shares[1].tolist() == [1, 0]
    assert shares[2].tolist() == [0, 0]


@pytest.mark.slow
def test_agreement_with_a_known_tree():
    shares = torch.eye(3).repeat_interleave(6, 0)
    groups = [name for name in "abc" for _ in range(6)]
    right = tree_agreement(shares, groups)
    assert right.adjusted_mutual_information == pytest.approx(1)
    assert abs(right.shuffled) < 0.1
    assert right.shuffled_above < 0.02
    wrong = tree_agreement(shares, ["a", "b", "c"] * 6)
    assert wrong.adjusted_mutual_information < 0.1
    assert wrong.shuffled_above > 0.2
    assert tree_agreement(shares, ["a"] * 18).adjusted_mutual_information == 0
    with pytest.raises(InputError, match="18 classes have 2 groups"):
        tree_agreement(shares, ["a", "b"])


def test_order_of_radii():
    shares = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.3, 0.3, 0.4]])
    assert radius_order(torch.tensor([0.1, 0.2, 0.3]), shares) == pytest.approx(-1)
    assert radius_order(torch.ones(3), shares) is None
