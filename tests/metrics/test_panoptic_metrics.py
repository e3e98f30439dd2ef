"""Panoptic quality is what one counts by hand, crowds among it."""

import numpy as np
import pytest

from geodapt.errors import InputError
from geodapt.metrics import PanopticMetrics

NAMES = ["cat", "dog", "sky", "never"]
SIZE = 12


def scene(seed: int):
    """True and found segments of a picture: found ones are moved true ones, some of other classes.

    Sky is stuff: one segment at most.
    """
    random = np.random.default_rng(seed)
    true = np.full((SIZE, SIZE), -1)
    categories = []
    for _ in range(int(random.integers(1, 5))):
        y, x = random.integers(0, SIZE - 3, 2)
        true[y : y + random.integers(3, 7), x : x + random.integers(3, 7)] = len(categories)
        categories.append(int(random.integers(0, 2)))
    if random.random() < 0.5:
        true[(true < 0) & (np.arange(SIZE)[:, None] < SIZE // 2)] = len(categories)
        categories.append(2)
    found = np.roll(true, random.integers(0, 2, 2), (0, 1))
    own = [c if c == 2 or random.random() < 0.7 else 1 - c for c in categories]
    return found, np.array(own), true, np.array(categories)


def by_hand(scenes, label):
    """Panoptic quality of one class, pixel by pixel."""
    total, hits, wrong, missed = 0.0, 0, 0, 0
    for found, own, true, categories, crowd in scenes:
        taken = set()
        for f in range(len(own)):
            mask = found == f
            if own[f] != label or not mask.any():
                continue
            right = False
            for t in range(len(categories)):
                if categories[t] != label or crowd[t]:
                    continue
                both = (mask & (true == t)).sum()
                share = both / ((mask & (true >= 0)) | (true == t)).sum()
                if share > 0.5:
                    total, hits, right = total + share, hits + 1, True
                    taken.add(t)
            excused = (true < 0) | np.isin(
                true, [t for t in range(len(categories)) if crowd[t] and categories[t] == label]
            )
            wrong += not right and (mask & excused).sum() <= mask.sum() / 2
        for t in range(len(categories)):
            there = categories[t] == label and not crowd[t] and (true == t).any()
            missed += there and t not in taken
    return total / (hits + wrong / 2 + missed / 2)


def test_it_is_what_one_counts_by_hand():
    random = np.random.default_rng(5)
    scenes = []
    metrics = PanopticMetrics(NAMES)
    for seed in range(30, 50):
        found, own, true, categories = scene(seed)
        crowd = (random.random(len(categories)) < 0.3) & (categories < 2)
        scenes.append((found, own, true, categories, crowd))
        metrics.update(found, own, true, categories, crowd)
    for label in range(3):
        assert metrics.means([label])["pq"] == pytest.approx(by_hand(scenes, label))
    means = metrics.means()
    assert means["pq"] == pytest.approx(np.mean([by_hand(scenes, label) for label in range(3)]))
    low, high = metrics.interval()
    assert low < means["pq"] < high


def test_all_right_and_nothing_found():
    metrics = PanopticMetrics(NAMES)
    _, _, true, categories = scene(1)
    metrics.update(true, categories, true, categories)
    assert metrics.means()["pq"] == metrics.means()["rq"] == 1
    assert metrics.interval() == pytest.approx((1, 1))
    metrics = PanopticMetrics(NAMES)
    metrics.update(np.full_like(true, -1), np.zeros(0, int), true, categories)
    assert metrics.means()["pq"] == 0
    assert metrics.means([3])["pq"] is None
    assert metrics.interval([3]) is None


def test_what_cannot_be_measured_is_refused():
    metrics = PanopticMetrics(NAMES)
    _, _, true, categories = scene(1)
    with pytest.raises(InputError, match="no classes to measure"):
        PanopticMetrics([])
    with pytest.raises(InputError, match=r"found segments are \(3, 3\)"):
        metrics.update(np.zeros((3, 3), int), np.array([0]), true, categories)
    with pytest.raises(InputError, match="of a found segment that does not exist"):
        metrics.update(true + 9, categories, true, categories)
    with pytest.raises(InputError, match="a true segment has a class that is none of 4"):
        metrics.update(true, categories, true, categories + 9)
